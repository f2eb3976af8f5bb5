"""The example on a folder of files: parts that do not leak, one result for any workers, figures from counts alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
metrics = pytest.importorskip("sklearn.metrics")
pytest.importorskip("matplotlib")

import nnprofile as nn  # noqa: E402
from examples.user_profile import __main__ as chart  # noqa: E402
from examples.user_profile import collect, deploy, preprocess, scale  # noqa: E402


def write(folder: Path, n_files: int = 4, n: int = 300) -> Path:
    """Write customers into files, of two kinds where that can be; some of one file are copied into the next."""
    folder.mkdir()
    before: Any = None
    for i in range(n_files):
        rng = np.random.default_rng(i)
        age, visits = rng.integers(18, 80, n), rng.poisson(4, n)
        city = rng.choice(["Rome", "Oslo", "?", "Bern"], n, p=[0.4, 0.3, 0.1, 0.2])
        left = rng.random(n) < 1 / (1 + np.exp(visits - 4.0 - (city == "Rome") + (age > 60)))
        frame = pd.DataFrame({"age": age, "visits": visits, "money": rng.gamma(2, 50, n).round(2), "city": city})
        frame["household"] = rng.integers(0, 100, n)
        frame["left"] = np.where(left, "yes", np.where(rng.random(n) < 0.95, "no", ""))
        if before is not None:
            frame.iloc[:20] = before.iloc[-20:]
        before = frame
        if i % 2 and find_spec("pyarrow"):
            frame.to_parquet(folder / f"{i}.parquet", index=False)
        else:
            frame.to_csv(folder / f"{i}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("shop") / "customers")


def test_parts_are_all_rows_and_copies_are_on_one_side(folder: Path) -> None:
    files, source = scale.files_in(folder), scale.Source()
    found = {part: pd.concat([source.read(path, part) for path in files]) for part in scale.PARTS}
    assert sum(map(len, found.values())) == 1200 and len(found["fit"]) > 700 and len(found["test"]) > 180
    texts = {part: set(frame.agg("|".join, axis=1)) for part, frame in found.items()}
    assert (
        not texts["fit"] & texts["test"]
        and not texts["validate"] & texts["test"]
        and not texts["fit"] & texts["validate"]
    )
    together = scale.Source("household")
    homes = {part: {h for path in files for h in together.read(path, part)["household"]} for part in scale.PARTS}
    assert sum(map(len, homes.values())) == len(set.union(*homes.values()))


def test_one_result_for_any_workers_and_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for name in ("here", "processes"):
        out = tmp_path / name
        found[name] = scale.run(folder, "left", "yes", out, map_name=name, n_replicas=2, n_epochs=2)
        profiler = deploy.load(out / "model")
        assert deploy.check(out / "model") < deploy.TOLERANCE
        scores = {path.name: pd.read_csv(path) for path in sorted((out / "scores").iterdir())}
        assert [len(table) for table in scores.values()] == [300] * 4
        record = {"age": "30", "visits": "1", "money": "80.5", "city": "Rome", "household": "7"}
        names = {column.name for column in profiler.columns}
        assert 0 < profiler.score_one({k: v for k, v in record.items() if k in names}) < 1
    n_blank = sum((scale.Source().read(path, "fit")["left"] == "").sum() for path in scale.files_in(folder))
    assert f"left: {n_blank} of the rows to fit have no answer, and are left out" in capsys.readouterr().out and n_blank
    assert found["here"] == found["processes"] and set(found["here"]) == {"all rows", "the sample"}
    assert 0.6 < found["here"]["all rows"]["roc_auc"] < 1
    again = scale.run(folder, "left", "yes", tmp_path / "here", n_replicas=2, n_epochs=2)
    assert again == found["here"]
    turned = scale.run(folder, "left", "no", tmp_path / "here", n_replicas=2, n_epochs=2)["all rows"]["roc_auc"]
    assert turned > 0.6, "the network of another answer was taken"


def test_figures_from_counts() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 2, 5000), rng.random(5000)
    p = 0.7 * p + 0.3 * y * rng.random(5000)
    counts = np.zeros((2, scale.N_BINS))
    np.add.at(counts, (y, (p * scale.N_BINS).astype(int)), 1)
    found = scale.figures(counts)
    assert found["n"] == 5000 and abs(found["roc_auc"] - metrics.roc_auc_score(y, p)) < 1e-4
    assert abs(found["log_loss"] - metrics.log_loss(y, p)) < 1e-3
    assert np.isnan(scale.figures(np.zeros((2, scale.N_BINS)))["roc_auc"])


def test_a_comparison_and_unknown_answers(folder: Path) -> None:
    files, source = scale.files_in(folder), scale.Source()
    sampled = nn.summarize(files, source.read)
    table, fit, validate, answer = scale.understood(sampled, sampled, "money", ">100", preprocess.Types(), folder)
    text = source.read(files[0])
    y, known = answer.of(text["money"])
    assert (y == (text["money"].astype(float) > 100)).all() and known.all() and len(fit) == len(validate) == 1200
    assert "money" not in table.kinds
    _, _, _, answer = scale.understood(sampled, sampled, "left", None, preprocess.Types(), folder)
    y, known = answer.of(text["left"])
    assert (known == (text["left"] != "")).all() and (y == (text["left"] == "yes")).all()
    words = pd.Series(["yes", "no", "", "Unknown", "-9.0", "N/A"], dtype=object)
    answer = scale.Answer("left", "yes", missing=frozenset(["unknown", "-9"]))
    assert answer.of(words)[1].tolist() == [True, True, False, False, False, False]
    told = scale.understood(sampled, sampled, "left", None, preprocess.Types(missing=("Unknown",)), folder)[3]
    assert told.missing == {"unknown"}


def test_what_cannot_be_read_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write(tmp_path / "other", 2)
    (folder / ".hidden.csv").write_text("x")
    (folder / "empty.csv").write_text("")
    pd.DataFrame({"age": [1, 2], "left": ["yes", "no"]}).to_csv(other / "2.csv", index=False)
    cases = {
        f"--files {tmp_path / 'none'} --target left": "is no folder with tables",
        f"--files {other} --target left": "all shards must have the same columns; shard 2",
        f"--files {folder} --target lefts": "has no column 'lefts'; did you mean 'left'?",
        f"--files {folder} --target age": "must have two values, got",
        f"--files {folder} --target left --replicas 5": "--replicas must be at most the number of files, 4",
    }
    for arguments, message in cases.items():
        assert chart.main([*arguments.split(), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    for arguments in (
        f"--files {folder}",
        "--map dask",
        f"--files {folder} --target left --replicas 0",
        "--replicas 2",
    ):
        with pytest.raises(SystemExit):
            chart.main(arguments.split())
    with pytest.raises(collect.CollectError, match="no folder with tables"):
        scale.files_in(folder / "0.csv")
