"""A model in use. It takes feedback, learns it exactly once, takes in new purchases, and forgets who asks.

python -m examples.user_profile.live FOLDER --status (or --score, --feedback, --learn, --purchases, --forget: see --help)

One SQLite file holds everything: purchases, feedback, decisions, the model as a row, and what it has learned. Whatever happens is
one transaction, so a kill at any moment leaves the state before or the state after. Learning takes seconds, and is done before
its transaction: written if what it was made from is still so, and made again if not. So processes may share the file, and
answers are taken while one of them learns.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import nnprofile as nn

from . import reading
from .amounts import Numbers
from .collect import CollectError, Log, column_of
from .columns import PreprocessError
from .dates import Dates
from .features import Encoder
from .orders import COLUMNS, GAP, MONTH, MORE, Reader, customers, month_ends
from .train import LOSS
from .update import HORIZON, N_JUDGING, Learner, Rows, Verdict, held_back, judge, rows_of

FILE = "live.db"
STRANGERS = 20  # customers, none of whom is known: another file, or other names
PATIENCE = 60  # seconds to wait for another process
TRIES = 5  # at learning, while others change what is learned from
LEARNED, REFUSED, LEFT_OUT = "learned", "refused", "left out"  # what became of a month
SCHEMA = (  # beside the purchases, whose columns depend on the log
    "create table reader (state text)",
    "create index purchases_of on purchases (customer, date)",
    "create index purchases_on on purchases (date)",
    "create table batches (id integer primary key, learned integer)",
    "create table feedback (id integer primary key, customer text, date text, bought integer, batch integer references batches,"
    " unique (customer, date))",
    "create table months (id integer primary key, month text unique, fate text)",
    "create table versions (id integer primary key, why text, until text, forgotten integer, model blob, sample blob,"
    " encoder text, sha256 text)",
)
Result = TypeVar("Result")
Statement = tuple[str, Sequence[tuple[Any, ...]]]


class LiveError(ValueError):
    """What was asked for cannot be done; nothing has been changed."""


class Answer(NamedTuple):
    """Feedback: did the customer buy within the 30 days after the date?"""

    customer: str
    date: str
    bought: bool
    id: int = 0
    learned: bool | None = None  # None: it waits; False: it was refused


@dataclass(frozen=True)
class State:
    """All that the file held at one moment: the model, what it was made from, and what it has learned."""

    version: int
    learner: Learner
    log: pd.DataFrame  # the purchases, in order of time
    answers: list[Answer]  # in the order in which they came
    months: list[str]  # whose labels were learned from the log
    refused_month: str  # "", or the one that waits for a decision, and the later ones with it
    left_out: list[str]  # months that were decided against

    @property
    def standing(self) -> list[Answer]:
        """The answers that were learned, or wait: those that stand for what the log will say."""
        return [answer for answer in self.answers if answer.learned is not False]

    @property
    def waiting(self) -> list[Answer]:
        """The answers that have not had their turn."""
        return [answer for answer in self.answers if answer.learned is None]


@dataclass(frozen=True)
class Change:
    """What a transaction writes: a new version of the model, and rows of the other tables."""

    why: str
    learner: Learner
    until: pd.Timestamp  # the last day of the log
    statements: Sequence[Statement]


class Store:
    """The file of a live model, which processes may share."""

    def __init__(self, folder: Path) -> None:
        self.file = Path(folder) / FILE
        self._last: tuple[int, Learner] | None = None  # the version that was read last
        if not self.file.is_file():
            raise LiveError(f"{folder} holds no live model")
        with _transaction(self.file, write=False) as db:
            if not db.execute("select count(*) from sqlite_schema where name = 'versions'").fetchone()[0]:
                raise LiveError(f"{folder} holds no live model")
        self._erase()

    @classmethod
    def create(cls, folder: Path, log: pd.DataFrame, reader: Reader | None = None) -> Store:
        """Train on everything in ``log`` whose label is known, and write the file into ``folder``, where none must be.

        Files of later purchases are read by ``reader``; without one, their columns are called as those of the log.
        """
        if (folder / FILE).exists() and _is_made(folder / FILE):
            raise LiveError(f"{folder} is there already")
        months = [f"{end:%Y-%m-%d}" for end in month_ends(log)]
        learner = _train(log, months, [])
        folder.mkdir(parents=True, exist_ok=True)
        rows = [(LEARNED, month) for month in months]
        with _transaction(folder / FILE, create=True) as db:
            if db.execute("select count(*) from sqlite_schema").fetchone()[0]:
                raise LiveError(f"{folder} is there already")
            numbers = "".join(f", {name} real" for name in MORE if name in log)
            db.execute(
                f"create table purchases (id integer primary key, customer text, date text, amount real{numbers})"
            )
            for statement in SCHEMA:
                db.execute(statement)
            db.execute("insert into reader values (?)", (json.dumps((reader or _usual(log)).to_json()),))
            statements = [_purchases(log), ("insert into months (fate, month) values (?, ?)", rows)]
            _write(db, Change("made", learner, log["date"].max(), statements))
        return cls(folder)

    def version(self) -> int:
        """Return the number of the version in use."""
        with _transaction(self.file, write=False) as db:
            return _version(db)

    def events(self) -> pd.DataFrame:
        """Return the purchases, in order of time."""
        with _transaction(self.file, write=False) as db:
            return _events(db)

    def feedback(self) -> list[dict[str, Any]]:
        """Return all answers that were acknowledged."""
        with _transaction(self.file, write=False) as db:
            return [{"customer": a.customer, "date": a.date, "bought": a.bought} for a in _answers(db)]

    def state(self) -> State:
        """Return all that the file holds."""
        with _transaction(self.file, write=False) as db:
            learner, log, answers = self._learner(db), _events(db), _answers(db)
            fates = db.execute("select month, fate from months order by id").fetchall()
            months, refused, left_out = ([m for m, f in fates if f == fate] for fate in (LEARNED, REFUSED, LEFT_OUT))
            return State(_version(db), learner, log, answers, months, refused[0] if refused else "", left_out)

    def add_feedback(self, *answers: Mapping[str, Any]) -> int:
        """Keep answers: {"customer", "date", "bought"}, did the customer buy within the 30 days after the date?

        Returns once they are on the disk: how many there are that were not there already.

        Raises
        ------
        LiveError
            If one is malformed, of an unknown customer, of a date whose answer the log has or that is yet to come, or
            contradicts an earlier answer. None is kept then.
        """
        (found,) = self.add_groups([answers])
        if isinstance(found, LiveError):
            raise found
        return found

    def add_groups(self, groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[int | LiveError]:
        """Keep several groups of answers, each as ``add_feedback`` would, in one transaction; return what became of each."""
        found: list[int | LiveError] = []
        with _transaction(self.file) as db:
            for group in groups:
                db.execute("savepoint one")
                try:
                    found.append(sum(_keep(db, answer) for answer in group))
                except LiveError as error:
                    db.execute("rollback to one")
                    found.append(error)
                db.execute("release one")
        return found

    def learn(self) -> dict[str, Any] | None:
        """Give the waiting feedback its turn: learned, or refused if held-back rows say that it harms; None if none waits.

        The answers of customers who are held back, one in ten, judge with the others, and are never learned from.
        """

        def make(state: State) -> tuple[dict[str, Any] | None, Change | None]:
            if not state.waiting:
                return None, None
            rows = _answer_rows(state.log, state.waiting)
            held = held_back(rows.frame.index)  # these answers judge, and are not learned
            updated = state.learner if held.all() else state.learner.learn(rows.take(~held))
            promoted = judge(state.learner, updated, rows.take(held), _judges(state.log, state.months)).promoted
            statements = [
                ("insert into batches (learned) values (?)", [(promoted,)]),
                (
                    "update feedback set batch = (select max(id) from batches) where id = ?",
                    [(answer.id,) for answer in state.waiting],
                ),
            ]
            said = {"answers": len(state.waiting), "learned": promoted}
            learner = updated if promoted else state.learner
            return said, _change("answers", learner, state.log, statements)

        return self._swap(make, answers_too=False)  # those that come meanwhile wait for the next turn

    def read(self, path: Path, encoding: str | None = None) -> tuple[pd.DataFrame, list[str]]:
        """Return the purchases in a file, read as the log was, in order of time; also what is worth saying.

        Raises
        ------
        LiveError
            If it is not such a file.
        """
        with _transaction(self.file, write=False) as db:
            reader = Reader.from_json(json.loads(db.execute("select state from reader").fetchone()[0]))
        try:
            file = reading.read(path, encoding, every_record=True)
            for name in reader.log.columns().values():
                column_of(file.names, name, path)
            found, said = reader.orders(pd.DataFrame(file.records, columns=file.names, dtype=object), later=True)
        except (CollectError, PreprocessError) as error:
            raise LiveError(f"no purchases to add: {error}") from error
        with _transaction(self.file, write=False) as db:
            known = {name for (name,) in db.execute("select distinct customer from purchases")}
            (end,) = db.execute("select max(date) from purchases").fetchone()
        names = set(found["customer"])
        if len(names) >= STRANGERS and not names & known:
            raise LiveError(
                f"{path}: none of its {len(names)} customers is known, such as {min(names)!r}: are they written as in the log?"
            )
        said.append(f"{len(names - known):,} of {len(names):,} customers are new")
        after = found["date"] > pd.Timestamp(end)
        if after.any() and not after.all():
            said.append(
                f"{int((~after).sum()):,} orders up to {end}, where the log ends, are taken as known, and left out"
            )
            found = found[after].reset_index(drop=True)
        return found, [*file.notes, *said]

    def add_purchases(self, purchases: pd.DataFrame) -> list[tuple[str, Verdict]]:
        """Add purchases dated after the log's end, learn the months whose labels they make known; return the verdicts.

        Raises
        ------
        LiveError
            If a purchase is not after the log's end: it may have been added before.
        """

        def make(state: State) -> tuple[list[tuple[str, Verdict]], Change]:
            end = state.log["date"].max()
            if not len(purchases) or purchases["date"].min() <= end:
                raise LiveError(f"purchases must be dated after {end:%Y-%m-%d}, where the log ends")
            gap = _longest_gap([end, *purchases["date"]])
            usual = _longest_gap(state.log["date"])
            if gap > min(GAP, max(MONTH.days + 1, 2 * usual)):
                raise LiveError(
                    f"there is a gap of {gap} days without any purchase, where the log has {usual} at most: is each date right?"
                )
            new = purchases.reindex(columns=state.log.columns).fillna(dict.fromkeys(MORE, 0.0))
            log = pd.concat([state.log, new], ignore_index=True)
            learner, verdicts = _learn_months(
                state.learner, log, state.standing, state.months, state.left_out, state.refused_month
            )
            statements = [_purchases(new), _fates(verdicts)]
            return verdicts, _change("purchases", learner, log, statements)

        return self._swap(make)

    def decide(self, month: str, *, accept: bool) -> list[tuple[str, Verdict]]:
        """Decide on the month that was refused: learn it all the same, or never; then learn the months that waited for it."""

        def make(state: State) -> tuple[list[tuple[str, Verdict]], Change]:
            if month != state.refused_month:
                raise LiveError(f"{month} does not wait for a decision; {state.refused_month or 'no month'} does")
            learner, months, left_out = state.learner, state.months, state.left_out
            if accept:
                rows = _month_rows(state.log, month, state.standing)
                learner, months = learner.learn(rows.take(~held_back(rows.frame.index))), [*months, month]
            else:
                left_out = [*left_out, month]
            learner, verdicts = _learn_months(learner, state.log, state.standing, months, left_out, "")
            decided = ("update months set fate = ? where month = ?", [(LEARNED if accept else LEFT_OUT, month)])
            return verdicts, _change("decision", learner, state.log, [decided, _fates(verdicts)])

        return self._swap(make)

    def forget(self, customer: str) -> dict[str, int]:
        """Remove a customer's purchases and feedback, and train anew without them; return how many there were.

        No byte of them stays in the file. Versions that were trained on them are marked: copies of them must be deleted too.
        """
        customer = customer.strip()

        def make(state: State) -> tuple[dict[str, int], Change]:
            own = (state.log["customer"] == customer).to_numpy()
            found = {"purchases": int(own.sum()), "feedback": sum(a.customer == customer for a in state.answers)}
            if not own.any():
                raise LiveError(f"no customer here is called {customer!r}")
            if own.all():
                raise LiveError("no customer would be left: delete the folder")
            since = f"{state.log.loc[own, 'date'].min():%Y-%m-%d}"
            log = state.log[~own].reset_index(drop=True)
            learner = _train(log, state.months, [a for a in state.answers if a.learned and a.customer != customer])
            statements = [
                ("delete from purchases where customer = ?", [(customer,)]),
                ("delete from feedback where customer = ?", [(customer,)]),
                ("update versions set forgotten = forgotten + 1 where until >= ?", [(since,)]),
                ("pragma user_version = 1", []),  # there is something to erase
            ]
            return found, _change("forgetting", learner, log, statements)

        found = self._swap(make)
        self._erase()
        return found

    def score(self, customer: str) -> float:
        """Return the probability that a customer buys within 30 days after the log's last day."""
        customer = customer.strip()
        with _transaction(self.file, write=False) as db:
            learner, own = self._learner(db), _events(db, customer)
            (until,) = db.execute("select max(date) from purchases").fetchone()
        if not len(own):
            raise LiveError(f"no customer here is called {customer!r}")
        frame, _ = customers(own, pd.Timestamp(until))
        if not len(frame):
            raise LiveError(f"{customer!r} has only returned things, and bought nothing")
        return learner.score_one(frame.iloc[0].to_dict())

    def status(self) -> dict[str, Any]:
        """Return counts, which hold no customer's data."""
        with _transaction(self.file, write=False) as db:
            asked = {
                "customers": "count(distinct customer) from purchases",
                "purchases": "count(*) from purchases",
                "from": "min(date) from purchases",
                "to": "max(date) from purchases",
                "months learned": f"count(*) from months where fate = '{LEARNED}'",
                "month refused": f"coalesce(max(month), 'none') from months where fate = '{REFUSED}'",
                "months left out": f"count(*) from months where fate = '{LEFT_OUT}'",
                "feedback": "count(*) from feedback",
                "feedback learned": "count(*) from feedback join batches on batch = batches.id where learned",
                "feedback refused": "count(*) from feedback join batches on batch = batches.id where not learned",
                "feedback waiting": "count(*) from feedback where batch is null",
                "version": "max(id) from versions",
                "versions of someone forgotten": "count(*) from versions where forgotten",
            }
            return {name: db.execute(f"select {what}").fetchone()[0] for name, what in asked.items()}

    def versions(self) -> list[dict[str, Any]]:
        """Return what each version was made for, until when its log went, and how many customers it knew that were forgotten."""
        with _transaction(self.file, write=False) as db:
            rows = db.execute("select id, why, until, forgotten from versions order by id").fetchall()
        return [dict(zip(("version", "why", "until", "forgotten"), row, strict=True)) for row in rows]

    def _swap(self, make: Callable[[State], tuple[Result, Change | None]], *, answers_too: bool = True) -> Result:
        """Write what is made of the state, if that is still the state; otherwise make it again."""
        for _ in range(TRIES):
            state = self.state()
            result, change = make(state)
            if change is None:
                return result
            with _transaction(self.file) as db:
                last = db.execute("select coalesce(max(id), 0) from feedback").fetchone()[0]
                known = max((answer.id for answer in state.answers), default=0)
                if _version(db) == state.version and (last == known or not answers_too):
                    _write(db, change)
                    return result
        raise LiveError(f"{self.file} was changed by others {TRIES} times while this was made: try again")

    def _learner(self, db: sqlite3.Connection) -> Learner:
        version = _version(db)
        if self._last is None or self._last[0] != version:
            self._last = version, _read_learner(db, version, self.file)
        return self._last[1]

    def _erase(self) -> None:
        """Leave no byte of what was deleted: not in free pages, nor in the log of writes. What a kill cut off is done later."""
        db = _connect(self.file)
        try:
            if db.execute("pragma user_version").fetchone()[0]:
                db.execute("vacuum")
                if db.execute("pragma wal_checkpoint(truncate)").fetchone()[0]:
                    raise LiveError(
                        f"{self.file}: done, but another process reads it; the last traces are erased when it is opened next"
                    )
                db.execute("pragma user_version = 0")
        except sqlite3.Error as error:
            raise LiveError(f"{self.file}: {error}") from error
        finally:
            db.close()


def _connect(file: Path, *, create: bool = False) -> sqlite3.Connection:
    address = f"{file.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
    db = sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)
    for setting in ("synchronous = full", "secure_delete = on", "temp_store = memory"):
        db.execute(f"pragma {setting}")
    if create:
        db.execute("pragma journal_mode = wal")
    return db


@contextmanager
def _transaction(file: Path, *, write: bool = True, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Do what is done inside all at once, or not at all; what is read inside is of one moment."""
    db = None
    try:
        db = _connect(file, create=create)
        db.execute("begin immediate" if write else "begin")
        yield db
        db.execute("commit")
    except sqlite3.Error as error:
        raise LiveError(f"{file}: {error}") from error
    finally:
        if db is not None:
            db.close()  # what was not committed is gone


def _is_made(file: Path) -> bool:
    """Tell whether there is more than a file that a kill left empty."""
    with _transaction(file, write=False) as db:
        return bool(db.execute("select count(*) from sqlite_schema").fetchone()[0])


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("select max(id) from versions").fetchone()[0])


def _events(db: sqlite3.Connection, customer: str | None = None) -> pd.DataFrame:
    own, values = ("", ()) if customer is None else ("where customer = ?", (customer,))
    columns = [name for _, name, *_ in db.execute("pragma table_info(purchases)")][1:]
    rows = db.execute(f"select {', '.join(columns)} from purchases {own} order by id", values).fetchall()
    found = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], float))
    found["date"] = pd.to_datetime(found["date"], format="%Y-%m-%d")
    return found


def _answers(db: sqlite3.Connection) -> list[Answer]:
    joined = "feedback left join batches on batch = batches.id order by feedback.id"
    rows = db.execute(f"select customer, date, bought, feedback.id, learned from {joined}")
    return [Answer(*row[:2], bool(row[2]), row[3], None if row[4] is None else bool(row[4])) for row in rows]


def _keep(db: sqlite3.Connection, answer: Mapping[str, Any]) -> bool:
    """Keep an answer, unless it is there already or cannot be; tell whether it was new."""
    new = _checked(answer)
    date, said = pd.Timestamp(new.date), f"{dict(answer)}: "
    known = db.execute("select bought from feedback where customer = ? and date = ?", new[:2]).fetchone()
    if known is not None and bool(known[0]) != new.bought:
        raise LiveError(f"{said}the answer was {bool(known[0])} before, and may have been learned")
    if known is not None:
        return False
    last = pd.Timestamp(db.execute("select max(date) from purchases").fetchone()[0])
    if not last - HORIZON < date <= last:
        raise LiveError(
            f"{said}the date must be after {last - HORIZON:%Y-%m-%d}, up to which the log has the answers, "
            f"and not after {last:%Y-%m-%d}, where the log ends"
        )
    own = "select count(*) from purchases where amount >= 0 and customer = ? and date"
    within = (new.customer, new.date, f"{date + HORIZON:%Y-%m-%d}")
    if not new.bought and db.execute(f"{own} > ? and date <= ?", within).fetchone()[0]:
        raise LiveError(f"{said}the log has a purchase within those 30 days")
    if not db.execute(f"{own} <= ?", new[:2]).fetchone()[0]:
        raise LiveError(f"{said}no purchase of this customer by that date is known")
    db.execute("insert into feedback (customer, date, bought) values (?, ?, ?)", new[:3])
    return True


def _longest_gap(dates: Sequence[pd.Timestamp] | pd.Series) -> int:
    """Return the number of days of the longest time without any purchase."""
    return int(pd.Series(dates).sort_values().diff().max().days)


def _change(why: str, learner: Learner, log: pd.DataFrame, statements: Sequence[Statement]) -> Change:
    return Change(why, learner, log["date"].max(), statements)


def _write(db: sqlite3.Connection, change: Change) -> None:
    """Write a change; the version before it keeps its line, and no model."""
    for statement, rows in change.statements:
        if rows:
            db.executemany(statement, rows)
        elif statement.startswith("pragma"):
            db.execute(statement)
    db.execute("update versions set model = null, sample = null, encoder = null")
    blobs = _packed(change.learner)
    db.execute(
        "insert into versions (why, until, forgotten, model, sample, encoder, sha256) values (?, ?, 0, ?, ?, ?, ?)",
        (change.why, f"{change.until:%Y-%m-%d}", *blobs, _sha256(blobs)),
    )


def _purchases(log: pd.DataFrame) -> Statement:
    columns = [*COLUMNS, *(name for name in MORE if name in log)]
    rows = log[columns].assign(date=log["date"].dt.strftime("%Y-%m-%d")).itertuples(index=False, name=None)
    places = ", ".join("?" * len(columns))
    return f"insert into purchases ({', '.join(columns)}) values ({places})", list(rows)


def _usual(log: pd.DataFrame) -> Reader:
    """Return a reader of files whose columns are called as those of the log."""
    names = [name for name in ("amount", "quantity") if name in log]
    return Reader(
        Log("customer", "date", **{name: name for name in names}), Dates(), {name: Numbers() for name in names}
    )


def _fates(verdicts: list[tuple[str, Verdict]]) -> Statement:
    rows = [(month, LEARNED if verdict.promoted else REFUSED) for month, verdict in verdicts]
    return "insert into months (month, fate) values (?, ?)", rows


def _packed(learner: Learner) -> tuple[bytes, bytes, str]:
    """Return network with optimizer and generator, sample, and encoder, as they are kept."""
    model, arrays, sample = io.BytesIO(), io.BytesIO(), learner.sample
    nn.save(learner.net, model, loss=LOSS, optimizer=learner.optimizer, rng=learner.rng)
    np.savez(
        arrays,
        customer=sample.frame.index.to_numpy(str),
        columns=np.array(sample.frame.columns, str),
        values=sample.frame.to_numpy(float),
        y=sample.y,
        lots=learner.lots,
    )
    return model.getvalue(), arrays.getvalue(), json.dumps(learner.encoder.to_json())


def _read_learner(db: sqlite3.Connection, version: int, file: Path) -> Learner:
    *blobs, sha256 = db.execute(
        "select model, sample, encoder, sha256 from versions where id = ?", (version,)
    ).fetchone()
    if None in blobs or _sha256(blobs) != sha256:
        raise LiveError(f"{file}: the model of version {version} is not as it was written")
    saved = nn.load(blobs[0])
    with np.load(io.BytesIO(blobs[1])) as arrays:
        index = pd.Index(arrays["customer"].astype(object), name="customer")
        sample = Rows(pd.DataFrame(arrays["values"], index=index, columns=arrays["columns"].tolist()), arrays["y"])
        encoder = Encoder(**json.loads(blobs[2]))
        return Learner(encoder, saved.net, saved.optimizer, saved.rng, sample, arrays["lots"])


def _sha256(parts: Sequence[bytes | str]) -> str:
    return hashlib.sha256(b"".join(p.encode() if isinstance(p, str) else p for p in parts)).hexdigest()


def _checked(answer: Mapping[str, Any]) -> Answer:
    fields = {"customer": str, "date": str, "bought": bool}
    right = isinstance(answer, Mapping) and answer.keys() == fields.keys()
    if not right or not all(isinstance(answer[name], kind) for name, kind in fields.items()):
        raise LiveError(
            f'feedback looks like {{"customer": "00042", "date": "1998-06-15", "bought": true}}, got {answer!r}'
        )
    try:
        date = pd.Timestamp(datetime.strptime(answer["date"].strip(), "%Y-%m-%d"))
    except ValueError as error:
        raise LiveError(f"{dict(answer)}: the date must be written as 1998-06-15") from error
    return Answer(answer["customer"].strip(), f"{date:%Y-%m-%d}", answer["bought"])


def _train(log: pd.DataFrame, months: list[str], answers: list[Answer]) -> Learner:
    """Train anew on these months and answers."""
    if not months:
        raise LiveError("the log is too short: it holds no month with the 30 days after it")
    parts = [_month_rows(log, month, answers) for month in months]
    parts = [rows.take(~held_back(rows.frame.index)) for rows in parts]
    if answers:
        rows = _answer_rows(log, answers)
        parts.append(rows.take(~held_back(rows.frame.index)))
    rows = Rows.join(parts)
    if not len(rows.y):
        raise LiveError("the log is too short: there is no customer to learn from")
    return Learner.from_scratch(rows, _judges(log, months))


def _learn_months(
    learner: Learner, log: pd.DataFrame, answers: list[Answer], months: list[str], left_out: list[str], refused: str
) -> tuple[Learner, list[tuple[str, Verdict]]]:
    """Learn the months whose labels have become known, up to the first that is refused."""
    verdicts: list[tuple[str, Verdict]] = []
    for month in (f"{end:%Y-%m-%d}" for end in month_ends(log)):
        if refused:
            break
        if month in months + left_out:
            continue
        rows = _month_rows(log, month, answers)
        held = held_back(rows.frame.index)
        updated = learner.learn(rows.take(~held))
        verdict = judge(learner, updated, rows.take(held), _judges(log, months))
        if verdict.promoted:
            learner, months = updated, [*months, month]
        else:
            refused = month
        verdicts.append((month, verdict))
    return learner, verdicts


def _month_rows(log: pd.DataFrame, month: str, answers: list[Answer]) -> Rows:
    """Return the rows of a month without those whom feedback speaks of on that date: nothing is to be learned twice."""
    rows = rows_of(log, pd.Timestamp(month))
    return rows.take(~rows.frame.index.isin([answer.customer for answer in answers if answer.date == month]))


def _judges(log: pd.DataFrame, months: list[str]) -> Rows:
    """Return the held-back rows of the last months learned."""
    parts = [rows_of(log, pd.Timestamp(month)) for month in months[-N_JUDGING:]]
    return Rows.join(rows.take(held_back(rows.frame.index)) for rows in parts)


def _answer_rows(log: pd.DataFrame, answers: list[Answer]) -> Rows:
    """Return the customers of the answers as they were on the dates, in order."""
    log = log[log["customer"].isin([answer.customer for answer in answers])]
    frames = {date: customers(log, pd.Timestamp(date))[0] for date in {answer.date for answer in answers}}
    frame = pd.concat([frames[answer.date].loc[[answer.customer]] for answer in answers])
    return Rows(frame, np.array([int(answer.bought) for answer in answers]))


def main(arguments: list[str] | None = None) -> int:
    """Do one thing with a live model."""
    parser = argparse.ArgumentParser(prog="python -m examples.user_profile.live", description="Use a live model.")
    parser.add_argument("folder", type=Path, help="where it lives: OUT/NAME/live")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--status", action="store_true", help="what it holds, in numbers")
    what.add_argument("--score", metavar="CUSTOMER", help="how probable a purchase within 30 days is")
    what.add_argument(
        "--feedback", metavar="JSON", help="whether a customer bought within the 30 days after a date; - reads lines"
    )
    what.add_argument("--learn", action="store_true", help="learn the feedback that waits")
    what.add_argument("--purchases", type=Path, metavar="FILE", help="add purchases, and learn what they make known")
    what.add_argument("--accept", metavar="MONTH", help="learn the month that was refused all the same")
    what.add_argument("--leave-out", metavar="MONTH", help="never learn the month that was refused")
    what.add_argument("--forget", metavar="CUSTOMER", help="remove a customer, and train anew")
    parser.add_argument("--encoding", metavar="NAME", help="of the file of purchases, where it is not recognised")
    options = parser.parse_args(arguments)
    try:
        store = Store(options.folder)
        with threadpool_limits(1):
            _do(store, options)
    except (ValueError, OSError, RecursionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _do(store: Store, options: argparse.Namespace) -> None:
    if options.status:
        for name, value in store.status().items():
            print(f"{name:30}{value}")
    elif options.score is not None:
        print(f"{store.score(options.score):.4f}")
    elif options.feedback is not None:
        lines = [line for line in sys.stdin if line.strip()] if options.feedback == "-" else [options.feedback]
        n = store.add_feedback(*map(json.loads, lines))
        print(f"{n} answers kept, {len(lines) - n} known already")  # only now is it promised
    elif options.learn:
        batch = store.learn()
        if batch is None:
            print("no feedback waits")
        else:
            said = "learned" if batch["learned"] else "refused: held-back customers are predicted worse after it"
            print(f"{batch['answers']} answers {said}")
    elif options.purchases is not None:
        purchases, notes = store.read(options.purchases, options.encoding)
        for line in notes:
            print(line)
        _say(store.add_purchases(purchases))
        print(f"the log ends on {store.status()['to']}")
    elif options.accept is not None or options.leave_out is not None:
        month = options.accept or options.leave_out
        verdicts = store.decide(month, accept=options.accept is not None)
        print(f"{month} {'learned' if options.accept else 'left out'}, as decided")
        _say(verdicts)
    else:
        found = store.forget(options.forget)
        print(f"removed {found['purchases']} purchases and {found['feedback']} answers; trained anew without them")
        if marked := [str(v["version"]) for v in store.versions() if v["forgotten"]]:
            print(f"versions {', '.join(marked)} were trained on somebody forgotten since: delete copies of them")
        print(
            "the files beside this folder (now.csv, profiles.csv, model) still hold them: make those anew from a log without them"
        )


def _say(verdicts: list[tuple[str, Verdict]]) -> None:
    for month, verdict in verdicts:
        if verdict.promoted:
            print(f"{month} learned")
        else:
            print(f"{month} refused: held-back customers are predicted worse after it. Look at its data, then decide:")
            print(f"  --accept {month} or --leave-out {month}; later months wait until then")


if __name__ == "__main__":
    sys.exit(main())
