"""The candidates of a forecast: each is trained on the examples of one series, and returned as an ONNX graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from stream.sense.forecast.features import layout
from training.forecast.dataset import Examples, TrainingSet
from training.forecast.graphs import linear_graph, recurrent_graph, tree_graph

RIDGE = 30.0
"""Weight of the squared coefficients in the loss of the ridge regression; the squared errors of the examples are
summed."""
TREES = 150
TREE_SETTINGS: Mapping[str, Any] = {
    "objective": "huber",
    "alpha": 1.0,
    "learning_rate": 0.04,
    "num_leaves": 8,
    "min_data_in_leaf": 60,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "lambda_l2": 10.0,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
UNITS = 24
HIDDEN = 24
EPOCHS = 40
BATCH = 256
RATE = 6e-3
DROPOUT = 0.1
DECAY = 1e-3
Fit = Callable[[TrainingSet, int], Any]


def fit_autoregression(given: TrainingSet, seed: int) -> Any:
    """Fit an autoregression of the residuals on their lags with statsmodels, and iterate the regression for each
    number of steps ahead."""
    from statsmodels.tsa.ar_model import AutoReg

    spec, columns = given.spec, layout(given.spec)
    series = given.examples.features[: given.stop, columns.lags.start].astype(float)
    found = AutoReg(series, lags=spec.lags, trend="n").fit()
    step = np.asarray(found.params, float)
    weights = np.zeros((columns.width, spec.horizons))
    rows = np.eye(spec.lags)
    for horizon in range(spec.horizons):
        following = step @ rows
        weights[columns.lags, horizon] = following
        rows = np.vstack((following, rows[:-1]))
    return linear_graph(weights, np.zeros(spec.horizons))


def fit_linear(given: TrainingSet, seed: int) -> Any:
    """Fit a ridge regression for each number of steps ahead, on the lags, the mean residuals and the residual around
    the same time yesterday."""
    spec, columns = given.spec, layout(given.spec)
    weights, bias = np.zeros((columns.width, spec.horizons)), np.zeros(spec.horizons)
    for horizon in range(spec.horizons):
        chosen = [*range(columns.levels.stop), columns.yesterday.start + horizon]
        inputs, targets = _known(given, horizon)
        design = np.column_stack((inputs[:, chosen].astype(float), np.ones(len(inputs))))
        penalty = RIDGE * np.eye(len(chosen) + 1)
        found = np.linalg.solve(design.T @ design + penalty, design.T @ targets)
        weights[chosen, horizon], bias[horizon] = found[:-1], found[-1]
    return linear_graph(weights, bias)


def fit_trees(given: TrainingSet, seed: int) -> Any:
    """Fit gradient-boosted trees for each number of steps ahead, with LightGBM and Huber's loss."""
    import lightgbm

    spec, columns = given.spec, layout(given.spec)
    dumps, used = [], []
    for horizon in range(spec.horizons):
        chosen = [
            *range(columns.levels.stop),
            columns.yesterday.start + horizon,
            columns.profile.start,
            columns.profile.start + horizon,
            columns.profile.stop - 1,
            *range(columns.clock.start, columns.clock.stop),
        ]
        inputs, targets = _known(given, horizon)
        booster = lightgbm.train({**TREE_SETTINGS, "seed": seed}, lightgbm.Dataset(inputs[:, chosen], targets), TREES)
        dumps.append(booster.dump_model())
        used.append(chosen)
    return tree_graph(dumps, used, columns.width)


def fit_recurrent(given: TrainingSet, seed: int, *, kind: str) -> Any:
    """Fit an LSTM or a GRU over the lags with Keras and Huber's loss, for all forecast steps at once."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else TensorFlow prints lines into the progress bar
    import keras

    keras.utils.set_random_seed(seed)
    spec, columns = given.spec, layout(given.spec)
    others = list(range(columns.levels.start, columns.width))
    rows = given.training_rows()
    inputs, targets = given.examples.features[rows], given.examples.residuals[rows]
    sequence = inputs[:, columns.lags][:, ::-1, None]
    lags, rest = keras.Input((spec.lags, 1)), keras.Input((len(others),))
    layer = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind]
    recurrent = layer(UNITS, kernel_regularizer=keras.regularizers.l2(DECAY), unroll=True)
    dense, out = keras.layers.Dense(HIDDEN, activation="tanh"), keras.layers.Dense(spec.horizons)
    joined = keras.layers.Dropout(DROPOUT)(keras.layers.Concatenate()([recurrent(lags), rest]))
    model = keras.Model([lags, rest], out(dense(joined)))
    steps = max(1, len(rows) // BATCH) * EPOCHS
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.Adam(rate), _huber, jit_compile=False, steps_per_execution=8)
    wanted = np.stack((np.nan_to_num(targets), ~np.isnan(targets)), axis=-1).astype(np.float32)
    model.fit([sequence, inputs[:, others]], wanted, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    kernel, again, bias = recurrent.get_weights()
    weights = {"kernel": kernel, "recurrent": again, "bias": bias}
    weights |= dict(zip(("dense_kernel", "dense_bias"), dense.get_weights(), strict=True))
    weights |= dict(zip(("out_kernel", "out_bias"), out.get_weights(), strict=True))
    return recurrent_graph(kind, weights, columns.lags, others, columns.width)


def _huber(wanted: Any, found: Any) -> Any:
    """Return the mean of Huber's loss; an unknown target has the loss 0. ``wanted`` has the target, and 1 if the
    target is known, else 0."""
    from keras import ops

    error = ops.abs(wanted[..., 0] - found)
    loss = ops.where(error < 1.0, 0.5 * error * error, error - 0.5)
    return ops.mean(loss * wanted[..., 1], axis=-1)


def _known(given: TrainingSet, horizon: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return the features and residuals of the training examples whose residual is known ``horizon + 1`` steps
    ahead."""
    rows = given.training_rows()
    examples: Examples = given.examples
    rows = rows[~np.isnan(examples.residuals[rows, horizon])]
    return examples.features[rows], examples.residuals[rows, horizon]


CANDIDATES: Mapping[str, Fit] = {
    "autoregression": fit_autoregression,
    "linear": fit_linear,
    "gbt": fit_trees,
    "gru": partial(fit_recurrent, kind="gru"),
    "lstm": partial(fit_recurrent, kind="lstm"),
}
"""Training function by the candidate's name, the simplest candidate first."""
RECURRENT = frozenset({"gru", "lstm"})
