"""Tests of the graphs of forecast models, of the choice of the winner, and of the whole training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.forecast.test_series import framed, series
from training.forecast.evaluate import (
    FitStore,
    ForecastOptions,
    choose,
    evaluate,
    fingerprint,
    run_graph,
)
from training.forecast.graphs import linear_graph, mean_graph, tree_graph

ROWS = np.random.default_rng(2).normal(size=(50, 6)).astype(np.float32)


def test_the_onnx_graph_of_a_linear_forecast_model_computes_the_model() -> None:
    weights, bias = np.arange(12.0).reshape(6, 2), np.array((1.0, -1.0))
    assert run_graph(linear_graph(weights, bias), ROWS) == pytest.approx(ROWS @ weights + bias, abs=1e-4)


def leaf(value: float) -> dict[str, Any]:
    return {"leaf_value": value}


def split(feature: int, threshold: float, left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    return {"split_feature": feature, "threshold": threshold, "left_child": left, "right_child": right}


def test_the_onnx_graph_of_boosted_trees_sums_the_trees_of_each_forecast_step() -> None:
    first = split(0, 0.1, leaf(1.0), split(1, -0.2, leaf(2.0), leaf(3.0)))
    dumps: list[dict[str, Any]] = [
        {"tree_info": [{"tree_structure": first}, {"tree_structure": leaf(0.5)}]},
        {"tree_info": [{"tree_structure": split(0, 0.0, leaf(-1.0), leaf(1.0))}]},
    ]
    found = run_graph(tree_graph(dumps, [(3, 5), (4,)], 6), ROWS)
    wanted = 0.5 + np.where(ROWS[:, 3] <= 0.1, 1.0, np.where(ROWS[:, 5] <= -0.2, 2.0, 3.0))
    assert found[:, 0] == pytest.approx(wanted)
    assert found[:, 1] == pytest.approx(np.where(ROWS[:, 4] <= 0.0, -1.0, 1.0))


def test_a_float32_value_takes_the_same_branch_of_a_tree_as_in_float64() -> None:
    """The threshold lies between two float32 numbers, of which the upper one is nearer."""
    value = np.float32(0.1)
    threshold = float(value) - 1e-10
    graph = tree_graph([{"tree_info": [{"tree_structure": split(0, threshold, leaf(1.0), leaf(2.0))}]}], [(0,)], 1)
    assert run_graph(graph, np.array([[value]], np.float32))[0, 0] == 2.0


def test_a_mean_graph_returns_the_mean_of_the_outputs_of_its_graphs() -> None:
    graphs = [linear_graph(np.full((6, 2), k), np.full(2, k)) for k in (1.0, 2.0, 6.0)]
    joined = mean_graph([mean_graph(graphs[:2]), graphs[2]])
    wanted = np.mean(
        [np.mean([run_graph(one, ROWS) for one in graphs[:2]], axis=0), run_graph(graphs[2], ROWS)], axis=0
    )
    assert run_graph(joined, ROWS) == pytest.approx(wanted, abs=1e-4)


def test_the_simplest_of_tied_forecast_candidates_wins() -> None:
    assert choose({"gbt": [5.0, 7.0], "linear": [5.01, 7.01], "naive": [9.0, 9.0]}) == "linear"
    assert choose({"gbt": [5.0, 7.0], "linear": [5.1, 7.1], "naive": [9.0, 9.0]}) == "gbt"
    assert choose({"mean": [6.0], "naive": [6.0]}) == "naive"


OPTIONS = ForecastOptions(test_days=2, kinds=("linear",), lags=4, horizons=3, judged=(1, 3))


def test_an_interrupted_forecast_training_continues_to_the_same_model(tmp_path: Path) -> None:
    """A training that fails after three graphs stands for one that is killed."""
    found, trained = series(11), []

    class Killed(Exception):
        pass

    def kill(name: str) -> None:
        if len(trained) == 3:
            raise Killed
        trained.append(name)

    whole = evaluate(found, OPTIONS, FitStore())
    with pytest.raises(Killed):
        evaluate(found, OPTIONS, FitStore(tmp_path, kill))
    kept = sorted(path.name for path in tmp_path.glob("*.onnx"))
    assert kept == ["fold0-linear.onnx", "fold1-linear.onnx", "fold2-linear.onnx", "fold3-linear.onnx"]
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.onnx")}
    again = evaluate(found, OPTIONS, FitStore(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert again.model.SerializeToString(deterministic=True) == whole.model.SerializeToString(deterministic=True)
    assert again.spec == whole.spec


def test_values_of_test_days_do_not_change_which_forecast_model_is_chosen() -> None:
    found = series(11)
    changed = series(11)
    changed.values[-2 * 96 :] += 30.0
    one, other = (evaluate(each, OPTIONS, FitStore()) for each in (found, changed))
    assert one.winner == other.winner == "linear"
    for kind, errors in one.validation.items():
        for horizon, error in errors.items():
            assert error.mae == other.validation[kind][horizon].mae
    assert other.test["linear"][1].mae > one.test["linear"][1].mae + 5


def test_prediction_intervals_on_test_days_cover_the_asked_share_of_values() -> None:
    judged = evaluate(series(14), OPTIONS, FitStore())
    assert judged.intervals[1].covered == pytest.approx(0.9, abs=0.06)
    assert judged.test["linear"][1].mae < judged.test["naive"][1].mae


def test_a_forecast_training_is_not_continued_with_other_data_or_options() -> None:
    names = {fingerprint(series(9), OPTIONS), fingerprint(series(9, 1), OPTIONS),
             fingerprint(series(9), ForecastOptions(test_days=3, kinds=("linear",)))}  # fmt: skip
    assert len(names) == 3
    assert fingerprint(series(9), OPTIONS) in names


@pytest.mark.train
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["gbt", "autoregression", "gru", "lstm"])
def test_a_trained_model_forecasts_better_than_the_daily_profile(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keras")
    from training.forecast import candidates

    monkeypatch.setattr(candidates, "EPOCHS", 15)  # enough for this series
    found = series(12)
    found.values[:] = np.round(found.values * np.repeat(np.random.default_rng(3).uniform(0.7, 1.3, 12 * 12), 8))
    one = framed(found, 9 * 96)
    graph = candidates.CANDIDATES[kind](one, 0)
    errors = run_graph(graph, one.examples.features) - one.examples.residuals
    after = slice(9 * 96, None)
    assert np.nanmean(np.abs(errors[after, 0])) < 0.9 * np.nanmean(np.abs(one.examples.residuals[after, 0]))
    again = candidates.CANDIDATES[kind](one, 0)
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)


@pytest.mark.train
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_the_onnx_graph_of_a_recurrent_network_computes_what_keras_computes(kind: str) -> None:
    pytest.importorskip("keras")
    import keras

    from training.forecast.graphs import recurrent_graph

    keras.utils.set_random_seed(4)
    lags, rest = keras.Input((4, 1)), keras.Input((3,))
    recurrent = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU}[kind](5, bias_initializer="glorot_uniform")
    dense, out = keras.layers.Dense(7, activation="tanh"), keras.layers.Dense(2)
    model = keras.Model([lags, rest], out(dense(keras.layers.Concatenate()([recurrent(lags), rest]))))
    rows = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    names = ("kernel", "recurrent", "bias"), ("dense_kernel", "dense_bias"), ("out_kernel", "out_bias")
    weights = {name: value for names_, layer in zip(names, (recurrent, dense, out), strict=True)
               for name, value in zip(names_, layer.get_weights(), strict=True)}  # fmt: skip
    graph = recurrent_graph(kind, weights, slice(0, 4), (4, 5, 7), 8)
    wanted = model.predict([rows[:, :4][:, ::-1, None], rows[:, [4, 5, 7]]], verbose=0)
    assert run_graph(graph, rows) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.train
@pytest.mark.timeout(600)
def test_the_commands_of_the_how_to_guide_train_and_store_a_forecast_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("keras")
    from typer.testing import CliRunner

    from deploy.cli.app import app
    from engines.repository.store import Repository
    from stream.sense.forecast.model import ForecastModel
    from tests.paths import ROOT

    text = (ROOT / "docs" / "how-to" / "forecast.md").read_text()
    command = next(line for line in text.splitlines() if line.startswith("    sightline train forecast flow.csv"))
    monkeypatch.chdir(tmp_path)
    found = series(11)
    rows = [f"{np.datetime64((found.first + k) * 900, 's')},{'' if np.isnan(v) else v:g}" if not np.isnan(v)
            else f"{np.datetime64((found.first + k) * 900, 's')}," for k, v in enumerate(found.values)]  # fmt: skip
    Path("flow.csv").write_text("time,flow\n" + "\n".join(rows) + "\n")
    arguments = [*command.split()[1:], "--only", "linear", "--only", "gbt", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["winner"] in {"linear", "gbt", "mean"}
    assert figures["candidates"]["naive"]["test_mae"]["1"] > figures["candidates"]["linear"]["test_mae"]["1"]
    shown = f"{figures['candidates']['linear']['test_mae']['1']:.2f} / "
    assert shown in Path("bridge-flow-report.html").read_text()
    stored = Repository(Path("models")).open("bridge-flow")
    assert ForecastModel(stored.path, stored.manifest.id).spec.model == figures["winner"]
    assert not list(Path("models/.training").iterdir())
