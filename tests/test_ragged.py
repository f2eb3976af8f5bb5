"""Ragged: packed sequences come out as they went in, whatever their lengths, and nothing that does not fit gets in."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnprofile as nn
from nnprofile.contract import n_rows, take

LENGTHS = st.lists(st.integers(0, 5), max_size=7)


def sequences(lengths: list[int], width: int = 2, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(n, width)) for n in lengths]


def same(a: Any, b: list[np.ndarray]) -> None:
    assert len(a) == len(b) == n_rows(a)
    for i, (mine, theirs) in enumerate(zip(a, b, strict=True)):
        assert len(mine) == len(theirs)
        assert not len(theirs) or np.array_equal(mine, theirs)
        np.testing.assert_array_equal(a[i], mine)


@given(lengths=LENGTHS, data=st.data())
def test_it_is_a_list_of_arrays(lengths: list[int], data: st.DataObject) -> None:
    given_ = sequences(lengths)
    x = nn.Ragged.from_list(given_)
    same(x, given_)
    assert x.lengths.tolist() == lengths and x.n_events == sum(lengths)
    n = len(lengths)
    start, stop, step = (data.draw(st.integers(-9, 9)) for _ in range(3))
    same(x[start:stop], given_[start:stop])
    if step:
        same(x[::step], given_[::step])
    rows = data.draw(st.lists(st.integers(-n, n - 1), max_size=9)) if n else []
    same(take(x, np.array(rows, int)), [given_[i] for i in rows])
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    same(x[mask], [s for s, kept in zip(given_, mask, strict=True) if kept])
    for twin in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), copy.copy(x)):
        same(twin, given_)


@given(lengths=LENGTHS, ids=st.booleans())
def test_padding_and_back(lengths: list[int], ids: bool) -> None:
    given_ = [s[:, 0].round().astype(np.int64) for s in sequences(lengths)] if ids else sequences(lengths)
    x = nn.Ragged.from_list(given_)
    padded = x.to_padded(7)
    assert padded.shape[:2] == (len(lengths), max(lengths, default=0)) and padded.dtype == x.dtype
    same(nn.Ragged.from_padded(padded, x.lengths), given_)
    behind = np.arange(padded.shape[1]) >= x.lengths[:, None]
    assert (padded[behind] == 7).all()


def test_csr_rows() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = np.eye(5, 4)
    x = nn.Ragged(sparse.csr_array(dense), [0, 2, 2, 5])
    same(nn.Ragged(x.values.toarray(), x.offsets), [dense[:2], dense[2:2], dense[2:]])
    assert x[[2, 0]].values.toarray().tolist() == dense[[2, 3, 4, 0, 1]].tolist() and x.to_padded().shape == (3, 3, 4)
    assert pickle.loads(pickle.dumps(x))[2].toarray().tolist() == dense[2:].tolist()


def test_a_table_of_events() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"who": ["b", "a", "b", "c", "a"], "item": [3, 1, 4, 1, 5], "amount": [1.0, 2.0, 3.0, 4.0, 5.0]},
        index=range(5, 10),
    )
    x = nn.Ragged.from_frame(frame, "who", ["amount", "item"])
    assert [s.tolist() for s in x] == [[[2.0, 1.0], [5.0, 5.0]], [[1.0, 3.0], [3.0, 4.0]], [[4.0, 1.0]]]
    ids = nn.Ragged.from_frame(frame, "who", "item")
    assert [s.tolist() for s in ids] == [[1, 5], [3, 4], [1]] and ids.dtype == np.int64 and ids.same_events(x)
    assert list(frame.groupby("who").groups) == ["a", "b", "c"]  # the order that is promised
    assert len(nn.Ragged.from_frame(frame.iloc[:0], "who", ["amount"])) == 0
    days = frame.assign(who=pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-02", None, "2024-01-01"]))
    for broken in (frame.assign(who=["b", None, "b", "c", "a"]), frame.assign(who=[1.0, np.nan, 1, 2, 3]), days):
        with pytest.raises(ValueError, match="'who' must name whose event it is in every row"):
            nn.Ragged.from_frame(broken, "who", "item")
    with pytest.raises(ValueError, match="no column 'price'"):
        nn.Ragged.from_frame(frame, "who", ["price"])


def test_tables_of_all_kinds() -> None:
    pd = pytest.importorskip("pandas")
    size = pd.Categorical(["high", "low", "mid", "low"], categories=["low", "mid", "high"])
    frame = pd.DataFrame({"size": size, "n": [1, 2, 3, 4]})
    assert [s.tolist() for s in nn.Ragged.from_frame(frame, "size", "n")] == [[2, 4], [3], [1]]
    assert frame.groupby("size", observed=True)["n"].first().tolist() == [2, 3, 1]
    numbers = frame.assign(size=pd.array([3, 1, 2, 1], "Int64"), n=pd.array([1, 2, None, 4], "Int64"))
    assert np.isnan(nn.Ragged.from_frame(numbers, "size", "n").values).tolist() == [False, False, True, False]
    with pytest.raises(ValueError, match="in every row"):
        nn.Ragged.from_frame(frame.assign(size=pd.array(["a", None, "b", "a"], "string")), "size", "n")
    twice = pd.concat([frame, frame[["n"]]], axis=1)
    deep = frame.set_axis(pd.MultiIndex.from_tuples([("a", "size"), ("a", "n")]), axis=1)
    assert len(nn.Ragged.from_frame(deep, ("a", "size"), ("a", "n"))) == 3
    for table, columns, match in (
        (twice, "n", "2 column 'n'"),
        (frame, [], "at least one column, got none"),
        (frame, None, "no column None"),
        ({"size": [1], "n": [2]}, "n", "takes a table with columns, of pandas or polars, got dict"),
        (frame.assign(n=pd.to_datetime(["2024-01-01"] * 4)), "n", "n must hold real numbers"),
        (frame.assign(n=list("abcd")), ["n"], "n must hold real numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            nn.Ragged.from_frame(table, "size", columns)


def test_tables_in_place_of_sequences() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"who": ["a", "b"], "page": [0.0, np.nan]})
    net = nn.Sequential([nn.Embedding(3, 2), nn.LastEvent()], rng=np.random.default_rng(0))
    for x in (frame, frame["page"]):
        with pytest.raises(ValueError, match="takes sequences, a Ragged; got (DataFrame|Series): see Ragged.from_list"):
            net.predict(x)
    with pytest.raises(ValueError, match="integer ids, .* got float64 of shape .2,., with NaN for what is missing"):
        net.predict(nn.Ragged.from_frame(frame, "who", "page"))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_sequences_of_given_keys(library: str) -> None:
    table = pytest.importorskip(library).DataFrame
    frame = table({"who": ["b", "a", "b", "c"], "item": [3, 1, 4, 1]})
    x = nn.Ragged.from_frame(frame, "who", "item", keys=["d", "b", "a", "e"])
    assert [s.tolist() for s in x] == [[], [3, 4], [1], []] and x.dtype == np.int64
    customers = table({"id": ["c", "d"], "item": [0, 0]})["id"]
    assert [s.tolist() for s in nn.Ragged.from_frame(frame, "who", ["item"], keys=customers)] == [[[1]], []]
    assert len(nn.Ragged.from_frame(frame, "who", "item", keys=[])) == 0
    assert len(nn.Ragged.from_frame(frame[:0], "who", "item", keys=["a", "b"])) == 2
    with pytest.raises(ValueError, match="keys must differ, got 'a' twice"):
        nn.Ragged.from_frame(frame, "who", "item", keys=["a", "b", "a"])
    assert [s.tolist() for s in nn.Ragged.from_frame(frame, "who", "item", keys=["new"])] == [[]]
    for keys, match in (
        ([1, 2], "values of the column 'who'; it has 'b', got 1"),
        ("ab", "a list or a column of values of 'who', got str"),
        (frame, "a list or a column of values of 'who', got DataFrame"),
        ({"a", "b"}, "a list or a column of values of 'who', got set"),
        ({"a": 1}, "a list or a column of values of 'who', got dict"),
        (5, "a list or a column of values of 'who', got int"),
        ([["a"]], "values of the column 'who'"),
        (["a", None], "values of the column 'who', got a missing one"),
        (["a", None, "b"], "got a missing one"),
    ):
        with pytest.raises(ValueError, match=match):
            nn.Ragged.from_frame(frame, "who", "item", keys=keys)
    with pytest.raises(ValueError, match="in every row"):
        nn.Ragged.from_frame(table({"who": ["b", None], "item": [3, 1]}), "who", "item", keys=["b"])


def test_keys_are_compared_as_the_column_is() -> None:
    pd = pytest.importorskip("pandas")
    days = pd.to_datetime(["2024-01-02", "2024-01-01", "2024-01-02"])
    frame = pd.DataFrame({"day": days, "n": [1, 2, 3]})
    for keys in (np.array(["2024-01-02", "2024-01-03"], "datetime64[D]"), days[:1].append(days[:0] + pd.Timedelta(1))):
        assert nn.Ragged.from_frame(frame, "day", "n", keys=keys)[0].tolist() == [1, 3]
    with pytest.raises(ValueError, match="it has Timestamp.*, got '2024-01-02'"):
        nn.Ragged.from_frame(frame, "day", "n", keys=["2024-01-02"])
    whole = frame.assign(day=pd.array([1, 2, 1], "Int64"))
    assert nn.Ragged.from_frame(whole, "day", "n", keys=np.array([1], np.int8))[0].tolist() == [1, 3]
    with pytest.raises(ValueError, match="got a missing one"):
        nn.Ragged.from_frame(whole, "day", "n", keys=[1, pd.NA])


def test_what_is_packed_is_numbers() -> None:
    for words in ([["a"], ["b"]], [[None]], [[], [object()]]):
        with pytest.raises(ValueError, match="values must be rows of numbers"):
            nn.Ragged.from_list(words)
    with pytest.raises(ValueError, match="values must be rows of numbers"):
        nn.Ragged.from_padded([["a", "b"]], [1])
    assert nn.Ragged.from_list([[], []]).values.shape == (0,)


def test_a_table_of_polars() -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"who": ["b", "a", "b"], "item": [3, 1, 4]})
    assert [s.tolist() for s in nn.Ragged.from_frame(frame, "who", "item")] == [[1], [3, 4]]
    with pytest.raises(ValueError, match="in every row"):
        nn.Ragged.from_frame(pl.DataFrame({"who": ["b", None], "item": [3, 1]}), "who", "item")


@pytest.mark.parametrize("rows", [1, -2, np.array([1]), None, True, np.bool_(True), [[0]], 0.0, "a"])
def test_an_index_that_names_no_sequence_is_an_index_error(rows: Any) -> None:
    with pytest.raises(IndexError):
        nn.Ragged([[1.0]], [0, 1])[rows]


def test_a_number_of_any_type_is_one_sequence() -> None:
    x = nn.Ragged([[1.0], [2.0]], [0, 1, 2])
    for i in (1, -1, np.int8(1), np.array(1)):
        assert x[i].tolist() == [[2.0]]
    assert x[[]].offsets.tolist() == [0] and x[[1, 1]].values.tolist() == [[2.0], [2.0]]


def test_what_is_shared_cannot_be_written() -> None:
    x = nn.Ragged(np.zeros((2, 1)), np.array([0, 1, 2]))
    for offsets in (x.offsets, x[:1].offsets, x[[1]].offsets, nn.Tanh().forward(x.values)[0]):
        if offsets.dtype.kind == "i":
            with pytest.raises(ValueError, match="read-only"):
                offsets[0] = 1


def test_a_ragged_is_no_array() -> None:
    x = nn.Ragged(np.arange(6.0).reshape(6, 1), [0, 2, 4, 6])
    with pytest.raises(ValueError, match=r"a Ragged is no array: x\.values are its events"):
        np.asarray(x)
    for fit in (lambda: nn.MLPRegressor().fit(x, [1, 2, 3]), lambda: nn.MLPRegressor().fit(np.eye(3), x)):
        with pytest.raises(ValueError, match="estimators and layers of rows do not"):
            fit()


def test_padding_may_need_another_type() -> None:
    x = nn.Ragged(np.array([1, 2, 3]), [0, 1, 3])
    assert np.isnan(x.to_padded(np.nan)[0, 1]) and x.to_padded(-1).tolist() == [[1, -1], [2, 3]]
    assert nn.Ragged(np.float32([[1.0]]), [0, 1]).to_padded().dtype == np.float32


def test_tables_and_sparse_values_become_rows() -> None:
    pd, sparse = pytest.importorskip("pandas"), pytest.importorskip("scipy.sparse")
    x = nn.Ragged(pd.DataFrame({"a": [1.0, 2.0]}), [0, 2])
    assert x[[0]].values.tolist() == [[1.0], [2.0]] and "float64" in repr(x)
    assert nn.Ragged(sparse.coo_array(np.eye(2)), [0, 1, 2])[1:].values.toarray().tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("values", "offsets", "match"),
    [
        ([[1.0]], [0, 2], "from 0 to the number of events, 1, got 0 to 2"),
        ([[1.0], [2.0]], [1, 2], "got 1 to 2"),
        ([[1.0], [2.0]], [0, 2, 1, 2], r"offsets\[2\] = 1 after 2"),
        ([[1.0]], [], "one more than there are sequences"),
        ([[1.0]], [0.0, 1.0], "whole numbers"),
        ([[1.0]], [[0, 1]], "whole numbers"),
        (5, [0], "rows of numbers"),
        (None, [0, 1], "rows of numbers"),
        (["a"], [0, 1], "rows of numbers"),
        (nn.Ragged([[1.0]], [0, 1]), [0, 1], "not sequences"),
    ],
)
def test_offsets_that_do_not_fit(values: Any, offsets: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        nn.Ragged(values, offsets)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: nn.Ragged.from_list([[[1.0, 2.0]], [[1.0]]]), r"shape \(2,\), sequence 1 has events of \(1,\)"),
        (lambda: nn.Ragged.from_list([3.0]), "sequence 0 must be a list of events"),
        (lambda: nn.Ragged.from_list(None), "takes a list of sequences"),
        (lambda: nn.Ragged.from_padded(np.zeros((2, 3)), [1, 4]), r"0 \.\. 3, the longest, got lengths\[1\] = 4"),
        (lambda: nn.Ragged.from_padded(np.zeros((2, 3)), [1, -1]), r"lengths\[1\] = -1"),
        (lambda: nn.Ragged.from_padded(np.zeros((2, 3)), [1]), "an integer length for each"),
        (lambda: nn.Ragged.from_padded(np.zeros((2, 3)), [1.0, 2.0]), "an integer length for each"),
        (lambda: nn.Ragged.from_padded(np.zeros(3), [1]), "shape"),
    ],
)
def test_what_cannot_be_packed(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
