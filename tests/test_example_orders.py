"""Logs of orders as shops keep them: whatever the columns are called, with returns, articles, times, and wrong lines."""

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
from examples.user_profile import collect, live, orders  # noqa: E402
from examples.user_profile.columns import PreprocessError, Types  # noqa: E402

GERMAN = collect.Log("Kundennummer", "Bestelldatum", "Betrag", quantity="Menge", product="Artikel")


def lines(n: int = 260, days: int = 420, seed: int = 0) -> Any:
    """Return the lines of a made-up shop: 1 to 3 articles an order, at some hour, and now and then a return."""
    rng = np.random.default_rng(seed)
    rows = []
    for customer in range(n):
        t = start = rng.uniform(0, 0.7 * days)
        gap, alive = rng.gamma(1.5, 20) + 3, rng.exponential(200)
        while t < days and t - start < alive:
            for _ in range(rng.integers(1, 4)):
                pieces = int(rng.integers(1, 4))
                rows.append(
                    (round(t * 24), f"K{customer:04d}", f"A{rng.integers(50)}", pieces, pieces * rng.uniform(3, 30))
                )
            if rng.random() < 0.1:
                rows.append((round(t * 24) + 60, f"K{customer:04d}", rows[-1][2], -1, -rows[-1][4] / rows[-1][3]))
            t += rng.exponential(gap)
    frame = pd.DataFrame(rows, columns=["hour", "Kundennummer", "Artikel", "Menge", "Betrag"])
    frame["Bestelldatum"] = pd.Timestamp("2023-01-01") + pd.to_timedelta(frame.pop("hour"), unit="h")
    return frame.sort_values("Bestelldatum", kind="stable", ignore_index=True)


def text(frame: Any, date: str = "%d.%m.%Y %H:%M") -> Any:
    """Return the lines as a German spreadsheet writes them."""
    money = frame["Betrag"].map(lambda v: f"{v:,.2f} €".replace(",", "X").replace(".", ",").replace("X", "."))
    return frame.assign(
        Bestelldatum=frame["Bestelldatum"].dt.strftime(date), Betrag=money, Menge=frame["Menge"].astype(str)
    )


def read(frame: Any, log: collect.Log = GERMAN, **types: Any) -> tuple[Any, list[str]]:
    found, _, notes = orders.clean_log(collect.Raw("t", frame, "buys_again", "yes", "", log=log), Types(**types))
    return found, notes


def test_lines_become_orders_and_returns() -> None:
    frame = lines()
    found, notes = read(text(frame))
    by = frame.assign(Betrag=frame["Betrag"].round(2)).groupby(["Bestelldatum", "Kundennummer"])
    assert len(found) == by.ngroups < len(frame)
    assert found["amount"].sum() == pytest.approx(frame["Betrag"].round(2).sum())
    assert found["quantity"].sum() == frame["Menge"].sum()
    assert found["products"].sum() == by["Artikel"].nunique().sum()
    assert (found["date"].dt.normalize() == found["date"]).all() and found["date"].is_monotonic_increasing
    n_returns = int((by["Betrag"].sum() < 0).sum())
    assert n_returns > 20 and found["returned"].gt(0).sum() == n_returns
    assert f"{n_returns:,} returns: no purchases, and their money is taken off" in notes


def slow_customers(log: Any, cutoff: Any, horizon: int) -> Any:
    """Return what ``orders.customers`` should, customer by customer."""
    rows = {}
    for customer, own in log.groupby("customer"):
        past = own[own["date"] <= cutoff]
        bought = past[past["amount"] >= 0]
        if not len(bought):
            continue
        days = bought["date"].drop_duplicates()
        gaps = days.diff().dt.days.dropna()
        rows[customer] = {
            "days_since_last": (cutoff - days.iloc[-1]).days,
            "days_since_first": (cutoff - days.iloc[0]).days,
            "purchases": len(bought),
            "days_with_purchase": len(days),
            **{name: past[name].sum() for name in orders.MORE if name in log},
            "amount": past["amount"].sum(),
            "amount_mean": past["amount"][past["amount"] >= 0].mean(),
            "amount_max": bought["amount"].max(),
            "amount_last": bought["amount"].iloc[-1],
            "gap_mean": gaps.mean() if len(gaps) else np.nan,
            "gap_max": gaps.max() if len(gaps) else np.nan,
            "gap_last": gaps.iloc[-1] if len(gaps) else np.nan,
        }
        for window in orders.WINDOWS:
            recent = past[past["date"] > cutoff - pd.Timedelta(days=window)]
            rows[customer][f"purchases_{window}_days"] = (recent["amount"] >= 0).sum()
            rows[customer][f"amount_{window}_days"] = recent["amount"].sum()
        later = own[
            (own["date"] > cutoff) & (own["date"] <= cutoff + pd.Timedelta(days=horizon)) & (own["amount"] >= 0)
        ]
        rows[customer]["y"] = int(len(later) > 0)
    return pd.DataFrame.from_dict(rows, orient="index")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 400), st.integers(-300, 900).map(lambda cents: cents / 100)),
        max_size=40,
    ),
    cutoff=st.integers(0, 400),
    horizon=st.integers(1, 90),
)
def test_customers_are_described_as_one_by_one(rows: list[tuple[int, int, float]], cutoff: int, horizon: int) -> None:
    log = pd.DataFrame(sorted(rows, key=lambda row: row[1]), columns=["customer", "date", "amount"])
    log["customer"] = "c" + log["customer"].astype(str)
    log["date"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(log["date"].astype(int), unit="D")
    log["amount"] = log["amount"].astype(float)
    log["returned"] = np.maximum(-log["amount"], 0)
    day = pd.Timestamp("2024-01-01") + pd.Timedelta(days=cutoff)
    frame, y = orders.customers(log, day, pd.Timedelta(days=horizon))
    expected = slow_customers(log, day, horizon)
    if not len(expected):
        assert not len(frame) and not len(y)
        return
    np.testing.assert_array_equal(y, expected.pop("y"))
    assert frame.index.tolist() == expected.index.tolist() and frame.columns.tolist() == expected.columns.tolist()
    np.testing.assert_allclose(frame, expected.astype(float), rtol=1e-12, atol=1e-12)


def wrong(frame: Any, column: str, value: str, every: int = 50) -> Any:
    frame = frame.copy()
    frame.loc[::every, column] = value
    return frame


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: wrong(f, "Kundennummer", ""), "lines without a customer are left out"),
        (lambda f: wrong(f, "Kundennummer", "NULL"), "lines without a customer are left out"),
        (lambda f: wrong(f, "Bestelldatum", "soon"), "lines without a date in 'Bestelldatum' are left out"),
        (lambda f: pd.concat([f, f]), "lines are exact copies of others, and are counted"),
        (lambda f: wrong(f, "Bestelldatum", "01.01.1900 00:00", 25), "far from all others in time, such as 1900-01-01"),
        (lambda f: wrong(f, "Kundennummer", "", 40), "such as '', '"),
        (lambda f: wrong(f, "Betrag", "-"), "lines without an amount in 'Betrag' are left out"),
        (
            lambda f: wrong(f, "Bestelldatum", "03.02.2032 10:00", 900),
            "far from all others in time, such as 2032-02-03",
        ),
        (
            lambda f: wrong(f, "Bestelldatum", "01.01.1990 00:00", 900),
            "far from all others in time, such as 1990-01-01",
        ),
        (lambda f: f[~f["Bestelldatum"].str.contains(r"\.0[3-7]\.2023")], "there is no order between 2023-02-28"),
        (lambda f: pd.concat([f, f.iloc[:40]]), "those of one customer at one time are one"),
    ],
)
def test_lines_that_are_wrong_are_left_out_and_said(change: Any, says: str) -> None:
    found, notes = read(change(text(lines())))
    assert any(says in note for note in notes), notes
    assert found["amount"].notna().all() and (found["customer"] != "").all()
    assert found["date"].between("2022-12-31", "2024-12-31").all()


@pytest.mark.parametrize(
    "date", ["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%b-%y", "%Y%m%d", "%Y-%m-%dT%H:%M:%SZ", "%m/%d/%Y %I:%M %p", "%s"]
)
def test_dates_as_shops_write_them(date: str) -> None:
    frame = lines()
    found, _ = read(text(frame, date))
    day = frame["Bestelldatum"].dt.normalize()
    assert (found["date"].min(), found["date"].max()) == (day.min(), day.max())
    moments = frame["Bestelldatum"] if any(c in date for c in "HIs") else day
    assert len(found) == pd.DataFrame({"c": frame["Kundennummer"], "m": moments}).drop_duplicates().shape[0]


def test_numbers_as_shops_write_them() -> None:
    frame = lines()
    frame["Betrag"] = frame["Betrag"].round(2)
    plain = frame.assign(Bestelldatum=frame["Bestelldatum"].dt.strftime("%Y-%m-%d"), Menge=frame["Menge"].astype(str))
    expected, _ = read(plain.assign(Betrag=frame["Betrag"].astype(str)))
    for way in ("${:,.2f}", "{:.2f} USD", "{:,.2f}"):
        pd.testing.assert_frame_equal(read(plain.assign(Betrag=frame["Betrag"].map(way.format)))[0], expected)
    brackets = frame["Betrag"].map(lambda v: f"({-v:.2f})" if v < 0 else f"{v:.2f}")
    pd.testing.assert_frame_equal(read(plain.assign(Betrag=brackets))[0], expected)
    comma = frame["Betrag"].map(lambda v: f"{v:.2f}".replace(".", ","))
    pd.testing.assert_frame_equal(read(plain.assign(Betrag=comma))[0], expected)


def test_a_price_times_a_quantity_and_names_with_a_point() -> None:
    frame = lines()
    priced = text(frame).assign(
        Betrag=(frame["Betrag"] / frame["Menge"]).round(4).map("{:.4f}".format),
        Kundennummer=frame["Kundennummer"].str[1:].astype(float).astype(str),
    )
    log = collect.Log("Kundennummer", "Bestelldatum", price="Betrag", quantity="Menge")
    found, _ = read(priced, log)
    assert found["amount"].sum() == pytest.approx(frame["Betrag"].sum(), rel=1e-4) and "products" not in found
    assert set(found["customer"]) == set(frame["Kundennummer"].str[1:].astype(int).astype(str))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Bestelldatum": "later"}, "'Bestelldatum' holds no dates of days, but 'later'"),
        ({"Bestelldatum": ""}, "'Bestelldatum' holds no dates of days, but nothing"),
        ({"Betrag": "much"}, "'Betrag' holds no numbers, but 'much'"),
        ({"Menge": "some"}, "'Menge' holds no numbers, but 'some'"),
        ({"Kundennummer": ""}, "only 0 of"),
    ],
)
def test_columns_that_are_not_what_they_are_said_to_be(change: dict[str, str], says: str) -> None:
    with pytest.raises(PreprocessError, match=says):
        read(text(lines(60)).assign(**change))


def log_of(days: int, n: int = 260) -> Any:
    return read(text(lines(n, days)))[0]


@pytest.mark.parametrize(
    ("days", "n", "asked", "says"),
    [
        (12, 260, {}, "too short to learn from the past what follows; 28 days are needed"),
        (420, 8, {}, "10 of each are needed"),
        (420, 260, {"cutoff": "2022-01-01"}, "the cut-off must lie within"),
        (420, 260, {"cutoff": "2025-01-01"}, "the cut-off must lie within"),
        (420, 260, {"horizon": 5000}, "nothing is left to describe the customers by"),
        (420, 260, {"cutoff": "2023-12-31", "horizon": 90}, "are not over when the log ends"),
        (420, 260, {"cutoff": "2023-01-01"}, "10 of each are needed"),
    ],
)
def test_too_little_to_learn_from_is_said(days: int, n: int, asked: dict[str, Any], says: str) -> None:
    log = log_of(days, n)
    with pytest.raises(PreprocessError, match=says):
        orders.question(log, collect.Log("c", "d", "a", **asked))


def test_what_is_asked_is_chosen_from_the_log() -> None:
    log = log_of(420)
    last = log["date"].max()
    found = orders.question(log, collect.Log("c", "d", "a"))
    assert found.horizon.days in orders.HORIZONS and found.cutoff == last - found.horizon
    assert any("chosen" in note for note in found.notes) and found.launch in orders.month_ends(log)
    _, y = orders.customers(log, found.cutoff, found.horizon)
    shorter = [days for days in orders.HORIZONS if days < found.horizon.days]
    assert y.mean() >= orders.ENOUGH
    for days in shorter:
        assert orders.customers(log, last - pd.Timedelta(days=days), pd.Timedelta(days=days))[1].mean() < orders.ENOUGH
    one = orders.question(log, collect.Log("c", "d", "a", cutoff="2023-10-01"))
    assert one.horizon == last - pd.Timestamp("2023-10-01")
    assert [note.partition(" ")[2] for note in one.notes] == [
        "customers had not bought by the cut-off: what follows is not about them"
    ]
    two = orders.question(log, collect.Log("c", "d", "a", horizon=45))
    assert two.cutoff == last - pd.Timedelta(days=45)
    short = orders.question(log_of(100), collect.Log("c", "d", "a"))
    assert short.launch is None and "no months and no live model" in short.notes[-1]


def test_a_shops_log_gets_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small run: all that CDNOW gets, from a file with other names; then the live model takes a file of later orders."""
    frame = lines(400, 560)
    late = frame["Bestelldatum"] >= frame["Bestelldatum"].max().normalize() - pd.Timedelta(days=20)
    text(frame[~late]).to_csv(tmp_path / "shop.csv", sep=";", index=False, encoding="utf-16")
    text(frame[late]).to_csv(tmp_path / "later.csv", sep=";", index=False)
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--quantity", "Menge"]
    arguments = [
        "--log",
        str(tmp_path / "shop.csv"),
        *named,
        "--product",
        "Artikel",
        "--fast",
        "--out",
        str(tmp_path / "out"),
    ]
    assert chart.main(arguments) == 0
    said = capsys.readouterr().out
    for words in (
        "returns: no purchases",
        "chosen",
        "cut-off",
        "Targeting:",
        "Churn warning:",
        "month by month",
        "live: 200 answers",
    ):
        assert words in said
    folder = tmp_path / "out" / "shop"
    people = pd.read_csv(folder / "profiles.csv", dtype=str, encoding="utf-8-sig")
    assert people["customer"].str.fullmatch(r"K\d{4}").all() and {"segment", "action", "reason_3"} <= set(people)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "who buys again within" in page and "1997" not in page and "K0001" not in page
    short = page.partition("In short")[2].partition("What to do")[0]
    assert "returns: no purchases, and their money is taken off" in short and "chosen" in short
    store = live.Store(folder / "live")
    before = store.status()
    assert live.main([str(folder / "live"), "--purchases", str(tmp_path / "later.csv")]) == 0
    after = store.status()
    assert after["purchases"] > before["purchases"] and after["to"] > before["to"]
    assert live.main([str(folder / "live"), "--purchases", str(tmp_path / "later.csv")]) == 2
    assert "must be dated after" in capsys.readouterr().err and store.status() == after


def test_a_shop_that_is_closed_at_the_months_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No orders in the last days of months: all outputs come, and the live model knows everybody, and no answer yet."""
    frame = lines(300, 330)
    frame = frame[frame["Bestelldatum"].dt.day <= 26]
    text(frame).to_csv(tmp_path / "shop.csv", index=False)
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--networks", "1", "--fast"]
    assert chart.main(["--log", str(tmp_path / "shop.csv"), *named, "--out", str(tmp_path / "out")]) == 0
    assert "(a rehearsal)" in capsys.readouterr().out
    status = live.Store(tmp_path / "out" / "shop" / "live").status()
    found, _ = read(text(frame))
    assert status["customers"] == found["customer"].nunique() and status["purchases"] == len(found)
    assert status["feedback"] == 0 and status["version"] == 1 and status["versions of someone forgotten"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--log", "x.csv", "--customer", "c", "--date", "d", "--amount", "c"], "one column cannot be two things: c"),
        (
            ["--log", "x.csv", "--customer", "c", "--date", "d", "--amount", "a", "--horizon", "10000000"],
            "number of days",
        ),
        (["--log", "x.csv"], "--log needs --customer COLUMN, --date"),
        (["--log", "x.csv", "--customer", "c", "--date", "d"], "--log needs --amount COLUMN"),
        (["--log", "x.csv", "--customer", "c", "--date", "d", "--price", "p"], "--price COLUMN and --quantity COLUMN"),
        (["--log", "x.csv", "--customer", "c", "--date", "d", "--amount", "a", "--group", "g"], "--group is for --csv"),
        (
            ["--log", "x.csv", "--customer", "c", "--date", "d", "--amount", "a", "--cutoff", "1.2.24"],
            "written as 2024-06-30",
        ),
        (["--log", "x.csv", "--customer", "c", "--date", "d", "--amount", "a", "--horizon", "-3"], "number of days"),
        (["--customer", "c"], "--customer: of a log, which --log names"),
        (["--log", "x.csv", "--csv", "y.csv", "--target", "t"], "one of them"),
    ],
)
def test_arguments_that_do_not_fit(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        chart.main(arguments)
    assert says in capsys.readouterr().err


def test_errors_of_a_log_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text(lines(60, 12)).to_csv(tmp_path / "short.csv", index=False)
    out = tmp_path / "out"
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--out", str(out)]
    assert chart.main(["--log", str(tmp_path / "short.csv"), *named]) == 2
    assert "error: the log goes from 2023-01-0" in capsys.readouterr().err and not list(out.iterdir())
    assert chart.main(["--log", str(tmp_path / "short.csv"), *named[:-4], "--amount", "betrag", "--out", str(out)]) == 2
    assert "did you mean 'Betrag'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_complete_journey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    assert chart.main(["--data", "journey", "--fast", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for words in ("1,469,307 lines are 155,764 orders", "Churn warning:", "month by month", "live: 200 answers"):
        assert words in said
    assert live.Store(tmp_path / "journey" / "live").status()["customers"] == 2469
