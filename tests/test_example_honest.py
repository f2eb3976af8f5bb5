"""Never a figure that is too good without saying so: honest splits, leaks named, reasons about people, files scored."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from sklearn.metrics import roc_auc_score  # noqa: E402
from sklearn.tree import DecisionTreeClassifier  # noqa: E402

from examples.user_profile import __main__ as chart  # noqa: E402
from examples.user_profile import (  # noqa: E402
    collect,
    deploy,
    doubts,
    evaluate,
    preprocess,
    profiles,
    reasons,
    splits,
    train,
)

Frame = Any


def typed(frame: Frame, y: np.ndarray, types: preprocess.Types | None = None) -> preprocess.Table:
    """Return the typed table of records with a target."""
    text = frame.astype(object).where(frame.notna(), "").astype(str).assign(y=y.astype(str))
    return preprocess.clean(collect.Raw("made", text.astype(object), "y", None, "made for a test"), types=types)


def people(n: int, rng: np.random.Generator) -> Frame:
    """Draw people of twelve columns, among which only money tells them apart."""
    return pd.DataFrame(
        {
            "tenure": rng.integers(0, 60, n),
            "age": rng.integers(18, 80, n),
            "money": rng.gamma(2, 80, n).round(2),
            "orders": rng.poisson(3, n),
            "distance": rng.integers(5, 130, n),
            "satisfaction": rng.integers(1, 6, n),
            "device": rng.choice(["phone", "tablet", "desktop"], n),
            "town": rng.choice(["north", "south", "east"], n),
            "pays": rng.choice(["card", "cash", "invoice"], n),
            "hours": rng.integers(0, 6, n),
            "days": rng.integers(0, 40, n),
            "rise": rng.integers(11, 27, n),
        }
    )


def orders(rng: np.random.Generator, name: str = "customer_id") -> tuple[Frame, np.ndarray]:
    """Draw ten orders each of 300 customers, whose labels are random."""
    who, label, age = rng.integers(0, 300, 3000), rng.integers(0, 2, 300), rng.integers(18, 80, 300)
    frame = pd.DataFrame({name: who + 10_000, "age": age[who], "amount": rng.lognormal(3, 1, 3000).round(2)})
    return frame, label[who]


# -- the same person on both sides


def auc_of_a_tree(table: preprocess.Table, parts: list[splits.Split]) -> float:
    """Return the mean AUC of a tree that learns by heart what it can."""
    x, aucs = table.frame.to_numpy(float), []
    for fit, _, test in parts:
        tree = DecisionTreeClassifier(min_samples_leaf=2, random_state=0).fit(x[fit], table.y[fit])
        aucs.append(roc_auc_score(table.y[test], tree.predict_proba(x[test])[:, 1]))
    return float(np.mean(aucs))


def test_random_labels_of_repeated_customers_are_not_learned() -> None:
    honest, naive = [], []
    for seed in range(20):
        frame, y = orders(np.random.default_rng(seed))
        table = typed(frame, y)
        assert table.groups == ("customer_id",) and "customer_id" not in table.kinds
        honest.append(auc_of_a_tree(table, splits.splits(table)))
        kept = typed(frame, y, preprocess.Types(keep=("customer_id",), group="none"))
        naive.append(auc_of_a_tree(kept, splits.splits(kept)))
    assert abs(np.mean(honest) - 0.5) < 0.03, honest
    assert np.mean(naive) > 0.9, "which is what a split by rows would have promised"


NAMES = [
    "customer_id",
    "CustomerID",
    "Customer ID",
    "cust_no",
    "user",
    "UserId",
    "client",
    "member number",
    "account id",
    "id",
]
NAMES += [
    "Kunde",
    "Kundennummer",
    "客户编号",
    "用户ID",
    "会员号",
    "клиент",
    "顧客",
    "household",
    "patient",
    "visitor_key",
]


@pytest.mark.parametrize("name", NAMES)
def test_an_identifier_that_repeats_is_the_group(name: str) -> None:
    table = typed(*orders(np.random.default_rng(0), name))
    plan = splits.plan(table)
    assert table.groups == (name,) and name not in table.kinds, table.notes
    assert "3000 rows of 300 people" in plan.notes[0]
    who = table.identifiers[name].to_numpy()
    for fit, validate, test in plan.splits:
        assert not (
            set(who[test]) & set(who[fit]) or set(who[test]) & set(who[validate]) or set(who[fit]) & set(who[validate])
        )


def test_a_column_of_another_name_that_groups_labels_is_found() -> None:
    frame, y = orders(np.random.default_rng(0), "ref")
    frame["ref"] = [f"R{v % 997}" for v in frame["ref"]]
    table = typed(frame, y)
    plan = splits.plan(table)
    assert "rows of one 'ref' have the same label far more often than chance" in plan.notes[0]
    for fit, _, test in plan.splits:
        assert not set(table.frame["ref"].iloc[test]) & set(table.frame["ref"].iloc[fit])


def test_groups_by_hand() -> None:
    frame, y = orders(np.random.default_rng(0))
    frame["family"] = frame["customer_id"] // 3
    assert typed(frame, y, preprocess.Types(group="family")).groups == ("family",)
    table = typed(frame, y, preprocess.Types(group="none"))
    assert (
        table.groups == ()
        and "as asked: if some are, scores are of people that were seen" in splits.plan(table).notes[0]
    )
    for types in (preprocess.Types(keep=("customer_id",)), preprocess.Types(drop=("customer_id",))):
        table = typed(frame, y, types)
        assert table.groups == ("customer_id",) and ("customer_id" in table.kinds) == bool(types.keep)


@pytest.mark.parametrize("name", ["email", "user_name", "Kundennummer", "msisdn", "KdNr", "(column 1)", "login", "ref"])
def test_persons_with_several_rows_are_seen_by_what_stays_the_same(name: str) -> None:
    rng = np.random.default_rng(3)
    who = np.repeat(np.arange(300), 6)
    age, income = rng.integers(18, 80, 300)[who], rng.lognormal(10, 1, 300).round()[who]
    frame = pd.DataFrame({"age": age, "income": income, "visits": rng.poisson(4, 1800)})
    words = [f"u{v * 7919 % 997}@x.example" for v in who]
    numbers = who * 7919 + 4_915_000_000 if name == "msisdn" else who + 1
    frame.insert(0, name, words if name in ("email", "user_name", "login") else numbers)
    y = (rng.random(1800) < rng.uniform(0, 1, 300)[who]).astype(int)
    for fit, validate, test in splits.splits(typed(frame, y)):
        assert not (set(who[test]) & set(who[fit]) or set(who[test]) & set(who[validate]))


def test_all_identifiers_of_persons_group_and_blank_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    who = rng.integers(0, 300, 2000)
    frame = people(2000, rng).assign(account_id=who * 3 + rng.integers(0, 3, 2000) + 50_000, customer_id=who + 90_000)
    frame.loc[rng.random(2000) < 0.4, "customer_id"] = np.nan
    frame["customer_id"] = [f"C{v:.0f}" if v == v else "" for v in frame["customer_id"]]
    table = typed(frame, rng.integers(0, 2, 2000))
    assert set(table.groups) == {"account_id", "customer_id"}
    plan = splits.plan(table)
    assert max(len(test) for *_, test in plan.splits) < 450 and plan.people.max() > 300


def test_names_that_only_hold_a_word_for_persons_are_traits() -> None:
    rng = np.random.default_rng(0)
    names = [
        "customer_age",
        "client income",
        "user_score",
        "account_balance",
        "guest_nights",
        "member points",
        "account length",
    ]
    names += [
        "mobile_minutes",
        "email_opens",
        "nombre d achats",
        "name length",
        "street_width_m",
        "market_cap",
        "number of steps",
    ]
    frame = pd.DataFrame({name: rng.integers(0, 90, 600) + 10 for name in names})
    table = typed(frame, rng.integers(0, 2, 600))
    assert set(table.kinds) == set(names) and table.groups == (), table.notes


def test_no_group_is_seen_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    frame = people(2000, rng)
    frame["customer_id"] = np.arange(2000) + 5_000
    for y in (rng.integers(0, 2, 2000), (frame["money"] > 160).to_numpy(int), (rng.random(2000) < 0.05).astype(int)):
        table = typed(frame, y)
        assert table.groups == () and splits.plan(table).notes == []
        assert "identifier" in table.notes["customer_id"]


@pytest.mark.parametrize(("redrawn", "added"), [(1, 0), (2, 0), (1, 2), (0, 3)])
def test_near_copies_of_people_stay_on_one_side(redrawn: int, added: int) -> None:
    rng = np.random.default_rng(1)
    base, label = people(600, rng), rng.integers(0, 2, 600)
    who = np.concatenate([np.arange(600), rng.integers(0, 600, 900)])
    frame = base.iloc[who].reset_index(drop=True)
    for _ in range(redrawn):
        column, new = rng.choice(frame.columns, len(frame)), people(len(frame), rng)
        for name in new:
            frame.loc[column == name, name] = new.loc[column == name, name]
    for k in range(added):
        frame[f"added {k}"] = rng.normal(size=len(frame)).round(4)
    table = typed(frame, label[who])
    plan = splits.plan(table)
    assert any("stay together" in note for note in plan.notes)
    together = np.mean([doubts._boosting(table, split) for split in plan.splits[:3]])
    apart = np.mean([doubts._boosting(table, split) for split in splits.folds(table, np.arange(len(table.y)))[:3]])
    assert together < 0.62 and apart > together + 0.05, "random labels are told from copies on the other side only"


def test_rows_that_only_a_leak_told_apart_are_split_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A column that tells the answer also tells copies apart; without it they are equal, and belong on one side."""
    rng = np.random.default_rng(0)
    one = people(500, rng)[["money", "age"]]  # too few columns to look for near-copies
    frame, y = pd.concat([one, one], ignore_index=True), rng.integers(0, 2, 1000)
    frame["reason"] = np.where(y == 1, rng.choice(["price", "moved"], 1000), "")
    table = typed(frame, y)
    before = splits.plan(table).people
    assert (before[:500] != before[500:]).any()
    options = chart._parse(["--csv", "t.csv", "--target", "y"])
    kept, plan, said = chart._plan(table, options)
    assert "reason" not in kept.kinds and any("reason" in line for line in said)
    assert (plan.people[:500] == plan.people[500:]).all()
    for parts in plan.splits:
        sides = [set(rows % 500) for rows in parts]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


def test_the_last_part_of_time_is_the_test() -> None:
    rng = np.random.default_rng(0)
    frame = people(1000, rng)
    frame["since"] = [str(dt.date(2020, 1, 1) + dt.timedelta(int(d))) for d in rng.integers(0, 1000, 1000)]
    table = typed(frame, rng.integers(0, 2, 1000), preprocess.Types(time="since"))
    plan = splits.plan(table)
    ((fit, validate, test),) = plan.splits
    assert "the test is the last" in plan.notes[-1]
    assert plan.in_time and table.when is not None
    assert table.when[fit].max() < table.when[validate].min() and table.when[validate].max() < table.when[test].min()
    assert len(test) >= 190 and len(fit) + len(validate) + len(test) >= 990
    with pytest.raises(preprocess.PreprocessError, match="--time device: 1000 records have no date or number"):
        typed(frame, rng.integers(0, 2, 1000), preprocess.Types(time="device"))


# -- columns that tell the answer


def leak(kind: str, y: np.ndarray, rng: np.random.Generator) -> list[Any]:
    """Return a column that is known only after the fact, or is the answer in another coding."""
    n = len(y)
    dates = [str(dt.date(2024, 1, 1) + dt.timedelta(int(d))) for d in rng.integers(0, 300, n)]
    made: dict[str, list[Any]] = {
        "reason": [rng.choice(["price", "moved", "service"]) if v else "" for v in y],
        "refund date": [date if v else "" for v, date in zip(y, dates, strict=True)],
        "filled for the no": ["" if v else rng.choice(["a", "b"]) for v in y],
        "another coding": ["C" if v else "A" for v in y],
        "a code with two yes": [rng.choice([7, 9]) if v else rng.choice([1, 2]) for v in y],
        "words": [f"{['stays', 'leaves'][v]} soon" for v in y],
        "another model's score": (0.5 + (y - 0.5) * rng.uniform(0.1, 0.9, n)).round(6).tolist(),
        "a nearly perfect score": np.clip(y * 0.6 + rng.normal(0.2, 0.1, n), 0, 1).round(5).tolist(),
        "last order after": (np.where(y, rng.integers(200, 400, n), rng.integers(0, 190, n))).tolist(),
        "amount refunded": [f"${rng.lognormal(3, 1):.2f}" if v else "$0.00" for v in y],
        "slips": [("x" if v else "z") if rng.random() > 0.004 else "z" for v in y],
    }
    return made[kind]


LEAKS = [
    "reason",
    "refund date",
    "filled for the no",
    "another coding",
    "a code with two yes",
    "words",
    "another model's score",
]
LEAKS += ["a nearly perfect score", "last order after", "amount refunded", "slips"]


@pytest.mark.parametrize("kind", LEAKS)
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_columns_that_tell_the_answer_are_named_and_left_out(kind: str, share: float) -> None:
    rng = np.random.default_rng(2)
    y = (rng.random(1500) < share).astype(int)
    frame = people(1500, rng).assign(**{kind: leak(kind, y, rng)})
    table = typed(frame, y)
    split = splits.splits(table)[0]
    (found,) = doubts.suspects(table, split)
    assert found.name == kind and found.auc > 0.97 and "Left out" in str(found) and "known" in str(found)
    without = table.without([kind])
    assert len(without.columns) == 12 and kind not in " ".join(without.kinds)
    with_it, honest = doubts.with_them(table, without, split)
    assert with_it > 0.97 and abs(honest - 0.5) < 0.12
    assert str(doubts.suspects(table, split, [kind])[0]).endswith("Kept")


@pytest.mark.parametrize("share", [0.4, 0.6, 0.85])
def test_what_is_filled_for_some_of_one_answer_only_is_named(share: float) -> None:
    rng = np.random.default_rng(2)
    y = (rng.random(1500) < 0.3).astype(int)
    frame = people(1500, rng).assign(
        reason=np.where((y == 1) & (rng.random(1500) < share), rng.choice(["a", "b"], 1500), "")
    )
    (found,) = doubts.suspects(table := typed(frame, y), splits.splits(table)[0])
    assert found.name == "reason" and not found.kept and "known only after the fact" in str(found)


def test_a_leak_with_slips_is_named_and_kept() -> None:
    rng = np.random.default_rng(2)
    y = (rng.random(3000) < 0.5).astype(int)
    frame = people(3000, rng).assign(status=np.where(rng.random(3000) < 0.03, 1 - y, y))
    (found,) = doubts.suspects(table := typed(frame, y), splits.splits(table)[0])
    assert found.name == "status" and found.kept and 0.95 < found.auc < 0.98


def test_honest_columns_are_not_accused() -> None:
    rng = np.random.default_rng(0)
    frame = people(3000, rng)
    y = (rng.random(3000) < 1 / (1 + np.exp(-(frame["money"] - 160) / 25))).astype(
        int
    )  # a strong column, AUC about 0.95
    frame["fax"] = np.where(rng.random(3000) < 0.9, "", "12.5")  # often missing, no matter for whom
    frame["coupon"] = np.where(rng.random(3000) < 0.2 + 0.3 * y, "used", "")
    table = typed(frame, y)
    assert doubts.suspects(table, splits.splits(table)[0]) == []
    assert doubts.of_scores(0.9, table, ["money"]) == []


def test_scores_that_are_too_good_and_samples_that_are_too_small_are_doubted() -> None:
    rng = np.random.default_rng(0)
    table = typed(people(300, rng), rng.integers(0, 2, 300))
    assert "too good to be believed" in doubts.of_scores(0.99, table, ["a", "b"])[0]
    assert "hardly better than chance" in doubts.of_scores(0.51, table, ["a"])[0]
    few = typed(people(300, rng), (np.arange(300) < 40).astype(int))
    assert "only 40 people of the rarer kind" in doubts.of_scores(0.8, few, ["a"])[0]


# -- reasons


@pytest.fixture(scope="module")
def deciding() -> tuple[preprocess.Table, splits.Split, train.Model]:
    """Return a table in which one category decides nearly alone, two columns are noise, and one helps a little."""
    rng = np.random.default_rng(4)
    y = (rng.random(2000) < 0.2).astype(int)
    frame = pd.DataFrame({"noise a": rng.integers(18, 80, 2000), "noise b": rng.lognormal(3, 1, 2000).round(2)})
    frame["decides"] = np.where(rng.random(2000) < 0.03, "other", np.where(y == 1, "left", "stays"))
    frame["helps"] = (y + rng.normal(size=2000)).round(3)
    table = typed(frame, y)
    split = splits.splits(table)[0]
    model = train.train(table, split[0], split[1], n_epochs=15)
    proba = model.predict_proba(table.frame.iloc[split[1]])
    model = dataclasses.replace(
        model, threshold=evaluate.best_threshold(table.y[split[1]], proba), bands=profiles.band_edges(proba)
    )
    return table, split, reasons.against_people(model, table.frame.iloc[split[0]])


def test_noise_never_ranks_above_what_decides(deciding: tuple[preprocess.Table, splits.Split, train.Model]) -> None:
    table, (fit, _, test), model = deciding
    found = profiles.make(table, model, fit, test, is_log=False)
    order = list(found.importance.index)
    assert order[0] == "decides" and set(order[2:]) == {"noise a", "noise b"} and found.completeness < 1e-9
    lost = evaluate.shuffled(table, model, test, order)
    assert lost["decides"] > 0.1 and max(lost["noise a"], lost["noise b"]) < 0.02


@pytest.mark.parametrize("seed", range(20))
def test_noise_of_any_kind_stays_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, share = 500, (0.1, 0.3, 0.5, 0.8)[seed % 4]
    y = (rng.random(n) < share).astype(int)
    noise = {
        "normal": rng.normal(size=n),
        "skewed": rng.lognormal(3, 2, n),
        "counts": rng.poisson(3, n),
        "words": rng.choice(list("abcdefgh"), n),
        "rare word": np.where(rng.random(n) < 0.03, "x", "z"),
        "often missing": np.where(rng.random(n) < 0.7, np.nan, rng.normal(size=n)),
        "a day": [str(dt.date(2020, 1, 1) + dt.timedelta(int(d))) for d in rng.integers(0, 900, n)],
    }
    frame = pd.DataFrame({name: noise[name] for name in rng.permutation(list(noise))[:3]})
    slips = rng.random(n) < 0.05
    decides = [
        np.where(slips, 1 - y, y) * 40 + rng.integers(0, 9, n),
        np.where(y ^ slips, "left", "stays"),
        np.where(y ^ slips, 3.5, np.nan),
    ]
    frame["decides"] = decides[seed % 3]
    table = typed(frame, y)
    fit, validate, test = splits.splits(table)[0]
    model = reasons.against_people(train.train(table, fit, validate, n_epochs=60), table.frame.iloc[fit])
    assert reasons.reasons(model, table.frame.iloc[test])[0].std().idxmax() == "decides"


def test_reasons_are_about_people_not_a_point(deciding: tuple[preprocess.Table, splits.Split, train.Model]) -> None:
    table, (fit, _, test), model = deciding
    shares, log_odds, base = reasons.reasons(model, table.frame.iloc[test])
    np.testing.assert_allclose(shares.sum(axis=1) + base, log_odds, rtol=0, atol=1e-9)
    assert (shares.mean().abs() < 0.2 * shares["decides"].std()).all()
    trained = reasons.reasons(model, table.frame.iloc[fit])[1]
    assert base == pytest.approx(trained.mean(), abs=0.5)


# -- files to score


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, preprocess.Table, train.Model]:
    """Train on a file of money, dates, categories and codes; return its path, the model's folder, table and model."""
    folder = tmp_path_factory.mktemp("shop")
    rng, n = np.random.default_rng(0), 800
    frame = people(n, rng)
    frame.insert(0, "customer no", [f"{i:06}" for i in rng.permutation(n)])
    frame["money"] = [f"€{v:,.2f}" if rng.random() > 0.05 else "-" for v in frame["money"]]
    frame["since"] = [str(dt.date(2019, 1, 1) + dt.timedelta(int(d))) for d in rng.integers(0, 1500, n)]
    frame["city"] = rng.choice(["北京", "上海", ""], n)
    frame["left"] = np.where(rng.random(n) < 0.3 + 0.4 * (frame["orders"] > 3), "yes", "no")
    frame.to_csv(folder / "customers.csv", index=False)
    table = preprocess.clean(collect.csv_file(folder / "customers.csv", "left", None))
    fit, validate, _ = splits.splits(table)[0]
    model = train.train(table, fit, validate, n_epochs=5)
    model = dataclasses.replace(model, bands=profiles.band_edges(model.predict_proba(table.frame.iloc[validate])))
    deploy.save(folder / "model", model, table)
    return folder / "customers.csv", folder / "model", table, model


def test_the_training_file_scores_to_the_same_numbers(shop: Any, tmp_path: Path) -> None:
    path, folder, table, model = shop
    said = deploy.score_file(folder, path, tmp_path / "scored.csv")
    assert "800 records scored" in said[0] and said[-1] == "not used: left"
    scored = pd.read_csv(tmp_path / "scored.csv", dtype={"customer no": str}, encoding="utf-8-sig")
    assert list(scored) == ["record", "customer no", "probability", "answer", "band"]
    assert (
        scored["customer no"].tolist() == table.identifiers["customer no"].tolist()
        and scored["customer no"].str.len().eq(6).all()
    )
    np.testing.assert_allclose(scored["probability"], model.predict_proba(table.frame), rtol=1e-5)


def test_single_records_are_encoded_to_the_bit_as_tables_are(shop: Any) -> None:
    path, folder, table, model = shop
    profiler = deploy.load(folder)
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    records = raw[[column.name for column in profiler.columns]].to_dict("records")
    table_rows = model.encoder.transform(table.frame)
    single = np.stack([profiler.model.encoder.row(profiler._values(0, record)) for record in records])
    np.testing.assert_array_equal(single, table_rows)
    expected = profiler.score(records)
    np.testing.assert_allclose([profiler.score_one(record) for record in records], expected, rtol=0, atol=1e-6)
    numbers = {"age": 40, "orders": 3.0, "since": dt.date(2020, 5, 1), "money": "€ 57"}
    assert profiler.score_one(records[0] | numbers) == pytest.approx(
        profiler.score([records[0] | numbers])[0], abs=1e-6
    )
    for changed, says in (
        ({"age": "old"}, "age must be a number or null, got 'old'"),
        ({"since": 5}, "since must be a date or null, got 5"),
        ({"since": "soon"}, "since must be a date or null, got 'soon'"),
        ({"city": 5}, "city must be text or null, got 5"),
    ):
        with pytest.raises(deploy.RecordError, match=says):
            profiler.score_one(records[0] | changed)


@pytest.mark.parametrize(
    "how", ["reordered", "gb18030", "semicolons", "extra", "one row", "blanks", "new values", "later dates"]
)
def test_other_files_of_the_same_columns(how: str, shop: Any, tmp_path: Path) -> None:
    path, folder, _, _ = shop
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="left").iloc[:50]
    frame = frame[list(frame)[::-1]] if how == "reordered" else frame
    frame = frame.iloc[:1] if how == "one row" else frame
    if how == "extra":
        frame["comment"] = "=cmd()"
    if how == "blanks":
        frame[["age", "money", "since", "city"]] = ""
    if how == "new values":
        frame = frame.assign(city="Atlantis", age="200", money="€1,000,000.00")
    if how == "later dates":
        frame["since"] = "2035-01-01"
    separator = ";" if how == "semicolons" else ","
    frame.to_csv(tmp_path / "new.csv", index=False, sep=separator, encoding="gb18030" if how == "gb18030" else "utf-8")
    said = deploy.score_file(folder, tmp_path / "new.csv", tmp_path / "scored.csv", identifier="customer no")
    scored = pd.read_csv(tmp_path / "scored.csv", dtype=str, encoding="utf-8-sig")
    assert len(scored) == len(frame) and scored["customer no"].tolist() == frame["customer no"].tolist()
    assert scored["probability"].astype(float).between(0, 1).all()
    assert any("comment" in line for line in said) == (how == "extra")


def test_files_that_cannot_be_scored_leave_nothing(
    shop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder, _, _ = shop
    out = tmp_path / "scored.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    for content, says in (
        (
            "\n".join(line.partition(",")[2].partition(",")[2] for line in lines),
            r"has no columns \['tenure'\], which the model needs",
        ),
        ("\n".join([*lines[:30], lines[30] + ",oops", *lines[31:]]), "line 31: .* fields, the header has"),
    ):
        (tmp_path / "new.csv").write_text(content, encoding="utf-8")
        with pytest.raises((deploy.RecordError, collect.CollectError), match=says):
            deploy.score_file(folder, tmp_path / "new.csv", out)
    with pytest.raises(deploy.RecordError, match="--id: the file has no column 'nobody'"):
        deploy.score_file(folder, path, out, identifier="nobody")
    assert deploy.main([str(folder), "--csv", str(tmp_path / "no.csv"), "--out", str(out)]) == 2
    assert "cannot read" in capsys.readouterr().err and not out.exists()
    with pytest.raises(SystemExit):
        deploy.main([str(folder), "--csv", str(path)])
    assert deploy.main([str(folder), "--csv", str(path), "--out", str(out)]) == 0 and out.exists()


@pytest.mark.slow
def test_a_chinese_file_comes_out_in_chinese(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 600
    frame = pd.DataFrame(
        {
            "客户编号": np.arange(n) + 7_000_000,
            "年龄": rng.integers(18, 80, n),
            "城市": rng.choice(["北京", "上海", "广州"], n),
        }
    )
    frame["流失"] = np.where(rng.random(n) < 0.2 + 0.5 * (frame["城市"] == "北京"), "是", "否")
    pages = []
    for encoding in ("gb18030", "utf-8"):
        frame.to_csv(tmp_path / "客户.csv", index=False, encoding=encoding)
        command = [sys.executable, "-W", "error", "-m", "examples.user_profile", "--csv", str(tmp_path / "客户.csv")]
        command += ["--target", "流失", "--fast", "--out", str(tmp_path / encoding)]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        page = (tmp_path / encoding / "report.html").read_text(encoding="utf-8")
        pages.append(re.sub(r"(gb18030|utf-8)|base64,[^\"]*|[0-9a-f]{64}|<li><b>\(file\).*?</li>", "", page))
    assert pages[0] == pages[1] and "城市" in pages[0] and "北京" in pages[0]
    lines = (tmp_path / "utf-8" / "客户" / "profiles.csv").read_bytes()
    assert (
        lines.startswith(b"\xef\xbb\xbf")
        and "北京" in lines.decode("utf-8-sig")
        and "7000599" in lines.decode("utf-8-sig")
    )


def test_folders_of_an_earlier_version_are_refused_by_name(shop: Any, tmp_path: Path) -> None:
    shutil.copytree(shop[1], tmp_path / "model")
    state = json.loads((tmp_path / "model" / "profile.json").read_text(encoding="utf-8"))
    del state["columns"]
    (tmp_path / "model" / "profile.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ValueError, match="was written by an earlier version: train it anew"):
        deploy.load(tmp_path / "model")


def test_the_models_folder_names_nobody(shop: Any) -> None:
    _, folder, table, _ = shop
    written = (folder / "profile.json").read_text(encoding="utf-8")
    assert not any(f'"{number}"' in written for number in table.identifiers["customer no"])
    assert json.loads(written)["identifiers"] == ["customer no"] and "北京" in written and deploy.check(folder) == 0


def test_a_hundred_thousand_rows_do_not_take_long(shop: Any, tmp_path: Path) -> None:
    path, folder, _, _ = shop
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    (tmp_path / "new.csv").write_text("\n".join([head, *(lines * 25)]), encoding="utf-8")
    started = time.perf_counter()
    said = deploy.score_file(folder, tmp_path / "new.csv", tmp_path / "scored.csv")
    assert (
        "20000 records scored" in said[0] and time.perf_counter() - started < 120
    )  # a busy machine is ten times slower
