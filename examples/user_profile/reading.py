"""Read a file of records as shops save them: encodings, containers, delimiters, and what stands around the table.

Everything stays text here. What is repaired is said by line number; what would have to be guessed is refused.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import lzma
import math
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from .amounts import MISSING, NO_NUMBER

Rows = list[tuple[int, list[str]]]  # (line or row number in the file, its fields)

FEW_RAGGED = 0.02  # of the records have another number of fields: they are left out, and said; more is another file
TOTALS = frozenset(
    (
        *("total", "totals", "grand total", "subtotal", "sum", "summe", "gesamt", "gesamtsumme", "insgesamt", "totaal"),
        *("totale", "somme", "total général", "suma", "всего", "итого", "合计", "总计", "小计", "合計", "総計", "합계"),
    )
)


class CollectError(RuntimeError):
    """The data could not be had; the message says what to do."""


@dataclass
class File:
    """A table of text: the names of its columns, its records with the line on which each begins, and what was repaired."""

    names: list[str]
    records: list[list[str]]
    lines: list[int]
    about: str  # the delimiter and the encoding, or the kind of file
    sha256: str
    delimiter: str = ""  # "" if the file is not of text
    notes: list[str] = field(default_factory=list)


def read(path: Path, encoding: str | None = None, *, every_record: bool = False) -> File:
    """Return the table in a file of delimited text, plain or packed, of Excel, or of Parquet.

    A record with another number of fields than the header is left out, and said; with ``every_record`` it is an error.

    Raises
    ------
    CollectError
        If there is no table in it, or reading it would be guessing; the message says where, and what to do.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CollectError(f"cannot read {path}: {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    content, kind = _unpacked(path, content)
    if kind == "Parquet":
        return _parquet(path, content, sha256)
    if kind == "Excel":
        rows, notes = _excel(path, content)
        return _table(path, rows, File([], [], [], "Excel file", sha256, notes=notes), every_record)
    text, encoding, notes = _decoded(path, content, encoding)
    rows, delimiter = _rows(path, text)
    return _table(
        path, rows, File([], [], [], f"delimiter {delimiter!r}, {encoding}", sha256, delimiter, notes), every_record
    )


# -- containers


def _unpacked(path: Path, content: bytes) -> tuple[bytes, str]:
    """Return what is inside, and "Excel" or "Parquet" if it is not text."""
    openers: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
        (b"\x1f\x8b", gzip.decompress),
        (b"BZh", bz2.decompress),
        (b"\xfd7zXZ\x00", lzma.decompress),
    )
    for mark, decompress in openers:
        if content.startswith(mark):
            try:
                return _unpacked(path, decompress(content))
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise CollectError(f"{path} is a packed file that is damaged: {error}") from error
    if content.startswith(b"PK\x03\x04"):
        return _unzipped(path, content)
    if content.startswith(b"PAR1"):
        return content, "Parquet"
    for mark, what in (
        (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel (.xls): open it, and save it as .xlsx or as CSV"),
        (b"%PDF", "a PDF, not a table: ask for the data as CSV"),
        (b"SQLite format 3", "a SQLite database: export the table as CSV"),
        (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it first, zstd -d"),
        (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
        (b"Rar!", "a RAR archive: unpack it first"),
    ):
        if content.startswith(mark):
            raise CollectError(f"{path} is {what}")
    start = content[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<table", b"<?xml")):
        raise CollectError(f"{path} is a page of HTML or XML: open it in a spreadsheet, and save it as CSV")
    if start.startswith((b"{", b"[{")):
        raise CollectError(f"{path} is JSON: save its records as CSV, pandas.read_json(...).to_csv(...)")
    return content, ""


def _unzipped(path: Path, content: bytes) -> tuple[bytes, str]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        names = archive.namelist()
        if "xl/workbook.xml" in names or "xl/workbook.bin" in names:
            return content, "Excel"
        if "content.xml" in names:
            raise CollectError(f"{path} is a spreadsheet of OpenDocument: save it as CSV or .xlsx")
        files = [
            n
            for n in names
            if not n.endswith("/") and not n.startswith("__MACOSX/") and not n.rpartition("/")[2].startswith(".")
        ]
        tables = [n for n in files if n.lower().endswith((".csv", ".tsv", ".txt", ".parquet", ".xlsx", ".gz"))] or files
        if len(tables) != 1:
            raise CollectError(
                f"{path} holds {len(tables)} files, {', '.join(tables[:5])}: unpack it, and give one of them"
            )
        return _unpacked(path, archive.read(tables[0]))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, CollectError):
            raise
        raise CollectError(f"{path} is a zip file that cannot be read: {error}") from error


def _excel(path: Path, content: bytes) -> tuple[Rows, list[str]]:
    try:
        import openpyxl
    except ImportError as error:
        text = f"{path} is an Excel workbook. Save it as CSV, or: python -m pip install openpyxl"
        raise CollectError(text) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except Exception as error:  # whatever a damaged or protected workbook raises
        raise CollectError(f"{path} is an Excel workbook that cannot be read ({error}): save it as CSV") from error
    sheets = [(sheet.title, list(sheet.iter_rows(values_only=True))) for sheet in book.worksheets]
    sheets = [(title, rows) for title, rows in sheets if sum(any(cell is not None for cell in row) for row in rows) > 1]
    if not sheets:
        raise CollectError(f"{path} holds no sheet with a table")
    title, found = max(sheets, key=lambda sheet: len(sheet[1]))
    notes = [f"of {len(sheets)} sheets the longest was read, {title!r}"] if len(sheets) > 1 else []
    return [(i, [_as_text(cell) for cell in row]) for i, row in enumerate(found, 1)], notes


def _parquet(path: Path, content: bytes, sha256: str) -> File:
    """Return what is a table already, with nothing around it."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise CollectError(f"{path} is a Parquet file. Save it as CSV, or: python -m pip install pyarrow") from error
    try:
        table = parquet.read_table(io.BytesIO(content))
    except Exception as error:  # whatever a damaged file raises
        raise CollectError(f"{path} is a Parquet file that cannot be read: {error}") from error
    columns = [_texts(column) for column in table.columns]
    names = [" ".join(name.split()) or f"(column {i})" for i, name in enumerate(table.column_names, 1)]
    if not len(table) or len(set(names)) < len(names):
        raise CollectError(f"{path} holds {'two columns of one name' if len(table) else 'no records'}")
    records = list(map(list, zip(*columns, strict=True)))
    return File(names, records, list(range(1, len(records) + 1)), "Parquet file", sha256)


def _texts(column: Any) -> list[str]:
    """Return the texts of an Arrow column, which has few kinds of values and many rows."""
    if not column.type.num_fields:  # of single values
        found = column.combine_chunks()
        found = found if hasattr(found, "dictionary") else found.dictionary_encode(null_encoding="encode")
        texts = [" ".join(_as_text(kind).split()) for kind in found.dictionary.to_pylist()]
        return [texts[k] if k is not None else "" for k in found.indices.to_pylist()]
    return [_as_text(value) for value in column.to_pylist()]


def _as_text(cell: Any) -> str:
    """Return a typed cell as a CSV file would hold it."""
    if cell is None or (isinstance(cell, float) and not math.isfinite(cell)):
        return ""
    if isinstance(cell, datetime):
        return cell.isoformat(sep=" ") if cell.time() != datetime.min.time() else cell.date().isoformat()
    if isinstance(cell, date):
        return cell.isoformat()
    if isinstance(cell, float) and cell == int(cell) and abs(cell) < 1e15:
        return str(int(cell))
    return str(cell)


# -- encodings


def _decoded(path: Path, content: bytes, encoding: str | None) -> tuple[str, str, list[str]]:
    """Return the text with plain line ends, its encoding, and notes."""
    notes: list[str] = []
    if encoding is None:
        encoding, notes = _encoding(content)
    try:
        text = content.decode(encoding)
    except LookupError as error:
        raise CollectError(f"there is no encoding {encoding!r}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise CollectError(
            f"{path} is not text in {encoding}: line {line} is not (--encoding names another)"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n"), encoding, notes


def _encoding(content: bytes) -> tuple[str, list[str]]:
    """Return the encoding, by its mark, or by which one gives the most characters that its languages use."""
    for mark, encoding in (
        *((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32")),
        *((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")),
    ):
        if content.startswith(mark):
            return encoding, []
    start = content[:4000]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if even + odd > len(start) // 10:
        return ("utf-16-le" if odd > even else "utf-16-be"), []
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        if _share_of_utf8(content) > 0.5:
            line = content[: error.start].count(b"\n") + 1
            text = f"line {line} holds bytes that are not UTF-8, as the rest is: clean it, or name the encoding, --encoding"
            raise CollectError(text) from error
    else:
        return "utf-8", []
    some = b"\n".join(line for line in re.split(rb"[\r\n]+", content) if not line.isascii())[:2_000_000]
    found = {name: _plausible(some, name, rule) for name, rule in _ENCODINGS.items()}
    best = max(found, key=lambda name: found[name])  # the first of equals
    beyond = {byte for byte in some if byte > 127}
    if beyond <= {0xA8, *range(0xC0, 0xE0)} and len(beyond) > 2 and found["cp1251"] > 0.9:
        best = "cp1251"  # capitals, which are Chinese characters too, two by two
    if found[best] < 0.5:
        raise CollectError(
            "the file's encoding is not known: name it, --encoding gb18030, cp1251 ..., or save it as UTF-8"
        )
    return best, [f"read as {best}; if names or values look wrong, name the encoding: --encoding"]


def _share_of_utf8(content: bytes) -> float:
    """Return the share of bytes beyond ASCII that are UTF-8."""
    beyond = len(content) - len(content.translate(None, bytes(range(128, 256))))
    text = content.decode("utf-8", errors="ignore")
    return (len(text.encode()) - sum(c.isascii() for c in text)) / beyond if beyond else 0.0


def _by_lead(encoding: str, first: int, last: int) -> Callable[[str, str, str], float]:
    """Return a rule: a character is common if its first byte in this encoding is in range, where the common ones are."""

    def rule(before: str, run: str, after: str) -> float:
        good = 0
        for c in run:
            code = c.encode(encoding, errors="ignore")
            good += len(code) == 2 and first <= code[0] <= last
        return good

    return rule


def _chinese(before: str, run: str, after: str) -> float:
    return _by_lead("gb2312", 0xB0, 0xD7)(before, run, after) + sum(
        c in "，。、；：？！“”‘’（）《》【】￥％—…·～" for c in run
    )


def _japanese(before: str, run: str, after: str) -> float:
    kana = sum("\u3041" <= c <= "\u30ff" or c in "。、「」（）・￥" for c in run)
    narrow = sum("\uff66" <= c <= "\uff9f" for c in run)
    return kana + (narrow if narrow > 1 else 0) + _by_lead("shift_jis", 0x88, 0x97)(before, run, after)


def _korean(before: str, run: str, after: str) -> float:
    return sum("가" <= c <= "힣" for c in run)


def _cyrillic(before: str, run: str, after: str) -> float:
    letters = all("А" <= c <= "я" or c in "ёЁіІїЇєЄґҐўЎ" for c in run.strip("№ –—«»"))
    shape = run.strip("№ –—«»")
    cased = shape.islower() or shape.isupper() or (shape[:1].isupper() and shape[1:].islower()) or " " in shape
    alone = len(shape) > 1 or shape.isupper() or shape in "явиксоуаіє"
    return len(run) if shape and letters and cased and alone and not (before or after) else 0


def _latin(letters: str) -> Callable[[str, str, str], float]:
    """Return a rule: letters stand in words of plain ones, of the same case; a sign stands alone, and not between two letters."""

    def rule(before: str, run: str, after: str) -> float:
        if all(c in letters for c in run.lower()):
            beside = (before + after)[:1]
            same_case = not (run.isupper() and before.islower())
            alone = len(run) == 1 and (run.islower() or run in "ÀÉÓ")
            return len(run) if same_case and (beside or alone) and len(run) <= 4 else 0
        signs = "€£¥§°©®™«»“”„‘’–—…·²³½¼¾±µªº¡¿\xa0"
        core = run.strip("\xa0’‘“”")
        if core in ("²", "³", "¹") and before and before not in "mM":
            return 0
        return (
            len(run)
            if len(core) <= 1 and all(c in signs for c in run) and not (before and after and core not in "·")
            else 0
        )

    return rule


_ENCODINGS: dict[str, Callable[[str, str, str], float]] = {  # of equals the first wins
    "cp1252": _latin("äöüßéèêëàâçîïôœùûñáíóúãõåæøýÿ"),
    "euc_kr": _korean,
    "gb18030": _chinese,
    "cp1251": _cyrillic,
    "cp932": _japanese,
    "big5": _by_lead("big5", 0xA4, 0xC6),
    "cp1250": _latin("ąćęłńóśźżáčďéěíňřšťúůýžöüßőűăâîșțĺľŕôđ"),
    "cp1254": _latin("çğıöşüâîûi̇"),
}


def _plausible(content: bytes, encoding: str, rule: Callable[[str, str, str], float]) -> float:
    """Return the share of characters beyond ASCII that are plausible in this encoding."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    runs = Counter(re.findall(r"([A-Za-z]?)([^\x00-\x7f]+)(?=([A-Za-z]?))", text[:2_000_000]))
    good = total = 0.0
    for (before, run, after), n in runs.items():
        weight = min(n, 20)  # a value that is everywhere is no more evidence than one that is here and there
        good += weight * rule(before, run, after)
        total += weight * len(run)
    if encoding == "euc_kr" and len({c for _, run, _ in runs for c in run}) < 6:
        return 0.5 * good / total  # so few characters are as likely Chinese ones
    return good / total if total else 0.0


# -- delimited text


def _rows(path: Path, text: str) -> tuple[Rows, str]:
    """Return the rows of delimited text, with the line on which each begins, and the delimiter."""
    first, _, rest = text.partition("\n")
    told = re.fullmatch(r'"?sep=(.)"?\s*', first, re.IGNORECASE)
    start = 1
    if told:
        text, start = rest, 2
    delimiter = told[1] if told else sniff_delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows: Rows = []
    end = 0
    try:
        for row in reader:
            if any(field.strip() for field in row):
                rows.append((start + end, row))
            end = reader.line_num
    except csv.Error as error:
        raise CollectError(f"{path} is not a CSV file: {error}, on line {start + end}") from error
    width = Counter(len(row) for _, row in rows).most_common(1)[0][0] if rows else 0
    _refuse_swallowed_records(path, rows, delimiter, width, text)
    return rows, delimiter


def sniff_delimiter(text: str) -> str:
    """Return the delimiter that cuts most of the first records into the same number of fields, the most of them."""
    lines = text.split("\n")[:300]

    def n_fields(delimiter: str) -> tuple[int, int]:
        try:
            counts = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True) if row)
        except csv.Error:
            return 0, 0
        n, times = counts.most_common(1)[0] if counts else (0, 0)
        return (n, times) if 2 * times > sum(counts.values()) and n > 1 else (0, 0)

    return max(",;\t|", key=n_fields)


def _refuse_swallowed_records(path: Path, rows: Rows, delimiter: str, width: int, text: str) -> None:
    """Refuse a field that holds whole records: its quote was never closed, or closed by another record's.

    A line inside a field is the rest of a record if it ends in a value of the last column.
    """
    last = Counter(row[-1].strip() for _, row in rows if len(row) == width)
    for line, row in rows:
        for i, value in enumerate(row):
            for k, part in enumerate(value.split("\n") if "\n" in value else []):
                pieces = part.split(delimiter)
                whole = len(pieces) >= (width - i if k == 0 else width) > 1
                if whole and last[pieces[-1].strip().strip('"')] > 1:
                    what = f"a quote that opens on line {line} swallows the next record"
                    raise CollectError(f"{path}: {what}: close it, or double one inside a field")
    if rows and text.count('"') % 2 and "\n" in rows[-1][1][-1]:
        raise CollectError(f"{path}: the quote that opens on line {rows[-1][0]} is never closed")


def _table(path: Path, rows: Rows, file: File, every_record: bool) -> File:
    """Find the header, and put right what stands around the table."""
    notes = file.notes
    rows = [
        (line, [" ".join(value.split()) if "\n" not in value else value.strip() for value in row]) for line, row in rows
    ]
    rows = [(line, row) for line, row in rows if any(row)]
    rows = _without_titles(rows, notes)
    if len(rows) < 2:
        raise CollectError(f"{path} holds no records below its header")
    names, rows = _header(path, rows, notes)
    rows = _even(path, names, rows, notes, every_record)
    rows = _without_second_headers(names, rows, notes)
    rows = _without_totals(rows, notes, remarks=not every_record)
    if not rows:
        raise CollectError(f"{path} holds no records below its header")
    file.names, file.records, file.lines = names, [row for _, row in rows], [line for line, _ in rows]
    return file


def _n_filled(row: Sequence[str]) -> int:
    """Return the number of fields up to the last one that is not empty."""
    return max((i + 1 for i, value in enumerate(row) if value), default=0)


def _without_titles(rows: Rows, notes: list[str]) -> Rows:
    """Leave out what stands above the header: lines with one field or two, where most have three and more."""
    usual = Counter(_n_filled(row) for _, row in rows[:300]).most_common(1)[0][0] if rows else 0
    k = 0
    while k < min(len(rows) - 2, 20) and usual > 2 and _is_title(rows[k][1], usual):
        k += 1
    if k:
        first, last = rows[0][0], rows[k - 1][0]
        where = f"line {first}" if first == last else f"lines {first} to {last}"
        notes.append(f"{where}: not part of the table, above its header: {rows[0][1][0]!r}")
    return rows[k:]


def _is_title(row: Sequence[str], usual: int) -> bool:
    filled = sum(map(bool, row))
    return filled == 1 or (bool(row[0]) and filled <= usual // 2)


def _header(path: Path, rows: Rows, notes: list[str]) -> tuple[list[str], Rows]:
    """Return the names, every column with one of its own, and the rows below."""
    line, names = rows[0]
    names = [" ".join(name.split()) for name in names[: _n_filled(names)]]
    usual = Counter(_n_filled(row) for _, row in rows[1:]).most_common(1)[0][0]
    if usual == len(names) + 1:
        raise CollectError(
            f"{path}: the records have {usual} fields, the header on line {line} has {len(names)}: name every column there "
            "(R's row names have none), and put quotes around numbers with a comma inside"
        )
    names = [name or f"(column {i})" for i, name in enumerate(names, 1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CollectError(f"{path} names a column twice: {twice}; rename one of them on line {line}")
    return names, rows[1:]


def _even(path: Path, names: list[str], rows: Rows, notes: list[str], every_record: bool) -> Rows:
    """Return the rows with one field for each name; leave out the few that have more, or fewer."""
    n = len(names)
    kept: Rows = []
    odd: list[tuple[int, int]] = []
    for line, row in rows:
        filled = _n_filled(row)
        if len(row) == n or (len(row) > n >= filled):
            kept.append((line, row[:n]))
        else:
            odd.append((line, len(row)))
    if not odd:
        return kept
    where = ", ".join(str(line) for line, _ in odd[:5]) + (" ..." if len(odd) > 5 else "")
    text = f"{'line' if len(odd) == 1 else 'lines'} {where}: {odd[0][1]} fields, the header has {n}"
    if every_record or len(odd) > max(1, FEW_RAGGED * len(rows)) or len(rows) < 20:
        raise CollectError(
            f"{path}: {text}. Is a delimiter missing, or one inside a field without quotes around it (a decimal comma)?"
        )
    notes.append(f"{text}: left out, since values may stand in the wrong column")
    return kept


_NUMBER = re.compile(r"[^\w\s]{0,3}\s*[-+]?[\d.,'\u00a0\u202f ]*\d[\d.,]*\s*\S{0,3}")


def _without_second_headers(names: list[str], rows: Rows, notes: list[str]) -> Rows:
    """Leave out the header where it comes again, and a line of units or types below it."""
    again = [line for line, row in rows if row == names]
    rows = [(line, row) for line, row in rows if row != names]
    if again:
        notes.append(
            f"{'line' if len(again) == 1 else 'lines'} {', '.join(map(str, again[:5]))}: the header again, left out"
        )
    if len(rows) > 20:
        line, first = rows[0]
        some = [row for _, row in rows[1:200]]
        numeric = [
            i
            for i in range(len(names))
            if (present := [row[i] for row in some if row[i]])
            and sum(bool(_NUMBER.fullmatch(v)) for v in present) > 0.95 * len(present)
        ]
        if len(numeric) > 1 and all(_is_word(first[i]) for i in numeric):
            notes.append(f"line {line}: a second header ({', '.join(first[i] for i in numeric[:3])} ...), left out")
            rows = rows[1:]
    return rows


def _is_word(text: str) -> bool:
    return bool(text) and not any(c.isdigit() for c in text) and text.lower() not in MISSING | NO_NUMBER


def _without_totals(rows: Rows, notes: list[str], *, remarks: bool) -> Rows:
    """Leave out lines of totals, and remarks below the table."""
    usual = sum(sum(map(bool, row)) for _, row in rows[:300]) / max(1, len(rows[:300]))
    kept: Rows = []
    for k, (line, row) in enumerate(rows):
        word = next((value for value in row if value), "").lower().rstrip(":. ")
        filled, last = sum(map(bool, row)), k >= len(rows) - 3
        if word in TOTALS and (filled < usual or (last and row[0].lower().rstrip(":. ") == word)):
            notes.append(f"line {line}: a total, left out")
        elif remarks and last and filled == 1 and usual > 2.5:
            notes.append(f"line {line}: a remark below the table, left out")
        else:
            kept.append((line, row))
    return kept if len(kept) > 1 else rows
