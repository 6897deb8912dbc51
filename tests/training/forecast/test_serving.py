"""Tests of the way of a forecast from the log to a stored model, and from the repository into ``sense``."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.services.stream import forecast_models
from deploy.cli.training.forecast import SeriesSource, series_from_log
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.kafka.memorylog import MemoryLog
from ingest.site import Site
from stream.exceptions import ForecastModelUnusable
from stream.rules import validated_site
from stream.sense.rules.drift import DriftRule
from stream.sense.rules.forecast import EarlyWarningRule
from tests.paths import ROOT
from tests.stream.sense.forecast.series import STEP_S, minutes, record
from tests.training.forecast.test_series import series
from training.forecast.evaluate import FitStore, ForecastOptions, evaluate
from training.forecast.report import figures
from training.forecast.store import store

OPTIONS = ForecastOptions(test_days=2, kinds=("linear",), lags=4, horizons=3, judged=(1, 3))


async def test_a_series_to_forecast_is_read_from_the_minutes_in_the_log() -> None:
    log = MemoryLog(1)
    for one in minutes(range(6)):
        await log.produce(record(one))
    source = SeriesSource("", "car.forward", "", "", "iso", "UTC", STEP_S)
    found = await series_from_log(log, "bridge", 0, source)
    assert (found.name, found.step_s, len(found.values)) == ("bridge car.forward", STEP_S, 6)


def test_a_stored_forecast_model_is_served_until_another_version_is_promoted(tmp_path: Path) -> None:
    found = series(11)
    judged = evaluate(found, OPTIONS, FitStore())
    measured = figures(found, OPTIONS, judged)
    repository = Repository(tmp_path)
    assert [store(judged, repository, "flow", measured).manifest.id for _ in range(2)] == ["flow@1", "flow@2"]
    source = forecast_models(tmp_path)
    served = source("flow")
    assert (served.id, served.spec) == ("flow@2", judged.spec)
    assert source("flow") is served
    repository.roll_back("flow")
    assert source("flow").id == "flow@1"
    assert repository.open("flow").manifest.training["winner"] == "linear"
    shown = CliRunner().invoke(app, ["models", "show", "flow", f"--models={tmp_path}"]).output
    assert '[[forecasts]]\nname = "flow"\n' in shown
    with pytest.raises(ForecastModelUnusable, match="has no model 'bus'"):
        source("bus")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("forecast flow.csv --out ../flow", "--out = '../flow': expected lower-case letters"),
        ("forecast flow.csv --out flow --step 420", "--step = 420: expected whole minutes that divide a day"),
        ("forecast flow.csv --out flow --time-zone Mars", "--time-zone = 'Mars': expected a time zone"),
        ("behaviour --out ../walk", "--out = '../walk': expected lower-case letters"),
    ],
)
def test_wrong_training_options_are_refused_before_the_training_starts(words: str, message: str) -> None:
    result = CliRunner().invoke(app, ["train", *words.split()])
    assert (result.exit_code, result.output.startswith("error: train ")) == (2, True)
    assert message in result.output


def test_a_model_for_pictures_is_refused_as_forecast_model() -> None:
    with pytest.raises(
        ForecastModelUnusable, match=r"model regions@1 describes no series: .* `sightline train forecast`"
    ):
        forecast_models(ROOT / "engines" / "models")("regions@1")


def example() -> Site:
    text = (ROOT / "docs" / "how-to" / "forecast.md").read_text()
    forecasts = tomllib.loads(text.split("```toml\n")[1].split("```")[0])
    text = (ROOT / "docs" / "reference" / "measures.md").read_text()
    measures = tomllib.loads(text.split("```toml\n")[1].split("```")[0])
    cameras = [{"name": "road", "source": "simulated:road"}]
    pipelines = [{"name": "regions", "model": "regions", "width": 64, "height": 64}]
    return Site.model_validate(forecasts | measures | {"cameras": cameras, "pipelines": pipelines})


def test_the_forecast_example_of_the_how_to_guide_is_a_valid_site_with_rules() -> None:
    found = validated_site(example(), Path("site.toml"))
    warning, drift = found.rules
    assert isinstance(warning, EarlyWarningRule)
    assert isinstance(drift, DriftRule)
    assert (warning.above, warning.steps, warning.cooldown_s) == (90.0, 3, 900.0)
    assert found.forecasts[0].time_zone == "UTC"


def test_a_forecast_of_an_unknown_measure_is_refused() -> None:
    found = example()
    other = found.forecasts[0].model_copy(update={"measure": "tunnel"})
    with pytest.raises(ConfigError, match=r"forecasts.0.measure = 'tunnel': .*a measure in this file"):
        validated_site(found.model_copy(update={"forecasts": (other,)}), Path("site.toml"))


def measured_sensor() -> Site:
    """Return the site of the page about measures, with a forecast of its sensor."""
    text = (ROOT / "docs" / "reference" / "measures.md").read_text()
    (block,) = (part.split("```")[0] for part in text.split("```toml\n") if part.startswith("[[sensors]]"))
    forecast = {"name": "warm", "measure": "oven", "value": "value.mean", "model": "oven"}
    return Site.model_validate(tomllib.loads(block) | {"forecasts": [forecast]})


def test_a_sensor_with_a_forecast_needs_the_setting_measure_and_a_name_unlike_any_measure() -> None:
    found = measured_sensor()
    assert validated_site(found, Path("site.toml")).forecasts == found.forecasts
    plain = found.sensors[0].model_copy(update={"measure": False})
    with pytest.raises(ConfigError, match=r"forecasts.0.measure = 'oven': .*or of a sensor with measure = true"):
        validated_site(found.model_copy(update={"sensors": (plain,)}), Path("site.toml"))
    bridge = example().measures[0].model_copy(update={"name": "oven"})
    with pytest.raises(
        ConfigError, match=r"sensors.0.name = 'oven': expected a name that no measure in this file has"
    ):
        validated_site(found.model_copy(update={"measures": (bridge,)}), Path("site.toml"))
