"""Files as shops save them: no value is changed or lost in silence, what is repaired is said, and a refusal says what to do."""

from __future__ import annotations

import bz2
import datetime as dt
import gzip
import io
import lzma
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")

from examples.user_profile import amounts, collect, dates, preprocess, reading, values  # noqa: E402

N = 200


def table(cells: list[str], head: str = "a,y", ys: list[Any] | None = None, sep: str = ",") -> str:
    """Return a file: a line for each cell, or cells, and its target."""
    targets = ys or [i % 2 for i in range(len(cells))]
    return f"{head}\n" + "".join(f"{cell}{sep}{y}\n" for cell, y in zip(cells, targets, strict=True))


def clean(path: Path, content: str | bytes, types: preprocess.Types | None = None, **how: Any) -> preprocess.Table:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    target = how.pop("target", "y")
    return preprocess.clean(collect.csv_file(path, target, how.pop("positive", None), **how), types=types)


# -- encodings

SCRIPTS: dict[str, tuple[str, list[str], str]] = {
    "Chinese": ("用户ID,年龄,城市,是否订阅", ["北京", "上海", "广州", "成都"], "gb18030"),
    "a few Chinese words": ("id,age,city,y", [*"abcdefgh", "北京"], "gb18030"),
    "a Chinese header": ("用户,年龄,城市,订阅", ["a", "b"], "gb18030"),
    "Chinese genders": ("id,收入水平,性别,y", ["男", "女"], "gb18030"),
    "Chinese yes and no": ("id,age,x,y", ["是", "否"], "gb18030"),
    "rare Chinese characters": ("id,age,x,y", ["哈尔滨", "乌鲁木齐", "呼和浩特", "鑫淼"], "gb18030"),
    "Chinese names": ("id,age,x,y", ["张伟", "王芳", "李娜", "刘洋", "陈静", "杨敏", "赵磊"], "gb18030"),
    "yuan": ("id,age,x,y", ["￥57", "￥12"], "gb18030"),
    "tens of thousands": ("id,age,x,y", ["30.4万", "1.2万"], "gb18030"),
    "Taiwan": ("客戶編號,年齡,城市,是否訂閱", ["臺北", "高雄", "臺中"], "big5"),
    "Korean": ("고객,나이,도시,구매", ["서울", "부산", "대구"], "euc_kr"),
    "Japanese": ("顧客,年齢,都道府県,購入", ["東京", "大阪", "北海道"], "cp932"),
    "kana": ("id,age,x,y", ["はい", "いいえ", "キャンセル"], "cp932"),
    "Japanese genders": ("id,年齢,性別,y", ["男性", "女性"], "cp932"),
    "yen": ("id,age,x,y", ["1200円", "50円"], "cp932"),
    "Russian": ("клиент,возраст,город,ушёл", ["Москва", "Казань", "Тверь"], "cp1251"),
    "Russian yes and no": ("id,age,x,y", ["да", "нет"], "cp1251"),
    "Russian capitals": ("ID,ВОЗРАСТ,ГОРОД,y", ["Санкт-Петербург", "Нижний Новгород"], "cp1251"),
    "roubles": ("id,age,x,y", ["100 руб", "20 руб."], "cp1251"),
    "Ukrainian": ("клієнт,вік,місто,y", ["Київ", "Львів"], "cp1251"),
    "German": ("kunde,alter,stadt,y", ["Köln", "München", "Ulm"], "cp1252"),
    "one umlaut": ("kunde,alter,stadt,y", ["Bonn"] * 39 + ["Köln"], "cp1252"),
    "German capitals": ("KUNDE,ALTER,GRÖSSE,y", ["Bonn"], "cp1252"),
    "umlauts first": ("k,a,x,y", ["Österreich", "Übersee"], "cp1252"),
    "euros": ("client,montant,m,y", ["5 €", "6 €"], "cp1252"),
    "French": ("client,âge,ville,y", ["Orléans", "Nîmes", "Besançon"], "cp1252"),
    "Spanish": ("cliente,edad,año,sí", ["Málaga", "España"], "cp1252"),
    "Portuguese": ("cliente,idade,região,não", ["São Paulo", "Brasília"], "cp1252"),
    "Swedish": ("kund,ålder,stad,y", ["Göteborg", "Malmö", "Örebro"], "cp1252"),
    "pounds": ("client,age,m,y", ["£5", "£6"], "cp1252"),
    "quotation marks": ("client,age,m,y", ["it’s", "“x”"], "cp1252"),
    "degrees": ("id,t °C,m,y", ["a", "b"], "cp1252"),
    "square metres": ("id,m²,m,y", ["a", "b"], "cp1252"),
    "Polish": ("klient,wiek,miasto,y", ["Łódź", "Kraków", "Gdańsk", "Poznań"], "cp1250"),
    "zloty": ("klient,wiek,kwota,y", ["12 zł", "13 zł"], "cp1250"),
    "Czech": ("zákazník,věk,město,y", ["Plzeň", "Ústí", "České Budějovice"], "cp1250"),
    "Turkish": ("müşteri,yaş,şehir,y", ["İstanbul", "Muğla", "Iğdır"], "cp1254"),
    "UTF-8": ("用户,年龄,城市,订阅", ["北京"], "utf-8"),
    "UTF-8 with its mark": ("用户,年龄,城市,订阅", ["北京"], "utf-8-sig"),
    "UTF-16": ("用户,年龄,城市,订阅", ["北京"], "utf-16"),
    "UTF-16 without its mark": ("用户,年龄,城市,订阅", ["北京"], "utf-16-le"),
    "UTF-16, the other way": ("k,a,x,y", ["Köln"], "utf-16-be"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_encodings_are_recognised(name: str, tmp_path: Path) -> None:
    head, cells, encoding = SCRIPTS[name]
    lines = [f"{i},{20 + i % 40},{cells[i % len(cells)]},{i % 2}" for i in range(max(40, 3 * len(cells)))]
    (tmp_path / "t.csv").write_bytes("\r\n".join([head, *lines]).encode(encoding))
    file = reading.read(tmp_path / "t.csv")
    assert file.names == head.split(",") and [",".join(record) for record in file.records] == lines
    assert (encoding.startswith("utf")) or any("--encoding" in note for note in file.notes)
    again = reading.read(tmp_path / "t.csv", encoding.removesuffix("-sig"))
    assert again.names == file.names and again.records == file.records


def test_encodings_that_are_not_known_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("имя,y\nа,1\n".encode("cp1251"))
    with pytest.raises(reading.CollectError, match=r"is not text in utf-8: line 1 is not \(--encoding names another\)"):
        reading.read(path, "utf-8")
    with pytest.raises(reading.CollectError, match="there is no encoding 'klingon'"):
        reading.read(path, "klingon")
    path.write_bytes(b"a,y\n" + bytes(range(129, 160)) * 5 + b",1\n")
    with pytest.raises(reading.CollectError, match="encoding is not known: name it, --encoding"):
        reading.read(path)
    path.write_bytes(("näme,y\n" + "größe,1\n" * 50).encode() + b"\xff,0\n" + "größe,1\n".encode())
    with pytest.raises(reading.CollectError, match="line 52 holds bytes that are not UTF-8, as the rest is"):
        reading.read(path)


# -- containers

PLAIN = table([f"{i}.5" for i in range(N)])


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_csv", ".csv"), content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(PLAIN.encode()),
        bz2.compress(PLAIN.encode()),
        lzma.compress(PLAIN.encode()),
        gzip.compress(gzip.compress(PLAIN.encode())),
        zipped(data__x_csv=PLAIN),
        zipped(x_csv=PLAIN, **{"__MACOSX__._x_csv": "q", "readme.md": "about"}),
    ],
)
def test_packed_files(content: bytes, tmp_path: Path) -> None:
    found = clean(tmp_path / "t.csv", content)
    assert found.frame["a"].tolist() == [i + 0.5 for i in range(N)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (zipped(a_csv="q", b_csv="q"), r"holds 2 files, a\.csv, b\.csv: unpack it, and give one"),
        (gzip.compress(PLAIN.encode())[:-9], "a packed file that is damaged"),
        (b"PK\x03\x04 nothing", "a zip file that cannot be read"),
        (zipped(**{"content.xml": "x"}), "OpenDocument: save it as CSV"),
        (b"\xd0\xcf\x11\xe0 old", r"old Excel \(\.xls\): open it, and save it"),
        (b"%PDF-1.4", "a PDF, not a table"),
        (b"SQLite format 3\x00", "a SQLite database: export the table"),
        (b"  <html><table>", "a page of HTML or XML: open it in a spreadsheet"),
        (b'[{"a": 1}]', "is JSON: save its records as CSV"),
        (b"\x28\xb5\x2f\xfd", "packed by zstd"),
        (b"", "holds no records"),
        (b"a,y\n", "holds no records"),
    ],
)
def test_what_is_no_table_says_what_it_is(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(reading.CollectError, match=says):
        reading.read(tmp_path / "t.csv")


def test_excel(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    book.create_sheet("notes").append(["nothing here"])
    sheet.append(["Report of the shop"])
    sheet.append(["when", "age", "name", "y"])
    for i in range(N):
        sheet.append(
            [
                dt.date(2020, 1, 1) + dt.timedelta(3 * i),
                i % 50 + 0.5 * (i % 2),
                ["北京", None][i % 2],
                "yes" if i % 2 else "no",
            ]
        )
    book.save(tmp_path / "t.xlsx")
    found = clean(tmp_path / "copy.bin", (tmp_path / "t.xlsx").read_bytes())
    assert found.frame["age"].tolist() == [i % 50 + 0.5 * (i % 2) for i in range(N)]
    assert found.frame["name"].iloc[0] == "北京" and found.frame["name"].iloc[1] is None
    assert found.frame.iloc[0, 0] == 3 * (N - 1) and "line 1: not part of the table" in found.notes["(file)"]


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2020-01-01", periods=N, freq="3D"),
            "a": np.arange(N) * 0.5,
            "y": [True, False] * (N // 2),
        }
    )
    frame.loc[3, "a"] = np.nan
    frame.to_parquet(tmp_path / "t.parquet")
    found = clean(tmp_path / "copy.csv", (tmp_path / "t.parquet").read_bytes())
    assert found.positive == "True" and np.isnan(found.frame["a"].iloc[3]) and found.frame["a"].iloc[4] == 2


# -- what stands around the table

TWO = [f"{i}.5,{i % 7}" for i in range(N)]
BODY = table(TWO, "a,b,y")


@pytest.mark.parametrize(
    ("content", "says", "n"),
    [
        ("Sales report 2024\nMade by IT\n\n" + BODY, "lines 1 to 2: not part of the table, above its header", N),
        ("Sales report,,\n,,\n" + BODY, "line 1: not part of the table", N),
        ("sep=,\n" + BODY, "", N),
        ("sep=;\n" + BODY.replace(",", ";"), "", N),
        (BODY + "Total,19999.0,\n", "line 202: a total, left out", N),
        (BODY + ",,\nGesamtsumme,19999.0,\n", "line 203: a total, left out", N),
        (BODY + "合计,19999.0,\n", "line 202: a total, left out", N),
        (BODY + "Source: our own shop,,\n", "line 202: a remark below the table, left out", N),
        (
            BODY.replace("a,b,y\n", "a,b,y\nkg,pieces,flag\n"),
            r"line 2: a second header \(kg, pieces, flag \.\.\.\), left out",
            N,
        ),
        (BODY + BODY, "line 202: the header again, left out", 2 * N),
        (BODY.replace("\n", ",\n"), "", N),
        (BODY.replace("\n", ",\n").replace("a,b,y,", "a,b,y"), "", N),
        (BODY.replace("17.5,3,", "17.5,3,oops,"), "line 19: 4 fields, the header has 3: left out", N - 1),
        (BODY.replace("17.5,3,1\n", "17.5\n"), "line 19: 1 fields, the header has 3: left out", N - 1),
        ("\n\n" + BODY.replace("\n", "\n\n"), "", N),
    ],
)
def test_what_stands_around_a_table(content: str, says: str, n: int, tmp_path: Path) -> None:
    found = clean(tmp_path / "t.csv", content)
    assert len(found.y) == n and set(found.kinds) == {"a", "b"} and found.kinds["a"] == "number"

    assert re.search(says, found.notes.get("(file)", "")) and bool(says) == ("(file)" in found.notes)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (table([f"{i},5,{i % 7}" for i in range(N)], "a,b,y"), "the records have 4 fields, the header on line 1 has 3"),
        (
            table([f"{i}.5,{i % 7}" + ",1" * (i % 3 == 0) for i in range(N)], "a,b,y"),
            r"lines 2, 5, 8, 11, 14 \.\.\.: 4 fields, the header has 3",
        ),
        (BODY.replace("7.5,0,", '"7.5,0,', 1), "a quote that opens on line 9 swallows the next record"),
        (
            table([f'"x{i % 3}",{i}' if i != 5 else f'"oops,{i}' for i in range(N)], "a,b,y"),
            "a quote that opens on line 7 swallows",
        ),
        (BODY.replace("a,b,y", "a,a,y"), r"names a column twice: \['a'\]; rename one of them on line 1"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused(content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(reading.CollectError, match=says):
        clean(tmp_path / "t.csv", content)


def test_columns_without_names_get_some_and_close_names_are_proposed(tmp_path: Path) -> None:
    found = clean(tmp_path / "t.csv", ",,a,y\n" + "".join(f"{i},{i % 3},{i % 7}.5,{i % 2}\n" for i in range(N)))
    assert set(found.kinds) == {"(column 2)", "a"} and "identifier" in found.notes["(column 1)"]
    with pytest.raises(reading.CollectError, match="has no column 'churn'; did you mean 'Churn'"):
        clean(tmp_path / "t.csv", table(["1.5", "2.5"], "a,Churn"), target="churn")


def test_quoted_line_ends_and_delimiters_are_part_of_a_value(tmp_path: Path) -> None:
    cells = [f'"Flat {i % 4}, High Street\nTown {i % 3}, UK",{i}.5' for i in range(N)]
    found = clean(tmp_path / "t.csv", table(cells, "flat,a,y"))
    assert len(found.y) == N and found.kinds == {"flat": "category", "a": "number"}


# -- numbers

WRITTEN: list[tuple[list[str], list[float]]] = [
    (["$1,234.50", "$5"], [1234.5, 5]),
    (["12.50 €", "3.00 €"], [12.5, 3]),
    (["1.234,50 €", "3,00 €"], [1234.5, 3]),
    (["12.5%", "3%"], [12.5, 3]),
    (["9 months", "1 month"], [9, 1]),
    (["30.4万", "1.2万"], [304000, 12000]),
    (["1 234,50", "7,5"], [1234.5, 7.5]),
    (["1\u00a0234,50", "1\u202f000,25"], [1234.5, 1000.25]),
    (["1'234.50", "12.00"], [1234.5, 12]),
    (["(12.50)", "3.00"], [-12.5, 3]),
    (["12.50-", "3.00"], [-12.5, 3]),
    (["−5.5", "+3.5"], [-5.5, 3.5]),
    (["57,00", "12,00"], [57, 12]),
    (["1.234.567", "12"], [1234567, 12]),
    (["1,23,456", "12,34,567"], [123456, 1234567]),
    (["￥57", "￥12.50"], [57, 12.5]),
    (["１２３", "４５"], [123, 45]),
    (["5 kg", "300 g", "2 kg"], [5, 0.3, 2]),
    (["2 years", "9 months", "1 year"], [2, 0.75, 1]),
    (["$1.2M", "$950K"], [1.2e6, 950e3]),
    (["1.5k", "900"], [1500, 900]),
    (["CHF 1'234.50", "CHF 5.00"], [1234.5, 5]),
    (["R$ 1.234,50", "R$ 3,00"], [1234.5, 3]),
    (["1,234", "12.5"], [1234, 12.5]),
    (["1e3", "2.5E-2"], [1000, 0.025]),
    ([".5", "5."], [0.5, 5]),
    (["100 руб", "20 руб."], [100, 20]),
    (["1200円", "50円"], [1200, 50]),
    (["3万元", "5000元"], [30000, 5000]),
    (["5 USD", "USD 6"], [5, 6]),
    (["$-5", "-$6"], [-5, -6]),
    (["1 000", "2 500"], [1000, 2500]),
    (["0.397", "0.512"], [0.397, 0.512]),
    (["57 m²", "60 m²"], [57, 60]),
    (["10,5 %", "9,25 %"], [10.5, 9.25]),
    (["30.397", "41.222", "0.5"], [30.397, 41.222, 0.5]),
    (["12.5", "7.25", "12,5"], [12.5, 7.25, 12.5]),
]


@pytest.mark.parametrize(("texts", "expected"), WRITTEN, ids=lambda value: str(value)[:40])
def test_numbers_as_people_write_them(texts: list[str], expected: list[float]) -> None:
    found = amounts.numbers(dict.fromkeys(texts, 10))
    assert found is not None
    np.testing.assert_allclose([found[0](text) for text in texts], expected, rtol=1e-12)
    again = values.Column.from_json(values.Column("a", "number", numbers=found[0]).to_json())
    np.testing.assert_array_equal([again.value(text)[0] for text in texts], [found[0](text) for text in texts])


@pytest.mark.parametrize(
    "texts",
    [
        ["A1", "B2"],
        ["18-25", "26-30"],
        ["12A", "13B"],
        ["5 €", "5 $"],
        ["1.2.3", "1.2.4"],
        ["S", "M", "L"],
        ["10.0.0.1", "10.0.0.2"],
    ],
)
def test_what_are_no_numbers(texts: list[str]) -> None:
    assert amounts.numbers(dict.fromkeys(texts, 10)) is None


@pytest.mark.parametrize(
    ("counts", "hint", "expected"),
    [
        (
            {"30.397": 100, "12,5": 1},
            "",
            {"30.397": 30.397, "12,5": 12.5},
        ),  # one slip does not move the others by 1,000
        ({"30.397": 10, "12,5": 10, "1.234,5": 3}, "", {"30.397": 30397, "12,5": 12.5}),
        ({"30.397": 40, "12,5": 10, "1500,25": 2}, "", {"30.397": 30.397, "1500,25": 1500.25}),
        ({"30.397": 40, "950": 4}, "", {"30.397": 30.397, "950": 950}),
        ({"30.397": 40, "950": 4}, ",", {"30.397": 30397, "950": 950}),
        ({"30,397": 40, "950": 4}, "", {"30,397": 30397, "950": 950}),
        ({"30,397": 40, "0,5": 4}, "", {"30,397": 30.397, "0,5": 0.5}),
        ({"12.5": 9, "12,5": 3, "1,234": 2}, "", {"12.5": 12.5, "12,5": 12.5, "1,234": np.nan}),
    ],
)
def test_a_factor_of_a_thousand_is_never_silent(counts: dict[str, int], hint: str, expected: dict[str, float]) -> None:
    found = amounts.numbers(counts, hint)
    assert found is not None
    np.testing.assert_array_equal([found[0](text) for text in expected], list(expected.values()))
    assert found[1], "it is said which reading was chosen"


def test_the_same_amounts_in_three_spellings_make_the_same_table(tmp_path: Path) -> None:
    amounts = np.random.default_rng(1).lognormal(4, 1, 400).round(0)
    plain, dollars, commas = (
        clean(tmp_path / f"{k}.csv", table([form.format(v) for v in amounts], ys=[int(v > 55) for v in amounts]))
        for k, form in enumerate(("{:.0f}", "${:.0f}", '"{:.0f},00"'))
    )
    np.testing.assert_array_equal(plain.frame["a"], amounts)
    np.testing.assert_array_equal(dollars.frame["a"], amounts)
    np.testing.assert_array_equal(commas.frame["a"], amounts)


# -- missing words, identifiers, names, places


@pytest.mark.parametrize(
    "word",
    ["None", "<NA>", "#N/A", "-", ".", "missing", "Unknown", "n/a", "NULL", "?", "", "k.A.", "未知", "нет данных"],
)
def test_words_for_nothing_among_numbers(word: str, tmp_path: Path) -> None:
    found = clean(tmp_path / "t.csv", table([word if i % 4 == 0 else f"{20 + i % 50}.5" for i in range(N)]))
    assert found.kinds == {"a": "number"} and found.frame["a"].isna().sum() == N // 4


def test_words_for_nothing_are_values_among_words(tmp_path: Path) -> None:
    found = clean(tmp_path / "t.csv", table([["None", "Basic", "Gold", "-"][i % 4] for i in range(N)]))
    assert found.kinds == {"a": "category"} and set(found.frame["a"]) == {"None", "Basic", "Gold", "-"}
    assert "a" not in found.notes, "what is no loss is not said to be one"


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("plan", ["a", "b"]),
        ("PLZ", [f"{v}" for v in range(10_000, 19_000, 137)]),
        ("branch", ["007", "012"]),
        ("age", [f"{v}.5" for v in range(20, 60)]),
        ("since", ["2023-05-01", "2023-06-11"]),
        ("promo", ["X"]),
    ],
)
def test_words_for_missing_are_kept_for_later_files(name: str, cells: list[str], tmp_path: Path) -> None:
    lines = ["zzz" if i % 4 == 0 else cells[i % len(cells)] for i in range(N)]
    content = table([f"{cell},{i % 11}.5" for i, cell in enumerate(lines)], f"{name},other,y")
    found = clean(tmp_path / "t.csv", content, preprocess.Types(missing=("ZZZ",)))
    (column,) = [column for column in found.columns if column.name == name]
    again = column.read(pd.Series(lines))
    for feature, kind in column.features().items():
        assert found.frame[feature].isna().sum() == again[feature].isna().sum() == N // 4, kind


def test_numbers_that_may_mean_missing_are_said(tmp_path: Path) -> None:
    content = table(["-999" if i % 5 == 0 else str(20 + i % 50) for i in range(N)])
    found = clean(tmp_path / "t.csv", content)
    assert "-999 in 40 records is taken as a number" in found.notes["a"] and found.frame["a"].min() == -999
    found = clean(tmp_path / "t.csv", content, preprocess.Types(missing=("-999",)))
    assert found.frame["a"].isna().sum() == 40 and "-999" not in found.notes.get("a", "")


RNG = np.random.default_rng(3)
COLUMNS: list[tuple[str, list[str], str, str]] = [
    ("income", [str(int(v)) for v in RNG.lognormal(10, 1, N)], "number", ""),
    ("收入水平", [str(int(v)) for v in RNG.gamma(2, 30000, N)], "number", ""),
    ("balance", [str(int(v)) for v in RNG.integers(-5000, 90000, N)], "number", ""),
    ("x", [str(100_000 + i) for i in RNG.permutation(N)], "", "identifier"),
    ("customerID", [f"{v}" for v in RNG.integers(10**6, 10**7, N)], "", "identifier"),
    ("id", [f"C-{i}" for i in range(N)], "", "identifier"),
    ("Surname", [f"Smith{i % 90}" for i in range(N)], "", "personal"),
    ("E-Mail", [f"a{i}@b.example" for i in range(N)], "", "personal"),
    ("姓名", [f"王{i % 120}" for i in range(N)], "", "personal"),
    ("ZipCode", [str(10000 + i * 371 % 80000) for i in range(N)], "category", "first two characters"),
    ("PLZ", [f"{i * 371 % 99999:05}" for i in range(N)], "category", "first two characters"),
    ("branch", [f"{i % 9:03}" for i in range(N)], "category", "leading zeros"),
    ("where", [f'"{50 + i / 100:.4f},{8 + i / 50:.4f}"' for i in range(N)], "", "pairs of numbers"),
    ("latitude", [f"{50 + i / 100:.4f}" for i in range(N)], "number", ""),
    ("comment", [f"came by on day {i}" for i in range(N)], "", "text, nearly all distinct"),
    ("employer", [f"Firm {i % 90}" for i in range(N)], "", "names more likely than a trait"),
    ("city", [f"Town {min(i % 90, i % 7)}" for i in range(N)], "category", ""),
    ("size", [["S", "M", "L"][i % 3] for i in range(N)], "category", ""),
    ("network", [["3G", "4G", "5G"][i % 3] for i in range(N)], "code", "'g'"),
    ("range", [["18-25", "26-40", "41+"][i % 3] for i in range(N)], "category", ""),
    ("rating", [str(1 + i % 5) for i in range(N)], "code", ""),
    ("born", [str(1950 + i % 50) for i in range(N)], "number", ""),
    ("split", [["train", "test"][i % 2] for i in range(N)], "", "to train and to test"),
]


@pytest.mark.parametrize(
    ("name", "cells", "kind", "says"), COLUMNS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_a_column_is(name: str, cells: list[str], kind: str, says: str, tmp_path: Path) -> None:
    both = [f"{cell},{i % 11}.5" for i, cell in enumerate(cells)]
    found = clean(tmp_path / "t.csv", table(both, f"{name},other,y"))
    assert found.kinds.get(name, "") == kind, found.notes
    assert says in found.notes.get(name, "") and (kind or name in found.notes)


def test_types_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    content = table([f"{i % 30},{i % 4},n{i % 90},{i % 9 + 1}.{i % 12 + 1}.2020" for i in range(N)], "a,b,c,d,y")
    types = preprocess.Types(number=("b",), category=("a", "c"), date=("d=dmy",), drop=())
    found = clean(path, content, types)
    assert found.kinds["a"] == "category" and found.kinds["b"] == "code" and found.kinds["c"] == "category"
    assert any(name.startswith("d (days before") for name in found.kinds)
    assert "a" not in clean(path, content, preprocess.Types(drop=("a",))).kinds
    for types, says in (
        (preprocess.Types(drop=("z",)), r"no columns \['z'\]"),
        (preprocess.Types(number=("c",)), "--number c: fewer than half of its values are numbers"),
        (preprocess.Types(date=("a",)), "--date a: three in four of its values are not read as dates"),
        (preprocess.Types(group="z"), r"no columns \['z'\]"),
    ):
        with pytest.raises(preprocess.PreprocessError, match=says):
            clean(path, content, types)


# -- dates

DATES: list[tuple[list[str], list[str]]] = [
    (["2024-03-05", "2023-01-02"], ["2024-03-05", "2023-01-02"]),
    (["3/5/2024", "3/25/2024"], ["2024-03-05", "2024-03-25"]),
    (["5/3/2024", "25/3/2024"], ["2024-03-05", "2024-03-25"]),
    (["5.3.2024", "25.3.2024"], ["2024-03-05", "2024-03-25"]),
    (["5.3.2024", "6.4.2024"], ["2024-03-05", "2024-04-06"]),
    (["4-Sep-12", "14-Oct-12"], ["2012-09-04", "2012-10-14"]),
    (["4 September 2012", "14 Oct. 2012"], ["2012-09-04", "2012-10-14"]),
    (["Sep 4, 2012", "October 14, 2012"], ["2012-09-04", "2012-10-14"]),
    (["5. März 2024", "6. Mai 2024"], ["2024-03-05", "2024-05-06"]),
    (["5 mars 2024", "6 août 2024"], ["2024-03-05", "2024-08-06"]),
    (["5 марта 2024", "6 мая 2024"], ["2024-03-05", "2024-05-06"]),
    (["2024年3月5日", "2023年12月1日"], ["2024-03-05", "2023-12-01"]),
    (["2024/3/5", "2024/12/31"], ["2024-03-05", "2024-12-31"]),
    (["2024-03-05 12:30:00", "2024-03-06 01:00:00"], ["2024-03-05", "2024-03-06"]),
    (["2024-03-05T12:30:00Z", "2024-03-06T01:00:00+02:00"], ["2024-03-05", "2024-03-06"]),
    (["2024-03-05 12:30:00.123456+00:00", "2024-03-06 01:00:00+00:00"], ["2024-03-05", "2024-03-06"]),
    (["1/2/24 3:45 PM", "1/22/24 4:00 AM"], ["2024-01-02", "2024-01-22"]),
    (["20240305", "20230102", "20220101"], ["2024-03-05", "2023-01-02", "2022-01-01"]),
    (["202403", "202305", "202201"], ["2024-03-01", "2023-05-01", "2022-01-01"]),
    (["1709640000", "1609640000"], ["2024-03-05", "2021-01-03"]),
    (["1709640000000", "1609640000000"], ["2024-03-05", "2021-01-03"]),
    (["2024-03", "2023-12"], ["2024-03-01", "2023-12-01"]),
    (["03/2024", "12/2023"], ["2024-03-01", "2023-12-01"]),
    (["Mar 2024", "Dec 2023"], ["2024-03-01", "2023-12-01"]),
    (["2024年3月", "2023年12月"], ["2024-03-01", "2023-12-01"]),
    (["2024-Q1", "2023-Q4"], ["2024-01-01", "2023-10-01"]),
]


@pytest.mark.parametrize(("texts", "expected"), DATES, ids=lambda value: str(value)[:40])
def test_dates_as_people_write_them(texts: list[str], expected: list[str]) -> None:
    way, _ = dates.dates(dict.fromkeys(texts, 10))
    assert way is not None and [dates.as_date(way(text)) for text in texts] == expected


@pytest.mark.parametrize(
    "texts",
    [
        ["hello", "world"],
        ["192.168.1.1", "10.0.0.1"],
        ["2024", "2023"],
        ["12345678", "87654321", "11111111"],
        ["1-2-3", "4-5-6"],
        ["3.14", "2.72"],
    ],
)
def test_what_are_no_dates(texts: list[str]) -> None:
    assert dates.dates(dict.fromkeys(texts, 10))[0] is None


def test_orders_of_day_and_month_that_nothing_tells_are_said() -> None:
    _, said = dates.dates({"3/4/2024": 5, "5/6/2024": 5})
    assert "'3/4/2024' is taken for 2024-03-04, as no date tells; --date says otherwise" in said[0]
    assert dates.dates({"3/4/2024": 5, "5/6/2024": 5}, "dmy")[0] == dates.Dates("date", "dmy")
    way, said = dates.dates({"13/02/2024": 5, "02/13/2024": 5})
    assert way is None and "day first and with the month first" in said[0]


def test_dates_become_features_for_all_models(tmp_path: Path) -> None:
    start = dt.datetime(2023, 1, 1)
    content = table([str(start + dt.timedelta(hours=61 * i)) for i in range(N)], "at,y")
    found = clean(tmp_path / "t.csv", content)
    last = (start + dt.timedelta(hours=61 * (N - 1))).date()
    assert found.kinds == {
        f"at (days before {last})": "number",
        "at (weekday)": "category",
        "at (month)": "category",
        "at (hour)": "number",
    }
    assert found.frame["at (weekday)"].iloc[0] == "Sun" and found.frame["at (month)"].iloc[0] == "Jan"
    assert found.frame["at (hour)"].iloc[1] == pytest.approx(61 % 24) and "a date" in found.notes["at"]
    minutes = clean(tmp_path / "t.csv", table([f"00:{i % 60:02}:30" for i in range(N)], "took,y"))
    assert minutes.frame["took"].iloc[7] == 7.5 and "minutes" in minutes.notes["took"]


# -- targets


@pytest.mark.parametrize(
    ("ys", "how", "positive", "share"),
    [
        (["да", "нет"], {}, "да", 0.5),
        (["是", "否", "是"], {}, "是", 2 / 3),
        (["sí", "no", "sí"], {}, "sí", 2 / 3),
        (["ja", "nein", "ja"], {}, "ja", 2 / 3),
        (["oui", "non", "oui"], {}, "oui", 2 / 3),
        (["はい", "いいえ", "はい"], {}, "はい", 2 / 3),
        (["Yes", "yes", "YES", "No", "no"], {}, "Yes", 0.6),
        (["1", "1.0", "0"], {}, "1", 2 / 3),
        (["True", "FALSE", "true"], {}, "True", 2 / 3),
        (["stayed", "left", "stayed"], {}, "left", 1 / 3),
        (["a", "b", "c"], {"positive": "b"}, "b", 1 / 3),
        ([">50K", "<=50K"], {"positive": ">50K"}, ">50K", 0.5),
        (["100", "300", "500", "700"], {"positive": ">300"}, "y >300", 0.5),
        (["$100.00", "$300.00", "$500.00", "$700.00"], {"positive": ">=$500"}, "y >=$500", 0.5),
        (["yes", ""], {"types": preprocess.Types(blank_is_no=True)}, "y: given", 0.5),
        (
            ["2020-01-05", "", "2021-01-05", "", "2022-01-05", ""],
            {"types": preprocess.Types(blank_is_no=True)},
            "y: given",
            0.5,
        ),
    ],
)
def test_targets_are_a_yes_or_a_no(
    ys: list[str], how: dict[str, Any], positive: str, share: float, tmp_path: Path
) -> None:
    n = 60
    found = clean(
        tmp_path / "t.csv", table([f"{i}.5" for i in range(n)], ys=[ys[i % len(ys)] for i in range(n)]), **how
    )
    assert found.positive == positive and found.y.mean() == pytest.approx(share, abs=0.02) and len(found.y) == n


@pytest.mark.parametrize(
    ("ys", "how", "says"),
    [
        (["a", "b", "c"], {}, "Name the yes, --positive VALUE: all other values are the no"),
        (
            [str(i) for i in range(60)],
            {},
            "They are numbers from 0 to 59: say from where on it is a yes, --positive '>29.5'",
        ),
        (["yes", ""], {}, "If the 30 blanks are the no, say so: --blank-is-no"),
        (
            [str(dt.date(2020, 1, 1) + dt.timedelta(i)) if i % 2 else "" for i in range(60)],
            {},
            "They are dates: .* --blank-is-no",
        ),
        (["yes"], {}, "Is it the right column"),
        (["a", "b"], {"positive": "c"}, "is never 'c'; it is 'a' .30., 'b' .30."),
        (["a", "b"], {"positive": ">5"}, "compares numbers"),
        (["1", "2", "3"], {"positive": ">5"}, "is never a yes"),
        (
            ["yes", "no", ""],
            {"types": preprocess.Types(blank_is_no=True)},
            "two values and blanks, .*: name the yes, --positive",
        ),
    ],
)
def test_targets_that_are_refused_say_what_to_do(ys: list[str], how: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(preprocess.PreprocessError, match=says):
        clean(tmp_path / "t.csv", table([f"{i}.5" for i in range(60)], ys=[ys[i % len(ys)] for i in range(60)]), **how)


# -- found by others: each of these was read wrongly once

NO_NOTE = ""
ONCE_WRONG: list[tuple[str, str, list[str], dict[str, Any], list[Any], str]] = [
    # what, column, values, how, first values read, note
    (
        "year first in two digits",
        "d",
        ["23-05-01", "23-06-05", "24-02-22", "23-12-31", "24-01-15"],
        {},
        ["2023-05-01"],
        "taken for 2023-05-01",
    ),
    (
        "births in two digits",
        "dob",
        ["12/18/35", "1/2/99", "3/14/05", "4/25/61"],
        {},
        ["1935-12-18"],
        "the years 1916 to 2015",
    ),
    ("local times", "at", ["2023-05-01T23:30:00-05:00", "2023-05-02T23:30:00-05:00"], {}, ["2023-05-01"], "a date"),
    (
        "dates with gaps",
        "d",
        ["20230609.0", "20230715.0", "20221231.0"],
        {},
        ["2023-06-09"],
        "whole numbers that are dates",
    ),
    (
        "never",
        "d",
        ["2023-06-09", "9999-12-31", "2022-01-01", "2021-03-04", "2020-05-06"],
        {},
        ["2023-06-09"],
        "are no dates count as missing",
    ),
    ("a weekday in front", "d", ["Mon, 01 May 2023", "Tue, 02 May 2023"], {}, ["2023-05-01"], "a date"),
    ("de", "d", ["1 de mayo de 2023", "2 de junio de 2023"], {}, ["2023-05-01"], "a date"),
    ("Postgres", "d", ["2023-05-01 10:11:12+00", "2023-06-01 10:11:12+00"], {}, ["2023-05-01"], "hour"),
    ("Korean", "d", ["2023. 5. 1.", "2023. 6. 12."], {}, ["2023-05-01"], "a date"),
    (
        "both orders, by hand",
        "d",
        ["13/02/2024", "02/13/2024"],
        {"date": ("d=dmy",)},
        ["2024-02-13"],
        "no dates count as missing",
    ),
    (
        "millions beside bare numbers",
        "a",
        ["500000", "1.5M", "2M", "750000"],
        {},
        [500000, 1500000],
        "'m' counts 1,000,000",
    ),
    ("millions and billions", "a", ["500M", "1.2B", "30M"], {}, [5e8, 1.2e9], "'b' counts 1,000,000,000"),
    (
        "thousands that one value shows",
        "a",
        ["586.133"] * 58 + ["1.234.567"] * 2,
        {},
        [586133],
        "stands between thousands",
    ),
    (
        "too large a number",
        "a",
        ["1e400 €", *(f"{i} €" for i in range(29))],
        {},
        [np.nan, 0],
        "4 values that are not numbers",
    ),
    ("a word in an eighth", "a", ["waiting", *(f"{i}.5" for i in range(7, 30))], {}, [np.nan, 7.5], "'waiting'"),
    ("-999.0", "a", ["-999.0", *(f"{i}.0" for i in range(20, 60))], {"missing": ("-999",)}, [np.nan, 20], NO_NOTE),
    ("a region NA", "a", ["NA", "EMEA", "APAC"], {}, [None, "EMEA"], "values 'NA' count as missing"),
    ("a region NA, kept", "a", ["NA", "EMEA", "APAC"], {"category": ("a",)}, ["NA", "EMEA"], NO_NOTE),
    (
        "names of 17 digits",
        "a",
        ["23843000000000100", "23843000000000101"],
        {},
        ["23843000000000100"],
        "more digits than a float holds",
    ),
    ("Australian dollars", "a", ["AUD 20.50", "AUD 30"], {}, [20.5, 30], "'aud'"),
    (
        "zip codes that lost a zero",
        "zip",
        [f"{v}.0" for v in range(8818, 12000, 97)],
        {},
        ["08"],
        "the zeros in front to 5 digits",
    ),
]


@pytest.mark.parametrize(
    ("what", "name", "cells", "how", "expected", "says"), ONCE_WRONG, ids=lambda v: v if isinstance(v, str) else ""
)
def test_what_was_read_wrongly_once(
    what: str, name: str, cells: list[str], how: dict[str, Any], expected: list[Any], says: str, tmp_path: Path
) -> None:
    n = max(60, len(cells) * (1 if len(cells) > 30 else 4))
    lines = [f'"{cells[i % len(cells)]}",{i % 11}.5' for i in range(n)]
    found = clean(tmp_path / "t.csv", table(lines, f"{name},other,y"), preprocess.Types(**how))
    assert says in found.notes.get(name, "") and bool(says) == (name in found.notes)
    (column,) = [column for column in found.columns if column.name == name]
    got = found.frame[next(iter(column.features()))].tolist()[: len(expected)]
    if column.kind == "date":
        got = [dates.as_date(column.as_of - days) for days in got]
    assert [str(v) for v in got] == [str(float(v)) if isinstance(v, int) else str(v) for v in expected]


ID_NAMES = [
    "Kundennummer",
    "KdNr",
    "customerid",
    "USERID",
    "CLIENTNUM",
    "policyid",
    "accountnumber",
    "id_cliente",
    "codigo_cliente",
]
ID_NAMES += [
    "用户ID",
    "客户号",
    "会员卡号",
    "ИД клиента",
    "Номер клиента",
    "Vertragsnummer",
    "loyalty_card",
    "num_client",
]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("CustomerID", [f"{12346 + 7 * i}.0" for i in range(N)]),
        *((name, [str(100_000 + i * i * 7919 % 800_000) for i in range(N)]) for name in ID_NAMES),
        ("barcode", [f"{i * 7919:010}" for i in range(N)]),
        ("line", [f"{600 + i % 99} {i % 900 + 100} {i % 800 + 100}" for i in range(N)]),
        ("loyalty", [str(1_000_000_000 + i * i * 7919 % 900_000_000) for i in range(N)]),
    ],
)
def test_identifiers_in_other_clothes_are_no_numbers(name: str, cells: list[str], tmp_path: Path) -> None:
    found = clean(tmp_path / "t.csv", table([f"{cell},{i % 11}.5" for i, cell in enumerate(cells)], f"{name},other,y"))
    assert set(found.kinds) == {"other"} and "identifier" in found.notes[name]


def test_a_numeric_target_is_read_as_the_file_writes_numbers(tmp_path: Path) -> None:
    lines = [f"{i % 9},5;{['200', '350', '1.234', '2.500'][i % 4]}" for i in range(N)]
    found = clean(tmp_path / "t.csv", "a;y\n" + "\n".join(lines), positive=">300")
    assert found.y[:4].tolist() == [0, 1, 1, 1] and "'1.234' is 1,234" in found.notes["(target)"]


def test_derived_columns_do_not_overwrite_others(tmp_path: Path) -> None:
    cells = [f"20{20 + i % 3}-{i % 12 + 1:02}-{i % 28 + 1:02},{'ab'[i % 2]}" for i in range(N)]
    found = clean(tmp_path / "t.csv", table(cells, "signup,signup (month),y"))
    assert set(found.frame["signup (month)"]) == {"a", "b"} and set(found.frame["signup [date] (month)"]) > {
        "Jan",
        "Dec",
    }


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("1", "-1"),
        ("EVET", "HAYIR"),
        ("J", "N"),
        ("vrai", "faux"),
        ("bought", "not bought"),
        ("subscribed", "unsubscribed"),
        ("네", "아니요"),
    ],
)
def test_the_yes_is_the_yes_though_it_is_the_commoner(yes: str, no: str, tmp_path: Path) -> None:
    ys = [no if i % 3 == 0 else yes for i in range(60)]
    assert clean(tmp_path / "t.csv", table([f"{i}.5" for i in range(60)], ys=ys)).positive == yes
    others = clean(
        tmp_path / "t.csv", table([f"{i}.5" for i in range(60)], ys=["left" if y == no else "stayed" for y in ys])
    )
    assert others.positive == "left" and "the rarer of the two; --positive says otherwise" in others.notes["(target)"]


def test_capitals_of_cp1251_are_no_chinese(tmp_path: Path) -> None:
    for cells in (["ИВАНОВ", "ПЕТРОВ"], ["ДА", "ВЫ"], ["М", "Ж"]):
        found = clean(tmp_path / "t.csv", table([cells[i % 2] for i in range(N)]).encode("cp1251"))
        assert set(found.frame["a"]) == set(cells)


def test_names_across_lines_and_first_records_without_values(tmp_path: Path) -> None:
    content = '"a","Bought\nit"\n' + "".join(f"{i}.5,{i % 2}\n" for i in range(N))
    assert len(clean(tmp_path / "t.csv", content, target="Bought it").y) == N
    content = "a,b,c,y\nNA,NA,a,yes\n" + "".join(f"{i}.5,{i % 7},x{i % 3},{['yes', 'no'][i % 2]}\n" for i in range(N))
    assert len(clean(tmp_path / "t.csv", content).y) == N + 1
