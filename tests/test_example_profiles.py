"""What the user-profile example says of people: reasons, bands, segments, groups, cards, and what acting would bring."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import nnprofile as nn  # noqa: E402
from examples.user_profile import __main__ as chart  # noqa: E402
from examples.user_profile import (  # noqa: E402
    collect,
    deploy,
    evaluate,
    features,
    preprocess,
    profiles,
    reasons,
    splits,
    targeting,
    train,
)


def network(seed: int, widths: tuple[int, ...] = (5, 8, 6, 4, 1), dtype: Any = np.float64) -> nn.Sequential:
    rng = np.random.default_rng(seed)
    layers: list[nn.Layer] = []
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Dense(n_in, n_out), nn.ReLU(), nn.Dropout(0.3)]
    net = nn.Sequential(layers[:-2], rng=rng, dtype=dtype)
    net.params.vector += rng.normal(scale=0.3, size=net.params.vector.size)
    return net


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_shares_add_up_to_the_difference(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    net, x, start = network(seed), 3 * rng.normal(size=(n, 5)), rng.normal(size=5)
    shares = reasons.integrated_gradients(net, x, start)
    assert shares.shape == x.shape
    difference = net.predict(x)[:, 0] - net.predict(start[None])[0, 0]
    np.testing.assert_allclose(
        shares.sum(axis=1), difference, rtol=0, atol=1e-12 * (1 + abs(difference).max(initial=0))
    )


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_shares_of_a_network_that_branches_add_up_too(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    branches = nn.Concatenate([nn.ReLU(), [nn.Dense(6, 3), nn.ReLU(), nn.Dense(3, 3)]])
    net = nn.Sequential(
        [nn.Dense(4, 6), nn.Residual([nn.ReLU(), nn.Dense(6, 6)]), branches, nn.ReLU(), nn.Dense(9, 1)], rng=rng
    )
    x, start = 3 * rng.normal(size=(n, 4)), rng.normal(size=4)
    shares = reasons.integrated_gradients(net, x, start)
    difference = net.predict(x)[:, 0] - net.predict(start[None])[0, 0]
    np.testing.assert_allclose(shares.sum(axis=1), difference, rtol=0, atol=1e-12 * (1 + abs(difference).max()))


@pytest.mark.parametrize("seed", range(3))
def test_each_share_is_the_integral_of_the_gradient(seed: int) -> None:
    """Against SciPy's adaptive quadrature of a complex-step derivative, which knows nothing of kinks or of backward."""
    rng = np.random.default_rng(seed)
    net, x, start = network(seed, (3, 6, 4, 1)), rng.normal(size=3), rng.normal(size=3)
    shares = reasons.integrated_gradients(net, x[None], start)[0]
    for j in range(3):

        def slope(t: float, j: int = j) -> float:
            point = (start + t * (x - start)).astype(complex)
            point[j] += 1e-20j
            return net.forward(point[None])[0][0, 0].imag / 1e-20

        kinks = np.linspace(0, 1, 401)
        total = sum(integrate.quad(slope, a, b, limit=200)[0] for a, b in itertools.pairwise(kinks))
        assert shares[j] == pytest.approx((x[j] - start[j]) * total, abs=1e-5)


def test_what_has_no_straight_pieces_is_refused() -> None:
    net = nn.Sequential([nn.Dense(2, 3), nn.Tanh(), nn.Dense(3, 1)], rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="kinks of ReLU layers"):
        reasons.integrated_gradients(net, np.zeros((1, 2)), np.zeros(2))


@pytest.fixture(scope="module")
def people() -> preprocess.Table:
    """2,000 made-up people, with a category, a code, a rare city and missing values."""
    rng = np.random.default_rng(4)
    n = 2000
    frame = {
        "age": rng.integers(18, 90, n).astype(str),
        "income": rng.gamma(2, 2e4, n).round(2).astype(str),
        "city": rng.choice(["Lyon", "Oslo", "Rome", "Hamlet"], n, p=[0.5, 0.3, 0.19, 0.01]),
        "plan": rng.integers(0, 4, n).astype(str),
    }
    frame["income"][::13] = ""
    p = 1 / (1 + np.exp(-(frame["age"].astype(float) - 50) / 9 - 2 * (frame["city"] == "Oslo")))
    frame["leaves"] = np.where(rng.random(n) < p, "yes", "no")
    raw = collect.Raw("people", pd.DataFrame(frame, dtype=object), "leaves", None, "made for a test", sha256="ab" * 32)
    return preprocess.clean(raw)


@pytest.fixture(scope="module")
def model(people: preprocess.Table) -> train.Model:
    fit, validate, _ = splits.splits(people)[0]
    found = train.train(people, fit, validate, n_epochs=8)
    proba = found.predict_proba(people.frame.iloc[validate])
    return dataclasses.replace(
        found, threshold=evaluate.best_threshold(people.y[validate], proba), bands=profiles.band_edges(proba)
    )


def test_profiles_of_people(people: preprocess.Table, model: train.Model) -> None:
    fit, _, test = splits.splits(people)[0]
    found = profiles.make(people, model, fit, test, is_log=False)
    table = found.people
    assert found.completeness < 1e-10
    assert table.index.name == "record" and table.index.equals(people.frame.index[test]) and "segment" not in table
    assert set(found.importance.index) == {"age", "income", "city", "plan"}
    assert list(found.importance.index[:2]) in (["age", "city"], ["city", "age"])
    moved = table[["moved_1", "moved_2", "moved_3"]].abs().to_numpy()
    assert (np.diff(moved, axis=1) <= 0).all()
    assert table[["reason_1", "reason_2", "reason_3"]].nunique(axis=1).eq(3).all()
    row = table.iloc[0]
    assert row["value_1"] == people.frame[row["reason_1"]].iloc[test[0]]
    edges = np.array(model.bands)
    assert (table["band"] == "top 10 %").equals(table["probability"] >= edges[0])
    assert (table["band"] == "bottom 30 %").equals(table["probability"] < edges[2])


def test_removing_the_strongest_reason_moves_the_score_as_stated(people: preprocess.Table, model: train.Model) -> None:
    frame = people.frame
    shares, log_odds, average = reasons.reasons(model, frame)
    values = shares.to_numpy()
    np.testing.assert_allclose(values.sum(axis=1) + average, log_odds, rtol=0, atol=1e-10)
    top = np.abs(values).argmax(axis=1)
    change = log_odds - reasons.without(model, frame, top)
    assert np.mean(np.sign(change) == np.sign(values[np.arange(len(top)), top])) >= 0.9
    every = model.encoder.feature_columns()
    assert len(every) == model.encoder.transform(frame.iloc[:0]).shape[1] and set(every) == set(range(4))


def test_deployed_profiles_give_reasons(people: preprocess.Table, model: train.Model, tmp_path: Path) -> None:
    deploy.save(tmp_path, model, people)
    profiler = deploy.load(tmp_path)
    record = profiler.samples[0]["record"]
    found = profiler.profile(record)
    assert json.loads(json.dumps(found)) == found
    assert found["probability"] == pytest.approx(profiler.score([record])[0])
    assert found["band"] in profiles.BANDS and len(found["reasons"]) == 3 and set(found["reasons"]) <= set(record)


def customers(**columns: list[float]) -> Any:
    names = ("amount", "days_since_last", "amount_90_days", "amount_180_days", "days_with_purchase")
    return pd.DataFrame({name: columns[name] for name in names})


def test_segments_by_hand() -> None:
    frame = customers(
        amount=[500, 500, 50, 50, 50, 50],
        days_since_last=[10, 120, 10, 120, 120, 10],
        amount_90_days=[10, 0, 40, 0, 0, 10],
        amount_180_days=[100, 400, 50, 0, 0, 50],
        days_with_purchase=[5, 5, 2, 2, 1, 2],
    )
    found = profiles.segments(frame, rich=100)
    assert found.tolist() == ["high value", "at risk", "growing", "at risk", "low", "low"]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_suppressed_groups_cannot_be_told_from_the_total(counts: list[int]) -> None:
    hide = profiles.hidden(np.array(counts))
    for n, hidden in zip(counts, hide, strict=True):
        assert hidden or n >= profiles.K or n == 0
    if hide.any() and sum(counts) >= profiles.K:
        assert sum(n for n, hidden in zip(counts, hide, strict=True) if hidden) >= profiles.K
    if min(counts) >= profiles.K:
        assert not hide.any()


def test_groups_have_figures_only_if_they_are_large() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["many", "few", "some"], [300, 20, 80])
    proba = rng.uniform(size=400)
    y = (rng.uniform(size=400) < proba).astype(int)
    found = {group["name"]: group for group in profiles.groups(labels, y, proba, 0.5, ["many", "few", "some", "none"])}
    assert set(found) == {"many", "few", "some"}
    assert all(found["few"][name] is None for name in found["few"] if name != "name")
    assert found["many"]["n"] == 300 and found["many"]["share"] == y[:300].mean()
    assert found["many"]["recall"] == np.mean(proba[:300][y[:300] == 1] >= 0.5)
    assert found["some"]["n"] == 80 or found["some"]["n"] is None
    assert found["some"]["n"] is None  # 20 people alone would follow from the total


@given(st.data())
def test_ranges_hold_enough_people(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    n = data.draw(st.integers(1, 600))
    values = rng.choice(
        [rng.normal(size=n), rng.poisson(1, n) * 1.0, np.where(rng.random(n) < 0.7, 0, rng.exponential(9, n))]
    )
    values = np.where(rng.random(n) < 0.1, np.nan, values)
    labels, names = profiles.coarse(pd.Series(values), pd.Series(values), "number", data.draw(st.integers(1, 12)))
    assert set(labels) <= set(names)
    for name in set(labels) - {profiles.OTHER}:
        same = labels == name
        assert same.sum() >= min(profiles.K, (~np.isnan(values)).sum())
        if name == "not known":
            continue
        bounds = [float(part.replace(",", "")) for part in re.findall(r"[-+\d.,]+(?:e[-+]\d+)?", name)]
        slack = 1e-3 * max(1, np.abs(values[same]).max())
        if name.startswith("more"):
            assert (values[same] >= bounds[0] - slack).all()
        elif bounds:
            assert (values[same] <= bounds[-1] + slack).all()


def test_rare_categories_are_other() -> None:
    column = pd.Series(["a"] * 60 + ["b"] * 50 + ["c"] * 49 + [None] * 3, dtype=object)
    labels, names = profiles.coarse(column, column, "category", 4)
    assert names == ["a", "b", profiles.OTHER] and labels[-1] == profiles.OTHER and labels[115] == profiles.OTHER


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_outcomes_and_curves_agree_with_counting(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y, proba = rng.integers(0, 2, n), rng.integers(0, 5, n) / 4
    business = targeting.Business(
        *rng.uniform(0.1, 3, 1), value=float(rng.uniform(1, 20)), success=float(rng.uniform(0.05, 1))
    )
    found = targeting.outcome(y, proba, business)

    def gain(threshold: float) -> float:
        acted = proba >= threshold
        return business.success * business.value * y[acted].sum() - business.cost * acted.sum()

    assert found.n == n and found.n_acted == np.sum(proba >= business.threshold)
    assert found.gain == pytest.approx(gain(business.threshold)) and found.gain_all == pytest.approx(gain(0))
    assert found.gain_best == pytest.approx(max(gain(t) for t in [*np.unique(proba), np.inf]))
    assert gain(found.best_threshold) == pytest.approx(found.gain_best)
    curve = targeting.curves(y, proba, business)
    assert curve["acted"][0] == 0 and curve["acted"][-1] == 1 and len(curve["acted"]) == len(np.unique(proba)) + 1
    assert curve["money"] == pytest.approx([gain(t) for t in [np.inf, *np.unique(proba)[::-1]]])
    assert curve["reached"][-1] == (1 if y.any() else 0)


def test_lift_by_hand() -> None:
    y, proba = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0]), np.linspace(0.9, 0.1, 10)
    (row,) = targeting.lift(y, proba, [2])
    assert row == {"share": 0.2, "n": 2, "yes": 1.0, "lift": pytest.approx(1 / 0.3), "reached": pytest.approx(2 / 3)}
    (tied,) = targeting.lift(y, np.full(10, 0.5), [4])  # in whatever order the file has them
    assert tied["lift"] == pytest.approx(1) and tied["reached"] == pytest.approx(0.4)


@given(st.integers(0, 10**6), st.integers(1, 900))
def test_any_two_cuts_are_apart(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    band = rng.choice(profiles.BANDS, n, p=rng.dirichlet([1, 1, 1, 1]))
    sizes = [0, *profiles.cuts(band), n]
    assert (np.diff(sizes) >= profiles.K).all() or len(sizes) == 2


def test_the_interval_covers_what_would_have_come() -> None:
    """Draw people, and who of them responds, 2,000 times: the money is in its interval as often as it says."""
    rng = np.random.default_rng(0)
    business, n, inside = targeting.Business(1, 30, 0.1), 800, 0
    for _ in range(2000):
        proba = rng.beta(0.6, 1.4, n)
        y = (rng.random(n) < proba).astype(int)
        found = targeting.outcome(y, proba, business)
        acted = proba >= business.threshold
        money = (
            business.value * (rng.random(n) < business.success)[acted & (y == 1)].sum() - business.cost * acted.sum()
        )
        expected = EXPECTED * n
        inside += abs(money - expected) <= found.interval
    assert 0.94 <= inside / 2000 <= 0.97


def beta_mean_gain() -> float:
    """Return the expected money a person of the simulation above, by quadrature."""
    from scipy.stats import beta

    def gain(p: float) -> float:
        return (3 * p - 1) * float(beta.pdf(p, 0.6, 1.4))

    return integrate.quad(gain, 1 / 3, 1)[0]


EXPECTED = beta_mean_gain()


def test_figures_of_business(capsys: pytest.CaptureFixture[str]) -> None:
    assert targeting.Business(2, 40, 0.1).threshold == pytest.approx(0.5)
    for wrong in ({"cost": 0}, {"value": -1}, {"success": 1.5}, {"cost": float("nan")}, {"value": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            targeting.Business(**wrong)
    with pytest.raises(SystemExit):
        chart.main(["--success", "2"])
    assert "--success must be above 0 and at most 1, got 2.0" in capsys.readouterr().err


def test_postcodes_stay_text() -> None:
    frame = {
        "code": [f"{i % 4:04d}" for i in range(200)],
        "n": [str(i % 40) for i in range(200)],
        "y": ["0", "1"] * 100,
    }
    table = preprocess.clean(collect.Raw("t", pd.DataFrame(frame, dtype=object), "y", None, ""))
    assert table.kinds == {"code": "category", "n": "number"} and set(table.frame["code"]) == {
        "0000",
        "0001",
        "0002",
        "0003",
    }
    assert "leading zeros" in table.notes["code"]
    frame["code"] = [str(i % 30) for i in range(199)] + ["05"]  # a slip
    assert (
        preprocess.clean(collect.Raw("t", pd.DataFrame(frame, dtype=object), "y", None, "")).kinds["code"] == "number"
    )


def test_close_numbers_are_told_apart() -> None:
    x = pd.Series(13.4 + 1e-6 * np.arange(400))
    labels, names = profiles.coarse(x, x, "number", 4)
    assert len(set(names)) == len(names)
    assert sum((labels == name).sum() for name in names) == 400


def test_spreadsheets_run_nothing_and_read_every_script(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": ["=1+1", "-x", "fine", "@y", "-5"], "b": [1.5, -2.5, 3.5, 4.5, 0], "城市": ["北京"] * 5})
    deploy.write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    again = pd.read_csv(tmp_path / "t.csv", dtype=str, encoding="utf-8-sig")
    assert again["a"].tolist() == ["'=1+1", "'-x", "fine", "'@y", "-5"]
    assert again["b"].astype(float).tolist() == [1.5, -2.5, 3.5, 4.5, 0] and set(again["城市"]) == {"北京"}


def test_each_person_gets_the_action_that_pays_most() -> None:
    options = chart._parse(["--cost", "1", "--value", "10", "--success", "0.5"])  # pays from a probability of 0.2 on
    all_of_them, twice = np.ones(4, bool), np.array([True, True, False, True])
    aims = [("Targeting", "", all_of_them, True), ("Churn warning", "", twice, False)]
    people = pd.DataFrame({"probability": [0.9, 0.1, 0.1, 0.5]})
    found = chart._one_action_each(aims, people, options).tolist()
    assert found == ["targeting", "churn warning", "", "targeting"]


def test_the_simple_rule_is_the_best_column(people: preprocess.Table) -> None:
    split = splits.splits(people)[0]
    name, proba = evaluate.one_column(people, *split)
    assert name in ("age", "city") and len(np.unique(proba)) <= 8 and len(proba) == len(split[2])


def test_records_keep_their_number_in_the_file() -> None:
    frame = {"a": ["1.5", "2.5", "3.5", "4.5"], "y": ["1", "", "0", "1"]}
    table = preprocess.clean(collect.Raw("t", pd.DataFrame(frame, dtype=object), "y", None, ""))
    assert table.frame.index.tolist() == [1, 3, 4] and table.frame.index.name == "record"


def test_encoding_in_pieces_changes_nothing(
    people: preprocess.Table, model: train.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.encoder.transform(people.frame)
    monkeypatch.setattr(features, "PIECE", 7)
    np.testing.assert_array_equal(model.encoder.transform(people.frame), whole)
