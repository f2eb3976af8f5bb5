"""Recommendations: candidates by exact methods, a network on pairs, rankings that cannot flatter, one file for all of it."""

from __future__ import annotations

import csv
import itertools
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from examples.recommendation import __main__ as chart  # noqa: E402
from examples.recommendation import (  # noqa: E402
    candidates,
    classify,
    collect,
    diversity,
    evaluate,
    pairs,
    reasons,
    recommend,
    texts,
    train,
    visits,
)
from examples.recommendation.events import Events  # noqa: E402
from examples.recommendation.recommend import RecommendationError, Recommender  # noqa: E402
from examples.user_profile.columns import Types  # noqa: E402

from .test_example_orders import GERMAN, lines, text  # noqa: E402

FIRST = pd.Timestamp("2024-01-01")
N_ITEMS = 240


def purchases(n: int = 150, days: int = 260, n_items: int = N_ITEMS, seed: int = 0) -> Any:
    """Return made-up customers of two tastes, each with favourites that are bought again and again."""
    rng = np.random.default_rng(seed)
    rows = []
    for customer in range(n):
        taste = customer % 2
        own = rng.choice(n_items // 2, 6, replace=False) * 2 + taste
        for day in np.flatnonzero(rng.random(days) < rng.uniform(0.05, 0.25)):
            basket = set(rng.choice(own, 3)) | {int(rng.integers(n_items // 2)) * 2 + taste}
            rows += [(f"c{customer:03}", f"item {item:02}", int(day)) for item in basket]
    frame = pd.DataFrame(rows, columns=["customer", "item", "date"])
    frame["date"] = FIRST + pd.to_timedelta(frame["date"], unit="D")
    return frame.assign(amount=1.0 + rng.random(len(frame)))


TEXTS = {
    f"item {item:02}": f"{('soft', 'hard')[item % 2]} thing, kind {item}" for item in range(N_ITEMS + 4)
}  # four never bought


def quick(events: Events, day: int) -> Recommender:
    """Return a recommender of one network, trained a little."""
    ranker = train.train(events.common(), day, n_networks=1, n_epochs=3)
    return Recommender(*recommend._learned(events.before(day), TEXTS, day, 20), ranker)


@pytest.fixture(scope="module")
def events() -> Events:
    return Events.of(purchases())


@pytest.fixture(scope="module")
def shop(events: Events) -> Recommender:
    return quick(events, 230)


def names(shop: Recommender, n: int = 40) -> list[str]:
    return [str(name) for name in shop.log.customers[:n]]


def bought(shop: Recommender, name: str) -> set[str]:
    log = shop.log
    return {str(item) for item in log.items[log.item[log.customers[log.customer] == name]]}


# What is known.


def test_events_are_distinct_and_sorted() -> None:
    one = purchases(30)
    found, again = Events.of(one), Events.of(pd.concat([one, one.sample(frac=0.5, random_state=0)]).sample(frac=1))
    for name in ("customer", "item", "day"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert (np.lexsort((found.day, found.item, found.customer)) == np.arange(len(found))).all()
    counts = one[["customer", "item", "date"]].drop_duplicates()["item"].value_counts()
    assert set(found.common(30).items) == set(counts.index[counts >= 30]) < set(found.items)
    with pytest.raises(ValueError, match="no item was bought on 100000 days"):
        found.common(100_000)
    pd.testing.assert_frame_equal(Events.of(found.frame()).frame(), found.frame())
    numbers = Events.of(one.assign(customer=one["customer"].str[1:].astype(int)))
    assert len(numbers) == len(found) and set(numbers.customers) == {str(int(name[1:])) for name in found.customers}


@pytest.mark.parametrize("column", ["customer", "item", "date"])
def test_purchases_with_something_missing_are_refused(column: str) -> None:
    frame = purchases(5)
    frame.loc[frame.index[3], column] = None
    with pytest.raises(ValueError, match="some have no customer, no item or no date"):
        Events.of(frame)
    with pytest.raises(ValueError, match="of 0 purchases"):
        Events.of(frame[:0])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 60)), min_size=1, max_size=40),
    day=st.integers(1, 60),
)
def test_features_are_what_they_are_called(rows: list[tuple[int, int, int]], day: int) -> None:
    """Whoever bought nothing before the day, an item that nobody bought, one trip alone: all of it, pair by pair."""
    frame = pd.DataFrame(rows, columns=["customer", "item", "day"])
    found = Events.of(frame.assign(date=FIRST + pd.to_timedelta(frame["day"], unit="D")))
    day = max(day - int(frame["day"].min()), 0)
    described = pairs.Pairs.of(found, day)
    n_customers, n_items = found.shape
    block = described.block(np.arange(n_customers))
    row, item = np.divmod(np.arange(n_customers * n_items), n_items)
    wide = described.features(block, row, item)
    assert wide.shape == (len(row), len(pairs.NAMES)) and np.isfinite(wide).all() and wide.dtype == np.float32
    for one, r, i in zip(wide, row, item, strict=True):
        own = (found.customer == r) & (found.day < day)
        days, trips = found.day[own & (found.item == i)], np.unique(found.day[own])
        value = dict(zip(pairs.NAMES, one, strict=True))
        expected = {"bought": len(days) > 0, "times": np.log1p(len(days)), "trips": np.log1p(len(trips))}
        if len(days):
            expected |= {"days since last": np.log1p(day - days.max()), "days since first": np.log1p(day - days.min())}
            expected |= {"in the last trip": days.max() == trips.max(), "share of trips": len(days) / len(trips)}
            expected["times, half-life 20 days"] = np.log1p((0.5 ** ((day - days) / 20)).sum())
            expected["items a trip"] = np.log1p(own.sum() / len(trips))
        if len(days) > 1:
            gap = (days.max() - days.min()) / (len(days) - 1)
            expected |= {"mean gap": np.log1p(gap), "overdue": np.log1p((day - days.max()) / max(gap, 1))}
        expected["popularity"] = np.log1p(((found.item == i) & (found.day < day)).sum())
        for name, wanted in expected.items():
            assert value[name] == pytest.approx(float(wanted), rel=1e-5), name


def test_what_is_known_is_of_the_time_before() -> None:
    day, frame = 150, purchases(60)
    later = frame["date"] >= FIRST + pd.Timedelta(days=day)
    changed = frame.copy()
    changed.loc[later, "item"] = np.random.default_rng(0).permutation(frame.loc[later, "item"])
    rows = np.arange(20)
    one, other = (pairs.Pairs.of(Events.of(f), day) for f in (frame, changed))
    row, item = np.divmod(np.arange(20 * one.history.shape[1]), one.history.shape[1])
    np.testing.assert_array_equal(*(p.features(p.block(rows), row, item) for p in (one, other)))
    nets = [
        train.train(Events.of(f), day, n_networks=1, n_epochs=1).nets["new"].params.vector for f in (frame, changed)
    ]
    np.testing.assert_array_equal(*nets)


# Candidates.


def test_ease_is_the_minimum_with_a_zero_diagonal(events: Events) -> None:
    x = candidates.interactions(events, "log")
    found = candidates.ease(x, 5.0).astype(float)
    assert (np.diag(found) == 0).all()
    dense = x.toarray().astype(float)
    gradient = dense.T @ (dense @ found - dense) + 5.0 * found
    np.fill_diagonal(gradient, 0)  # a multiplier holds the diagonal
    assert np.abs(gradient).max() < 1e-3 * np.abs(dense.T @ dense).max()
    with pytest.raises(ValueError, match="use item_knn"):
        candidates.ease(candidates.csr_array((2, candidates.MOST_ITEMS + 1)), 1.0)


@pytest.mark.parametrize("some", [7, 1000])
def test_item_knn_is_the_cosine(events: Events, some: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "SOME", some)
    x = candidates.interactions(events, "log")
    unit = x.toarray() / np.maximum(np.linalg.norm(x.toarray(), axis=0), 1e-12)
    cosine = unit.T @ unit
    np.fill_diagonal(cosine, 0)
    found = candidates.item_knn(x, 5).toarray()
    for item in range(len(cosine)):
        np.testing.assert_allclose(np.sort(found[:, item])[-5:], np.sort(cosine[item])[-5:], atol=1e-6)
        assert (found[:, item] > 0).sum() == 5


def test_least_squares_factors_are_those_of_the_equations(events: Events) -> None:
    x = candidates.interactions(events, "log")[:20]
    factors = np.random.default_rng(0).normal(size=(x.shape[1], 8)).astype(np.float32)
    found = candidates.fold_in(x, factors)
    for u, row in zip(found, x.toarray(), strict=True):
        confidence = np.where(row > 0, row, 1.0)
        left = (factors.T * confidence) @ factors + candidates.RIDGE * np.eye(8)
        np.testing.assert_allclose(u, np.linalg.solve(left, factors.T @ row), rtol=1e-3, atol=1e-5)
    pytest.importorskip("implicit")
    found = candidates.least_squares(candidates.interactions(events, "log"))
    assert found is not None and found.shape == (x.shape[1], candidates.FACTORS) and np.isfinite(found).all()


def test_the_best_of_each_method_are_candidates(shop: Recommender) -> None:
    block = shop.pairs(np.arange(30)).block(np.arange(30))
    able = ~block.bought
    lately = shop.learned.items[:, 1]
    chosen = candidates.choose(block.others, lately, able, 3)
    assert not (chosen & ~able).any() and (chosen.sum(axis=1) <= 9).all()
    for scores in (*block.others, np.broadcast_to(lately, able.shape)):
        left = np.where(able, scores, -np.inf)
        third = np.sort(left, axis=1)[:, -3]
        assert (chosen | ~(left > third[:, None])).all()
    assert (candidates.choose(block.others, lately, able, 1000) == able).all()


# Rankings.


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=6),
    bits=st.integers(0, 63),
    top=st.integers(1, 7),
)
def test_ties_count_by_expectation(scores: list[float], bits: int, top: int) -> None:
    """Every order of items of equal score is as likely: the mean over all of them is the value."""
    s = np.array(scores)
    relevant = np.array([bool(bits >> k & 1) for k in range(len(s))])
    found = evaluate.rank(s[None], relevant[None], top)
    if not relevant.any():
        assert all(np.isnan(v[0]) for v in found.values.values())
        return
    values: dict[str, list[float]] = {name: [] for name in evaluate.METRICS}
    for order in itertools.permutations(range(len(s))):
        if any(s[a] < s[b] for a, b in itertools.pairwise(order)):
            continue
        hits = relevant[list(order)]
        gains = hits[:top] / np.log2(np.arange(2, 2 + len(hits[:top])))
        n = int(relevant.sum())
        values["ndcg"].append(gains.sum() / (1 / np.log2(np.arange(2, 2 + min(n, top, len(s))))).sum())
        values["recall"].append(hits[:top].sum() / n)
        values["f1"].append(2 * hits[:top].sum() / (min(top, len(s)) + n))
        values["mrr"].append(1 / (1 + int(np.argmax(hits))))
    for name, each in values.items():
        assert found.values[name][0] == pytest.approx(np.mean(each), abs=1e-12), name


def test_the_network_ranks_and_its_outputs_are_probabilities(events: Events, shop: Recommender) -> None:
    answers, known = train.Answers.of(events.common(), 230), pairs.Pairs.of(events.common(), 230)
    block = known.block(answers.rows)
    assert len(answers.rows) > 50
    for task in train.TASKS:
        y = answers.of_block(task, answers.rows, block.bought)
        assert task == "next" or not (y & block.bought).any()
        z = evaluate.network(shop.ranker, task, known, block)
        own = evaluate.rank(z, y)
        popular = candidates.popularity(known.history, 230)
        other = evaluate.rank(np.where(block.bought & (task == "new"), -np.inf, popular), y)
        mean, error = evaluate.difference(own.values["ndcg"], other.values["ndcg"])
        assert mean > 2 * error and own.coverage() > 10
        ranked = z > -1e5
        p = 1 / (1 + np.exp(-z[ranked]))
        assert 0.6 < p.sum() / y[ranked].sum() < 1.6
        order = np.argsort(p)
        assert y[ranked][order[-len(p) // 5 :]].mean() > 2 * y[ranked][order[: len(p) // 5]].mean()


def test_everything_is_measured(events: Events) -> None:
    found = evaluate.measure(events, [200, 230], (0, 1), n_networks=1)
    for task in train.TASKS:
        names = found.methods(task)
        assert names[0] == evaluate.NETWORK and found.rival(task) == names[1]
        assert {len(found.rankings[task, name]) for name in names} == {2}
        assert len(found.rankings[task, evaluate.NETWORK][0]) == 2  # seeds
        mean, error = found.gain(task, "popularity")
        both = [found.mean(task, name, "ndcg") for name in (evaluate.NETWORK, "popularity")]
        assert mean > 2 * error and mean == pytest.approx(both[0] - both[1], abs=0.02)
        n = found.counts[task]
        assert n[:, 0].sum() > 1000 and (n[:, 2] <= n[:, 0]).all()
        assert set(found.methods(task + evaluate.ONE_TRIP)) == set(names)
    alike = [np.mean(values) for values in found.alike.values()]
    assert alike[-1] < alike[0]
    cold = evaluate.hidden(events, TEXTS, 200)
    mean = {name: np.mean(draws) for name, draws in cold.items()}
    assert mean["others' purchases of items with like texts"] > 0.05 + mean["at random"]


# What users of recommenders ask for.


def test_recommendations_and_lists(shop: Recommender) -> None:
    found = shop.recommend(names(shop), 5)
    for name, row in zip(names(shop), found, strict=True):
        assert len(row) == 5 and not bought(shop, name) & {item.name for item in row}
        assert [item.probability for item in row] == sorted((item.probability for item in row), reverse=True)
        assert all(0 < item.probability < 1 for item in row)
    again = shop.recommend(names(shop), 5, task="next")
    assert any(bought(shop, name) & {item.name for item in row} for name, row in zip(names(shop), again, strict=True))
    some = [str(item) for item in shop.items[:8]]
    for row in shop.recommend(names(shop), 5, task="next", allow=some, block=some[:2]):
        assert {item.name for item in row} <= set(some[2:])
    assert shop.recommend(names(shop, 1), 5, allow=[]) == [[]]
    unbought = shop.recommend(names(shop, 1), 50, task="next", exclude_bought=True)[0]
    assert not bought(shop, names(shop)[0]) & {item.name for item in unbought}
    together, apart = shop.recommend(names(shop), 3), [shop.recommend([name], 3)[0] for name in names(shop)]
    for one, other in zip(together, apart, strict=True):
        assert [item.name for item in one] == [item.name for item in other]
        np.testing.assert_allclose([i.probability for i in one], [i.probability for i in other], rtol=1e-4)
    assert shop.recommend([], 3) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda shop: shop.recommend(["nobody"]), "for those never seen there is for_items"),
        (lambda shop: shop.recommend("c001"), "a list of names; got 'c001'"),
        (lambda shop: shop.recommend(["c001"], task="best"), r"task must be one of \('next', 'new'\)"),
        (lambda shop: shop.recommend(["c001"], 0), "k must be an integer of at least 1"),
        (lambda shop: shop.recommend(["c001"], diversity=1.0), "diversity must be a number at least 0 and below 1"),
        (
            lambda shop: shop.recommend(["c001"], diversity=float("nan")),
            "diversity must be a number at least 0 and below 1",
        ),
        (lambda shop: shop.recommend(["c001"], allow=["nothing"]), r"items \['nothing'\] are not known"),
        (lambda shop: shop.recommend(["c001"], 2.5), "k must be an integer"),
        (lambda shop: shop.recommend(["c001"], exclude_bought="no"), "exclude_bought must be True or False"),
        (lambda shop: shop.recommend(["c01"]), r"did you mean 'c"),
        (lambda shop: shop.why("item 01", customer="c001", bought=["item 02"]), "and not both"),
        (lambda shop: shop.why("item 01", task="later"), "task must be one of"),
        (lambda shop: shop.why(next(iter(bought(shop, "c001"))), customer="c001"), "so it is not new"),
        (lambda shop: shop.recommend(["c001"], block="item 01"), "a list of names; got 'item 01'"),
        (lambda shop: shop.for_items(["nothing"]), "are not known"),
        (lambda shop: shop.for_items("item 01"), "a list of names"),
        (lambda shop: shop.why("item 01", customer="nobody"), "are not known"),
        (lambda shop: list(shop.everyone(task="all")), "task must be one of"),
    ],
)
def test_wrong_wishes(shop: Recommender, wrong: Any, says: str) -> None:
    with pytest.raises(RecommendationError, match=says):
        wrong(shop)


def test_for_a_customer_never_seen(shop: Recommender) -> None:
    even = [str(item) for item in shop.items[:N_ITEMS] if int(item[-2:]) % 2 == 0]
    odd = [str(item) for item in shop.items[:N_ITEMS] if item not in even]
    shares = []
    for basket in (even[:4], odd[:4]):
        found = [item.name for item in shop.for_items(basket, 8)]
        assert not set(basket) & set(found) and found == [item.name for item in shop.for_items(basket[::-1], 8)]
        shares.append(np.mean([item in even for item in found]))
    assert shares[0] > shares[1] + 0.3  # of the same taste
    assert len(shop.for_items([], 3)) == 3
    assert {item.name for item in shop.for_items(even[:4], 4, task="next")} & set(even)


def test_everyone_one_after_the_other(shop: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend, "CHUNK", 16)
    found = dict(shop.everyone(4, task="next"))
    assert list(found) == shop.log.customers.tolist()
    for name, row in zip(names(shop), shop.recommend(names(shop), 4, task="next"), strict=True):
        assert [item.name for item in found[name]] == [item.name for item in row]


def test_memory_does_not_grow_with_customers(shop: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommend, "CHUNK", 64)
    peaks = []
    for times in (1, 8):
        log, n = shop.log, len(shop.log.customers)
        many = np.array([f"{k} {name}" for k in range(times) for name in log.customers], object)
        customer = np.concatenate([log.customer + k * n for k in range(times)])
        wide = Events(many, log.items, customer, np.tile(log.item, times), np.tile(log.day, times), log.first)
        larger = Recommender(wide, shop.texts, shop.day, shop.items, shop.learned, shop.ranker)
        assert larger.history is not None  # is the log, and grows with it
        next(iter(larger.everyone()))
        tracemalloc.start()
        assert sum(1 for _ in larger.everyone()) == times * n
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 300_000


@pytest.mark.parametrize("task", train.TASKS)
def test_reasons_add_up(shop: Recommender, task: str) -> None:
    for name in names(shop, 6):
        for item in shop.recommend([name], 3, task=task)[0]:
            why = shop.why(item.name, customer=name, task=task)
            assert 1 / (1 + np.exp(-why.log_odds)) == pytest.approx(item.probability, rel=1e-4)
            total = why.base + sum(why.purchases.values()) + why.itself + why.popularity + why.trips
            assert total == pytest.approx(why.log_odds, abs=1e-9)
            assert set(why.purchases) <= bought(shop, name) - {item.name}
    seen = shop.why("item 04", bought=["item 02", "item 06"], task=task)
    assert set(seen.purchases) <= {"item 02", "item 06"} and seen.purchases


def test_contributions_of_purchases_sum_to_the_score(shop: Recommender) -> None:
    known = shop.pairs(np.arange(5))
    block = known.block(np.arange(5))
    for k, (x, weights) in enumerate(zip(known.known, known.learned.weights, strict=True)):
        for row, item in itertools.product(range(5), (0, 7, N_ITEMS + 1)):
            parts = reasons.contributions(x, weights, row, item)
            assert parts.sum() == pytest.approx(block.others[k][row, item], rel=1e-4, abs=1e-6)
            assert set(np.flatnonzero(parts)) <= set(np.flatnonzero(x[[row]].toarray()[0]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 8), wanted=st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_a_list_is_diversified_as_the_equation_says(seed: int, k: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    z = np.where(rng.random((2, 9)) < 0.2, -np.inf, rng.normal(size=(2, 9)))
    alike = np.triu(rng.random((9, 9)) * (rng.random((9, 9)) < 0.7), 1)
    alike += alike.T
    found = diversity.top(z, candidates.csr_array(alike), k, wanted)
    for row, items in zip(z, found, strict=True):
        p = np.where(np.isfinite(row), 1 / (1 + np.exp(-row)), 0)
        chosen: list[int] = []
        for item in items[: int(np.isfinite(row).sum())]:
            left = [i for i in range(9) if i not in chosen and np.isfinite(row[i])]
            value = {
                i: (1 - wanted) * p[i] / p.max() - wanted * max((alike[i, j] for j in chosen), default=0) for i in left
            }
            assert value[item] == pytest.approx(max(value.values()), abs=1e-12)
            chosen.append(item)


def test_diversity_is_a_wish(shop: Recommender) -> None:
    plain, moved = (shop.recommend(names(shop), 6, diversity=d) for d in (0.0, 0.7))
    place = {name: i for i, name in enumerate(shop.items)}
    tops = [np.array([[place[item.name] for item in row] for row in found]) for found in (plain, moved)]
    assert diversity.within(tops[1], shop.alike) < diversity.within(tops[0], shop.alike)
    assert all(one[0] == other[0] for one, other in zip(plain, moved, strict=True))  # nothing above it to be like


def test_an_update_is_as_if_all_had_been_there_at_once(events: Events, tmp_path: Path) -> None:
    frame, cut = purchases(), FIRST + pd.Timedelta(days=200)
    early, late = frame[frame["date"] <= cut], frame[frame["date"] > cut]
    late = pd.concat([late, late.assign(customer="new one", item="item new"), early[-50:]])  # some again
    before = quick(Events.of(early), 201)
    before.save(tmp_path / "shop.npz")
    found = Recommender.load(tmp_path / "shop.npz").update(late)
    whole = Events.of(pd.concat([early, late]))
    log, _, day, items, learned = recommend._learned(whole, TEXTS, whole.end, 20)
    assert found.day == day == whole.end and "item new" in found.items and "item new" not in before.items
    np.testing.assert_array_equal(found.items, items)
    for name in ("customers", "items", "customer", "item", "day"):
        np.testing.assert_array_equal(getattr(found.log, name), getattr(log, name))
    for one, other in zip(found.learned.weights, learned.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found.learned.items, learned.items)
    assert found.recommend(["new one"]) == Recommender(log, TEXTS, day, items, learned, before.ranker).recommend(
        ["new one"]
    )
    with pytest.raises(RecommendationError, match=r"\['date'\] are not there"):
        before.update(late[["customer", "item"]])
    with pytest.raises(RecommendationError, match="some have no customer"):
        before.update(late.assign(item=None))
    older = before.update(late.assign(date=FIRST - pd.Timedelta(days=3)))
    assert older.day == 204 and older.log.first == FIRST - pd.Timedelta(days=3)


def test_each_item_once_whatever_is_left(shop: Recommender) -> None:
    few = [str(item) for item in shop.items[:3]]
    for d in (0.0, 0.3, 0.9):
        for k in (2, 5, 1000):
            for row in shop.recommend(names(shop, 5), k, task="next", allow=few, diversity=d):
                assert len(row) == min(k, 3) == len({item.name for item in row})
    everything = shop.recommend(names(shop, 2), 1000, task="next", diversity=0.5)[0]
    assert len({item.name for item in everything}) == len(everything)


def test_lists_may_be_any_iterables(shop: Recommender) -> None:
    best = [item.name for item in shop.recommend(["c000"], 3)[0]]
    rest = shop.recommend(iter(["c000"]), 3, block=(name for name in [*best, "sold out for ever"]))[0]
    assert len(rest) == 3 and not {item.name for item in rest} & set(best)
    assert [item.name for item in shop.recommend(["c000"], 3, allow=(name for name in best))[0]] == best
    assert next(shop.everyone(2, block=iter(best)))[1][0].name not in best


def test_what_never_varied_tells_nothing(events: Events) -> None:
    """A log with one item an order: the day on which somebody buys two says nothing that the network was taught."""
    frame = events.frame().drop_duplicates(["customer", "date"])
    one = Recommender.fit(Events.of(frame), rare=5, n_networks=1)
    basket = [str(item) for item in one.items[:4]]
    for task in train.TASKS:
        alone, both = (one.for_items(basket[:n], 1, task=task)[0].probability for n in (1, 2))
        assert 1 / 30 < alone / both < 30  # it was 1e10


def test_days_are_local_and_dates_are_dates() -> None:
    date = pd.date_range("2024-03-29 23:30", periods=5)
    frame = pd.DataFrame({"customer": ["a"] * 5, "item": list("vwxyz"), "date": date.tz_localize("Europe/Berlin")})
    found = Events.of(frame)
    assert found.day.tolist() == [0, 1, 2, 3, 4] and len(Events.of(found.frame())) == 5
    for wrong in ([20240101] * 5, ["03.08.2024"] * 5):
        with pytest.raises(ValueError, match=r"must be of a date type.*pandas\.to_datetime"):
            Events.of(frame.assign(date=wrong))


def test_whole_numbers_are_the_same_names_in_any_dtype() -> None:
    frame = purchases(20)
    number = frame["customer"].str[1:].astype(int)
    one, other = (Events.of(frame.assign(customer=number.astype(kind))) for kind in (int, float))
    np.testing.assert_array_equal(one.customers, other.customers)
    both = Events.of(pd.concat([frame.assign(customer=number), frame.assign(customer=number.astype(float))]))
    assert len(both) == len(one)


def test_for_somebody_of_whom_nothing_is_known_the_popular_comes_first(events: Events) -> None:
    shop = Recommender.fit(events, n_networks=1)
    order = np.argsort(-shop.learned.items[:, 0])
    place = {str(shop.items[i]): k for k, i in enumerate(order)}
    found = shop.for_items([], 10)
    assert len(found) == 10 and np.mean([place[item.name] for item in found]) < len(place) / 3
    older = events.frame()
    older.loc[len(older)] = ["c000", "item 00", FIRST - pd.Timedelta(days=3000)]
    again = Recommender(*recommend._learned(Events.of(older), {}, 3000 + shop.day, 20), shop.ranker).for_items([], 10)
    np.testing.assert_allclose([i.probability for i in again], [i.probability for i in found], rtol=0.05)


def test_a_day_before_the_end_forgets_who_comes_later(events: Events) -> None:
    frame = events.frame()
    frame.loc[len(frame)] = ["zz later", "item later", FIRST + pd.Timedelta(days=250)]
    whole = Events.of(frame)
    shop = Recommender.fit(whole, np.int32(200), n_networks=1)
    assert shop.day == 200 and "zz later" not in shop.log.customers and "item later" not in shop.log.items
    # The items that are common by a day are those of that day, not of the year.
    rows = [(f"c{k:03}", "item hit", 235 + k % 20) for k in range(60)]
    hit = pd.DataFrame(rows, columns=["customer", "item", "date"])
    hit["date"] = FIRST + pd.to_timedelta(hit["date"], unit="D")
    one, other = (
        evaluate.measure(Events.of(f), [230], n_networks=1) for f in (frame[:-1], pd.concat([frame[:-1], hit]))
    )
    for method in ("popularity", "item-kNN"):
        np.testing.assert_array_equal(*(m.rankings["new", method][0][0].top for m in (one, other)))


def test_the_kind_of_weights_stays_with_the_networks(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "MOST_ITEMS", len(events.common().items))
    shop = quick(events, events.end)
    more = pd.DataFrame({"customer": [f"c{i:03}" for i in range(25)], "item": "item fresh", "date": FIRST})
    with pytest.raises(RecommendationError, match="have to be taught anew"):
        shop.update(more.assign(date=FIRST + pd.Timedelta(days=255)))
    assert shop.update(more[:0]).recommend(["c000"], 3) == shop.recommend(["c000"], 3)


def test_files_are_written_whole_or_not_at_all(shop: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "top.csv"
    path.write_text("mine")
    with pytest.raises(RecommendationError):
        recommend.write_everyone(shop, path, 0)
    assert path.read_text() == "mine"
    for wrong in (tmp_path, tmp_path / "no" / "x.npz"):
        with pytest.raises(OSError, match="is a folder|cannot be written"):
            shop.save(wrong)
    assert [file.name for file in tmp_path.iterdir()] == ["top.csv"]
    shop.save(tmp_path / "shop.npz")
    for arguments in (["--everyone", str(tmp_path / "shop.npz")], ["--everyone", str(tmp_path)]):
        assert recommend.main([str(tmp_path / "shop.npz"), *arguments]) == 2
    assert Recommender.load(tmp_path / "shop.npz").recommend(["c000"]) == shop.recommend(["c000"])


# Texts.


def test_words_are_hashed_and_the_nearest_texts_found() -> None:
    counts = texts.words(["Red tea, red", "", "Grüner Tee"])
    assert counts.shape == (3, texts.N_WORDS) and counts.sum(axis=1).tolist() == [3, 0, 2] and counts.max() == 2
    near = texts.nearest(["green tea", "", "unheard of"], ["black tea", "green apple", "soap"], 2).toarray()
    assert near.dtype == np.float32
    assert near[0] == pytest.approx([0.5, 0.5, 0]) and (near[1:] == 0).all()
    assert texts.nearest([], ["a"]).shape == (0, 1)
    assert texts.nearest(["one two"], ["two", "one one one"], 1).toarray().tolist() == [[1, 0]]


def test_items_that_nobody_bought(shop: Recommender) -> None:
    """They are recommended to those who buy what is said to be like them, and to others less."""
    cold = [f"item {item}" for item in range(N_ITEMS, N_ITEMS + 4)]
    assert not set(cold) & set(shop.log.items) and set(cold) <= set(shop.items)
    chances = np.zeros((2, 2))
    for name in names(shop):
        p = {item.name: item.probability for item in shop.recommend([name], 4, allow=cold)[0]}
        for item, value in p.items():
            chances[int(name[1:]) % 2, int(item[-2:]) % 2] += value
    assert chances[0, 0] > chances[0, 1] and chances[1, 1] > chances[1, 0]
    why = shop.why(f"item {N_ITEMS}", customer="c000")
    assert sum(why.purchases.values()) + why.base + why.itself + why.popularity + why.trips == pytest.approx(
        why.log_odds, abs=1e-9
    )


def test_a_damaged_sparse_file_is_refused(events: Events, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(candidates, "MOST_ITEMS", 10)
    path = tmp_path / "shop.npz"
    quick(events, 230).save(path)
    with np.load(path) as arrays:
        content = dict(arrays)
    content["weights log indices"] = content["weights log indices"] + np.int32(10**6)
    np.savez(path, **content)
    with pytest.raises(RecommendationError, match="no file of a recommender"):
        Recommender.load(path)
    cold = evaluate.hidden(events, TEXTS, 200, n_draws=1)
    assert np.isfinite(list(cold.values())).all()


def test_above_its_limit_item_knn_takes_the_place_of_ease(
    events: Events, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(candidates, "MOST_ITEMS", 10)
    shop = quick(events, 230)
    assert all(isinstance(weights, candidates.csr_array) for weights in shop.learned.weights)
    found = shop.recommend(names(shop), 5)
    assert all(len(row) == 5 for row in found) and shop.for_items(["item 04"], 3)
    shop.save(tmp_path / "shop.npz")
    again = Recommender.load(tmp_path / "shop.npz")
    assert again.recommend(names(shop), 5) == found
    why = again.why(found[0][0].name, customer=names(shop)[0])
    assert sum(why.purchases.values()) + why.base + why.itself + why.popularity + why.trips == pytest.approx(
        why.log_odds, abs=1e-9
    )


# One file.


def test_one_file_holds_it_all(shop: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "shop.npz"
    shop.save(path)
    again = Recommender.load(path)
    assert again.recommend(names(shop)) == shop.recommend(names(shop))
    assert again.for_items(["item 04"]) == shop.for_items(["item 04"])
    assert again.why(f"item {N_ITEMS}", bought=["item 02"]) == shop.why(f"item {N_ITEMS}", bought=["item 02"])
    assert [file.name for file in tmp_path.iterdir()] == ["shop.npz"]
    content = path.read_bytes()
    for wrong in (b"", content[:1000], b"[1]", content[: len(content) // 2]):
        path.write_bytes(wrong)
        with pytest.raises(RecommendationError, match="no file of a recommender"):
            Recommender.load(path)
    with pytest.raises(RecommendationError, match="no file of a recommender"):
        Recommender.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"about": np.frombuffer(b"{}", np.uint8)},
        {"item": np.array([10**6] * 3)},
        {"customer": np.array([[0]])},
        {"weights log": np.zeros((2, 2))},
        {"learned": np.zeros((3, 3))},
        {"mean": np.zeros(3)},
        {"network new": np.zeros(10, np.uint8)},
        {"day": np.array(["a", "b"])},
        {"mean": np.full(len(pairs.NAMES), np.nan)},
        {"scale": np.zeros(len(pairs.NAMES))},
        {"weights binary": np.full((1, 1), "x")},
    ],
)
def test_a_file_that_does_not_fit_is_refused(shop: Recommender, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "shop.npz"
    shop.save(path)
    with np.load(path) as arrays:
        content = {**arrays, **change}
    np.savez(path, **content)
    with pytest.raises(RecommendationError, match="no file of a recommender"):
        Recommender.load(path)


# Logs of one's own, and the commands.


def test_a_log_is_read_as_the_profile_example_reads_it(tmp_path: Path) -> None:
    frame = lines(120, 200)
    path = tmp_path / "orders.csv"
    text(frame).assign(Artikel=" " + frame["Artikel"], Name="Tee " + frame["Artikel"]).to_csv(path, index=False)
    found = collect.of_log(path, GERMAN, Types(), ["Name"])
    assert len(found.frame) == (frame["Betrag"] >= 0).sum() and found.name == "orders"
    assert set(found.frame["item"]) == set(frame["Artikel"]) == set(found.texts)
    assert found.texts["A7"] == "Tee A7" and set(found.frame["customer"]) == set(frame["Kundennummer"])
    assert (found.frame["date"] == found.frame["date"].dt.normalize()).all()
    pd.DataFrame({"Artikel": ["A7", "A99"], "Name": ["Kaffee", "Tee, grün"]}).to_csv(tmp_path / "all.csv", index=False)
    more = collect.of_log(path, GERMAN, Types(), ["Name"], tmp_path / "all.csv")
    assert more.texts["A99"] == "Tee, grün" and more.texts["A7"] == "Kaffee" and "A99" not in set(more.frame["item"])


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame: Any = lines(200, 330)
    out = tmp_path / "out"
    text(frame.assign(Name="Tee <b>" + frame["Artikel"])).to_csv(tmp_path / "shop.csv", index=False)
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--product", "Artikel"]
    arguments = ["--log", str(tmp_path / "shop.csv"), *named, "--text", "Name", "--fast", "--out", str(out)]
    assert chart.main(arguments) == 0
    said = capsys.readouterr().out
    for words in (
        "next: what is in the next trip",
        "NDCG@10 of the network minus",
        "Who stays away",
        "items of which the texts",
    ):
        assert words in said
    assert sorted(file.name for file in out.iterdir()) == [
        *("model_card.md", "report.html", "shop.recommendations.csv", "shop.recommender.npz")
    ]
    page = (out / "report.html").read_text()
    assert "K0001" not in page and "Tee <b>" not in page  # of one's own customers the page prints nobody
    days = frame["Bestelldatum"].dt.normalize()
    span = (days.max() - days.min()).days + 1  # but for returns
    model = str(out / "shop.recommender.npz")
    shop = Recommender.load(model)
    assert span - 5 <= shop.day <= span
    with (out / "shop.recommendations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["customer"] for row in rows} == set(shop.log.customers)
    first = [row["item"] for row in rows if row["customer"] == "K0001"]
    assert first == [item.name for item in shop.recommend(["K0001"])[0]]

    assert recommend.main([model, "--customer", "K0001", "-k", "3"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == first[:3]
    (tmp_path / "list.txt").write_text("\n".join(first[:2]))
    assert recommend.main([model, "--customer", "K0001", "--block", str(tmp_path / "list.txt"), "-k", "1"]) == 0
    assert capsys.readouterr().out.split()[-1] == first[2]
    assert recommend.main([model, "--bought", *first[2:4], "--allow", str(tmp_path / "list.txt")]) == 0
    assert {line.split()[-1] for line in capsys.readouterr().out.splitlines()} == set(first[:2])
    assert recommend.main([model, "--customer", "K0001", "--why", first[0]]) == 0
    shares = [float(line.split()[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert sum(shares) == pytest.approx(shop.why(first[0], customer="K0001").log_odds, abs=0.02)
    assert recommend.main([model, "--everyone", str(tmp_path / "top.csv"), "-k", "2", "--task", "next"]) == 0
    assert len((tmp_path / "top.csv").read_text().splitlines()) == 1 + 2 * len(shop.log.customers)
    for wrong in (["--customer", "nobody"], ["--bought", "nothing"], ["--customer", "K0001", "-k", "0"]):
        assert recommend.main([model, *wrong]) == 2
        assert "error: " in capsys.readouterr().err


def test_errors_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--product", "Artikel"]
    short, few = tmp_path / "short.csv", tmp_path / "few.csv"
    text(lines(300, 100)).to_csv(short, index=False)
    text(lines(6, 300)).to_csv(few, index=False)
    once, frame = tmp_path / "once.csv", lines(400, 300)
    text(frame.assign(Kundennummer=[f"K{k:05}" for k in range(len(frame))])).to_csv(once, index=False)
    for arguments, says in (
        (["--log", str(short), *named], "days are too short"),
        (["--log", str(few), *named], "see --rare"),
        (["--log", str(once), *named], "no customer who made 5 trips"),
        (["--log", str(short), *named[:-1], "Artikelnummer"], "did you mean 'Artikel'"),
        (["--log", str(tmp_path / "none.csv"), *named], "none.csv"),
    ):
        assert chart.main([*arguments, "--out", str(out)]) == 2
        assert says in capsys.readouterr().err and not out.exists()
    for arguments, says in (
        (["--log", str(short), *named[:-2]], "--log needs --product"),
        (["--customer", "x"], "which --log names"),
        (["--log", str(short), *named, "--catalogue", "x.csv"], "name their columns by --text"),
        (["--log", str(short), *named, "--rare", "0"], "--rare must be at least 1"),
    ):
        with pytest.raises(SystemExit):
            chart.main(arguments)
        assert says in capsys.readouterr().err


# Profiles.


def test_visits_are_described_as_one_by_one(events: Events) -> None:
    frame = purchases()
    trips, money = visits.calendar(events, frame)
    assert trips.shape == (150, events.end) and money.sum() == pytest.approx(frame["amount"].sum())
    day, who = 200, visits.asked(trips, 200)
    found = visits.features(trips, money, day)
    assert found.shape == (len(who), len(visits.COLUMNS)) and np.isfinite(found).all()
    for row, customer in list(zip(found, who, strict=True))[::7]:
        days = np.flatnonzero(trips[customer, :day])
        last, gap = day - 1 - days[-1], (days[-1] - days[0]) / (len(days) - 1)
        weeks = [any(day - 7 * (k + 1) <= d < day - 7 * k for d in days) for k in range(day // 7)]
        expected = [last, gap, last / gap, *(sum(d >= day - w for d in days) for w in (7, 30, 90))]
        expected += [money[customer, day - w : day].sum() for w in (30, 90)]
        np.testing.assert_allclose(row[:8], np.log1p(expected))
        assert row[8] == pytest.approx(np.mean(weeks))


def test_differences_between_classifiers() -> None:
    rng = np.random.default_rng(0)
    x, who = rng.normal(size=(400, 3)), rng.integers(0, 150, 400)
    y = (x[:, 0] + 0.5 * rng.normal(size=400) > 0).astype(int)
    how = classify.Settings(0.1, 0.3, 10, 32)
    p = classify.networks(x[:200], y[:200], x[200:], how, n=2)
    linear = classify.logistic(x[:200], y[:200], x[200:])
    mean, error = classify.difference(y[200:], who[200:], p, rng.random(200))
    assert mean > 4 * error > 0 and classify.best_column(x, y) == (0, 1)
    assert classify.difference(y[200:], who[200:], p, p) == (0, 0)
    assert abs(classify.difference(y[200:], who[200:], p, linear)[0]) < 0.05
    assert 0.15 < classify.top_tenth(y[200:], p) <= 0.25
    assert classify.boosting(x[:200], y[:200], x[200:]).shape == (200,)


@pytest.mark.slow
def test_the_complete_journey(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    assert chart.main(["--fast", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for words in (
        "simulated data",
        "23,806 of 1,469,307 lines",
        "1,211,212 purchases of 1,562 items by 2,467 customers",
    ):
        assert words in said

    def figures(start: str) -> list[float]:
        found = [line for line in said.splitlines() if line.strip().startswith(start)]
        return [float(re.findall(r"0\.\d{4}", line)[0]) for line in found]

    following, one_trip, new, _ = figures("network on pairs")
    assert following > figures("own frequency")[0] and one_trip > figures("own frequency")[1]
    assert new > figures("EASE, whether")[2] + 0.002
    no_visit, visit, campaign = figures("network: columns  ")
    assert no_visit > 0.84 and visit > 0.798 and campaign > 0.81
    page, card = ((tmp_path / name).read_text() for name in ("report.html", "model_card.md"))
    assert "This data should not be used for academic research" in card and "somebody over 55" in page
