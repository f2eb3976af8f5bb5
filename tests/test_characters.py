"""The example that reads a text learns more of it than counts tell, and goes on in its letters."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from examples import characters


def test_it_learns_and_says_what(capsys: pytest.CaptureFixture[str]) -> None:
    characters.main(["--epochs", "5"])
    out = capsys.readouterr().out
    single, pairs, learnt = (float(n) for n in re.findall(r"(\d\.\d\d) by", out))
    assert learnt < pairs < single
    letters = set(characters.TEXT.read_text("utf-8"))
    assert set(out.split("after the bar:\n\n")[1]) <= letters | {"|"}


def test_a_sequence_is_followed_by_the_next_character() -> None:
    x, y = characters.sequences(np.arange(200))
    assert len(x) == 4 and x.lengths.tolist() == [64, 64, 64, 7] and y.same_events(x)
    np.testing.assert_array_equal(y.values, x.values + 1)


def test_short_texts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(SystemExit):
        characters.main([str(tmp_path / "short.txt")])
    assert "short.txt has 9 characters; at least 1280 are needed" in capsys.readouterr().err
