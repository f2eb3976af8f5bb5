"""The example with differential privacy: an encoder that has seen no row, and a card that says what is promised."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import nnprofile as nn  # noqa: E402
from examples.user_profile import __main__ as chart  # noqa: E402
from examples.user_profile import collect, deploy, preprocess, private  # noqa: E402


def customers(path: Path, n: int = 1500) -> Path:
    rng = np.random.default_rng(5)
    age, visits, city = rng.integers(18, 80, n), rng.poisson(4, n), rng.choice(["Rome", "Oslo", "?"], n)
    left = np.where(rng.random(n) < 1 / (1 + np.exp(visits - 4.0 - (city == "Rome"))), "yes", "no")
    pd.DataFrame({"age": age, "visits": visits, "city": city, "note": rng.random(n), "left": left}).to_csv(
        path, index=False
    )
    return path


CODEBOOK = {"age": [18, 30, 50, 80], "visits": [0, 1, 2, 4, 8, 20], "city": ["Rome", "Oslo"]}


def table(path: Path) -> preprocess.Table:
    return preprocess.clean(collect.csv_file(path, "left", None))


def asked(path: Path, book: Path, out: Path, epsilon: str) -> list[str]:
    """Return the command's arguments."""
    return ["--csv", str(path), "--target", "left", "--private", epsilon, "--codebook", str(book), "--out", str(out)]


def test_the_encoder_has_seen_no_row(tmp_path: Path) -> None:
    """Other rows, of the same kinds, give the same encoder."""
    one = table(customers(tmp_path / "a.csv"))
    found = private.encoder_of(CODEBOOK, one.kinds).to_json()
    assert found == private.encoder_of(CODEBOOK, table(customers(tmp_path / "b.csv", 900)).kinds).to_json()
    assert [column["name"] for column in found["columns"]] == ["age", "visits", "city"]
    x = private.encoder_of(CODEBOOK, one.kinds).transform(one.frame)
    assert np.isfinite(x).all() and x.std(axis=0).max() < 3 and len(x) == 1500


@pytest.mark.filterwarnings("ignore::nnprofile.privacy.PrivacyWarning")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, book, out = customers(tmp_path / "customers.csv"), tmp_path / "book.json", tmp_path / "out"
    book.write_text(json.dumps(CODEBOOK))
    assert chart.main([*asked(path, book, out, "8"), "--fast"]) == 0
    said = capsys.readouterr().out
    assert "not in it: ['note']" in said and "epsilon 8" in said and "no contradiction" in said
    folder = out / "customers" / "private"
    net = nn.load(folder / "model" / "network.safetensors").net
    assert len(net.ledger) == 1 and nn.privacy.epsilon_of(net.ledger, private.DELTA) <= 8
    assert deploy.check(folder / "model") < deploy.TOLERANCE
    assert 0 < deploy.load(folder / "model").score_one({"age": "30", "visits": "1", "city": "Rome"}) < 1
    card = (folder / "privacy.md").read_text("utf-8")
    assert "epsilon=8 at delta=1e-05" in card and "age, visits, city" in card and "cannot see" in card


def test_it_learns_at_a_large_epsilon(tmp_path: Path) -> None:
    one = table(customers(tmp_path / "a.csv", 4000))
    _, spent, scores = private.measured(one, CODEBOOK, 8.0, 0)
    assert scores["roc_auc"] > 0.75 and "epsilon=8" in spent


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no codebook in JSON"),
        ("[]", "must hold an object"),
        ("{}", "must hold an object"),
        ('{"age": [3, 1]}', "'age' must be a list of rising numbers"),
        ('{"age": [1]}', "'age' must be"),
        ('{"age": []}', "'age' must be"),
        ('{"age": ["x", 1]}', "'age' must be"),
        ('{"age": [true, false]}', "'age' must be"),
        ('{"age": [1, 2, NaN]}', "'age' must be"),
        ('{"age": [1, Infinity]}', "'age' must be"),
        ('{"age": [1, 1' + "0" * 400 + "]}", "'age' must be"),
        ('{"city": ["Rome", "Rome"]}', "'city' must be"),
        ('{"city": ["Rome", "(missing)"]}', "'city' must be"),
        ('{"height": [1, 2]}', "no column is in both"),
        ('{"age": ["young", "old"]}', "age holds numbers, and names in the codebook"),
        ('{"city": [1, 2]}', "city holds names, and numbers in the codebook"),
    ],
)
def test_codebooks_that_are_none(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book, path = tmp_path / "book.json", customers(tmp_path / "customers.csv", 300)
    book.write_text(content)
    assert chart.main(asked(path, book, tmp_path / "o", "1")) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "--private 3",
        "--private 0 --data adult",
        "--private nan --data adult",
        "--codebook x.json",
        "--data cdnow --private 1",
    ],
)
def test_options_that_do_not_go_together(arguments: str) -> None:
    with pytest.raises(SystemExit):
        chart.main(arguments.split())


def test_the_codebook_of_adult_is_as_published(tmp_path: Path) -> None:
    assert all(values == sorted(set(values)) for values in private.ADULT.values() if not isinstance(values[0], str))
    encoder: Any = private.encoder_of(private.ADULT, dict.fromkeys(private.ADULT, "number") | {k: "category" for k, v in private.ADULT.items() if isinstance(v[0], str)})  # fmt: skip  # noqa: E501
    assert len(encoder.columns) == 11
