"""The example's whole pipeline as one ONNX file, and Adult's test rows through everything that leaves Python."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import nnprofile as nn  # noqa: E402
from examples.user_profile import collect, deploy, export, features, preprocess, splits, train  # noqa: E402

from .test_example import write_customers  # noqa: E402
from .test_export import Compiled, run_onnx  # noqa: E402


def model_of(table: preprocess.Table, fit: Any, encoding: str, n_epochs: int) -> train.Model:
    encoder = features.Encoder.fit(table.frame.iloc[fit], table.kinds, table.y[fit], features.ENCODINGS[encoding])
    rng = np.random.default_rng(0)
    net = train.build(len(encoder.center), 0.2, rng)
    x = encoder.transform(table.frame.iloc[fit])
    nn.fit(net, train.LOSS, nn.Adam(0.001), x, table.y[fit], n_epochs=n_epochs, batch_size=256, rng=rng)
    return train.Model(encoder, (net,), nn.History(), encoding, threshold=0.4, bands=(0.2, 0.5, 0.9))


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> preprocess.Table:
    path = tmp_path_factory.mktemp("csv") / "customers.csv"
    write_customers(path)
    return preprocess.clean(collect.csv_file(path, "has  left", None))


@pytest.mark.parametrize("encoding", ["coarse", "fine"])
def test_raw_records_score_the_same(encoding: str, customers: preprocess.Table, tmp_path: Path) -> None:
    """Every kind of value: missing, never seen, at an edge, beyond the ends, tiny, and huge."""
    model = model_of(customers, np.arange(400), encoding, 20)
    export.to_onnx(model, tmp_path / "m.onnx")
    edges = next(column["edges"] for column in model.encoder.columns if column["name"] == "money")
    numbers = [None, 0.0, -3.5, 1e-12, 1e29, -1e29, *edges, *np.nextafter(edges, np.inf)]
    records: list[dict[str, Any]] = [
        {"age": number, "number of visits": visits, "money": number, "home city": city, "plan": plan}
        for number, visits, (city, plan) in itertools.product(
            numbers, [None, 0, 4, 99], [("Köln", 0), ("Paris; Nord", None), (None, 77), ("?", -1), ("Rome", 2)]
        )
    ]
    profiler = deploy.Profiler(model, "yes", [], customers.columns)
    frame = profiler.frame(records)
    probability, answer = run_onnx(ort, (tmp_path / "m.onnx").read_bytes(), export.inputs(model.encoder, frame))
    said = profiler.score(records)
    assert probability.dtype == np.float64 and answer.dtype == bool and np.ptp(said) > 0.3
    np.testing.assert_allclose(probability[:, 0], said, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(answer[:, 0], probability[:, 0] >= 0.4)
    given = export.inputs(model.encoder, frame.iloc[:20])
    for word in ("", "?", "NaN", "n/A", "NULL"):
        given["home city"] = np.full((20, 1), word, object)
        missing, _ = run_onnx(ort, (tmp_path / "m.onnx").read_bytes(), given)
        expected = profiler.score([{**record, "home city": None} for record in records[:20]])
        np.testing.assert_allclose(missing[:, 0], expected, rtol=0, atol=1e-6)


def test_from_the_command_line(
    customers: preprocess.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = tmp_path / "model", tmp_path / "m.onnx"
    deploy.save(folder, model_of(customers, np.arange(400), "coarse", 3), customers)
    assert deploy.main([str(folder), "--onnx", str(file)]) == 0 and file.exists()
    assert "largest difference on the stored samples" in capsys.readouterr().out
    assert deploy.main([str(folder), "--onnx", str(tmp_path / "no" / "m.onnx")]) == 2
    content = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(export, "difference", lambda path, profiler: 1e-3)
        assert deploy.main([str(folder), "--onnx", str(file)]) == 1
    assert "not written: it would differ by 1.0e-03" in capsys.readouterr().err
    assert file.read_bytes() == content and sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "model"]
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    monkeypatch.delitem(__import__("sys").modules, "examples.user_profile.export")
    assert deploy.main([str(folder), "--onnx", str(file)]) == 2
    assert "onnx" in capsys.readouterr().err


def renamed(table: preprocess.Table, names: dict[str, str]) -> preprocess.Table:
    kinds = {names.get(name, name): kind for name, kind in table.kinds.items()}
    return dataclasses.replace(table, frame=table.frame.rename(columns=names), kinds=kinds)


@pytest.mark.parametrize("scale", [1e-15, 1e-12, 1e-9, 1e-3, 1e9])
def test_columns_of_any_size(scale: float, tmp_path: Path) -> None:
    """log(1 + x) keeps its digits where 1 + x does not."""
    x = np.random.default_rng(0).normal(0, 10, 400) * scale
    frame = pd.DataFrame({"a": x})
    table = preprocess.Table("made", frame, (x > 0).astype(int), {"a": "number"}, "yes", "made for a test")
    model = model_of(table, np.arange(400), "coarse", 5)
    export.to_onnx(model, tmp_path / "m.onnx")
    probability, _ = run_onnx(ort, (tmp_path / "m.onnx").read_bytes(), export.inputs(model.encoder, frame))
    np.testing.assert_allclose(probability[:, 0], model.predict_proba(frame), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["", "answer", "probability", "inside/features"])
def test_columns_named_as_an_output(name: str, customers: preprocess.Table, tmp_path: Path) -> None:
    model = model_of(renamed(customers, {"age": name}), np.arange(300), "coarse", 1)
    with pytest.raises(ValueError, match=rf"columns \['{name}'\] have the name of an output, or of what is inside"):
        export.to_onnx(model, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_columns_of_any_other_name(customers: preprocess.Table, tmp_path: Path) -> None:
    names = ["X", 'grö"ße / cm', "features", "constant_0", "n"]
    table = renamed(customers, dict(zip(customers.frame, names, strict=True)))
    model = model_of(table, np.arange(300), "fine", 2)
    export.to_onnx(model, tmp_path / "m.onnx")
    given = export.inputs(model.encoder, table.frame)
    probability, _ = run_onnx(ort, (tmp_path / "m.onnx").read_bytes(), given)
    np.testing.assert_allclose(probability[:, 0], model.predict_proba(table.frame), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def adult() -> tuple[preprocess.Table, Any, Any]:
    table = preprocess.clean(collect.adult())
    fit, _, test = splits.splits(table)[0]
    return table, fit, test


@pytest.mark.slow
def test_adult_as_one_onnx_file(adult: Any, tmp_path: Path) -> None:
    """6461 raw records: encoding and network."""
    table, fit, test = adult
    model = model_of(table, fit, "fine", 5)
    export.to_onnx(model, tmp_path / "m.onnx")
    frame = table.frame.iloc[test]
    probability, _ = run_onnx(ort, (tmp_path / "m.onnx").read_bytes(), export.inputs(model.encoder, frame))
    error = np.abs(probability[:, 0] - model.predict_proba(frame)).max()
    print(f"the example's pipeline as ONNX, {len(test)} records, float32: {error:.1e}")
    assert error < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_adult_by_skl2onnx_and_in_c(dtype: Any, tolerance: float, adult: Any, tmp_path: Path) -> None:
    """A Pipeline of scikit-learn's preprocessing and our estimator, from raw records; and its network as a C header."""
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    table, fit, test = adult
    texts = [name for name, kind in table.kinds.items() if kind == "category"]
    numbers = [name for name in table.kinds if name not in texts]
    frame = table.frame.astype(dict.fromkeys(numbers, dtype)).fillna(dict.fromkeys(texts, "?"))
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=dtype)
    pipe = make_pipeline(
        make_column_transformer((StandardScaler(), numbers), (one_hot, texts)),
        nn.MLPClassifier((64, 32, 16), batch_size=256, max_iter=10, tol=0, n_iter_no_change=99, random_state=0),
    )
    with pytest.warns(Warning, match="Maximum iterations"):
        pipe.fit(frame.iloc[fit], table.y[fit])
    nn.export.register_converters()
    number = DoubleTensorType if dtype == np.float64 else FloatTensorType
    types = [(name, (StringTensorType if name in texts else number)([None, 1])) for name in frame]
    proto = skl2onnx.to_onnx(pipe, initial_types=types, options={id(pipe[-1]): {"zipmap": False}})
    rows = frame.iloc[test]
    given = {
        entry.name: rows[[name]].to_numpy(object if name in texts else dtype)
        for entry, name in zip(proto.graph.input, frame, strict=True)
    }
    label, probabilities = run_onnx(ort, proto, given)
    said = pipe.predict_proba(rows)
    error = np.abs(probabilities - said).max()
    print(f"a Pipeline as ONNX, {len(test)} raw records, {np.dtype(dtype)}: {error:.1e}")
    assert probabilities.dtype == dtype and error < tolerance
    np.testing.assert_array_equal(label, pipe.predict(rows))
    if shutil.which("cc"):
        nn.to_c(pipe[-1], tmp_path / "adult.h")
        y = Compiled(tmp_path / "adult.h", dtype, tmp_path).score(pipe[:-1].transform(rows), 2)
        error = np.abs(y - said).max()
        print(f"its network in C, {len(test)} rows, {np.dtype(dtype)}: {error:.1e}")
        assert error < tolerance
