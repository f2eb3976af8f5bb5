"""Recommendations: candidates by exact methods, a network on pairs, rankings that cannot flatter, one file for all of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from examples.recommendation import __main__ as chart  # noqa: E402
from examples.recommendation import candidates, collect, evaluate, pairs, train  # noqa: E402
from examples.recommendation.events import Events  # noqa: E402
from examples.recommendation.recommend import RecommendationError, Recommender  # noqa: E402

from .test_example_orders import lines, text  # noqa: E402


def purchases(n: int = 150, days: int = 260, n_items: int = 40, seed: int = 0) -> collect.Purchases:
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
    frame["date"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(frame["date"], unit="D")
    return collect.Purchases("made", frame, "made for a test")


@pytest.fixture(scope="module")
def events() -> Events:
    return Events.of(purchases())


@pytest.fixture(scope="module")
def recommender(events: Events) -> Recommender:
    return Recommender(pairs.Pairs.of(events, 230), train.train(events, 230, n_networks=1, n_epochs=3))


def test_events_are_distinct_in_time_and_without_rare_items() -> None:
    one = purchases(30)
    twice = collect.Purchases("t", pd.concat([one.frame, one.frame.sample(frac=0.5, random_state=0)]), "")
    found, again = Events.of(one), Events.of(twice)
    assert len(found) == len(again) and (np.diff(found.day) >= 0).all()
    counts = one.frame.drop_duplicates()["item"].value_counts()
    assert set(found.items) == set(counts.index[counts >= 20])
    with pytest.raises(ValueError, match="no item was bought on 100000 days"):
        Events.of(one, rare=100_000)


def test_what_is_known_is_of_the_time_before(events: Events) -> None:
    day = 150
    changed = Events.of(purchases())
    later = changed.day >= day
    rng = np.random.default_rng(0)
    changed.item[later] = rng.permutation(changed.item[later])
    rows = np.arange(20)
    one, other = (pairs.Pairs.of(e, day).features(rows) for e in (events, changed))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (20, events.shape[1], len(pairs.NAMES)) and np.isfinite(one).all()


def test_features_are_what_they_are_called(events: Events) -> None:
    day, customer = 150, 3
    found = dict(
        zip(pairs.NAMES, np.moveaxis(pairs.Pairs.of(events, day).features(np.array([customer]))[0], 1, 0), strict=True)
    )
    own = (events.customer == customer) & (events.day < day)
    trips = np.unique(events.day[own])
    for item in range(events.shape[1]):
        days = events.day[own & (events.item == item)]
        assert found["bought"][item] == (len(days) > 0)
        assert found["times"][item] == pytest.approx(np.log1p(len(days)), rel=1e-5)
        if len(days):
            assert found["days since last"][item] == pytest.approx(np.log1p(day - days.max()), rel=1e-5)
            assert found["days since first"][item] == pytest.approx(np.log1p(day - days.min()), rel=1e-5)
            assert found["in the last trip"][item] == (days.max() == trips.max())
            decayed = (0.5 ** ((day - days) / 20)).sum()
            assert found["times, half-life 20 days"][item] == pytest.approx(np.log1p(decayed), rel=1e-5)
    assert found["trips"][0] == pytest.approx(np.log1p(len(trips)), rel=1e-5)


def test_ease_is_the_minimum_with_a_zero_diagonal(events: Events) -> None:
    x = candidates.interactions(events, "log")
    found = candidates.ease(x, 5.0).astype(float)
    assert (np.diag(found) == 0).all()
    dense = x.toarray()
    gradient = dense.T @ (dense @ found - dense) + 5.0 * found
    np.fill_diagonal(gradient, 0)  # a multiplier holds the diagonal
    assert np.abs(gradient).max() < 1e-3 * np.abs(dense.T @ dense).max()
    with pytest.raises(ValueError, match="use item_knn"):
        candidates.ease(candidates.csr_array((2, candidates.MOST_ITEMS + 1)), 1.0)


def test_item_knn_is_the_cosine(events: Events) -> None:
    x = candidates.interactions(events, "log").toarray()
    unit = x / np.maximum(np.linalg.norm(x, axis=0), 1e-12)
    cosine = unit.T @ unit
    np.fill_diagonal(cosine, 0)
    found = candidates.item_knn(events, 5).toarray()
    for item in range(len(cosine)):
        best = np.sort(cosine[item])[-5:]
        np.testing.assert_allclose(np.sort(found[:, item])[-5:], best, atol=1e-12)
        assert (found[:, item] > 0).sum() == 5


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


def test_the_network_ranks_and_its_outputs_are_probabilities(events: Events, recommender: Recommender) -> None:
    answers = train.Answers.of(events, 230)
    assert len(answers.rows) > 50 and not (answers.new & recommender.pairs.bought(answers.rows)).any()
    features, bought = recommender.pairs.features(answers.rows), recommender.pairs.bought(answers.rows)
    for task, y in (("next", answers.next), ("new", answers.new)):
        z = recommender.ranker.logits(task, features, bought)
        own = evaluate.rank(z, y)
        popular = candidates.popularity(recommender.pairs.history, 230)
        other = evaluate.rank(np.where(bought & (task == "new"), -np.inf, popular), y)
        mean, error = evaluate.difference(own.values["ndcg"], other.values["ndcg"])
        assert mean > 2 * error and own.coverage() > 10
        p = 1 / (1 + np.exp(-z[np.isfinite(z)]))
        assert 0.6 < p.sum() / max(y.sum(), 1) < 1.6


def test_recommendations_and_lists(recommender: Recommender) -> None:
    known = recommender.pairs.history
    names = [str(name) for name in known.customers[:40]]
    found = recommender.recommend(names, 5)
    for name, row in zip(names, found, strict=True):
        own = set(known.items[known.item[known.customers[known.customer] == name]])
        assert len(row) <= 5 and not own & {item for item, _ in row}
        assert [p for _, p in row] == sorted((p for _, p in row), reverse=True) and all(0 < p < 1 for _, p in row)
    again = recommender.recommend(names, 5, task="next")
    assert any(set(known.items) & {item for item, _ in row} for row in again)
    some = [str(item) for item in known.items[:8]]
    for row in recommender.recommend(names, 5, task="next", allow=some, block=some[:2]):
        assert {item for item, _ in row} <= set(some[2:])
    unbought = recommender.recommend(names[:1], 50, task="next", exclude_bought=True)[0]
    own = set(known.items[known.item[known.customers[known.customer] == names[0]]])
    assert not own & {item for item, _ in unbought}
    together, apart = recommender.recommend(names, 3), [recommender.recommend([name], 3)[0] for name in names]
    assert [[item for item, _ in row] for row in together] == [[item for item, _ in row] for row in apart]
    for wrong in (
        lambda: recommender.recommend(["nobody"]),
        lambda: recommender.recommend(names, task="best"),
        lambda: recommender.recommend(names, 0),
        lambda: recommender.recommend(names, block=["nothing"]),
        lambda: recommender.for_items(["nothing"]),
    ):
        with pytest.raises(RecommendationError):
            wrong()


def test_for_a_customer_never_seen(recommender: Recommender) -> None:
    even = [str(item) for item in recommender.pairs.history.items if int(item[-2:]) % 2 == 0]
    odd = [str(item) for item in recommender.pairs.history.items if item not in even]
    shares = []
    for bought in (even[:4], odd[:4]):
        found = recommender.for_items(bought, 8)
        assert not set(bought) & {item for item, _ in found}
        shares.append(np.mean([item in even for item, _ in found]))
    assert shares[0] > shares[1] + 0.3  # of the same taste
    assert recommender.for_items([], 3)


def test_one_file_holds_it_all(recommender: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "shop.npz"
    recommender.save(path)
    again = Recommender.load(path)
    names = [str(name) for name in recommender.pairs.history.customers[:30]]
    assert again.recommend(names) == recommender.recommend(names)
    assert again.for_items(["item 04"]) == recommender.for_items(["item 04"])
    assert [file.name for file in tmp_path.iterdir()] == ["shop.npz"]
    content = path.read_bytes()
    for wrong in (b"", content[:1000], b"[1]"):
        path.write_bytes(wrong)
        with pytest.raises(RecommendationError, match="no file of a recommender"):
            Recommender.load(path)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame: Any = lines(200, 330)
    text(frame).to_csv(tmp_path / "shop.csv", index=False)
    named = ["--customer", "Kundennummer", "--date", "Bestelldatum", "--amount", "Betrag", "--product", "Artikel"]
    assert chart.main(["--log", str(tmp_path / "shop.csv"), *named, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "next: what is in the next trip" in said and "NDCG of the network minus" in said
    days = frame["Bestelldatum"].dt.normalize()
    span = (days.max() - days.min()).days + 1  # but for returns, and rare articles
    assert span - 5 <= Recommender.load(tmp_path / "shop.recommender.npz").pairs.day <= span
    text(lines(300, 100)).to_csv(tmp_path / "short.csv", index=False)
    assert chart.main(["--log", str(tmp_path / "short.csv"), *named, "--out", str(tmp_path)]) == 2
    assert "days are too short" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        chart.main(["--log", "x.csv", "--customer", "c"])
