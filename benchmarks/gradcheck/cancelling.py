"""Right gradients whose terms cancel, and an error of 1e-8 of the largest term: none accused, all found.

python -m benchmarks.gradcheck.cancelling
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import nnprofile as nn
from nnprofile.gradcheck.report import KAPPA

ACTIVATIONS = (nn.Identity, nn.Sigmoid, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.Softmax)
LOSSES = (
    *(nn.SigmoidCrossEntropy, nn.SoftmaxCrossEntropy, nn.MeanSquaredError, nn.HalfSquaredError),
    *(nn.BinaryCrossEntropy, nn.MeanAbsoluteError, nn.Huber),
)
SCALES = (1.0, 1e-2, 1e-4, 1e-6, 1e-8)


class Point(NamedTuple):
    """A network, a loss and a batch at which the gradient is a sum that cancels."""

    name: str
    net: nn.Sequential
    loss: nn.Loss
    x: np.ndarray
    y: np.ndarray


def points(seed: int = 0) -> Iterator[Point]:
    """Yield networks of 1 to 4 layers, with weights of size 1 to 1e-8, on balanced and on symmetric data, in two precisions."""
    rng = np.random.default_rng(seed)
    grid = itertools.product(ACTIVATIONS, LOSSES, SCALES, ("balanced", "symmetric"), (np.float64, np.float32))
    for number, (activation, loss, scale, data, dtype) in enumerate(grid):
        depth = 1 + number % 4
        width = 3 if loss is nn.SoftmaxCrossEntropy else 1
        layers: list[nn.Layer] = []
        for _ in range(depth - 1):
            layers += [nn.Dense(2 if not layers else 4, 4), activation()]
        layers.append(nn.Dense(2 if not layers else 4, width))
        layers += [nn.Sigmoid()] * (loss is nn.BinaryCrossEntropy)
        net = nn.Sequential(layers, rng=rng, dtype=dtype)
        for name in net.params:
            net.params[name] = scale * net.params[name] if name.endswith("W") else 0 * net.params[name]
        half = rng.normal(size=(6, 2))
        x = np.concatenate([half, half if data == "balanced" else -half]).astype(dtype)
        y: np.ndarray = np.repeat([0, 1], 6) if width == 1 else np.tile(np.arange(3), 4)
        if loss in (nn.MeanSquaredError, nn.HalfSquaredError, nn.MeanAbsoluteError, nn.Huber):
            y = 2.0 * y - 1
        name = f"{depth} x {activation.__name__}, {loss.__name__}, {scale:g}, {data}, {dtype.__name__}"
        yield Point(name, net, loss(), x, y)


def terms(point: Point) -> dict[str, np.ndarray]:
    """Return, for each parameter, the largest term that a row adds to each element of its gradient."""
    net, loss, x, y = point[1:]
    dy = loss.backward(loss.forward(net.forward(x)[0], y)[1])
    rows = []
    for n in range(len(x)):
        caches = net.forward(x[n : n + 1])[1]
        rows.append(net.backward(dy[n : n + 1], caches)[1])
    return {name: np.max([np.abs(row[name]) for row in rows], axis=0) for name in net.params}


def at_a_kink(point: Point) -> bool:
    """Tell whether a number that goes into a ReLU is exactly 0, where more than one gradient is right."""
    y: np.ndarray = point.x
    for layer in point.net.layers:
        if isinstance(layer, (nn.ReLU, nn.LeakyReLU)) and (y == 0).any():
            return True
        y = layer.forward(y)[0]
    return False


def planted(point: Point, name: str, index: tuple[int, ...], error: float) -> nn.GradCheckReport:
    """Check the objective of a point with an error in one element of its gradient."""
    net, loss, x, y = point[1:]

    def objective(params: dict[str, np.ndarray]) -> Any:
        twin = net.with_params(as_parameters(net, params))
        return loss.forward(twin.forward(x)[0], y)[0]

    def gradient(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        twin = net.with_params(as_parameters(net, params))
        found = nn.objective(twin, loss, x, y)[1]
        grads = {key: found[key].copy() for key in found}
        grads[name][index] += grads[name].dtype.type(error)
        return grads

    return nn.check_function(objective, gradient, {key: net.params[key].astype(float) for key in net.params})


def as_parameters(net: nn.Sequential, params: dict[str, np.ndarray]) -> nn.Parameters:
    """Return parameters in the layout of a network."""
    return nn.Parameters(net.params.layout, np.concatenate([np.ravel(params[key]) for key in net.params]))


def main() -> None:
    """Print how many right points are accused, the largest ratio to the limit, and how many planted errors are found."""
    start, rng = time.perf_counter(), np.random.default_rng(1)
    n = accused = missed = n_planted = 0
    ratios = []
    with np.errstate(all="ignore"):
        for point in points():
            n += 1
            report = nn.check_network(point.net, point.loss, point.x, point.y)
            if not report.ok:
                accused += 1
                print(f"accused: {point.name}: {report.errors[0]}")
            ratios.append((max(row.noise_ratio for row in report.rows) / KAPPA, point.name))
            size = terms(point)
            name = list(point.net.params)[rng.integers(len(point.net.params))]
            largest = np.unravel_index(int(np.argmax(size[name])), size[name].shape)
            if size[name][largest] == 0 or at_a_kink(point):
                continue
            n_planted += 1
            if planted(point, name, largest, 1e-8 * float(size[name][largest])).ok:
                missed += 1
                print(f"missed in {name}{list(map(int, largest))}: {point.name}")
    ratios.sort()
    print(f"{n} right points: {accused} accused; largest ratio to the limit {ratios[-1][0]:.3g} ({ratios[-1][1]})")
    print(f"{n_planted} errors of 1e-8 of the largest term, where no kink is: {n_planted - missed} found")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
