"""Keras on TensorFlow: ``fit`` of several epochs, compiled by XLA, an epoch's steps in one execution."""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf

from benchmarks import cases
from benchmarks.cases import Case

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


def _model(case: Case) -> keras.Sequential:
    sizes, one = case["sizes"], case["sizes"][-1] == 1
    layers = [keras.layers.Dense(k, activation="relu") for k in sizes[1:-1]] + [keras.layers.Dense(sizes[-1])]
    model = keras.Sequential([keras.Input((sizes[0],)), *layers])
    loss = keras.losses.BinaryCrossentropy(True) if one else keras.losses.SparseCategoricalCrossentropy(True)
    optimizer = keras.optimizers.SGD(0.01) if case["optimizer"] == "sgd" else keras.optimizers.Adam(0.001)
    model.compile(optimizer, loss, jit_compile=True, steps_per_execution=cases.n_steps(case))
    for layer, (W, b) in zip(model.layers, cases.weights(case), strict=True):
        layer.set_weights([W, b])
    return model


def train(case: Case) -> Any:
    """Microseconds per step."""
    model = _model(case)
    x, y = cases.data(case)
    n_epochs = 5
    measure = cases.per_step(case, lambda: model.fit(x, y, batch_size=case["batch"], epochs=n_epochs, verbose=0))
    return lambda: [t / n_epochs for t in measure()]


def predict(case: Case) -> Any:
    """Microseconds per call of the model on a tensor, which is faster than ``predict``."""
    model = _model(case)
    x, _ = cases.data(case)
    call = tf.function(lambda x: tf.sigmoid(model(x, training=False)))
    return cases.per_call(lambda: call(tf.constant(x)).numpy())
