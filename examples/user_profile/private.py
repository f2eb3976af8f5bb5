"""Training that keeps each row's secret, by differential privacy, with an encoder that has seen no row: only a public codebook.

python -m examples.user_profile --data adult --private 3
python -m examples.user_profile --csv FILE --target COLUMN --private 3 --codebook FILE.json

A codebook says of each column what is known without looking: {"age": [17, 25, 35, 50, 65, 90], "plan": ["basic", "plus"]}: the
edges of bins of a number, from the least to the largest value that is possible, or the names of categories. Columns that are
not in it are not used. What is learnt of the rows is the network alone, and that is private.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nnprofile as nn
from nnprofile import privacy

from . import collect, deploy, evaluate, preprocess, train
from .amounts import LARGEST
from .features import MISSING_TEXT, Encoder, signed_log

DELTA, RATE, N_STEPS, CLIP, LEARNING_RATE = 1e-5, 0.05, 600, 1.0, 0.004
TEST = 0.2  # of the rows, to measure by
Codebook = Mapping[str, Sequence[Any]]

# As the publisher describes the columns (UCI, adult.names), with edges that anybody would choose.
ADULT: Codebook = {
    "age": [17, 20, 22, 25, 28, 30, 35, 40, 45, 50, 55, 60, 65, 75, 90],
    "workclass": [
        "Private",
        "Self-emp-not-inc",
        "Self-emp-inc",
        "Federal-gov",
        "Local-gov",
        "State-gov",
        "Without-pay",
        "Never-worked",
    ],
    "education-num": list(range(1, 17)),
    "marital-status": [
        "Married-civ-spouse",
        "Divorced",
        "Never-married",
        "Separated",
        "Widowed",
        "Married-spouse-absent",
        "Married-AF-spouse",
    ],
    "occupation": [
        "Tech-support",
        "Craft-repair",
        "Other-service",
        "Sales",
        "Exec-managerial",
        "Prof-specialty",
        "Handlers-cleaners",
        "Machine-op-inspct",
        "Adm-clerical",
        "Farming-fishing",
        "Transport-moving",
        "Priv-house-serv",
        "Protective-serv",
        "Armed-Forces",
    ],
    "relationship": [
        "Wife",
        "Own-child",
        "Husband",
        "Not-in-family",
        "Other-relative",
        "Unmarried",
    ],
    "ethnicity": [
        "White",
        "Asian-Pac-Islander",
        "Amer-Indian-Eskimo",
        "Other",
        "Black",
    ],
    "gender": ["Female", "Male"],
    "capital-gain": [0, 1, 1000, 3000, 5000, 7000, 10_000, 15_000, 30_000, 100_000],
    "capital-loss": [0, 1, 1000, 1500, 1750, 2000, 2250, 2500, 4500],
    "hours-per-week": [1, 20, 30, 35, 40, 45, 50, 60, 70, 99],
}


def read_codebook(path: Path) -> Codebook:
    """Return the codebook in a JSON file.

    Raises
    ------
    CollectError
        If it is none; the message names the column.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise collect.CollectError(f"{path} is no codebook in JSON: {error}") from error
    if not isinstance(found, dict) or not found:
        raise collect.CollectError(f'{path} must hold an object, such as {{"age": [18, 30, 50, 99]}}')
    for name, listed in found.items():
        values = listed if isinstance(listed, list) and len(set(map(repr, listed))) == len(listed) else []
        numbers = len(values) > 1 and all(map(_is_number, values)) and values == sorted(values)
        names = bool(values) and all(isinstance(v, str) and v != MISSING_TEXT for v in values)
        if not numbers and not names:
            raise collect.CollectError(f"{path}: {name!r} must be a list of rising numbers, or of different names")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST


def encoder_of(codebook: Codebook, kinds: Mapping[str, str]) -> Encoder:
    """Return the encoder that a codebook describes: nothing of it comes from rows.

    Raises
    ------
    PreprocessError
        If it has no column of the table, or names where the table has numbers.
    """
    columns: list[dict[str, Any]] = []
    for name in (name for name in codebook if name in kinds):
        values = list(codebook[name])
        if all(isinstance(value, str) for value in values):
            if kinds[name] == "number":
                raise preprocess.PreprocessError(f"{name} holds numbers, and names in the codebook")
            columns.append({"name": name, "kind": "category", "categories": [*values, MISSING_TEXT]})
            continue
        if kinds[name] == "category":
            raise preprocess.PreprocessError(f"{name} holds names, and numbers in the codebook")
        z = signed_log(np.array(values, float))
        scale = float(z.std()) or 1.0
        middle = {"median": float(np.median(values)), "mean": float(z.mean()), "scale": scale}
        column = {"name": name, "kind": kinds[name], "edges": list(map(float, values)), "indicators": True, **middle}
        if kinds[name] == "code":
            column["categories"] = [*sorted({str(int(value)) for value in values}), MISSING_TEXT]
        columns.append(column)
    if not columns:
        raise preprocess.PreprocessError(
            f"the codebook has {list(codebook)}, the table {list(kinds)}: no column is in both"
        )
    return Encoder(columns, [])


def fit(x: np.ndarray, y: np.ndarray, epsilon: float | None, seed: int) -> tuple[nn.Sequential, str]:
    """Train the document's network; return it, and what was spent. Without epsilon: the same steps, not private."""
    net, n_batch = train.build(x.shape[1], 0.0, np.random.default_rng(seed)), max(1, round(RATE * len(x)))
    if epsilon is None:
        plain: Any = {"n_epochs": round(N_STEPS * RATE), "batch_size": n_batch, "rng": np.random.default_rng(seed)}
        nn.fit(net, train.LOSS, nn.Adam(LEARNING_RATE), x, y, **plain)
        return net, "not private"
    common: Any = {"delta": DELTA, "clip": CLIP, "expected_batch_size": n_batch, "n_steps": N_STEPS}
    spent = nn.fit_private(net, train.LOSS, nn.Adam(LEARNING_RATE), x, y, epsilon=epsilon, **common)
    return net, str(spent)


def measured(
    table: preprocess.Table, codebook: Codebook, epsilon: float | None, seed: int
) -> tuple[train.Model, str, dict[str, float]]:
    """Train on all rows that are not the test's; return the model, what it spent, and how good it is on the test rows."""
    is_test = own_lots(table, seed) < TEST
    rows, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    encoder = encoder_of(codebook, table.kinds)
    net, spent = fit(encoder.transform(table.frame.iloc[rows]), table.y[rows], epsilon, seed)
    model = train.Model(encoder, (net,), nn.History(), "codebook")
    return model, spent, evaluate.score(table.y[test], model.predict_proba(table.frame.iloc[test]), model.threshold)


def own_lots(table: preprocess.Table, seed: int) -> np.ndarray:
    """Return a lot from 0 to 1 for each row, drawn by its own values: which rows train does not depend on others."""
    texts = ("\x1f".join(map(str, row)) for row in table.frame.itertuples(index=False, name=None))
    digests = (hashlib.blake2b(f"{seed}|{text}".encode(), digest_size=4).digest() for text in texts)
    return np.array([int.from_bytes(digest) for digest in digests]) / 2**32


def on_adult(epsilon: float | None, seed: int) -> dict[str, float]:
    """Return the figures on Adult's test rows of a split."""
    table = preprocess.clean(collect.adult())
    return measured(table, ADULT, epsilon, seed)[2]


def audit(epsilon: float) -> privacy.PrivacyAudit:
    """Return what an audit of these settings finds: the same network, rate, steps and claim, on rows made up, by plain SGD."""

    def run(x: np.ndarray, y: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        net = train.build(x.shape[1], 0.0, np.random.default_rng(0))
        before = [value.copy() for value in net.params.values()]
        common: Any = {"delta": DELTA, "clip": CLIP, "expected_batch_size": round(RATE * len(x)), "n_steps": N_STEPS}
        nn.fit_private(net, train.LOSS, nn.SGD(0.05), x, y, epsilon=epsilon, **common)
        return before, list(net.params.values())

    return nn.check_private(run, epsilon, delta=DELTA, rng=np.random.default_rng(0))


def run(
    table: preprocess.Table, codebook: Codebook, epsilon: float, out: Path, *, fast: bool = False
) -> dict[str, Any]:
    """Train, evaluate and save; print the figures beside other epsilons', and the audit's."""
    dated = [feature for column in table.columns if column.kind == "date" for feature in column.features()]
    if counted := sorted(set(dated) & set(codebook)):
        what = ", ".join(counted)
        raise preprocess.PreprocessError(
            f"{what}: dates are counted from the latest of the file, which tells of its row"
        )
    seeds = range(2 if fast else 5)
    unused = sorted(set(table.kinds) - set(codebook))
    print(
        f"{table.name}: encoder of a codebook, {len(set(table.kinds) & set(codebook))} columns; not in it: {unused or 'none'}"
    )
    found: dict[str, list[float]] = {}
    model, said = None, ""
    for value in sorted({1.0, 3.0, 8.0, epsilon}) if not fast else [epsilon]:
        for seed in seeds:
            one, spent, scores = measured(table, codebook, value, seed)
            found.setdefault(f"epsilon {value:g}", []).append(scores["roc_auc"])
            if value == epsilon and seed == 0:
                model, said = one, spent
    for seed in seeds:
        found.setdefault("not private, same steps", []).append(measured(table, codebook, None, seed)[2]["roc_auc"])
    for name, aucs in found.items():
        print(f"  {name:24}  AUC {np.mean(aucs):.4f} ± {np.std(aucs):.4f}  ({len(aucs)} splits)")
    checked = audit(epsilon)
    print(f"  spent     {said}\n  audit     {checked}")
    assert model is not None
    deploy.save(out / "model", model, table)
    table_of = "\n".join(f"| {name} | {np.mean(aucs):.4f} | {np.std(aucs):.4f} |" for name, aucs in found.items())
    (out / "privacy.md").write_text(
        CARD.format(
            name=table.name, spent=said, table=table_of, audit=checked, columns=", ".join(codebook), delta=DELTA
        ),
        encoding="utf-8",
    )
    print(f"  model     {out / 'model'}   card {out / 'privacy.md'}")
    return {"auc": found, "lower_bound": checked.lower_bound}


CARD = """# {name}: a model trained privately

{spent}

The parameters of the network are differentially private, row by row: had any one row had no part, every statement about them
would be at most e^epsilon times more or less probable, but for delta = {delta:g}. The encoder has seen no row: it is made of a
public codebook ({columns}). A person with several rows has as many times less privacy. Which rows
are held back to test, each row's own text says.

Not covered: the number of rows, how text is read (decimal marks, kinds of columns), the figures below, which are of rows held
back, and what else is published of the same rows.

| | AUC on test rows | deviation over splits |
|---|---|---|
{table}

Audit, one run of the same settings on rows made up, with canaries:

{audit}
"""
