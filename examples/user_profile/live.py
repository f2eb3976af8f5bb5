"""A model in use. It takes feedback, learns it exactly once, takes in new purchases, and forgets who asks.

python -m examples.user_profile.live FOLDER --status (or --score, --feedback, --learn, --purchases, --forget: see --help)

A version is a folder with everything: the purchases, the feedback, the model, and what it has learned. ``current`` is a link to
the version in use. Feedback is appended to it; all else makes a new version beside it, moves the link, which the system does
at once or not at all, and deletes the old one. So a kill at any moment leaves the state before or the state after.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import nnprofile as nn

from .features import Encoder, customers
from .train import LOSS
from .update import HORIZON, N_JUDGING, Learner, Rows, Verdict, held_back, judge, month_ends, rows_of

LONGEST_GAP = pd.Timedelta(days=92)  # without any purchase: more looks like a wrong year
COLUMNS = ["customer", "date", "discs", "dollars"]
EVENTS, FEEDBACK, MODEL, SAMPLE, STATE = (
    *("events.csv", "feedback.jsonl", "learner.safetensors", "sample.npz", "state.json"),
)


class LiveError(ValueError):
    """What was asked for cannot be done; nothing has been changed."""


@dataclass(frozen=True)
class State:
    """The model, and what it has learned."""

    learner: Learner
    months: list[str]  # whose labels were learned from the log
    refused_month: str  # "", or the one that waits for a decision, and the later ones with it
    left_out: list[str]  # months that were decided against
    batches: list[
        dict[str, Any]
    ]  # of feedback, in order: lines "first" to before "end"; whether it was "learned", or refused

    @property
    def n_feedback(self) -> int:
        """The number of lines of feedback that have had their turn."""
        return self.batches[-1]["end"] if self.batches else 0

    def standing(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers that were learned, or wait: those that stand for what the log will say."""
        return self.learned(answers) + answers[self.n_feedback :]

    def learned(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers that were learned."""
        return [a for b in self.batches if b["learned"] for a in answers[b["first"] : b["end"]]]


class Store:
    """The folder of a live model. Processes may share it: a lock, which a dead process can't keep, orders those that write."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        self.current = self.folder / "current"
        if not self.current.is_dir():
            raise LiveError(f"{folder} holds no live model")

    @classmethod
    def create(cls, folder: Path, log: pd.DataFrame) -> Store:
        """Train on everything in ``log`` whose label is known, and write the folder, which must not be there."""
        if folder.exists():
            raise LiveError(f"{folder} is there already")
        state = _train(log, [f"{end:%Y-%m-%d}" for end in month_ends(log)], [])
        folder.mkdir(parents=True)
        (folder / "lock").touch()
        _write_version(folder / "000001", state, log[COLUMNS].to_csv(index=False).encode(), b"")
        _switch(folder, "000001")
        return cls(folder)

    def events(self) -> pd.DataFrame:
        """Return the purchases, in order of time."""
        _check(self.current)
        return read_purchases(self.current / EVENTS)

    def feedback(self) -> list[dict[str, Any]]:
        """Return all answers that were acknowledged; a line without its end was not."""
        _check(self.current)
        try:
            return [_checked(json.loads(line)) for line in _whole_lines(self.current / FEEDBACK).splitlines()]
        except ValueError as error:
            raise LiveError(f"{self.current / FEEDBACK} is damaged: {error}") from error

    def state(self) -> State:
        """Return the model, and what it has learned."""
        _check(self.current)
        return _read_state(self.current)

    def add_feedback(self, *answers: Mapping[str, Any]) -> int:
        """Append answers: {"customer", "date", "bought"}, did the customer buy within the 30 days after the date?

        Returns once they are on the disk: how many there are that were not there already.

        Raises
        ------
        LiveError
            If one is malformed, of an unknown customer, of a date whose answer the log has or that is yet to come, or
            contradicts an earlier answer. None is appended then.
        """
        checked = [_checked(answer) for answer in answers]
        with self._locked():
            known = {(answer["customer"], answer["date"]): answer["bought"] for answer in self.feedback()}
            log = self.events()
            last = log["date"].max()
            since = log.groupby("customer")["date"].min()
            lately = log[log["date"] > last - HORIZON]

            def own_dates(customer: str) -> pd.Series:
                return lately.loc[lately["customer"] == customer, "date"]

            lines = []
            for answer in checked:
                key, date = (answer["customer"], answer["date"]), pd.Timestamp(answer["date"])
                if known.get(key, answer["bought"]) != answer["bought"]:
                    raise LiveError(f"{answer}: the answer was {known[key]} before, and may have been learned")
                if key in known:
                    continue
                if not last - HORIZON < date <= last:
                    raise LiveError(
                        f"{answer}: the date must be after {last - HORIZON:%Y-%m-%d}, up to which the log has the answers, "
                        f"and not after {last:%Y-%m-%d}, where the log ends"
                    )
                bought = own_dates(answer["customer"])
                if not answer["bought"] and ((bought > date) & (bought <= date + HORIZON)).any():
                    raise LiveError(f"{answer}: the log has a purchase within those 30 days")
                if answer["customer"] not in since.index or since[answer["customer"]] > date:
                    raise LiveError(f"{answer}: no purchase of this customer by that date is known")
                known[key] = answer["bought"]
                lines.append(json.dumps(answer).encode() + b"\n")
            whole = len(_whole_lines(self.current / FEEDBACK))
            with (self.current / FEEDBACK).open("r+b") as file:
                file.truncate(whole)  # after it: a line that a kill cut off
                file.seek(whole)
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
        return len(lines)

    def learn(self) -> dict[str, Any] | None:
        """Give the waiting feedback its turn: learned, or refused if held-back rows say that it harms; None if none waits.

        The answers of customers who are held back, one in ten, judge with the others, and are never learned from.
        """
        with self._locked():
            state, answers, log = self.state(), self.feedback(), self.events()
            batch = {"first": state.n_feedback, "end": len(answers)}
            if batch["first"] == batch["end"]:
                return None
            rows = _answer_rows(log, answers[batch["first"] :])
            held = held_back(rows.frame.index)  # these answers judge, and are not learned
            updated = state.learner if held.all() else state.learner.learn(rows.take(~held))
            verdict = judge(state.learner, updated, rows.take(held), _judges(log, state.months))
            batch["learned"] = verdict.promoted
            learner = updated if verdict.promoted else state.learner
            self._commit(replace(state, learner=learner, batches=[*state.batches, batch]))
            return batch

    def add_purchases(self, purchases: pd.DataFrame) -> list[tuple[str, Verdict]]:
        """Append purchases dated after the log's end, learn the months whose labels they make known; return the verdicts.

        Raises
        ------
        LiveError
            If a purchase is not after the log's end: it may have been added before.
        """
        with self._locked():
            log, state, answers = self.events(), self.state(), self.feedback()
            if not len(purchases) or purchases["date"].min() <= log["date"].max():
                raise LiveError(f"purchases must be dated after {log['date'].max():%Y-%m-%d}, where the log ends")
            gap = pd.Series([log["date"].max(), *purchases["date"]]).sort_values().diff().max()
            if gap > LONGEST_GAP:
                raise LiveError(f"there is a gap of {gap.days} days without any purchase: is each year right?")
            log = pd.concat([log, purchases], ignore_index=True)
            state, verdicts = _learn_months(state, log, answers)
            self._commit(state, log[COLUMNS].to_csv(index=False).encode())
            return verdicts

    def decide(self, month: str, *, accept: bool) -> list[tuple[str, Verdict]]:
        """Decide on the month that was refused: learn it all the same, or never; then learn the months that waited for it."""
        with self._locked():
            log, state, answers = self.events(), self.state(), self.feedback()
            if month != state.refused_month:
                raise LiveError(f"{month} does not wait for a decision; {state.refused_month or 'no month'} does")
            if accept:
                rows = _month_rows(log, month, state.standing(answers))
                learner = state.learner.learn(rows.take(~held_back(rows.frame.index)))
                state = replace(state, learner=learner, months=[*state.months, month], refused_month="")
            else:
                state = replace(state, left_out=[*state.left_out, month], refused_month="")
            state, verdicts = _learn_months(state, log, answers)
            self._commit(state)
            return verdicts

    def forget(self, customer: str) -> dict[str, int]:
        """Remove a customer's purchases and feedback, and train anew without them; return how many there were."""
        customer = customer.strip()
        with self._locked():
            log, answers, state = self.events(), self.feedback(), self.state()
            own = (log["customer"] == customer).to_numpy()
            found = {"purchases": int(own.sum()), "feedback": sum(a["customer"] == customer for a in answers)}
            if not own.any():
                raise LiveError(f"nobody here is called {customer!r}")
            if own.all():
                raise LiveError("nobody would be left: delete the folder")
            log = log[~own].reset_index(drop=True)
            fates: list[bool | None] = [b["learned"] for b in state.batches for _ in range(b["first"], b["end"])]
            fates += [None] * (len(answers) - len(fates))  # those that wait go on waiting
            kept = [(a, fate) for a, fate in zip(answers, fates, strict=True) if a["customer"] != customer]
            new = _train(log, state.months, [a for a, fate in kept if fate])
            batches = _batches([fate for _, fate in kept])
            new = replace(new, refused_month=state.refused_month, left_out=state.left_out, batches=batches)
            lines = b"".join(json.dumps(a).encode() + b"\n" for a, _ in kept)
            self._commit(new, log[COLUMNS].to_csv(index=False).encode(), lines)
            return found

    def score(self, customer: str) -> float:
        """Return the probability that a customer buys within 30 days after the log's last day."""
        customer = customer.strip()
        with self._locked(shared=True):
            log, state = self.events(), self.state()
        own = log[log["customer"] == customer]
        if not len(own):
            raise LiveError(f"nobody here is called {customer!r}")
        return float(state.learner.predict_proba(customers(own, log["date"].max())[0])[0])

    def status(self) -> dict[str, Any]:
        """Return counts: nobody's data."""
        with self._locked(shared=True):
            log, state, answers = self.events(), self.state(), self.feedback()
        return {
            "customers": int(log["customer"].nunique()),
            "purchases": len(log),
            "from": f"{log['date'].min():%Y-%m-%d}",
            "to": f"{log['date'].max():%Y-%m-%d}",
            "months learned": len(state.months),
            "month refused": state.refused_month or "none",
            "months left out": len(state.left_out),
            "feedback": len(answers),
            "feedback learned": len(state.learned(answers)),
            "feedback refused": state.n_feedback - len(state.learned(answers)),
            "feedback waiting": len(answers) - state.n_feedback,
        }

    def _commit(self, state: State, events: bytes | None = None, feedback: bytes | None = None) -> None:
        """Write the next version, with the purchases and feedback of this one unless others are given, and switch to it."""
        old = self.current.resolve()
        new = self.folder / f"{int(old.name) + 1:06d}"
        _write_version(
            *(new, state),
            (old / EVENTS).read_bytes() if events is None else events,
            _whole_lines(old / FEEDBACK) if feedback is None else feedback,
        )
        _switch(self.folder, new.name)
        shutil.rmtree(old)

    @contextmanager
    def _locked(self, *, shared: bool = False) -> Iterator[None]:
        lock = self.folder / "lock"
        with lock.open("r" if shared and lock.exists() else "a") as file:
            fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            if not shared:  # what a kill left behind: a version that was begun, or was to be deleted
                for path in self.folder.iterdir():
                    if re.fullmatch(r"\d{6}", path.name) and path != self.current.resolve():
                        shutil.rmtree(path)
            yield


def read_purchases(path: Path) -> pd.DataFrame:
    """Return a file of purchases with the columns customer, date, discs, dollars, in order of time.

    Raises
    ------
    LiveError
        If it is not such a file.
    """
    try:
        text = pd.read_csv(path, dtype=str, keep_default_na=False)
        found = pd.DataFrame(
            {"customer": text["customer"].str.strip(), "date": pd.to_datetime(text["date"], format="%Y-%m-%d")}
        )
        for name in COLUMNS[2:]:
            found[name] = text[name].astype(float)
    except (OSError, KeyError, ValueError) as error:
        raise LiveError(f"{path} is no file of purchases with the columns {', '.join(COLUMNS)}: {error}") from error
    amounts = found[COLUMNS[2:]].to_numpy()
    named = [name != "" and name.isprintable() for name in found["customer"]]
    if not (np.isfinite(amounts) & (amounts >= 0)).all() or not all(named):
        raise LiveError(f"{path}: a purchase needs a printable customer, and amounts that are finite and not negative")
    return found.sort_values("date", kind="stable", ignore_index=True)


def _checked(answer: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"customer": str, "date": str, "bought": bool}
    right = isinstance(answer, Mapping) and answer.keys() == fields.keys()
    if not right or not all(isinstance(answer[name], kind) for name, kind in fields.items()):
        raise LiveError(
            f'feedback looks like {{"customer": "00042", "date": "1998-06-15", "bought": true}}, got {answer!r}'
        )
    try:
        date = pd.to_datetime(answer["date"], format="%Y-%m-%d")
    except ValueError as error:
        raise LiveError(f"{dict(answer)}: the date must be written as 1998-06-15") from error
    return {"customer": answer["customer"].strip(), "date": f"{date:%Y-%m-%d}", "bought": answer["bought"]}


def _train(log: pd.DataFrame, months: list[str], answers: list[dict[str, Any]]) -> State:
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
        raise LiveError("the log is too short: there is nobody to learn from")
    learner = Learner.from_scratch(rows, _judges(log, months))
    return State(learner, months, "", [], [])


def _learn_months(
    state: State, log: pd.DataFrame, answers: list[dict[str, Any]]
) -> tuple[State, list[tuple[str, Verdict]]]:
    """Learn the months whose labels have become known, up to the first that is refused."""
    verdicts = []
    for month in (f"{end:%Y-%m-%d}" for end in month_ends(log)):
        if state.refused_month:
            break
        if month in state.months + state.left_out:
            continue
        rows = _month_rows(log, month, state.standing(answers))
        held = held_back(rows.frame.index)
        updated = state.learner.learn(rows.take(~held))
        verdict = judge(state.learner, updated, rows.take(held), _judges(log, state.months))
        if verdict.promoted:
            state = replace(state, learner=updated, months=[*state.months, month])
        else:
            state = replace(state, refused_month=month)
        verdicts.append((month, verdict))
    return state, verdicts


def _month_rows(log: pd.DataFrame, month: str, answers: list[dict[str, Any]]) -> Rows:
    """Return the rows of a month without those whom feedback speaks of on that date: nothing is to be learned twice."""
    rows = rows_of(log, pd.Timestamp(month))
    return rows.take(~rows.frame.index.isin([a["customer"] for a in answers if a["date"] == month]))


def _judges(log: pd.DataFrame, months: list[str]) -> Rows:
    """Return the held-back rows of the last months learned."""
    parts = [rows_of(log, pd.Timestamp(month)) for month in months[-N_JUDGING:]]
    return Rows.join(rows.take(held_back(rows.frame.index)) for rows in parts)


def _answer_rows(log: pd.DataFrame, answers: list[dict[str, Any]]) -> Rows:
    """Return the customers of the answers as they were on the dates, in order."""
    log = log[log["customer"].isin([answer["customer"] for answer in answers])]
    frames = {date: customers(log, pd.Timestamp(date))[0] for date in {answer["date"] for answer in answers}}
    frame = pd.concat([frames[answer["date"]].loc[[answer["customer"]]] for answer in answers])
    return Rows(frame, np.array([int(answer["bought"]) for answer in answers]))


def _batches(fates: list[bool | None]) -> list[dict[str, Any]]:
    """Return runs of equal fate as batches."""
    batches, first = [], 0
    for fate, run in itertools.groupby(fates):
        end = first + len(list(run))
        if fate is not None:
            batches.append({"first": first, "end": end, "learned": fate})
        first = end
    return batches


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _write_version(folder: Path, state: State, events: bytes, feedback: bytes) -> None:
    learner, sample = state.learner, state.learner.sample
    folder.mkdir()
    nn.save(learner.net, folder / MODEL, loss=LOSS, optimizer=learner.optimizer, rng=learner.rng)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        customer=sample.frame.index.to_numpy(str),
        columns=np.array(sample.frame.columns, str),
        values=sample.frame.to_numpy(float),
        y=sample.y,
        lots=learner.lots,
    )
    about = {
        "encoder": learner.encoder.to_json(),
        "months": state.months,
        "refused_month": state.refused_month,
        "left_out": state.left_out,
        "batches": state.batches,
    }
    about["sha256"] = {
        **{MODEL: _sha256((folder / MODEL).read_bytes()), SAMPLE: _sha256(buffer.getvalue()), EVENTS: _sha256(events)},
        **{FEEDBACK: _sha256(_first_lines(feedback, state.n_feedback)), STATE: _sha256(json.dumps(about).encode())},
    }
    files = {SAMPLE: buffer.getvalue(), EVENTS: events, FEEDBACK: feedback, STATE: json.dumps(about).encode()}
    for name, content in files.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    _sync_folder(folder)


def _check(folder: Path) -> None:
    """Raise a LiveError unless all files are as they were written, of the feedback what has had its turn."""
    try:
        about = json.loads((folder / STATE).read_text())
        expected = about.pop("sha256")
        n_feedback = about["batches"][-1]["end"] if about["batches"] else 0
        found = {name: _sha256((folder / name).read_bytes()) for name in (MODEL, SAMPLE, EVENTS)}
        found[FEEDBACK] = _sha256(_first_lines((folder / FEEDBACK).read_bytes(), n_feedback))
        found[STATE] = _sha256(json.dumps(about).encode())
        damaged = [name for name in found if found[name] != expected[name]]
    except (ValueError, KeyError, TypeError) as error:
        raise LiveError(f"{folder / STATE} is damaged: {error!r}") from error
    if damaged:
        raise LiveError(f"{folder / damaged[0]} is not as it was written")


def _first_lines(content: bytes, n: int) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:n])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read_state(folder: Path) -> State:
    about = json.loads((folder / STATE).read_text())
    saved = nn.load(folder / MODEL)
    with np.load(folder / SAMPLE) as arrays:
        index = pd.Index(arrays["customer"].astype(object), name="customer")
        sample = Rows(pd.DataFrame(arrays["values"], index=index, columns=arrays["columns"].tolist()), arrays["y"])
        learner = Learner(Encoder(**about["encoder"]), saved.net, saved.optimizer, saved.rng, sample, arrays["lots"])
    return State(learner, about["months"], about["refused_month"], about["left_out"], about["batches"])


def _switch(folder: Path, name: str) -> None:
    link = folder / "next"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    os.replace(link, folder / "current")
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(arguments: list[str] | None = None) -> int:
    """Do one thing with a live model."""
    parser = argparse.ArgumentParser(prog="python -m examples.user_profile.live", description="Use a live model.")
    parser.add_argument("folder", type=Path, help="where it lives: OUT/cdnow/live")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--status", action="store_true", help="what it holds, in numbers")
    what.add_argument("--score", metavar="CUSTOMER", help="how probable a purchase within 30 days is")
    what.add_argument("--feedback", metavar="JSON", help="what became of a customer; - reads lines from standard input")
    what.add_argument("--learn", action="store_true", help="learn the feedback that waits")
    what.add_argument("--purchases", type=Path, metavar="FILE", help="add purchases, and learn what they make known")
    what.add_argument("--accept", metavar="MONTH", help="learn the month that was refused all the same")
    what.add_argument("--leave-out", metavar="MONTH", help="never learn the month that was refused")
    what.add_argument("--forget", metavar="CUSTOMER", help="remove a customer, and train anew")
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
            print(f"{name:18}{value}")
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
            print(f"{batch['end'] - batch['first']} answers {said}")
    elif options.purchases is not None:
        _say(store.add_purchases(read_purchases(options.purchases)))
        print(f"the log ends on {store.status()['to']}")
    elif options.accept is not None or options.leave_out is not None:
        month = options.accept or options.leave_out
        verdicts = store.decide(month, accept=options.accept is not None)
        print(f"{month} {'learned' if options.accept else 'left out'}, as decided")
        _say(verdicts)
    else:
        found = store.forget(options.forget)
        print(f"removed {found['purchases']} purchases and {found['feedback']} answers; trained anew without them")


def _say(verdicts: list[tuple[str, Verdict]]) -> None:
    for month, verdict in verdicts:
        if verdict.promoted:
            print(f"{month} learned")
        else:
            print(f"{month} refused: held-back customers are predicted worse after it. Look at its data, then decide:")
            print(f"  --accept {month} or --leave-out {month}; later months wait until then")


if __name__ == "__main__":
    sys.exit(main())
