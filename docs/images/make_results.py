"""Draw results.png, the README's picture, from the example's metrics.

make demo && .venv/bin/python docs/images/make_results.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
MODELS = {"gradient_boosting": "#48639c", "network": "#0b6e4f", "logistic_regression": "#c1666b"}
TITLES = {"adult": "Adult: who earns more than 50,000 dollars?", "cdnow": "CDNOW: which customer buys again?"}

found = json.loads((HERE.parents[1] / "out" / "metrics.json").read_text())
figure, axes = plt.subplots(1, 2, figsize=(9, 2.4), layout="constrained")
for panel, (name, title) in zip(axes, TITLES.items(), strict=True):
    for row, (model, color) in enumerate(MODELS.items()):
        auc = np.array(found[name][model]["roc_auc"])
        panel.plot(auc, np.full(len(auc), -row), "o", color=color, alpha=0.45, ms=5)
        panel.plot(auc.mean(), -row, "|", color=color, ms=22, mew=3)
        panel.annotate(
            f"{auc.mean():.4f}", (auc.mean(), -row), (0, 13), textcoords="offset points", ha="center", color=color
        )
    panel.set(yticks=range(0, -3, -1), ylim=(-2.5, 0.75), xlabel="area under the ROC curve, 5 splits and their mean")
    panel.set_yticklabels([model.replace("_", " ") for model in MODELS] if panel is axes[0] else [])
    panel.set_title(title, fontsize=11)
    panel.spines[["top", "right"]].set_visible(False)
figure.savefig(HERE / "results.png", dpi=130)
