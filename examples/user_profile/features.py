"""Step 3, features: say of each user, in numbers, what the network can learn from.

Every column becomes numbers between about -1 and 1, by statistics of the rows to fit only. (A purchase log has become one row a
customer before, in orders.py.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

from .preprocess import Table

MISSING_TEXT = "(missing)"
PIECE = 2048  # rows at a time: what is in between stays in the processor's cache


@dataclass(frozen=True)
class Encoding:
    """How finely numbers are cut into bins.

    ``leaves`` bins at most, each of at least ``min_share`` of the rows; with ``indicators``, one more feature a bin that is 1
    inside it, so that a bin can stand apart from its neighbours.
    """

    leaves: int
    min_share: float
    indicators: bool
    dropout: float


# Which is better depends on how much the data can bear, so train.py lets the validation rows decide.
ENCODINGS = {"coarse": Encoding(16, 0.01, False, 0.3), "fine": Encoding(32, 0.001, True, 0.3)}
N_CLASSES = 6  # of a number, and one for what is missing, to see whether it tells something


class Encoder:
    """Turn a table into the network's input; its state is plain JSON.

    A number x becomes (1) whether it is missing, (2) its standardised signed logarithm, (3) the piecewise-linear encoding:
    with the edges e_0 < ... < e_T of a small decision tree, the features clip((x - e_(t-1)) / (e_t - e_(t-1)), 0, 1),
    t = 1 .. T, and (4) if asked, an indicator of its bin. A category becomes indicators; one that is rare, or was not seen,
    is "other". All features are centred on the rows to fit.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022), "On embeddings for numerical features in tabular deep learning", section 3.2.
    """

    def __init__(self, columns: list[dict[str, Any]], center: list[float]) -> None:
        self.columns, self.center = columns, center
        self._layout, self._zero = _Layout(columns), np.array(center)[:, None] if center else 0.0

    @classmethod
    def fit(cls, frame: pd.DataFrame, kinds: dict[str, str], y: np.ndarray, encoding: Encoding) -> Encoder:
        """Learn edges, scales and categories from these rows."""
        columns = []
        for name, kind in kinds.items():
            column: dict[str, Any] = {"name": name, "kind": kind}
            if kind != "category":
                column |= _fit_number(frame[name].to_numpy(float), y, encoding)
            if kind != "number":
                text = as_text(frame[name]).to_numpy(object)[:, None]
                categories = OneHotEncoder(min_frequency=5, handle_unknown="infrequent_if_exist").fit(text)
                rare = set(() if categories.infrequent_categories_[0] is None else categories.infrequent_categories_[0])
                column["categories"] = [str(c) for c in categories.categories_[0] if c not in rare]
            columns.append(column)
        return cls(columns, cls(columns, []).transform(frame).mean(axis=0, dtype=np.float64).tolist())

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Return float32 features, shape (n_rows, n_features)."""
        x = np.empty((len(frame), self._layout.n_features), np.float32)
        numbers = np.stack(
            [frame[name].to_numpy(float) for name in self._layout.numbers] or [np.empty(len(frame))], axis=1
        )
        codes = np.stack(
            [_codes(frame[name], known) for name, known in self._layout.known.items()] or [numbers[:, 0]], axis=1
        )
        for i in range(0, len(frame), PIECE):
            x[i : i + PIECE] = self.encode(numbers[i : i + PIECE], codes[i : i + PIECE])
        return x

    def encode(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the features of numbers (NaN where missing) and numbers of categories, a column for each that has some."""
        at, n = self._layout, len(numbers)
        out = np.zeros((at.n_features, n))  # a feature a row: what is done to one is done to neighbours in memory
        if at.numbers:
            missing = np.isnan(numbers)
            x = np.where(missing, at.median, numbers)
            out[at.missing] = missing.T
            out[at.log] = np.minimum(np.maximum((signed_log(x) - at.mean) / at.scale, -10), 10).T
            x = np.ascontiguousarray(x.T)
            share = x[at.bin_of]
            share -= at.low[:, None]
            share /= at.width[:, None]
            out[at.bins] = np.clip(share, 0, 1, out=share)
            if len(at.inside):
                spread = x[at.inside_of]
                out[at.inside] = (spread > at.above[:, None]) & (spread <= at.upto[:, None])
        if at.known:
            out[(at.first + codes).T, np.arange(n)] = 1
        out -= self._zero
        return np.ascontiguousarray(out.T, np.float32)

    def row(self, values: Mapping[str, Any]) -> np.ndarray:
        """Return the features of one record, shape (n_features,), as ``transform`` does: numbers with NaN, texts with None."""
        at = self._layout
        numbers = np.array([values[name] for name in at.numbers], float)
        codes = np.array([known.get(_known(values[name]), len(known)) for name, known in at.known.items()], int)
        features: np.ndarray = self.encode(numbers[None], codes[None])[0]
        return features

    def feature_columns(self) -> np.ndarray:
        """Return, for each feature, the number of the column it was made from, shape (n_features,)."""
        return np.repeat(np.arange(len(self.columns)), [_n_features(column) for column in self.columns])

    def to_json(self) -> dict[str, Any]:
        """Return the state."""
        return {"columns": self.columns, "center": self.center}


_FLAT = (
    *("median", "mean", "scale", "missing", "log"),
    *("bins", "bin_of", "low", "width"),
    *("inside", "inside_of", "above", "upto", "first"),
)


class _Layout:
    """Which feature stands where, and the numbers that it is made with, flat over all columns."""

    def __init__(self, columns: list[dict[str, Any]]) -> None:
        self.numbers = [column["name"] for column in columns if column["kind"] != "category"]
        self.known = {
            c["name"]: {text: k for k, text in enumerate(c["categories"])} for c in columns if c["kind"] != "number"
        }
        flat: dict[str, list[Any]] = {name: [] for name in _FLAT}
        at, k = 0, 0
        for column in columns:
            if column["kind"] != "category":
                edges = column["edges"]
                n_bins = max(len(edges) - 1, 0)
                for name in ("median", "mean", "scale"):
                    flat[name].append(column[name])
                flat["missing"].append(at)
                flat["log"].append(at + 1)
                flat["bins"] += range(at + 2, at + 2 + n_bins)
                flat["bin_of"] += [k] * n_bins
                flat["low"] += edges[:-1]
                flat["width"] += np.diff(edges).tolist() if n_bins else []
                at += 2 + n_bins
                if column["indicators"] and n_bins:
                    flat["inside"] += range(at, at + n_bins)
                    flat["inside_of"] += [k] * n_bins
                    flat["above"] += [-np.inf, *edges[1:-1]]
                    flat["upto"] += [*edges[1:-1], np.inf]
                    at += n_bins
                k += 1
            if column["kind"] != "number":
                flat["first"].append(at)
                at += len(column["categories"]) + 1
        self.n_features = at
        places = {"missing", "log", "bins", "bin_of", "inside", "inside_of", "first"}
        for name, values in flat.items():
            setattr(self, name, np.array(values, int if name in places else float))


def as_text(column: pd.Series) -> pd.Series:
    """Return a category's values as text; what is missing is a category of its own."""
    codes, kinds = pd.factorize(column)  # few kinds, many rows
    return pd.Series(np.array([*map(_text, kinds), MISSING_TEXT], object)[codes], index=column.index, dtype=object)


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) else str(value)


def _known(value: Any) -> str:
    return MISSING_TEXT if value is None or value != value else _text(value)


def _codes(values: pd.Series, known: Mapping[str, int]) -> np.ndarray:
    """Return the number of each value's category; that of "other" is the last."""
    codes, kinds = pd.factorize(values)
    found = [known.get(text, len(known)) for text in [*map(_text, kinds), MISSING_TEXT]]  # missing has the code -1
    return np.array(found)[codes]


def telling(table: Table, rows: np.ndarray) -> dict[str, str]:
    """Return the columns, with their kinds, that tell something of the target on these rows; never none.

    By the chi-squared test of each column, cut into classes of equal size, at a level of one over the number of columns: of
    those that are noise one gets in, on average. The features of one column of the file stay together.
    """
    p = {name: _chance(table.frame[name].iloc[rows], kind, table.y[rows]) for name, kind in table.kinds.items()}
    together = [list(column.features()) for column in table.columns] or [[name] for name in p]
    most = max(1 / len(p), min(p.values()))
    kept = {name for names in together for name in names if min(p[n] for n in names) <= most}
    return {name: kind for name, kind in table.kinds.items() if name in kept}


def _chance(column: pd.Series, kind: str, y: np.ndarray) -> float:
    """Return the p-value of the chi-squared test of independence."""
    if kind != "number":
        codes = pd.factorize(column, use_na_sentinel=False)[0]
        codes = np.where(np.bincount(codes)[codes] < 10, codes.max() + 1, codes)
    else:
        x = column.to_numpy(float)
        known = x[~np.isnan(x)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, N_CLASSES + 1)[1:-1])) if len(known) else known
        codes = np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x))
    codes = np.unique(codes, return_inverse=True)[1]
    n = np.bincount(codes)
    expected, found = n * y.mean(), np.bincount(codes, y)
    with np.errstate(invalid="ignore"):
        statistic = np.nansum((found - expected) ** 2 / (expected * (1 - y.mean())))
    return float(chi2.sf(statistic, len(n) - 1)) if len(n) > 1 else 1.0


def _fit_number(x: np.ndarray, y: np.ndarray, encoding: Encoding) -> dict[str, Any]:
    present = ~np.isnan(x)
    if not present.any():
        return {"median": 0.0, "mean": 0.0, "scale": 1.0, "edges": [], "indicators": False}
    tree = DecisionTreeClassifier(
        max_leaf_nodes=encoding.leaves, min_samples_leaf=max(20, int(encoding.min_share * len(x))), random_state=0
    ).fit(x[present, None], y[present])
    inner = tree.tree_.threshold[tree.tree_.feature >= 0]
    edges = np.unique([x[present].min(), *inner, x[present].max()])
    z = signed_log(x[present])
    return {
        "median": float(np.median(x[present])),
        "mean": float(z.mean()),
        "scale": float(z.std()) or 1.0,
        "edges": edges.tolist() if len(edges) > 1 else [],
        "indicators": encoding.indicators,
    }


def _n_features(column: dict[str, Any]) -> int:
    n_bins = max(len(column.get("edges", [])) - 1, 0)
    number = 0 if column["kind"] == "category" else 2 + n_bins * (1 + column["indicators"])
    return number + (0 if column["kind"] == "number" else len(column["categories"]) + 1)


def signed_log(x: np.ndarray) -> np.ndarray:
    """Return sign(x) * log(1 + |x|), which brings sums of money to the size of counts."""
    return np.sign(x) * np.log1p(np.abs(x))
