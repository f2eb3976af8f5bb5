"""What is no number is refused, whatever holds it: an array, a list, or a table of pandas, polars, Arrow or another library."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.tables import NotNumbersError, as_real, column_names

DAYS = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[D]")
NO_NUMBERS: dict[str, Any] = {
    "datetime64": DAYS,
    "NaT": np.array(["2020-01-01", "NaT", "2020-01-03"], "M8[s]"),
    "timedelta64": np.array([1, 2, 3], "m8[D]"),
    "str": np.array(["1", "2", "3"]),
    "bytes": np.array([b"1", b"2", b"3"]),
    "StringDType": np.array(["1", "2", "3"], np.dtypes.StringDType()),
    "complex": np.array([1j, 2, 3]),
    "structured": np.array([(1.0,), (2.0,), (3.0,)], [("a", float)]),
    "object dates": np.array([dt.date(2020, 1, day) for day in (1, 2, 3)], object),
    "object durations": np.array([dt.timedelta(day) for day in (1, 2, 3)], object),
    "object timedelta64": np.array([np.timedelta64(day, "D") for day in (1, 2, 3)], object),
    "object text": np.array([1, "2", 3.0], object),
    "object bytes": np.array([1, b"2", 3.0], object),
    "object complex": np.array([1, 2j, 3.0], object),
    "object None and text": np.array([None, "2", 3.0], object),
    "object arrays": np.array([np.ones(2), np.ones(3), 1.0], object),
    "object mappings": np.array([{}, {}, {}], object),
    "too large": np.array([10**400, 1, 2], object),
}
X, Y = np.array([[1.0], [2.0], [3.0]]), [0, 1, 0]


STOPS: dict[str, Any] = {
    "max_iter": 100,
    "n_iter_no_change": 1,
    "tol": 1e9,
    "random_state": 0,
}  # at once, without a warning


def classifier() -> nn.MLPClassifier:
    return nn.MLPClassifier(2, **STOPS)


def regressor() -> nn.MLPRegressor:
    return nn.MLPRegressor(hidden_layer_sizes=2, **STOPS)


pytest.importorskip("scipy")


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_is_no_number_is_refused_everywhere(kind: str) -> None:
    bad = NO_NUMBERS[kind]
    column = bad.reshape(-1, 1)
    net = nn.Sequential([nn.Dense(1, 1)], rng=np.random.default_rng(0))
    for call in (
        lambda: classifier().fit(column, Y),
        lambda: regressor().fit(X, bad),
        lambda: regressor().fit(X, Y, sample_weight=bad),
        lambda: regressor().fit(X, Y, validation_data=(column, Y)),
        lambda: regressor().fit(X, Y, validation_data=(X, bad)),
        lambda: regressor().fit(X, Y, validation_data=(X, Y, bad)),
        lambda: regressor().partial_fit(X, bad),
        lambda: regressor().fit(X, Y).score(X, bad),
        lambda: regressor().fit(X, Y).predict(column),
        lambda: net.predict(column),
        lambda: nn.freeze(net)(column),
        lambda: nn.fit(net, nn.MeanSquaredError(), nn.Adam(), column, Y, n_epochs=1, rng=np.random.default_rng(0)),
        lambda: nn.fit(net, nn.MeanSquaredError(), nn.Adam(), X, bad, n_epochs=1, rng=np.random.default_rng(0)),
    ):
        with pytest.raises(ValueError, match="must hold (real )?numbers|must be an array of numbers"):
            call()
    model = regressor().fit(X, Y)
    before = model.network_.params.vector.copy()
    with pytest.raises(NotNumbersError):
        model.partial_fit(column, Y)
    np.testing.assert_array_equal(model.network_.params.vector, before)


def test_the_message_names_column_and_type() -> None:
    rows = [[1.0, dt.date(2020, 1, 1)], [2.0, dt.date(2020, 1, 2)], [3.0, dt.date(2020, 1, 3)]]
    with pytest.raises(NotNumbersError, match="X must hold real numbers, got date in column 1; encode or drop"):
        classifier().fit(rows, Y)
    with pytest.raises(NotNumbersError, match=r"sample_weight must hold real numbers, got dtype timedelta64\[D\]"):
        classifier().fit(X, Y, sample_weight=NO_NUMBERS["timedelta64"])


NUMBER = st.one_of(
    st.integers(-(2**62), 2**62),
    st.floats(-1e300, 1e300),
    st.booleans(),
    st.decimals(-1000, 1000, allow_nan=False, places=3),
    st.fractions(-10, 10),
    st.floats(allow_nan=False, allow_infinity=False, width=32).map(np.float32),
    st.integers(-100, 100).map(np.int8),
    st.booleans().map(np.bool_),
)


@given(st.lists(NUMBER, min_size=1, max_size=6), st.booleans())
def test_objects_that_are_numbers_are_numbers(values: list[Any], column: bool) -> None:
    a = np.empty(len(values), object)
    a[:] = values
    found = as_real(a[:, None] if column else a, "X", objects=True)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.ravel(), [float(value) for value in values])


@given(st.lists(st.one_of(st.none(), NUMBER), min_size=1, max_size=6))
def test_none_is_a_missing_value(values: list[Any]) -> None:
    a = np.empty(len(values), object)
    a[:] = values
    np.testing.assert_array_equal(np.isnan(as_real(a, "X", objects=True)), [value is None for value in values])


def test_numbers_of_any_kind_are_left_as_they_are() -> None:
    for dtype in (np.int8, np.uint64, np.float16, np.float32, ">f8", ">i4", bool, np.longdouble):
        a = np.ones((2, 2), dtype)
        assert as_real(a, "X") is a
    assert regressor().fit([[Decimal(1)], [Fraction(1, 2)], [3]], [Decimal("0.5"), 1, 2])._net is not None


def test_masked_elements_are_missing() -> None:
    masked = np.ma.masked_array([[1.0], [2.0], [3.0]], [[0], [1], [0]])
    with pytest.raises(ValueError, match="contains NaN"):
        classifier().fit(masked, Y)
    assert classifier().fit(np.ma.masked_array(X, np.zeros((3, 1))), Y).n_features_in_ == 1


class Protocol:
    """A table of a library nobody has heard of: it has the interchange protocol, and converts to an array."""

    kinds = {"f": 2, "i": 0, "u": 1, "b": 20, "U": 21, "M": 22}

    def __init__(self, **columns: Any) -> None:
        self.columns_ = {name: np.asarray(column) for name, column in columns.items()}

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.column_stack([column.astype(float) for column in self.columns_.values()])  # dates too, as polars does

    def __dataframe__(self) -> Any:
        return self

    def column_names(self) -> list[str]:
        return list(self.columns_)

    def get_column(self, k: int) -> Any:
        column = list(self.columns_.values())[k]
        return type("Column", (), {"dtype": (self.kinds[column.dtype.kind], 64, "", "=")})

    def swapped(self) -> Protocol:
        return Protocol(**dict(reversed(self.columns_.items())))


def test_a_table_of_the_interchange_protocol() -> None:
    table = Protocol(a=[1.0, 2, 3], b=[1, 0, 1], c=[True, False, True])
    assert column_names(table) == ["a", "b", "c"]
    model = classifier().fit(table, Y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert model.predict(table).shape == (3,)
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(table.swapped())
    for name, bad in (("datetime", DAYS), ("string", ["1", "2", "3"])):
        with pytest.raises(NotNumbersError, match=f"got {name} in column 'when'"):
            classifier().fit(Protocol(a=[1.0, 2, 3], when=bad), Y)


def frames(kind: str) -> Any:
    module = pytest.importorskip({"pandas": "pandas", "polars": "polars", "arrow": "pyarrow"}[kind])
    return module.table if kind == "arrow" else module.DataFrame


@pytest.mark.parametrize("kind", ["pandas", "polars", "arrow"])
def test_frames(kind: str) -> None:
    frame = frames(kind)
    good = {"x": [1.0, 2.0, 3.0], "flag": [True, False, True], "n": [1, 2, 3]}
    model = classifier().fit(frame(good), Y)
    assert model.feature_names_in_.tolist() == ["x", "flag", "n"]
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(frame(dict(reversed(good.items()))))
    for bad in (
        DAYS.tolist(),
        [dt.datetime(2020, 1, 1)] * 3,
        [dt.timedelta(1)] * 3,
        [dt.time(1)] * 3,
        ["1", "2", "3"],
        [b"1", b"2", b"3"],
    ):
        with pytest.raises(NotNumbersError, match="in column 'when'"):
            classifier().fit(frame({"x": [1.0, 2.0, 3.0], "when": bad}), Y)
        with pytest.raises(NotNumbersError, match="in column 'when'"):
            classifier().fit(frame({"when": bad}), Y)
    with pytest.raises(ValueError, match="contains NaN"):
        classifier().fit(frame({"x": [1.0, 2.0, 3.0], "n": [1, None, 3]}), Y)


def test_pandas_own_types() -> None:
    pd = pytest.importorskip("pandas")
    x = [1.0, 2.0, 3.0]
    for good in (
        {"x": x, "n": pd.array([1, 2, 3], dtype="Int64")},
        {"x": pd.array([True, False, True], dtype="boolean"), "n": x},
        {"x": x, "n": pd.Categorical([1, 2, 1])},
        {"x": pd.Series([1, 2.5, Decimal(3)], dtype=object)},
    ):
        assert classifier().fit(pd.DataFrame(good), Y).n_features_in_ == len(good)
    for bad, says in (
        ({"x": x, "signup": pd.to_datetime(DAYS)}, "got Timestamp in column 'signup'"),
        ({"signup": pd.to_datetime(DAYS)}, r"got dtype datetime64\[\w+\] in column 'signup'"),
        ({"x": x, "p": pd.period_range("2020", periods=3)}, "got Period in column 'p'"),
        ({"x": x, "c": pd.Categorical(["a", "b", "a"])}, "got str in column 'c'"),
        ({"x": x, "z": pd.Series([pd.NaT, 1.0, 2.0], dtype=object)}, "got NaTType in column 'z'"),
    ):
        with pytest.raises(NotNumbersError, match=says):
            classifier().fit(pd.DataFrame(bad), Y)
    with pytest.raises(ValueError, match="contains NaN"):
        regressor().fit(X, pd.Series([1, None, 3], dtype="Int64"))
    with pytest.raises(NotNumbersError):
        regressor().fit(X, pd.Series(pd.to_datetime(DAYS)))


def test_labels_come_back_in_this_machines_byte_order() -> None:
    for dtype in (">i4", ">i8", ">f4", ">U3", "<i4"):
        y = np.array([1, 0, 1]).astype(dtype)
        model = classifier().fit(X, y)
        assert model.classes_.dtype == y.dtype.newbyteorder("=") and model.predict(X).dtype.isnative
        again = classifier().partial_fit(X, y, classes=np.unique(y))
        assert again.classes_.dtype.isnative


def test_not_a_time_is_no_label() -> None:
    with pytest.raises(ValueError, match="contains NaT"):
        classifier().fit(X, NO_NUMBERS["NaT"])


@pytest.mark.parametrize("name", ["learning_rate_init", "epsilon"])
@pytest.mark.parametrize("value", [0, 0.0, -1, float("inf"), float("nan"), True, "0.1", None])
def test_bounds_that_are_open(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number greater than 0, got"):
        nn.MLPClassifier(max_iter=2, **{name: value}).fit(X, Y)


def test_verbose_is_no_text() -> None:
    with pytest.raises(ValueError, match="verbose must be"):
        nn.MLPClassifier(max_iter=2, verbose="x").fit(X, Y)


def test_a_frame_may_have_columns_of_any_name() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"column_names": [1.0, 2.0, 3.0], "columns": [1.0, 0.0, 1.0], "best_estimator_": [0.0, 1.0, 2.0]}
    )
    model = classifier().fit(frame, Y)
    assert model.feature_names_in_.tolist() == ["column_names", "columns", "best_estimator_"]
    with pytest.raises(ValueError, match="must be in the same order"):
        model.predict(frame[["columns", "column_names", "best_estimator_"]])
    assert regressor().fit(X, pd.Series([1.0, 2.0, 3.0], index=["columns", "a", "b"])).n_outputs_ == 1
    with pytest.raises(ValueError, match="net must be of type Layer"):
        nn.freeze(frame)  # type: ignore[arg-type]


class Labelled:
    """An array with something called columns, which is no table."""

    def __init__(self, values: Any, columns: Any) -> None:
        self.values, self.columns, self.shape = values, columns, values.shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values)

    def __getitem__(self, k: Any) -> Any:
        return self.values[k]


@pytest.mark.parametrize("columns", [["a"], 2, "a", None, np.array([0]), lambda: ["a"]])
def test_an_array_that_calls_something_columns(columns: Any) -> None:
    assert classifier().fit(Labelled(X, columns), Y).n_features_in_ == 1


@pytest.mark.parametrize("hidden", [[0, 1, 0], [1, 0, 0]])
def test_masks_are_seen_everywhere(hidden: list[int]) -> None:
    masked = np.ma.masked_array([1, 2, 1], hidden)
    objects = np.ma.masked_array(np.array([1.0, 2, 1], object)[:, None], np.array(hidden)[:, None])
    rows = [np.ma.masked_array([1.0], [hide]) for hide in hidden]
    for call in (
        lambda: classifier().fit(objects, Y),
        lambda: classifier().fit(rows, Y),
        lambda: classifier().fit(X, masked),
        lambda: classifier().fit(X, Y).score(X, masked),
        lambda: regressor().fit(X, masked),
        lambda: regressor().fit(X, Y, sample_weight=masked),
    ):
        with pytest.raises(ValueError, match="contains (NaN|masked)"):
            call()
    text = np.ma.masked_array(np.array(["x", "y", "x"], object)[:, None], np.array(hidden)[:, None])
    with pytest.raises(NotNumbersError, match="got str in column 0"):
        classifier().fit(text, Y)


def test_tables_without_rows() -> None:
    pd = pytest.importorskip("pandas")
    for empty in (pd.DataFrame({"x": [1.0], "d": ["a"]}).iloc[:0], np.zeros((0, 2), object), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="0 sample"):
            classifier().fit(empty, [])


def test_what_is_no_array_at_all() -> None:
    for bad in ((row for row in X), map(list, X), {0: [1.0]}.values(), object()):
        with pytest.raises(NotNumbersError, match=f"got {type(bad).__name__}: convert it first"):
            classifier().fit(bad, Y)


def test_classes_of_any_collection() -> None:
    for classes in ([0, 1], (0, 1), {0, 1}, range(2), {0: "a", 1: "b"}.keys(), np.array([0, 1], ">i8")):
        assert classifier().partial_fit(X, Y, classes=classes).classes_.tolist() == [0, 1]
    for bad, says in (([], "must name all labels"), ([0, 1, np.nan], "contains NaN"), ([0, None], "contains NaN")):
        with pytest.raises(ValueError, match=says):
            classifier().partial_fit(X, Y, classes=bad)


def test_types_that_numpy_does_not_know() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = X.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(as_real(x, "X"), X)
    assert classifier().fit(x, Y).n_features_in_ == 1
