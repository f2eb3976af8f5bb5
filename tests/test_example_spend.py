"""What customers spend: expected on average, with an interval that holds what it says, beside simpler rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from examples.user_profile import __main__ as chart  # noqa: E402
from examples.user_profile import preprocess, spend, splits, targeting, train  # noqa: E402

from .test_example_orders import lines, text  # noqa: E402


def shop(n: int, seed: int) -> tuple[preprocess.Table, np.ndarray, np.ndarray]:
    """Return customers, what they spent, and its true mean: half spend nothing, the others by a gamma law."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: rng.normal(size=n) for name in ("a", "b", "noise")})
    frame["amount"] = rng.gamma(2, 50, n)
    frame["days_since_first"] = rng.integers(1, 300, n).astype(float)
    mean = 40 * np.exp(0.8 * frame["a"] - 0.5 * (frame["b"] > 0)).to_numpy()
    amount = np.where(rng.random(n) < 0.5, 0, rng.gamma(2, mean, n))
    return (
        preprocess.Table("t", frame, (amount > 0).astype(int), dict.fromkeys(frame, "number"), "yes", ""),
        amount,
        mean,
    )


@pytest.fixture(scope="module")
def trained() -> tuple[Any, ...]:
    table, amount, mean = shop(6000, 0)
    fit, validate, test = splits.splits(table)[0]
    model = train.train(table, fit, validate, n_networks=1, n_epochs=3)
    return table, amount, mean, fit, validate, test, spend.train(table, amount, fit, validate, model, n_networks=2)


def test_what_is_spent_is_net_and_within_the_horizon() -> None:
    rows = [("a", 0, 9.0), ("a", 1, 5.0), ("a", 10, 7.0), ("a", 11, 99.0), ("b", 2, 4.0), ("b", 3, -6.0), ("c", 5, 1.0)]
    log = pd.DataFrame(rows, columns=["customer", "date", "amount"])
    log["date"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(log["date"], unit="D")
    found = spend.spent(log, pd.Index(["a", "b", "z"]), pd.Timestamp("2024-01-01"), pd.Timedelta(days=10))
    assert found.tolist() == [12.0, 0.0, 0.0]


def test_expectations_are_right_on_average_and_follow_the_truth(trained: tuple[Any, ...]) -> None:
    table, amount, mean, fit, _, test, found = trained
    expected = found.expected(table.frame.iloc[test])
    measured = spend.measure(amount[test], expected)
    assert 0.85 < measured["total"] < 1.15
    assert np.corrcoef(np.log(expected), np.log(mean[test]))[0, 1] > 0.9
    others = spend.others(table, amount, fit, test, 90)
    assert measured["rank"] > spend.measure(amount[test], others["simple_rule"])["rank"] + 0.1
    assert measured["error"] < spend.measure(amount[test], others["simple_rule"])["error"]
    for said, was, n in spend.calibration(amount[test], expected):
        assert n == len(test) / 10 and abs(said - was) < 0.5 * was + 5


def test_the_interval_holds_what_it_says(trained: tuple[Any, ...]) -> None:
    _, _, _, _, _, _, found = trained
    table, amount, _ = shop(4000, 7)  # others, of the same kind
    low, high = found.interval(found.expected(table.frame))
    assert (low <= high).all() and (low >= 0).all()
    inside = ((amount >= low) & (amount <= high)).mean()
    assert inside > spend.INSIDE - 0.03 and (amount > high).mean() < 0.13


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**8)), min_size=1, max_size=40))
def test_measures_of_anything(rows: list[tuple[int, int]]) -> None:
    amount, expected = np.array(rows).T / 100
    found = spend.measure(amount, expected)
    assert all(np.isfinite(value) for value in found.values()) and 0 <= found["top"] <= 1 + 1e-9
    same = spend.measure(amount, amount)
    assert same["error"] == 0 and same["total"] == pytest.approx(1 if amount.sum() else 0)
    bins = spend.calibration(amount, expected)
    assert sum(n for *_, n in bins) == len(rows) and [e for e, *_ in bins] == sorted(e for e, *_ in bins)


def test_one_who_outweighs_all_does_not_lift_the_others(trained: tuple[Any, ...]) -> None:
    table, amount, _, fit, validate, test, usual = trained
    heavy = amount.copy()
    heavy[fit[0]] = 1000 * amount.sum()
    model = train.train(table, fit, validate, n_networks=1, n_epochs=3)
    found = spend.train(table, heavy, fit, validate, model, n_networks=1, n_epochs=5)
    expected = found.expected(table.frame.iloc[test])
    low, high = found.interval(expected)
    assert ((low <= expected) & (expected <= high)).all()
    assert usual.expected(table.frame.iloc[test]).sum() < amount[test].sum() * 1.5


def test_a_shop_where_hardly_anybody_spends() -> None:
    table, _, _ = shop(400, 1)
    amount = np.zeros(400)
    fit, validate, test = splits.splits(table)[0]
    model = train.train(table, fit, validate, n_networks=1, n_epochs=2)
    found = spend.train(table, amount, fit, validate, model, n_networks=1, n_epochs=2)
    expected = found.expected(table.frame.iloc[test])
    assert np.isfinite(expected).all() and (np.array(found.interval(expected)) == 0).all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=25),
    cost=st.floats(0.1, 3),
    margin=st.floats(0.05, 1),
)
def test_acting_by_money_is_counted_in_money(rows: list[tuple[int, int]], cost: float, margin: float) -> None:
    amount, expected = np.array(rows, float).T
    business = targeting.Business(cost, 7.0, 0.25)
    found = targeting.outcome(margin * amount / 7, margin * expected / 7, business)
    acted = business.success * margin * expected >= cost
    near = np.isclose(business.success * margin * expected, cost)
    if not near.any():
        assert found.n_acted == acted.sum()
        assert found.gain == pytest.approx((business.success * margin * amount - cost)[acted].sum())
    assert found.gain_all == pytest.approx((business.success * margin * amount - cost).sum())


def test_a_shop_sees_what_to_expect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = lines(300, 200)
    text(frame).to_csv(tmp_path / "shop.csv", index=False)
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--fast", "--networks", "2"]
    assert (
        chart.main(["--log", str(tmp_path / "shop.csv"), *named, "--margin", "0.5", "--out", str(tmp_path / "out")])
        == 0
    )
    said = capsys.readouterr().out
    assert "money spent within" in said and "Targeting by money: acting on" in said
    now = pd.read_csv(tmp_path / "out" / "shop" / "now.csv", encoding="utf-8-sig")
    bought = frame.groupby(["Kundennummer", "Bestelldatum"])["Betrag"].sum()
    assert set(now["customer"]) == set(bought[bought >= 0].reset_index()["Kundennummer"])
    assert (now["gain"].diff().dropna() <= 0).all() and set(now["action"].dropna()) <= {"targeting", "churn warning"}
    assert now["probability"].between(0, 1).all() and (now["low"] <= now["high"]).all()
    assert set(now["segment"]) <= {"high value", "growing", "at risk", "low"}
    card = (tmp_path / "out" / "shop" / "model" / "model_card.md").read_text()
    assert "What customers spend within" in card
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "How much each will spend" in page and "50 % is earned" in page
    with pytest.raises(SystemExit):
        chart.main(["--margin", "1.5"])
    assert "--margin must be above 0" in capsys.readouterr().err


def test_one_who_outweighs_all_is_named_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = lines(200, 120)
    last = frame["Bestelldatum"].max() - pd.Timedelta(days=5)
    heavy = frame.loc[frame["Bestelldatum"] > last, "Kundennummer"].iloc[0]
    frame.loc[frame["Kundennummer"] == heavy, "Betrag"] = 90_000.0
    text(frame).to_csv(tmp_path / "shop.csv", index=False)
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--fast", "--networks", "1"]
    assert chart.main(["--log", str(tmp_path / "shop.csv"), *named, "--out", str(tmp_path / "out")]) == 0
    assert "warning: one customer spent" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "one customer spent" in page.partition("Before you believe")[2].partition("In short")[0]
    assert "one customer spent" in (tmp_path / "out" / "shop" / "model" / "model_card.md").read_text(encoding="utf-8")
