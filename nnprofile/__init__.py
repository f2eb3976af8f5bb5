"""nnprofile: a neural network you can read, check and rely on.

Read the modules in this order: parameters, tables, ragged, contract, initializers, functions, formulas, layers, losses,
optimizers, objectives, engine, history, training, frozen, safetensors, modelfile, shards, privacy, gradcheck, tracing,
estimators, export.
"""

from typing import TYPE_CHECKING

from . import initializers as initializers
from .contract import Layer as Layer
from .contract import Loss as Loss
from .contract import Optimizer as Optimizer
from .engine import use_engine as use_engine
from .history import DivergenceError as DivergenceError
from .history import EarlyStopping as EarlyStopping
from .history import History as History
from .layers import *  # noqa: F403
from .losses import BinaryCrossEntropy as BinaryCrossEntropy
from .losses import HalfSquaredError as HalfSquaredError
from .losses import Huber as Huber
from .losses import MeanAbsoluteError as MeanAbsoluteError
from .losses import MeanSquaredError as MeanSquaredError
from .losses import PoissonLoss as PoissonLoss
from .losses import SigmoidCrossEntropy as SigmoidCrossEntropy
from .losses import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .objectives import objective as objective
from .optimizers import SGD as SGD
from .optimizers import Adam as Adam
from .optimizers import CosineDecay as CosineDecay
from .optimizers import ExponentialDecay as ExponentialDecay
from .optimizers import StepDecay as StepDecay
from .parameters import Parameters as Parameters
from .ragged import Ragged as Ragged
from .training import fit as fit

if TYPE_CHECKING:
    from .engine import warmup as warmup
    from .frozen import FrozenNetwork as FrozenNetwork
    from .frozen import freeze as freeze
    from . import gradcheck as gradcheck
    from .gradcheck import GradCheckReport as GradCheckReport
    from .gradcheck import check_function as check_function
    from .gradcheck import check_layer as check_layer
    from .gradcheck import check_loss as check_loss
    from .gradcheck import check_network as check_network
    from .gradcheck import check_step as check_step
    from .gradcheck import hvp as hvp
    from .modelfile import Saved as Saved
    from .modelfile import load as load
    from .modelfile import save as save
    from .shards import fit_shards as fit_shards
    from .shards import summarize as summarize
    from .privacy import check_private as check_private
    from .privacy import fit_private as fit_private
    from . import privacy as privacy
    from . import shards as shards
    from .safetensors import ModelFileError as ModelFileError
    from . import tracing as tracing
    from .tracing import Trace as Trace
    from .tracing import trace as trace
    from .estimators import MLPClassifier as MLPClassifier
    from .estimators import MLPRegressor as MLPRegressor
    from . import export as export
    from .export import to_c as to_c
    from .export import to_onnx as to_onnx

__version__ = "0.1.0"

# Loaded when first used, so that the import stays about as light as NumPy's.
_LAZY = {
    "ModelFileError": "safetensors",
    **dict.fromkeys(("Saved", "load", "save"), "modelfile"),
    **dict.fromkeys(("FrozenNetwork", "freeze"), "frozen"),
    **dict.fromkeys(("fit_shards", "summarize"), "shards"),
    **dict.fromkeys(("check_private", "fit_private"), "privacy"),
    "warmup": "engine",
    **dict.fromkeys(
        ("check_function", "check_layer", "check_loss", "check_network", "check_step", "GradCheckReport", "hvp"),
        "gradcheck",
    ),
    **dict.fromkeys(("trace", "Trace"), "tracing"),
    **dict.fromkeys(("MLPClassifier", "MLPRegressor"), "estimators"),
    **dict.fromkeys(("to_c", "to_onnx"), "export"),
}
_PACKAGES = ("export", "gradcheck", "privacy", "shards", "tracing")


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_PACKAGES})
