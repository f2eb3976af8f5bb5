"""The user-profile example through time: months, feedback, new purchases, being forgotten, and a kill at any moment."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import signal
import sqlite3
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

from examples.user_profile import live, orders, update  # noqa: E402


def purchases(n: int = 150, months: int = 7, seed: int = 0) -> Any:
    """Return a log of made-up customers, each with a rate of their own that falls as time goes by."""
    rng = np.random.default_rng(seed)
    rows = []
    for customer in range(n):
        first = rng.integers(0, 45)
        times = first + np.concatenate([[0], np.cumsum(rng.exponential(rng.gamma(2, 18) + 3, 40))])
        rows += [(f"c{customer:04d}", int(t)) for t in times if t < 30.5 * months]
    found = pd.DataFrame(rows, columns=["customer", "day"])
    found["date"] = pd.Timestamp("2001-01-01") + pd.to_timedelta(found.pop("day"), unit="D")
    found["quantity"] = rng.integers(1, 5, len(found)).astype(float)
    found["amount"] = (found["quantity"] * rng.uniform(8, 15, len(found))).round(2)
    return found.sort_values("date", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def log() -> Any:
    return purchases()


@pytest.fixture(scope="module")
def made(log: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "live"
    live.Store.create(folder, log)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> live.Store:
    shutil.copytree(made, tmp_path / "live")
    return live.Store(tmp_path / "live")


def answers(log: Any, n: int, bought: bool = True) -> list[dict[str, Any]]:
    return [answer(log, c, k % 20, bought == bool(k % 3)) for k, c in enumerate(log["customer"].unique()[:n])]


def answer(log: Any, customer: str, days: int, bought: bool) -> dict[str, Any]:
    """Return an answer of so many days ago; whom the log has buying since then did buy."""
    date = log["date"].max() - pd.Timedelta(days=days)
    did = ((log["customer"] == customer) & (log["date"] > date)).any()
    return {"customer": customer, "date": f"{date:%Y-%m-%d}", "bought": bool(bought or did)}


def vector(store: live.Store) -> np.ndarray:
    return store.state().learner.net.params.vector.copy()


def test_months_end_when_their_labels_are_known(log: Any) -> None:
    ends = orders.month_ends(log)
    assert ends[0] == pd.Timestamp("2001-02-28") and all(end.is_month_end for end in ends)
    assert ends[-1] + update.HORIZON <= log["date"].max() < ends[-1] + pd.offsets.MonthEnd(1) + update.HORIZON


def test_labels_are_of_the_30_days_after_and_rows_of_the_time_before(log: Any) -> None:
    end = pd.Timestamp("2001-04-30")
    rows = update.rows_of(log, end)
    assert set(rows.frame.index) == set(log.loc[log["date"] <= end, "customer"])
    for customer, y in zip(rows.frame.index, rows.y, strict=True):
        dates = log.loc[log["customer"] == customer, "date"]
        assert y == int(((dates > end) & (dates <= end + pd.Timedelta(days=30))).any())
    later = log.copy()
    later.loc[later["date"] > end, "amount"] *= 100
    pd.testing.assert_frame_equal(update.rows_of(later, end).frame, rows.frame)


def test_the_same_customers_are_held_back_for_ever() -> None:
    index = pd.Index([f"c{i}" for i in range(5000)])
    held = update.held_back(index)
    assert 0.08 < held.mean() < 0.12
    np.testing.assert_array_equal(update.held_back(index[::-1]), held[::-1])


def test_learning_leaves_the_current_model_as_it_is_and_goes_on_where_it_was(store: live.Store) -> None:
    learner = store.state().learner
    before, moments, state = (
        learner.net.params.vector.copy(),
        copy.deepcopy(learner.optimizer),
        learner.rng.bit_generator.state,
    )
    rows = update.Rows(learner.sample.frame.iloc[:50], learner.sample.y[:50])
    one, two = learner.learn(rows), learner.learn(rows)
    np.testing.assert_array_equal(learner.net.params.vector, before)
    assert learner.rng.bit_generator.state == state
    np.testing.assert_array_equal(one.net.params.vector, two.net.params.vector)
    assert not np.array_equal(one.net.params.vector, before)
    assert one.optimizer.n_steps > moments.n_steps > 0


def test_the_sample_is_uniform_over_all_that_was_learned(store: live.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = store.state().learner
    n = len(learner.sample.y)
    monkeypatch.setattr(update, "CAPACITY", n)
    rows = update.Rows(learner.sample.frame.rename(index=lambda c: f"new-{c}"), learner.sample.y)
    new = learner.learn(rows)
    assert len(new.sample.y) == n and (np.diff(new.lots) >= 0).all()
    share = np.mean([str(c).startswith("new-") for c in new.sample.frame.index])
    assert abs(share - 0.5) < 4 * 0.5 / n**0.5


def test_flipped_labels_are_refused_and_would_please_their_own_month(log: Any) -> None:
    found = update.backtest(purchases(4000, 9), pd.Timestamp("2001-05-31"), n_epochs=8)
    drills = [month.drill for month in found.months if month.drill is not None]
    assert len(drills) >= 2
    for drill in drills:
        assert not drill.promoted
        assert drill.newest[1] < drill.newest[0] and drill.believed[1] > drill.believed[0] + update.TOLERANCE
    text = update.text_table(found)
    assert "(with flipped labels: refused)" in text and "PROMOTED" not in text
    assert found.months[0].loss["incremental"] == found.months[0].loss["frozen"]  # scored before anything is learned
    assert found.months[-1].said == "the log ends"
    mean, low, high = found.difference("frozen")
    assert low <= mean <= high
    with pytest.raises(ValueError, match="no label is known"):
        update.backtest(log, log["date"].min())


def test_drift_is_the_population_stability_index() -> None:
    rng = np.random.default_rng(0)
    then = pd.DataFrame({"same": rng.normal(size=4000), "moved": rng.normal(size=4000), "zero": 0.0, "gone": 1.0})
    now = pd.DataFrame(
        {"same": rng.normal(size=4000), "moved": rng.normal(1, 1, size=4000), "zero": 0.0, "gone": np.nan}
    )
    found = update.Drift(then)(now)
    assert found["same"] < 0.02 and found["zero"] < 1e-3 and found["moved"] > 0.25 and found["gone"] > 5
    p, q = np.full(10, 0.1), np.array([0.1] * 8 + [0.05, 0.15])
    exact = ((q - p) * np.log(q / p)).sum()
    x = np.repeat(np.arange(10.0), 1000)
    z = np.repeat(np.arange(10.0), (10000 * q).astype(int))
    assert update.Drift(pd.DataFrame({"x": x}))(pd.DataFrame({"x": z}))["x"] == pytest.approx(exact, rel=0.02)


def test_a_version_is_read_back_bit_for_bit(store: live.Store, log: Any, tmp_path: Path) -> None:
    state = live.Store.create(tmp_path / "again", log).state()
    again = live.Store(tmp_path / "again").state()
    np.testing.assert_array_equal(again.learner.net.params.vector, state.learner.net.params.vector)
    pd.testing.assert_frame_equal(again.learner.sample.frame, state.learner.sample.frame)
    np.testing.assert_array_equal(again.learner.lots, state.learner.lots)
    rows = state.learner.sample.take(np.arange(40))
    one, two = (s.learner.learn(rows).net.params.vector for s in (state, again))
    np.testing.assert_array_equal(one, two)


def test_feedback_is_kept_learned_once_and_checked(store: live.Store, log: Any) -> None:
    told = answers(log, 12)
    assert store.add_feedback(*told[:5]) == 5 and store.add_feedback(*told) == 7 and store.add_feedback(told[3]) == 0
    assert store.feedback() == told
    before = vector(store)
    batch = store.learn()
    assert batch == {"answers": 12, "learned": True} and not np.array_equal(vector(store), before)
    after = vector(store)
    assert store.learn() is None
    np.testing.assert_array_equal(vector(store), after)
    assert store.status()["feedback learned"] == 12 and store.status()["feedback waiting"] == 0
    last = log["date"].max()
    right = {"customer": "c0020", "date": f"{last:%Y-%m-%d}", "bought": True}
    for wrong, says in (
        (told[0] | {"bought": not told[0]["bought"]}, "the answer was"),
        (right | {"customer": "nobody"}, "no purchase of this customer"),
        (right | {"date": f"{last - update.HORIZON:%Y-%m-%d}"}, "the date must be after"),
        (right | {"date": f"{last + pd.Timedelta(days=1):%Y-%m-%d}"}, "where the log ends"),
        (right | {"date": "31.12.2001"}, "must be written as"),
        (right | {"bought": "yes"}, "feedback looks like"),
        (right | {"more": 1}, "feedback looks like"),
        ({}, "feedback looks like"),
        ([], "feedback looks like"),
    ):
        with pytest.raises(live.LiveError, match=says):
            store.add_feedback(right, wrong)  # type: ignore[arg-type]
        assert store.feedback() == told  # not even the right one of the two


def test_feedback_that_harms_is_refused_and_has_had_its_turn(
    store: live.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_feedback(*answers(store.events(), 10))
    monkeypatch.setattr(live, "judge", lambda *a: update.Verdict(False, (0.0, 0.0), (0.1, 0.9)))
    before = vector(store)
    assert store.learn() == {"answers": 10, "learned": False}
    np.testing.assert_array_equal(vector(store), before)
    assert store.learn() is None and store.status()["feedback refused"] == 10


def test_groups_of_answers_stand_or_fall_alone(store: live.Store, log: Any) -> None:
    told = answers(log, 5)
    wrong = told[2] | {"customer": "nobody"}
    found = store.add_groups([told[:2], [told[2], wrong], [], told[1:4]])
    assert found[0] == 2 and isinstance(found[1], live.LiveError) and found[2:] == [0, 2]
    assert store.feedback() == [*told[:2], *told[2:4]]


def test_purchases_make_months_known_and_answered_customers_are_not_learned_twice(
    store: live.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store.events()
    last = log["date"].max()
    end = last - pd.Timedelta(days=1)
    while not end.is_month_end:
        end -= pd.Timedelta(days=1)
    told = [{"customer": c, "date": f"{end:%Y-%m-%d}", "bought": True} for c in log["customer"].unique()[:30]]
    store.add_feedback(*told)
    store.learn()
    new = log[log["date"] > last - pd.Timedelta(days=40)].copy()
    new["date"] += pd.Timedelta(days=40)
    seen = []
    learn = update.Learner.learn
    monkeypatch.setattr(update.Learner, "learn", lambda self, rows: seen.append(rows) or learn(self, rows))
    before = store.state()
    verdicts = store.add_purchases(new)
    assert next(month for month, _ in verdicts) == f"{end:%Y-%m-%d}"
    assert not set(seen[0].frame.index) & {a["customer"] for a in told}
    assert not update.held_back(seen[0].frame.index).any()
    after = store.state()
    assert [*after.months, after.refused_month] != [*before.months, before.refused_month]
    assert len(store.events()) == len(log) + len(new)
    with pytest.raises(live.LiveError, match="must be dated after"):
        store.add_purchases(new)
    assert len(store.events()) == len(log) + len(new)


def test_who_is_forgotten_leaves_no_trace(store: live.Store) -> None:
    log = store.events()
    gone, *_ = customer_of(log)
    store.add_feedback(*answers(log, 20))
    store.learn()
    store.add_feedback({"customer": "c0100", "date": f"{log['date'].max():%Y-%m-%d}", "bought": True})
    n = int((log["customer"] == gone).sum())
    assert store.forget(gone) == {"purchases": n, "feedback": 1}
    assert gone not in set(store.events()["customer"]) and len(store.events()) == len(log) - n
    assert len(store.feedback()) == 20 and store.status()["feedback waiting"] == 1
    assert gone not in store.state().learner.sample.frame.index
    assert not traces(store, gone)
    assert [v["forgotten"] for v in store.versions()] == [1, 1, 0]
    with pytest.raises(live.LiveError, match="no customer here is called"):
        store.forget(gone)
    with pytest.raises(live.LiveError, match="no customer here"):
        store.score(gone)


def traces(store: live.Store, customer: str) -> list[str]:
    """Return where a customer's name stands in the folder's bytes: as in text, and as in arrays."""
    files = [path for path in store.file.parent.rglob("*") if path.is_file()]
    codes = ("utf-8", "utf-32-le", "utf-16-le")
    return [path.name for path in files if any(customer.encode(code) in path.read_bytes() for code in codes)]


def customer_of(log: Any) -> Any:
    return log["customer"].unique()[:1]


def test_a_model_made_anew_equals_one_that_never_knew_them(store: live.Store, log: Any, tmp_path: Path) -> None:
    gone, *_ = customer_of(log)
    store.forget(gone)
    other = live.Store.create(tmp_path / "other", log[log["customer"] != gone].reset_index(drop=True))
    np.testing.assert_array_equal(vector(store), vector(other))


def test_scores_are_of_the_last_day(store: live.Store, log: Any) -> None:
    customer = log["customer"].iloc[-1]
    frame, _ = orders.customers(log, log["date"].max())
    everyone = store.state().learner.predict_proba(frame)
    assert store.score(customer) == pytest.approx(everyone[frame.index.get_loc(customer)])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("customer,date,quantity\na,2001-01-01,1\n", "has no column 'amount'; it has"),
        ("customer,date,quantity,amount\na,2001-01-01,1,x\n", "without an amount in 'amount'"),
        ("customer,date,quantity,amount\na,yesterday,1,2\n", "without a date in 'date'"),
        ("customer,date,quantity,amount\n,2001-01-01,1,2\n", "without a customer"),
        ("", "no purchases to add"),
    ],
)
def test_files_that_are_no_purchases(store: live.Store, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "new.csv").write_text(content)
    with pytest.raises(live.LiveError, match=says):
        store.read(tmp_path / "new.csv")
    with pytest.raises(live.LiveError, match="no purchases to add"):
        store.read(tmp_path / "nothing.csv")


def later_file(log: Any, path: Path, **changes: Any) -> Path:
    """Write forty orders of the month after the log, with some changes."""
    new = log.tail(40).assign(date=log["date"].max() + pd.to_timedelta(np.arange(40) // 4 + 1, unit="D"))
    new.assign(**{name: value(new) for name, value in changes.items()}).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"date": lambda f: f["date"].dt.strftime("%d/%m/%Y")}, "is written in another way than the dates of the log"),
        ({"date": lambda f: f["date"].dt.strftime("%m/%d/%y")}, "is written in another way than the dates of the log"),
        ({"amount": lambda f: np.where(np.arange(40) < 10, "n/a", f["amount"])}, "only 30 of 40 lines can be used"),
        ({"customer": lambda f: "X" + f["customer"]}, "none of its .* customers is known, such as 'Xc"),
        ({"date": lambda f: np.where(np.arange(40) < 39, f["date"], pd.Timestamp("2001-11-20"))}, "where the log has"),
        ({"date": lambda f: "2001-02-03"}, "must be dated after"),
    ],
)
def test_later_files_that_look_wrong_are_refused_whole(
    store: live.Store, log: Any, tmp_path: Path, changes: Any, says: str
) -> None:
    path = later_file(log, tmp_path / "later.csv", **changes)
    before = seen(store)
    with pytest.raises(live.LiveError, match=says):
        store.add_purchases(store.read(path)[0])
    assert seen(store) == before


def test_a_later_file_may_begin_in_the_log_and_write_names_as_numbers(
    store: live.Store, log: Any, tmp_path: Path
) -> None:
    both = pd.concat([log.tail(30), pd.read_csv(later_file(log, tmp_path / "later.csv"), parse_dates=["date"])])
    both.to_csv(tmp_path / "all.csv", index=False)
    found, said = store.read(tmp_path / "all.csv")
    assert found["date"].min() > log["date"].max() and any("are taken as known, and left out" in line for line in said)
    assert any(line.startswith("0 of ") and line.endswith("customers are new") for line in said)
    store.add_purchases(found)
    assert store.status()["to"] == f"{found['date'].max():%Y-%m-%d}"


def test_who_only_returns_is_no_customer(store: live.Store, log: Any) -> None:
    day = log["date"].max() + pd.Timedelta(days=3)
    new = pd.DataFrame(
        {"customer": ["back", "c0001"], "date": [day, day], "quantity": [-1.0, -1.0], "amount": [-9.0, -5.0]}
    )
    store.add_purchases(new)
    answer = {"customer": "back", "date": f"{day:%Y-%m-%d}", "bought": False}
    with pytest.raises(live.LiveError, match="no purchase of this customer"):
        store.add_feedback(answer)
    with pytest.raises(live.LiveError, match="has only returned things"):
        store.score("back")
    last = log.loc[log["customer"] == "c0001", "date"].max()
    if last > day - update.HORIZON:  # a return within the 30 days is no purchase
        assert store.add_feedback(answer | {"customer": "c0001", "date": f"{day - pd.Timedelta(days=1):%Y-%m-%d}"}) == 1
    assert store.learn() is None or store.status()["feedback waiting"] == 0
    with pytest.raises(live.LiveError, match="must be written as"):
        store.add_feedback(answer | {"date": "NaT"})


def test_from_the_command_line(
    store: live.Store, log: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = str(store.file.parent)
    told = answers(log, 6)
    assert live.main([folder, "--feedback", json.dumps(told[0])]) == 0
    assert capsys.readouterr().out == "1 answers kept, 0 known already\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, told)) + "\n\n"))
    assert live.main([folder, "--feedback", "-"]) == 0
    assert capsys.readouterr().out == "5 answers kept, 1 known already\n"
    assert live.main([folder, "--learn"]) == 0 and live.main([folder, "--learn"]) == 0
    assert capsys.readouterr().out == "6 answers learned\nno feedback waits\n"
    assert live.main([folder, "--score", told[1]["customer"]]) == 0
    assert 0 < float(capsys.readouterr().out) < 1
    assert live.main([folder, "--forget", told[1]["customer"]]) == 0
    assert "and 1 answers; trained anew" in capsys.readouterr().out
    new = log.tail(40).assign(date=log["date"].max() + pd.Timedelta(days=31))
    new.to_csv(tmp_path / "new.csv", index=False)
    assert live.main([folder, "--purchases", str(tmp_path / "new.csv")]) == 0
    assert months_said(capsys.readouterr().out)
    assert live.main([folder, "--status"]) == 0
    assert re.search(r"feedback learned +5\n", capsys.readouterr().out)
    for wrong in (
        ["--feedback", "{"],
        ["--feedback", "{}"],
        ["--forget", "nobody"],
        ["--score", "nobody"],
        ["--purchases", str(tmp_path / "new.csv")],
    ):
        assert live.main([folder, *wrong]) == 2
        assert capsys.readouterr().err.startswith("error: ")
    assert live.main([str(tmp_path), "--status"]) == 2
    assert "holds no live model" in capsys.readouterr().err


def months_said(text: str) -> bool:
    return re.search(r"(?m)^2001-\d\d-\d\d (learned|refused)", text) is not None and "the log ends on" in text


def test_paths_that_are_relative_or_go_through_links(
    store: live.Store, log: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(store.file.parent)
    for path in (Path("live"), Path("link"), tmp_path / "link"):
        told = answers(log, 40)[len(store.feedback())]
        assert live.Store(path).add_feedback(told) == 1
        assert live.Store(path).learn() is not None
    assert len(store.feedback()) == 3 and store.status()["feedback waiting"] == 0


def test_a_model_that_is_there_is_not_made_anew(store: live.Store, log: Any, tmp_path: Path) -> None:
    with pytest.raises(live.LiveError, match="is there already"):
        live.Store.create(store.file.parent, log)
    with pytest.raises(live.LiveError, match="too short"):
        live.Store.create(tmp_path / "new", log[log["date"] < log["date"].min() + pd.Timedelta(days=20)])
    assert not (tmp_path / "new").exists() and len(store.events()) == len(log)


def test_held_back_customers_judge_and_are_never_learned_from(store: live.Store, log: Any) -> None:
    everyone = pd.Index(log["customer"].unique())
    held = everyone[update.held_back(everyone)]
    date = f"{log['date'].max():%Y-%m-%d}"
    known = log.loc[log["date"] <= log["date"].max(), "customer"]
    store.add_feedback(*({"customer": c, "date": date, "bought": True} for c in everyone if c in set(known)))
    store.learn()
    assert not update.held_back(store.state().learner.sample.frame.index).any()
    store.forget(held[0])
    assert not update.held_back(store.state().learner.sample.frame.index).any()
    assert len(live._judges(store.events(), store.state().months).y) > 0


def test_without_judges_nothing_is_promoted(store: live.Store) -> None:
    learner = store.state().learner
    some, nobody = learner.sample.take(np.arange(20)), learner.sample.take(np.arange(0))
    assert not update.judge(learner, learner, some, nobody).promoted
    assert update.judge(learner, learner, nobody, some).promoted


@pytest.mark.parametrize(
    ("rise", "spread", "promoted"), [(0.0019, 0.0, True), (0.0021, 0.0, False), (0.01, 0.1, True), (0.01, 0.01, False)]
)
@pytest.mark.parametrize("which", ["newest", "believed"])
def test_the_judge_allows_for_the_tolerance_and_for_chance(
    rise: float, spread: float, promoted: bool, which: str, store: live.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses are made up: 100 rows, half of which rise by more, half by less."""
    newest, believed = (
        update.Rows(store.state().learner.sample.frame.iloc[:100], np.zeros(100, int)) for _ in range(2)
    )
    target = {"newest": newest, "believed": believed}[which]
    change = rise + spread * np.where(np.arange(100) % 2, 1.0, -1.0)
    monkeypatch.setattr(update, "losses", lambda model, rows: 1 + change * (model == "updated") * (rows is target))
    assert update.judge("current", "updated", newest, believed).promoted is promoted  # type: ignore[arg-type]


def test_a_refused_month_waits_for_a_decision_and_later_ones_with_it(
    store: live.Store, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = log[log["date"] > log["date"].max() - pd.Timedelta(days=95)].copy()
    later["date"] += pd.Timedelta(days=95)
    judged = update.judge
    monkeypatch.setattr(live, "judge", lambda *a: update.Verdict(False, (0.0, 0.0), (0.1, 0.9)))
    before, known = vector(store), store.state().months
    (verdict,) = store.add_purchases(later)
    month, next_month = verdict[0], f"{pd.Timestamp(verdict[0]) + pd.offsets.MonthEnd(1):%Y-%m-%d}"
    np.testing.assert_array_equal(vector(store), before)
    assert store.status()["month refused"] == month and store.state().months == known
    with pytest.raises(live.LiveError, match="does not wait for a decision"):
        store.decide(next_month, accept=True)
    monkeypatch.setattr(live, "judge", judged)
    copy_of = store.file.parent.with_name("copy")
    shutil.copytree(store.file.parent, copy_of)
    other = live.Store(copy_of)
    assert [m for m, _ in store.decide(month, accept=True)][:1] == [next_month]
    assert store.state().months[: len(known) + 1] == [*known, month] and store.state().refused_month != month
    other.decide(month, accept=False)
    assert month not in other.state().months and other.status()["months left out"] == 1
    other.forget(log["customer"].iloc[0])
    assert month not in other.state().months and other.status()["months left out"] == 1


@pytest.mark.parametrize(("decision", "says"), [("--accept", "learned"), ("--leave-out", "left out")])
def test_a_decision_from_the_command_line(
    decision: str,
    says: str,
    store: live.Store,
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    later = log[log["date"] > log["date"].max() - pd.Timedelta(days=40)].copy()
    later["date"] += pd.Timedelta(days=40)
    later.to_csv(tmp_path / "later.csv", index=False)
    with monkeypatch.context() as patch:
        patch.setattr(live, "judge", lambda *a: update.Verdict(False, (0.0, 0.0), (0.1, 0.9)))
        assert live.main([str(store.file.parent), "--purchases", str(tmp_path / "later.csv")]) == 0
    month = store.status()["month refused"]
    assert f"--accept {month} or --leave-out {month}" in capsys.readouterr().out
    assert live.main([str(store.file.parent), decision, month]) == 0
    assert f"{month} {says}, as decided" in capsys.readouterr().out
    assert live.main([str(store.file.parent), decision, month]) == 2
    assert "does not wait for a decision" in capsys.readouterr().err


def test_a_refused_answer_does_not_take_the_logs_label_with_it(
    store: live.Store, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = log["date"].max()
    end = last - pd.Timedelta(days=1)
    while not end.is_month_end:
        end -= pd.Timedelta(days=1)
    known = log.loc[log["date"] <= end, "customer"].unique()
    with monkeypatch.context() as patch:
        patch.setattr(live, "judge", lambda *a: update.Verdict(False, (0.0, 0.0), (0.1, 0.9)))
        store.add_feedback(*({"customer": c, "date": f"{end:%Y-%m-%d}", "bought": True} for c in known))
        store.learn()
    later = log[log["date"] > last - pd.Timedelta(days=40)].copy()
    later["date"] += pd.Timedelta(days=40)
    seen: list[Any] = []
    learn = update.Learner.learn
    monkeypatch.setattr(update.Learner, "learn", lambda self, rows: seen.append(rows) or learn(self, rows))
    store.add_purchases(later)
    assert len(seen[0].y) > 0.8 * len(known)


def test_purchases_that_look_wrong_are_refused(store: live.Store, log: Any) -> None:
    last = log["date"].max()
    new = log.tail(3).assign(date=[last + pd.Timedelta(days=d) for d in (1, 2, 3650)])
    with pytest.raises(live.LiveError, match="gap of 3648 days"):
        store.add_purchases(new)
    bought = log[log["date"] > last - pd.Timedelta(days=10)].iloc[-1]
    no = {"customer": bought["customer"], "date": f"{bought['date'] - pd.Timedelta(days=1):%Y-%m-%d}", "bought": False}
    if (log.loc[log["customer"] == bought["customer"], "date"] < bought["date"]).any():
        with pytest.raises(live.LiveError, match="the log has a purchase within those 30 days"):
            store.add_feedback(no)


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "pages", "model"])
def test_a_damaged_file_is_said_to_be(
    store: live.Store, log: Any, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.add_feedback(*answers(log, 3))
    content = store.file.read_bytes()
    model = store.state().learner.net.params.vector[:4].tobytes()
    changed = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "other": b"[1]\n" * 2000,
        "pages": content[:4096] + bytes(len(content) - 4096),
        "model": content.replace(model, bytes(len(model))),
    }[damage]
    assert changed != content
    store.file.write_bytes(changed)
    assert live.main([str(store.file.parent), "--learn"]) == 2
    said = capsys.readouterr().err
    assert re.match("error: .*(holds no live model|malformed|not a database|is not as it was written)", said)
    assert store.file.read_bytes() == changed


def test_every_customer_can_be_forgotten(tmp_path: Path) -> None:
    small = purchases(12, 5, seed=3)
    store = live.Store.create(tmp_path / "small", small)
    for customer in small["customer"].unique()[:-4]:
        store.forget(customer)
    assert store.status()["customers"] == 4


def test_the_backtest_learns_what_is_known_and_from_whom_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row that is learned is of a month that ended 30 days before, and not of a held-back customer."""
    log, seen = purchases(300, 8), []
    launch = pd.Timestamp("2001-04-30")
    by_date = {date: update.rows_of(log, date) for date in orders.month_ends(log)}

    def dates(rows: Any) -> set[Any]:
        """Return the months these rows are of: the days since the first purchase tell."""
        found = set()
        first = log.groupby("customer")["date"].min()
        for customer, days in zip(rows.frame.index, rows.frame["days_since_first"], strict=True):
            found.add(first[customer] + pd.Timedelta(days=days))
        return found

    scratch, learn, predict = update.Learner.from_scratch.__func__, update.Learner.learn, update.Learner.predict_proba
    monkeypatch.setattr(
        update.Learner,
        "from_scratch",
        classmethod(
            lambda cls, rows, held, **kw: seen.append(("scratch", rows, held)) or scratch(cls, rows, held, **kw)
        ),
    )
    monkeypatch.setattr(
        update.Learner, "learn", lambda self, rows: seen.append(("learn", rows, None)) or learn(self, rows)
    )
    monkeypatch.setattr(
        update.Learner, "predict_proba", lambda self, frame: seen.append(("score", frame, None)) or predict(self, frame)
    )
    found = update.backtest(log, launch, n_epochs=1)
    now = launch
    ends = [end for end in by_date if end > launch]
    for what, rows, held in seen:
        if what == "score":
            if (
                len(rows) == len(by_date.get(ends[0], rows).frame if ends else rows)
                and ends
                and rows.equals(by_date[ends[0]].frame)
            ):
                now = ends.pop(0)
            continue
        assert not update.held_back(rows.frame.index).any()
        assert all(date + update.HORIZON <= now for date in dates(rows))
        if held is not None:
            assert update.held_back(held.frame.index).all() and all(
                date + update.HORIZON <= now for date in dates(held)
            )
    assert (
        not ends
        and [what for what, _, _ in seen].count("learn") == 2 * sum(m.verdict is not None for m in found.months) + 4
    )
    drifts = [month.drift["days_since_first"] for month in found.months]
    assert min(drifts) > 0.25  # everybody grows older


def test_the_sample_at_launch_is_drawn_by_lot(monkeypatch: pytest.MonkeyPatch, log: Any) -> None:
    monkeypatch.setattr(update, "CAPACITY", 200)
    parts = [update.rows_of(log, end) for end in orders.month_ends(log)]
    learner = update.Learner.from_scratch(update.Rows.join(parts), parts[-1], n_epochs=1)
    assert len(learner.sample.y) == len(learner.lots) == 200
    ages = learner.sample.frame["days_since_first"]
    share = np.mean([len(parts[0].y), len(parts[-1].y)]) / sum(len(p.y) for p in parts)
    for part in (parts[0], parts[-1]):
        assert abs(ages.isin(part.frame["days_since_first"]).mean()) > share / 3


def test_the_interval_over_months_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        d = [0.0, *rng.normal(-0.003, 0.004, 24)]  # the first month counts nothing
        months = [
            update.Month(
                pd.Timestamp("2001-01-31"),
                1,
                0.1,
                {"incremental": 0.2 + x, "frozen": 0.2},
                {},
                pd.Series(),
                [],
                {},
                None,
                None,
            )
            for x in d
        ]
        mean, low, high = update.Backtest(pd.Timestamp("2001-01-31"), months, []).difference("frozen")
        assert mean == pytest.approx(np.mean(d[1:]))
        inside += low <= -0.003 <= high
    assert 0.89 <= inside / 300 <= 0.975


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class Cut:
    """A connection that is cut off before one of its statements."""

    left = 10**9

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, *arguments: Any) -> Any:
        return self._counted(self._db.execute, *arguments)

    def executemany(self, *arguments: Any) -> Any:
        return self._counted(self._db.executemany, *arguments)

    def _counted(self, run: Any, *arguments: Any) -> Any:
        Cut.left -= 1
        if Cut.left < 0:
            raise Killed
        return run(*arguments)


STEPS = {
    "add_feedback": lambda store, log: store.add_feedback(*answers(log, 9)[6:]),
    "learn": lambda store, log: store.learn(),
    "forget": lambda store, log: store.forget("c0001"),
    "add_purchases": lambda store, log: store.add_purchases(
        log.tail(30).assign(date=log["date"].max() + pd.Timedelta(days=31))
    ),
}


def seen(store: live.Store) -> tuple[Any, ...]:
    """Return all that a store holds."""
    state = store.state()
    model = state.learner.net.params.vector.tobytes()
    return len(state.log), state.answers, state.months, state.refused_month, model, store.versions()


def only_once(function: Any) -> Any:
    """Return a function that does the work the first time, and gives the same answer ever after."""
    found: list[Any] = []

    def again(*arguments: Any) -> Any:
        if not found:
            found.append(function(*arguments))
        return found[0]

    return again


@pytest.mark.parametrize("step", STEPS)
def test_stopped_before_any_statement(
    store: live.Store, log: Any, step: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each step is cut off before its first, second, ... statement; what it leaves is the state before or after."""
    store.add_feedback(*answers(log, 6))
    kept = tmp_path / "kept"
    shutil.copytree(store.file.parent, kept)
    before = seen(store)
    STEPS[step](store, log)
    after = seen(store)
    assert before != after
    for name in ("_train", "_learn_months"):
        monkeypatch.setattr(live, name, only_once(getattr(live, name)))
    STEPS[step](live.Store(shutil.copytree(kept, tmp_path / "first")), log)
    connect = live._connect
    for k in range(1000):
        shutil.rmtree(store.file.parent)
        shutil.copytree(kept, store.file.parent)
        with monkeypatch.context() as patch:
            patch.setattr(live, "_connect", lambda *a, **kw: Cut(connect(*a, **kw)))
            patch.setattr(Cut, "left", k)
            try:
                STEPS[step](live.Store(store.file.parent), log)
            except Killed:
                finished = False
            else:
                finished = True
        again = live.Store(store.file.parent)  # what was begun to be erased is erased now
        found = seen(again)
        assert found in (before, after), f"{step} stopped before statement {k}"
        assert found == after or not finished
        if found == after and step == "forget":
            assert not traces(again, "c0001")
        if finished:
            break
        if k % 5 == 0:
            STEPS["learn"](again, log)  # whatever was left behind does not stand in the way
    assert k > 10


@pytest.mark.parametrize("step", ["learn", "forget", "add_purchases"])
def test_what_others_do_meanwhile_is_not_lost(
    store: live.Store, log: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one process makes a version, another takes an answer: the version is made again, unless it need not be."""
    told = answers(log, 8)
    store.add_feedback(*told[:6])
    other, made = live.Store(store.file.parent), []
    change = live._change

    def meanwhile(*arguments: Any) -> Any:
        made.append(1)
        if len(made) == 1:
            other.add_feedback(told[6])
        return change(*arguments)

    monkeypatch.setattr(live, "_change", meanwhile)
    STEPS[step](store, log)
    kept = [a for a in told[:7] if step != "forget" or a["customer"] != "c0001"]
    assert store.feedback() == kept and len(made) == (1 if step == "learn" else 2)
    assert len(store.state().waiting) == (1 if step == "learn" else len(kept))

    def always(*arguments: Any) -> Any:
        other.forget(other.events()["customer"].iloc[-1])
        return change(*arguments)

    monkeypatch.setattr(live, "_change", lambda *a: always(*a) if a[0] == "answers" else change(*a))
    now = store.events()
    late = {"customer": "c0099", "date": f"{now['date'].max():%Y-%m-%d}", "bought": True}
    store.add_feedback(late)
    version = store.version()
    with pytest.raises(live.LiveError, match="changed by others 5 times"):
        store.learn()
    assert store.version() == version + 5 and late in store.feedback()


def test_another_process_that_writes_is_waited_for_and_named(
    store: live.Store, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PATIENCE", 0.05)
    with live._transaction(store.file), pytest.raises(live.LiveError, match="database is locked"):
        store.add_feedback(*answers(log, 1))
    assert store.add_feedback(*answers(log, 1)) == 1


def test_the_whole_store_is_one_file(store: live.Store, log: Any) -> None:
    store.add_feedback(*answers(log, 3))
    store.learn()
    assert [path.name for path in store.file.parent.iterdir()] == [live.FILE]


def test_a_file_that_a_kill_left_empty_can_be_made(log: Any, tmp_path: Path) -> None:
    (tmp_path / live.FILE).touch()
    with pytest.raises(live.LiveError, match="holds no live model"):
        live.Store(tmp_path)
    assert live.Store.create(tmp_path, log).status()["version"] == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
@pytest.mark.parametrize("step", STEPS)
def test_killed_before_any_operation_on_the_disk(step: str, tmp_path: Path) -> None:
    from .cut_off import LIBRARY

    log = purchases(14, 5, seed=3)
    store = live.Store.create(tmp_path / "live", log)
    store.add_feedback(*answers(log, 6))
    source, library = tmp_path / "cut_off.c", tmp_path / "cut_off.so"
    source.write_text(LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "tests.cut_off", str(store.file.parent), step],
        env=os.environ | {"LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5  # operations


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*fork:DeprecationWarning"
)  # the child does nothing but work, and is killed
def test_fifty_kills_lose_nothing_and_learn_nothing_twice(store: live.Store, log: Any, tmp_path: Path) -> None:
    """A process that takes feedback and learns it is killed fifty times at random; then its life is lived again without kills."""
    last = log["date"].max()
    told = [
        answer(log, c, d, (int(c[1:]) + d) % 4 == 0)
        for d in range(12)
        for c in log.loc[log["date"] <= last - pd.Timedelta(days=d), "customer"].unique()
    ]
    untouched = tmp_path / "untouched"
    shutil.copytree(store.file.parent, untouched)
    acknowledged = tmp_path / "acknowledged"
    acknowledged.touch()
    rng = np.random.default_rng(int(time.time()))
    n_working = 0
    for _ in range(50):
        pid = os.fork()
        if pid == 0:  # the child: no cleaning up, no pytest
            try:
                work(store.file.parent, told, acknowledged)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0.02, 0.4))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        n_working += os.WIFSIGNALED(status)
        live.Store(store.file.parent).status()  # readable after each
    assert n_working == 50, "the child must not have run out of work"

    store = live.Store(store.file.parent)
    kept = store.feedback()
    keys = [(a["customer"], a["date"]) for a in kept]
    assert len(set(keys)) == len(keys)
    promised = [int(k) for k in acknowledged.read_text().split()]
    assert len(promised) > 50
    assert all(told[k] in kept for k in promised)
    store.learn()
    state = store.state()
    assert not state.waiting
    with live._transaction(store.file, write=False) as db:
        batches = [batch for (batch,) in db.execute("select batch from feedback order by id")]
    turns = sorted(set(batches))
    assert batches == sorted(batches) and len(turns) > 3  # each had its turn once, in order

    again = live.Store(untouched)
    for turn in turns:
        own = [answer for answer, batch in zip(kept, batches, strict=True) if batch == turn]
        assert again.add_feedback(*own) == len(own)
        again.learn()
    assert again.state().answers == state.answers
    np.testing.assert_array_equal(vector(again), vector(store))


def work(folder: Path, told: list[dict[str, Any]], acknowledged: Path) -> None:
    """Take one answer after the other, acknowledge it, and learn now and then, until killed."""
    store = live.Store(folder)
    done = len(acknowledged.read_text().split())
    with acknowledged.open("a") as file:
        for k in range(done, len(told)):
            store.add_feedback(told[k])
            file.write(f"{k}\n")
            file.flush()
            if k % 5 == 4:
                store.learn()
