"""The average of several networks: one network again, everywhere that a single one is; and columns that are noise."""

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

import nnprofile as nn  # noqa: E402
from examples.user_profile import (  # noqa: E402
    collect,
    deploy,
    evaluate,
    features,
    preprocess,
    reasons,
    splits,
    train,
)

from .test_example import write_customers  # noqa: E402


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> preprocess.Table:
    path = tmp_path_factory.mktemp("csv") / "customers.csv"
    write_customers(path)
    return preprocess.clean(collect.csv_file(path, "has  left", None))


@pytest.fixture(scope="module")
def model(customers: preprocess.Table) -> train.Model:
    fit, validate, _ = splits.splits(customers)[0]
    return train.train(customers, fit, validate, n_networks=3, n_epochs=5)


@settings(max_examples=40, deadline=None)
@given(
    n_networks=st.integers(1, 5),
    widths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_the_average_is_one_network(n_networks: int, widths: list[int], dtype: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def one() -> nn.Sequential:
        layers, n = [], 3
        for width in widths:
            layers += [nn.Dense(n, width), nn.ReLU(), nn.Dropout(0.2)]
            n = width
        return nn.Sequential([*layers, nn.Dense(n, 1)], rng=rng, dtype=dtype)

    nets = tuple(one() for _ in range(n_networks))
    for net in nets:
        net.params.vector[...] += rng.normal(0, 0.1, len(net.params.vector))  # biases too
    x = rng.normal(size=(9, 3)).astype(dtype)
    found = train.average(nets)
    assert (
        found.params.vector.dtype == dtype
        and sum(isinstance(layer, nn.Dense) for layer in found.layers) == len(widths) + 1
    )
    expected = np.mean([net.predict(x) for net in nets], axis=0)
    np.testing.assert_allclose(found.predict(x), expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-12)


def test_the_networks_differ_and_each_is_the_documents(customers: preprocess.Table, model: train.Model) -> None:
    assert len(model.nets) == 3
    widths = [layer.params["W"].shape[1] for layer in model.nets[0].layers if isinstance(layer, nn.Dense)]
    assert tuple(widths) == (64, 32, 16, 1)
    alone = [model.single(k).predict_proba(customers.frame) for k in range(3)]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    logits = np.mean([np.log(p) - np.log1p(-p) for p in alone], axis=0)
    np.testing.assert_allclose(model.predict_proba(customers.frame), 1 / (1 + np.exp(-logits)), atol=1e-6)
    fit, validate, _ = splits.splits(customers)[0]
    one = train.train(customers, fit, validate, n_networks=1, n_epochs=5)
    np.testing.assert_array_equal(one.nets[0].params.vector, model.nets[0].params.vector)


def test_files_rows_and_reasons_of_the_average(customers: preprocess.Table, model: train.Model, tmp_path: Path) -> None:
    deploy.save(tmp_path, model, customers)
    assert deploy.check(tmp_path) == 0
    profiler = deploy.load(tmp_path)
    assert len(profiler.model.nets) == 1
    np.testing.assert_allclose(
        profiler.model.predict_proba(customers.frame), model.predict_proba(customers.frame), rtol=0, atol=1e-6
    )
    records = [sample["record"] for sample in profiler.samples]
    np.testing.assert_allclose([profiler.score_one(r) for r in records], profiler.score(records), rtol=0, atol=1e-6)
    one, log_odds, base = reasons.reasons(model, customers.frame.iloc[:40])
    np.testing.assert_allclose(one.to_numpy().sum(axis=1) + base, log_odds, rtol=0, atol=1e-10)
    other, *_ = reasons.reasons(profiler.model, customers.frame.iloc[:40])  # of the networks side by side
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_evaluation_has_the_average_and_the_single_network(customers: preprocess.Table, model: train.Model) -> None:
    fit, validate, test = splits.splits(customers)[0]
    found = evaluate.evaluate(customers, fit, validate, test, model)
    assert set(found.scores) == set(evaluate.MODELS) == set(found.proba)
    alone = [model.single(k).predict_proba(customers.frame.iloc[test]) for k in range(3)]
    aucs = [evaluate.score(customers.y[test], p, 0.5)["roc_auc"] for p in alone]
    assert found.scores["single_network"]["roc_auc"] == pytest.approx(np.mean(aucs))
    np.testing.assert_array_equal(found.proba["network"], model.predict_proba(customers.frame.iloc[test]))
    assert "single_network" in evaluate.text_table("t", evaluate.values([found]))
    curve = evaluate.learning_curve(customers, (fit, validate, test), model, 3)
    assert [n for n, _ in curve] == [len(fit) // 4, len(fit) // 2, len(fit)] and curve[-1][1] == pytest.approx(aucs[0])


def noisy(n: int, n_columns: int, seed: int = 0) -> preprocess.Table:
    """Return columns of noise, and one that decides in four of five rows."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, n_columns)), columns=[f"c{k}" for k in range(n_columns)])
    frame["word"] = rng.choice(["a", "b", None], n)
    y = ((frame["c3"].abs() > 0.67) ^ (rng.random(n) < 0.2)).astype(int).to_numpy()  # no rank tells it
    kinds = {name: "category" if name == "word" else "number" for name in frame}
    return preprocess.Table("t", frame, y, kinds, "yes", "made for a test")


def test_noise_lets_one_column_in_on_average() -> None:
    kept = [features.telling(noisy(400, 60, seed), np.arange(400)) for seed in range(40)]
    assert all("c3" in names for names in kept)
    extra = np.mean([len(names) - 1 for names in kept])
    assert 0.5 < extra < 1.6  # 1 is expected, with a standard error of 0.16
    table = noisy(400, 60)
    rows = np.flatnonzero(table.y == 0)
    assert len(features.telling(table, rows)) >= 1  # where nothing can tell


def test_many_columns_of_noise_do_not_hide_the_one_that_decides() -> None:
    table = noisy(1500, 300)
    fit, validate, test = splits.splits(table)[0]
    model = train.train(table, fit, validate, n_networks=2, n_epochs=40)
    assert len(model.encoder.columns) < 10 and "c3" in {column["name"] for column in model.encoder.columns}
    auc = evaluate.score(table.y[test], model.predict_proba(table.frame.iloc[test]), 0.5)["roc_auc"]
    assert auc > 0.72  # the truth has 0.8


def test_columns_that_are_not_used_need_not_be_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = noisy(600, 30)
    frame = table.frame.round(4).assign(
        when=[f"2024-{m:02}-{d:02}" for m, d in rng.integers(1, 13, (600, 2))], y=table.y
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    read = preprocess.clean(collect.csv_file(tmp_path / "t.csv", "y", "1"))
    fit, validate, _ = splits.splits(read)[0]
    model = train.train(read, fit, validate, n_networks=2, n_epochs=15)
    gone = deploy.unused(model, read)
    assert len(gone) > 20 and "c3" not in gone
    deploy.save(tmp_path / "model", model, read)
    frame.drop(columns=[*gone, "y"]).to_csv(tmp_path / "new.csv", index=False)
    deploy.score_file(tmp_path / "model", tmp_path / "new.csv", tmp_path / "scored.csv")
    scored = pd.read_csv(tmp_path / "scored.csv", encoding="utf-8-sig")
    np.testing.assert_allclose(scored["probability"], model.predict_proba(read.frame), atol=1e-5)
