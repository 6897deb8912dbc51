"""Walk-forward evaluation of the candidates: validation, choice of the winner, and the test on the last days."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ingest.runtime.files import replace_file
from stream.sense.forecast.conformal import WINDOW, corrected_widths, window_scores
from stream.sense.forecast.drift import drift_sum
from stream.sense.forecast.spec import Array, Scale, SeriesSpec
from training.exceptions import SeriesUnusable
from training.forecast.candidates import CANDIDATES, RECURRENT
from training.forecast.dataset import Series, TrainingSet, naive, training_set
from training.forecast.graphs import FEATURES, RESIDUALS, mean_graph

NAIVE, MEAN = "naive", "mean"
ORDER = (NAIVE, *CANDIDATES, MEAN)
"""All candidates, the simplest first."""
JUDGED = (1, 3, 6, 12)
"""Numbers of steps ahead whose mean error decides which candidate wins."""
TIE = 0.005
"""Candidates whose error exceeds the lowest error by at most this share are tied, and the simplest of them wins."""
FOLDS = 4
VALIDATED = 4 / 7
"""Share of the days before the test days that are forecast in the validation."""
_DRIFT_MARGIN = 1.5
_MIN_DRIFT = 8.0
"""The limit of a forecast's drift is the largest drift sum on the validation days times ``_DRIFT_MARGIN``, at least
``_MIN_DRIFT``."""
_MIN_DAYS = 8
"""Minimum number of observed days before the test days: four days for the first fold, and one for each fold."""
_CODE = 2
"""Version of the training code of the candidates. A training that was interrupted under another version starts from
the beginning."""


@dataclass(frozen=True, slots=True)
class ForecastOptions:
    """Options of a forecast training. The mean error at ``judged`` numbers of steps ahead decides which candidate
    wins."""

    test_days: int
    scale: Scale = "count"
    lags: int = 12
    horizons: int = 12
    judged: tuple[int, ...] = JUDGED
    kinds: tuple[str, ...] = tuple(CANDIDATES)
    seeds: int = 2
    seed: int = 0
    level: float = 0.9


class Errors(NamedTuple):
    """Errors of one candidate at one number of steps ahead: NaN where the forecast step was not observed."""

    plain: Array
    """Forecast minus value."""
    scores: Array
    """Absolute error in scaled units."""

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return float(np.nanmean(np.abs(self.plain)))

    @property
    def rmse(self) -> float:
        """Root of the mean square error."""
        return float(np.sqrt(np.nanmean(self.plain**2)))


class Intervals(NamedTuple):
    """Bounds of the winner's prediction intervals at one number of steps ahead, the share of values within the
    intervals, and the mean width."""

    lower: Array
    upper: Array
    covered: float
    width: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Result of the evaluation of all candidates. ``validation`` and ``test`` have the errors by candidate and by
    number of steps ahead."""

    validation: Mapping[str, Mapping[int, Errors]]
    test: Mapping[str, Mapping[int, Errors]]
    winner: str
    intervals: Mapping[int, Intervals]
    """Intervals of the winner on the test days, by number of steps ahead."""
    forecasts: Mapping[int, Array]
    """Forecasts of the winner for the test steps, by number of steps ahead."""
    test_first: int
    """Number of the first test step since the Unix epoch."""
    values: Array
    """Measured values of the test steps."""
    model: Any
    """ONNX graph of the winner, trained on all days, without its description. If the seasonal naive forecast wins,
    there is no graph."""
    spec: SeriesSpec
    """The winner's description."""


@dataclass(slots=True)
class FitStore:
    """The ONNX graphs that a training has finished, kept in ``folder`` for the case that the training is interrupted;
    not kept without a folder."""

    folder: Path | None = None
    done: Callable[[str], None] = field(default=lambda name: None)
    """Called with the name of each finished graph."""

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the stored graph ``name``; if none is stored, store and return the graph that ``make`` returns."""
        import onnx

        file = self.folder / f"{name}.onnx" if self.folder else None
        if file and file.exists():
            model = onnx.load_from_string(file.read_bytes())
        else:
            model = make()
            if file:
                file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(file, model.SerializeToString(deterministic=True))
        self.done(name)
        return model


def fingerprint(series: Series, options: ForecastOptions) -> str:
    """Return a short hash of a series and of the training options; an interrupted training is continued if the hash
    is equal."""
    facts = json.dumps([_CODE, series.step_s, series.first, series.time_zone, asdict(options)])
    return hashlib.sha256(facts.encode() + series.values.tobytes()).hexdigest()[:16]


def fits(options: ForecastOptions) -> int:
    """Return the number of graphs that ``evaluate`` trains."""
    one = sum(options.seeds if kind in RECURRENT else 1 for kind in options.kinds)
    return one * (FOLDS + 2)


def evaluate(series: Series, options: ForecastOptions, store: FitStore) -> Judged:
    """Train and judge all candidates on a series, and train the winner on all days.

    The candidates are compared in four folds, each trained on the days before it. The last ``test_days`` of the
    series are not used for the comparison. Then each candidate is trained on all days before the test, and measured
    on the test days. Raise SeriesUnusable for a series that is too short.
    """
    folds, test = _splits(series, options)

    def make(stop: int) -> TrainingSet:
        return training_set(series, stop, options.scale, options.lags, options.horizons)

    parts = [_errors(series, make(stop), end, options, store, f"fold{n}") for n, (stop, end) in enumerate(folds)]
    validation = {
        kind: {h: _joined([part[kind][h][0] for part in parts]) for h in range(1, options.horizons + 1)}
        for kind in parts[0]
    }
    winner = choose({kind: [found[h].mae for h in options.judged] for kind, found in validation.items()})
    held_out = make(test[0])
    measured = _errors(series, held_out, test[1], options, store, "test")
    tested = {kind: {h: errors for h, (errors, _) in found.items()} for kind, found in measured.items()}
    forecasts = {h: scaled for h, (_, scaled) in measured[winner].items()}
    calibration = {h: errors.scores for h, errors in validation[winner].items()}
    complete = make(len(series.values))
    latest = [
        tuple(_known(np.concatenate((calibration[h], tested[winner][h].scores)))[-WINDOW:].round(4).tolist())
        for h in calibration
    ]
    spec = complete.spec.model_copy(
        update={"scores": tuple(latest), "drift_limit": _drift_limit(_known(calibration[1])), "model": winner}
    )
    return Judged(
        validation=validation,
        test=tested,
        winner=winner,
        intervals={
            h: _intervals(held_out.spec, forecasts[h], tested[winner][h].scores, calibration[h], h, options.level)
            for h in forecasts
        },
        forecasts={h: held_out.spec.unscaled(scaled) for h, scaled in forecasts.items()},
        test_first=series.first + test[0],
        values=series.values[slice(*test)],
        model=None if winner == NAIVE else _graph(winner, complete, options, store, "final"),
        spec=spec,
    )


def choose(errors: Mapping[str, Sequence[float]]) -> str:
    """Return the candidate with the lowest mean of its errors. If several candidates are tied, the simplest of them
    wins."""
    means = {kind: float(np.mean(found)) for kind, found in errors.items()}
    limit = min(means.values()) * (1 + TIE)
    return next(kind for kind in ORDER if kind in means and means[kind] <= limit)


def _splits(series: Series, options: ForecastOptions) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Return the first step of each fold and of the test, and the step after its last one. All folds have the same
    number of observed days."""
    days = series.days()
    observed = np.unique(days[~np.isnan(series.values)])
    before = len(observed) - options.test_days
    if options.test_days < 1 or before < _MIN_DAYS:
        raise SeriesUnusable(
            f"series {series.name} has {len(observed)} days, of which the last {options.test_days} are for the test: "
            f"expected at least {_MIN_DAYS} days before them. Give more days, or a lower --test-days"
        )
    starts = np.searchsorted(days, observed)
    size = max(1, round(before * VALIDATED / FOLDS))
    cuts = [int(starts[before - size * k]) for k in range(FOLDS, 0, -1)] + [int(starts[before])]
    return list(pairwise(cuts)), (cuts[-1], len(days))


def _errors(
    series: Series, found: TrainingSet, end: int, options: ForecastOptions, store: FitStore, name: str
) -> dict[str, dict[int, tuple[Errors, Array]]]:
    """Train the candidates on the steps before ``found.stop``. Return the errors and the scaled forecasts from
    ``found.stop`` to ``end``, by candidate and number of steps ahead."""
    known, examples = found.stop, found.examples
    graphs = {kind: _graph(kind, found, options, store, name) for kind in options.kinds}
    residuals = {kind: run_graph(graph, examples.features) for kind, graph in graphs.items()}
    scaled = {kind: examples.expected + one for kind, one in residuals.items()}
    scaled[NAIVE] = naive(series, found)
    if len(_members(options)) > 1:
        scaled[MEAN] = np.mean([scaled[kind] for kind in _members(options)], axis=0)
    truth = found.spec.scaled(series.values)
    errors: dict[str, dict[int, tuple[Errors, Array]]] = {}
    for kind, values in scaled.items():
        errors[kind] = {}
        for horizon in range(1, options.horizons + 1):
            one = values[known - horizon : end - horizon, horizon - 1]
            plain = found.spec.unscaled(one) - series.values[known:end]
            errors[kind][horizon] = Errors(plain, np.abs(one - truth[known:end])), one
    return errors


def _members(options: ForecastOptions) -> list[str]:
    """Return the candidates of which the candidate ``mean`` is the mean: all but the autoregression."""
    return [kind for kind in options.kinds if kind != "autoregression"] or list(options.kinds)


def _graph(kind: str, found: TrainingSet, options: ForecastOptions, store: FitStore, name: str) -> Any:
    if kind == MEAN:
        return mean_graph([_graph(member, found, options, store, name) for member in _members(options)])
    if kind not in RECURRENT:
        return store.get(f"{name}-{kind}", lambda: CANDIDATES[kind](found, options.seed))
    graphs = [
        store.get(f"{name}-{kind}-{k}", partial(CANDIDATES[kind], found, options.seed + k))
        for k in range(options.seeds)
    ]
    return mean_graph(graphs)


def run_graph(graph: Any, inputs: npt.NDArray[np.float32]) -> Array:
    """Return the residuals that an ONNX graph forecasts, ``(N, horizons)``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([RESIDUALS], {FEATURES: inputs})[0], np.float64)


def _intervals(
    spec: SeriesSpec, scaled: Array, scores: Array, before: Array, horizon: int, level: float
) -> Intervals:
    """Return the prediction intervals of consecutive forecasts. An interval is made from the errors that are known
    when the forecast is made."""
    known = np.concatenate((np.full(horizon, np.nan), scores))[: len(scores)]  # each error is known at its own step
    calibration, widths = _known(before), np.full(len(scaled), np.nan)
    covered = np.full(len(scaled), np.nan)
    for at in range(len(scaled)):
        latest = window_scores(known[: at + 1], calibration)
        found = corrected_widths(latest, level, covered[: max(at - horizon + 1, 0)])
        if found:
            widths[at] = found.corrected
            covered[at] = np.nan if np.isnan(scores[at]) else float(scores[at] <= found.uncorrected)
    lower, upper = spec.unscaled(scaled - widths), spec.unscaled(scaled + widths)
    seen = ~np.isnan(scores)
    share = float(np.mean((scores <= widths)[seen]))
    return Intervals(lower, upper, share, float(np.mean((upper - lower)[seen])))


def _drift_limit(scores: Array) -> float:
    sums = [drift_sum(scores[:at], float(scores.mean())) for at in range(1, len(scores) + 1, 12)]
    return round(max(_MIN_DRIFT, _DRIFT_MARGIN * max(sums)), 3)


def _joined(parts: Sequence[Errors]) -> Errors:
    return Errors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _known(values: Array) -> Array:
    return values[~np.isnan(values)]
