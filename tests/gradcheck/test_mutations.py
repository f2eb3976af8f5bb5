"""The self-test finds each mistake, accuses nothing right, covers the public layers and losses, and can fail."""

from __future__ import annotations

import pytest

import nnprofile as nn
import nnprofile.gradcheck as gc
from nnprofile.gradcheck import mutations


@pytest.fixture(scope="module")
def result() -> mutations.SelfTest:
    return gc.selftest(sizes=(1,))


def test_every_mistake_is_found_and_nothing_right_is_accused(result: mutations.SelfTest) -> None:
    assert result.ok, str(result)
    assert result.detection == 1 and result.layers == 1 and not result.false_alarms
    assert result.diagnosis >= 0.95, [o.name for o in result.bugs if not o.diagnosed]
    assert len(result.bugs) > 250 and len(result.traps) > 100
    assert all(f.kind in gc.KINDS for o in result.bugs for f in o.report.findings)


def test_every_mistake_is_made(result: mutations.SelfTest) -> None:
    made = " ".join(o.name for o in result.bugs)
    assert all(name in made for name in (*mutations.GRADIENTS, *mutations.BACKWARDS))
    assert {kind for o in result.bugs for kind in o.kinds} <= set(gc.KINDS)


def test_every_public_layer_and_loss_is_covered() -> None:
    public = [value for value in vars(nn).values() if isinstance(value, type)]
    layers = {type(make(3)) for make in mutations.LAYERS}
    composites = {nn.Sequential, nn.Residual, nn.Concatenate, nn.Parallel, nn.Tied}  # tests/test_compose.py
    assert layers == {c for c in public if issubclass(c, nn.Layer)} - {nn.Layer, *composites}
    assert {type(loss) for loss, _ in mutations.LOSSES} == {c for c in public if issubclass(c, nn.Loss)} - {nn.Loss}


def test_a_blind_checker_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("check_layer", "check_loss", "check_network"):
        monkeypatch.setattr(mutations, name, lambda *args, **options: nn.GradCheckReport("blind"))
    blind = gc.selftest()
    assert not blind and blind.detection == 0 and "FAILED" in str(blind) and "missed" in str(blind)


def test_a_checker_that_accuses_everything_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def accuse(*args: object, **options: object) -> nn.GradCheckReport:
        return nn.GradCheckReport("anxious", findings=[gc.Finding("term", "", "x", "wrong")])

    for name in ("check_layer", "check_loss", "check_network"):
        monkeypatch.setattr(mutations, name, accuse)
    anxious = gc.selftest()
    assert not anxious and anxious.false_alarms == len(anxious.traps) and "called wrong" in str(anxious)


@pytest.mark.parametrize("arguments", [{"n_seeds": 0}, {"sizes": ()}, {"sizes": (3,)}])
def test_it_wants_something_to_do(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"n_seeds|sizes"):
        gc.selftest(**arguments)  # type: ignore[arg-type]
