"""What a check found: a row for each tensor, a finding for each thing that is wrong, in text, dict and HTML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from html import escape
from math import isfinite
from typing import Any

KAPPA = 64  # an error of this many times the measured rounding noise is a wrong gradient


@dataclass
class Worst:
    """One element: where it is, your gradient there, and the right one."""

    index: tuple[int, ...]
    yours: float
    right: float

    def __str__(self) -> str:
        index = "[" + ", ".join(map(str, self.index)) + "]" if self.index else ""
        digits = next((d for d in (6, 9, 12) if f"{self.yours:.{d}g}" != f"{self.right:.{d}g}"), 17)
        return f"{index} yours {self.yours:.{digits}g}, right {self.right:.{digits}g}"


@dataclass
class Row:
    """One tensor's gradient: how it was judged, and how far off it is.

    Attributes
    ----------
    tensor : str
        Its name: "x", "2.W", "params.heads.0.Wq".
    shape : tuple of int
    method : str
        "complex step", or "differences" (Richardson-extrapolated central ones).
    reason : str
        Why not the complex step, if it was not.
    checked : str
        "all 12 elements", or "8 directions".
    accuracy : float
        Of the reference, relative to the gradient's norm, as far as it is known.
    error : float
        The largest difference to the reference, relative to the largest element (of elements), or to the norm (of
        directions).
    noise_ratio : float
        The error as a multiple of the measured rounding noise; above 64 it is an error.
    certificate : float
        An error whose norm, relative to the gradient's, is at least this would have been found with probability 0.999
        (directions) or for certain (all elements).
    verdict : str
        "right", "subgradient" (right at a kink: an element of the subgradient), "wrong", or "unclear".
    worst : list of Worst
        The worst elements of a wrong gradient, the worst first.
    """

    tensor: str
    shape: tuple[int, ...]
    method: str
    reason: str = ""
    checked: str = ""
    accuracy: float = 0.0
    error: float = 0.0
    noise_ratio: float = 0.0
    certificate: float = 0.0
    verdict: str = "right"
    worst: list[Worst] = field(default_factory=list)


@dataclass
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes
    ----------
    kind : str
        A word of ``KINDS`` that names the bug, such as "scale", "transpose", "stale-cache".
    layer : str
        The wrong layer: "2", "1.0" in a nested network, "loss", "optimizer"; "" where there are no layers.
    tensor : str
        The tensor whose gradient is wrong, as its row names it; "" if it is not about one.
    message : str
        The likely bug in words.
    severity : str
        "error", or "note": worth knowing, but no reason to fail.
    unexplained : float
        The share of the error that is left if the bug is the one named; NaN where the message is not such a hypothesis.
    """

    kind: str
    layer: str
    tensor: str
    message: str
    severity: str = "error"
    unexplained: float = float("nan")

    def __str__(self) -> str:
        left = f"; explains all but {self.unexplained:.0e} of the error" if self.unexplained == self.unexplained else ""
        where = "" if not self.layer else f"layer {self.layer}: " if self.layer[0].isdigit() else f"{self.layer}: "
        return f"{where}{self.message} [{self.kind}{left}]"


@dataclass
class GradCheckReport:
    """The result of a check; true if nothing is wrong.

    Attributes
    ----------
    subject : str
        What was checked.
    rows : list of Row
        One a tensor.
    findings : list of Finding
        What is wrong, the layer nearest to the loss first; then notes.
    n_forward, n_backward : int
        Evaluations that it took.
    seconds : float
    seed : int
        Repeats the check.
    points : list of str
        At which other points the gradients were compared too, along one direction.
    """

    subject: str
    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    n_forward: int = 0
    n_backward: int = 0
    seconds: float = 0.0
    seed: int = 0
    points: list[str] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def notes(self) -> list[Finding]:
        """The findings that are worth knowing, and no errors."""
        return [finding for finding in self.findings if finding.severity == "note"]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    def __bool__(self) -> bool:
        return self.ok

    def raise_if_failed(self) -> None:
        """Raise an AssertionError with the findings and the worst elements, if something is wrong."""
        if self.ok:
            return
        __tracebackhide__ = True  # pytest shows the caller's line
        lines = [f"{self.subject}: wrong gradient" if self._wrong_rows() else f"{self.subject}: contract broken"]
        lines += [f"  {finding}" for finding in self.errors]
        for row in self._wrong_rows()[:3]:
            lines += [f"  {row.tensor}{worst}" for worst in row.worst[:3]]
        raise AssertionError("\n".join(lines))

    def _wrong_rows(self) -> list[Row]:
        return [row for row in self.rows if row.verdict == "wrong"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dicts, lists, strings and finite numbers, as JSON takes it; inf and NaN are strings."""
        found: dict[str, Any] = _plain({"ok": self.ok, **asdict(self)})
        return found

    def _verdict(self) -> str:
        if self.ok:
            if not self.rows:
                return "nothing checked"
            return "unclear" if any(row.verdict == "unclear" for row in self.rows) else "right"
        return "wrong" if self._wrong_rows() else "contract broken"

    def _table(self) -> Iterator[tuple[str, ...]]:
        yield "tensor", "shape", "reference", "checked", "error", "error / noise", "detectable error", "verdict"
        for row in self.rows:
            yield (
                row.tensor,
                "x".join(map(str, row.shape)) or "scalar",
                f"{row.method}, to {row.accuracy:.0e}",
                row.checked,
                f"{row.error:.1e}",
                f"{row.noise_ratio:.2g}",
                f"{row.certificate:.1e}",
                row.verdict,
            )

    def _effort(self) -> str:
        return f"{self.n_forward} forward and {self.n_backward} backward evaluations, {self.seconds:.2g} s, seed {self.seed}"

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self._verdict()}  ({self._effort()})"]
        table = list(self._table())
        if self.rows:
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines += [
                "  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table
            ]
        for row in self.rows:
            if row.reason:
                lines.append(f"  {row.tensor}: by differences, because {row.reason}")
            lines += [f"  {row.tensor}{worst}" for worst in row.worst]
        if self.points:
            lines.append(f"  also looked at: {', '.join(dict.fromkeys(self.points))}")
        lines += [f"  {'error' if f.severity == 'error' else 'note '}: {f}" for f in self.findings]
        return "\n".join(lines)

    def to_html(self) -> str:
        """Return one HTML page that needs nothing else."""
        head, *rows = self._table()
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join(
            f'<tr class="{escape(row[-1])}">' + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        findings = "".join(f'<li class="{f.severity}">{escape(str(f))}</li>' for f in self.findings)
        worst = "".join(
            f"<li><code>{escape(row.tensor)}{escape(str(w))}</code></li>" for row in self.rows for w in row.worst
        )
        reasons = "".join(
            f"<li>{escape(row.tensor)}: by differences, because {escape(row.reason)}</li>"
            for row in self.rows
            if row.reason
        )
        return _PAGE.format(
            title=escape(f"Gradient check of {self.subject}"),
            verdict=escape(self._verdict()),
            state="right" if self.ok else "wrong",
            effort=escape(self._effort()),
            points=escape(f"Also looked at: {', '.join(dict.fromkeys(self.points))}." if self.points else ""),
            table=f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>" if rows else "",
            findings=f"<h2>Findings</h2><ul>{findings}</ul>" if findings else "",
            worst=f"<h2>Worst elements</h2><ul>{worst}</ul>" if worst else "",
            reasons=f"<h2>Where the complex step was not used</h2><ul>{reasons}</ul>" if reasons else "",
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }}
td {{ font-variant-numeric: tabular-nums; }}
.wrong td:last-child, p.wrong b, li.error {{ color: #b00020; }}
.right td:last-child, p.right b {{ color: #1b6e2e; }}
.effort {{ color: #666; }}
</style>
<h1>{title}</h1>
<p class="{state}"><b>{verdict}</b> <span class="effort">{effort}</span></p>
<p>{points}</p>
{table}{findings}{worst}{reasons}
</html>
"""
