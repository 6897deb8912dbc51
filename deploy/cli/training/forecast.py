"""`sightline train forecast`: train and compare forecast models of a series, and store the winner."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from deploy.cli.common import AsJson, Kafka, Last, Prefix, friendly, on_log, since_ms_of
from deploy.cli.models.options import read_name
from deploy.cli.models.trial import DEFAULT_MODELS, Models
from deploy.cli.output import progress, stdout
from engines.repository.store import Repository
from ingest.exceptions import CodecError, ConfigError
from ingest.kafka.log import Log, TopicPartition
from ingest.site.hours import TimeZone
from stream.sense.forecast.spec import DAY_S
from stream.sense.forecast.steps import aggregate_of
from training.convert.guard import require_train_extra

if TYPE_CHECKING:
    from training.forecast.dataset import Series
    from training.forecast.evaluate import ForecastOptions

Dates = Literal["iso", "day-first", "month-first"]
_COMMAND = "train forecast"
KINDS = ("autoregression", "linear", "gbt", "gru", "lstm")
_HELD_OUT = 0.22
"""Share of the observed days that are the test if --test-days is not given."""

Measures = Annotated[
    Path | None,
    typer.Argument(help="CSV file, or JSON lines of the topic measures (.jsonl).", show_default=False),
]
DatesOption = Annotated[
    Dates, typer.Option(help="Dates of the CSV file: iso (2016-01-31), day-first (31/01/2016), month-first.")
]
ValueOption = Annotated[
    str, typer.Option(help="Column of the values (default: the second), or value of the measure, as car.forward.")
]
Scale = Annotated[
    Literal["auto", "count", "linear"], typer.Option(help="count: values of 0 or more. linear: any number.")
]
Candidates = Annotated[
    list[str] | None, typer.Option(help=f"Train only this candidate, of {', '.join(KINDS)}. May be repeated.")
]


@friendly
def forecast(
    measures: Measures = None,
    out: Annotated[str, typer.Option(help="Name of the model in the repository.", show_default=False)] = "",
    models: Models = DEFAULT_MODELS,
    report: Annotated[Path | None, typer.Option(help="File of the HTML report. Default: NAME-report.html.")] = None,
    dates: DatesOption = "iso",
    time: Annotated[str, typer.Option(help="Column of the times. Default: the first.", show_default=False)] = "",
    value: ValueOption = "",
    series_column: Annotated[str, typer.Option(help="Column that names the series, in a file with several.")] = "",
    series: Annotated[str, typer.Option(help="The series to forecast, in a file with several.")] = "",
    from_log: Annotated[str, typer.Option(help="Measure to read from the topic measures, in place of a file.")] = "",
    last: Last = "30d",
    step: Annotated[int, typer.Option(min=60, help="Length of a step in s, for records of measures.")] = 300,
    time_zone: Annotated[str, typer.Option(help="Time zone of local times, and of the daily profile.")] = "UTC",
    test_days: Annotated[int, typer.Option(min=0, help="Days at the end for the test. 0: 22 % of the days.")] = 0,
    horizons: Annotated[int, typer.Option(min=1, max=48, help="Number of steps to forecast.")] = 12,
    lags: Annotated[int, typer.Option(min=1, max=288, help="Number of last steps that a model gets.")] = 12,
    scale: Scale = "auto",
    only: Candidates = None,
    seeds: Annotated[int, typer.Option(min=1, help="Networks of each kind whose mean is taken.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="First seed of all random numbers.")] = 0,
    level: Annotated[float, typer.Option(min=0.5, max=0.99, help="Level of the reported intervals.")] = 0.9,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Train and compare forecast models of a series, and store the winner in the model repository.

    The candidates are the seasonal naive forecast, an autoregression, a linear model, boosted trees, GRU and LSTM
    networks, and the mean of these models. The candidates are compared in four folds by time, and the errors on the
    last days of the series are measured. An interrupted command continues when it is started again with the same
    options.
    """
    if not out:
        raise typer.BadParameter("expected the name of the model", param_hint="--out")
    kinds = tuple(kind for kind in KINDS if not only or kind in only)
    if only and (unknown := sorted(set(only) - set(KINDS))):
        raise ConfigError(_COMMAND, "--only", unknown[0], f"one of {', '.join(KINDS)}")
    read_name(out, _COMMAND, "--out")
    _require_steps(step, time_zone)
    require_train_extra(_COMMAND)
    source = SeriesSource(time, value, series_column, series, dates, time_zone, step)
    if from_log:
        found = on_log(
            "sightline-train",
            kafka,
            prefix,
            lambda log: series_from_log(log, from_log, since_ms_of(_COMMAND, last), source),
        )
    elif measures:
        found = series_from_file(measures, source)
    else:
        raise typer.BadParameter("expected a file of measures, or --from-log MEASURE", param_hint="MEASURES")
    settings = {"lags": lags, "horizons": horizons, "kinds": kinds, "seeds": seeds, "seed": seed, "level": level}
    _train(found, _options(found, test_days, scale, settings), Repository(models), out, report, as_json)


def _require_steps(step_s: int, time_zone: str) -> None:
    """Raise ConfigError for steps that divide no day into whole minutes, or for an unknown time zone."""
    if DAY_S % step_s or step_s % 60:
        raise ConfigError(_COMMAND, "--step", step_s, "whole minutes that divide a day, such as 300")
    try:
        TypeAdapter(TimeZone).validate_python(time_zone)
    except ValidationError:
        expected = "a time zone by its IANA name, such as Europe/Berlin"
        raise ConfigError(_COMMAND, "--time-zone", time_zone, expected) from None


@dataclass(frozen=True, slots=True)
class SeriesSource:
    """The columns of a CSV file or the value of a measure that a series is read from, and the length of its time
    steps."""

    time: str
    value: str
    column: str
    series: str
    dates: Dates
    time_zone: str
    step_s: int

    @property
    def aggregate(self) -> Literal["sum", "mean"]:
        """How the minutes of a measure are combined to the longer steps of a series."""
        return aggregate_of(self.value)


def series_from_file(file: Path, source: SeriesSource) -> Series:
    """Read a series from a CSV file, or from records of measures as JSON lines."""
    from ingest.contract.codec import decode_json
    from ingest.contract.records import Measure
    from training.forecast.table import CsvOptions, from_measures, read_csv

    if file.suffix != ".jsonl":
        options = CsvOptions(source.time, source.value, source.column, source.series, source.dates, source.time_zone)
        return read_csv(file, options)
    records = [decode_json(Measure, line) for line in file.read_bytes().splitlines() if line.strip()]
    name = source.series or next((record.name for record in records), "")
    return from_measures(records, name, source.value, source.step_s, source.time_zone, source.aggregate)


async def series_from_log(log: Log, measure: str, since_ms: int, source: SeriesSource) -> Series:
    """Read the minutes of a measure from the topic ``measures``."""
    from ingest.contract.codec import decode_json
    from ingest.contract.records import Measure
    from ingest.contract.topics import MEASURES
    from training.forecast.table import from_measures

    records = []
    for partition, end in (await log.ends(MEASURES)).items():
        start = await log.offset_at(TopicPartition(MEASURES, partition), since_ms)
        async with aclosing(log.read(MEASURES, partition, start, end)) as found:
            async for record in found:
                with contextlib.suppress(CodecError):
                    if (one := decode_json(Measure, record.value)).name == measure:
                        records.append(one)
    return from_measures(records, measure, source.value, source.step_s, source.time_zone, source.aggregate)


def _options(series: Series, test_days: int, scale: str, settings: Mapping[str, Any]) -> ForecastOptions:
    import numpy as np

    from training.forecast.evaluate import JUDGED, ForecastOptions

    seen = ~np.isnan(series.values)
    days = len(np.unique(series.days()[seen]))
    found = scale if scale != "auto" else "count" if (series.values[seen] >= 0.0).all() else "linear"
    judged = tuple(h for h in JUDGED if h <= settings["horizons"])
    return ForecastOptions(
        test_days=test_days or max(1, round(days * _HELD_OUT)),
        scale=found,  # type: ignore[arg-type]
        judged=judged,
        **settings,
    )


def _train(
    series: Series, options: ForecastOptions, repository: Repository, name: str, report: Path | None, as_json: bool
) -> None:
    """Evaluate the candidates with a progress bar, write the report, and store the winner."""
    from rich.progress import Progress

    from training.forecast.evaluate import FitStore, evaluate, fingerprint, fits
    from training.forecast.report import figures, page
    from training.forecast.store import store

    work = repository.root / ".training" / f"{name}-{fingerprint(series, options)}"
    with Progress(console=progress, transient=True) as bar:
        task = bar.add_task("training", total=fits(options))

        def done(one: str) -> None:
            bar.update(task, advance=1, description=f"trained {one}")

        judged = evaluate(series, options, FitStore(work, done))
    found = figures(series, options, judged)
    file = report or Path(f"{name}-report.html")
    file.write_text(page(found, options, judged, series.step_s), encoding="utf-8")
    stored = store(judged, repository, name, found).manifest.id if judged.model else ""
    shutil.rmtree(work, ignore_errors=True)
    if as_json:
        stdout.print_json(data={**found, "model": stored, "report": str(file)})
    else:
        _show(found, options.judged)
        stdout.print(
            f"winner: {judged.winner}, stored as {stored}. Report: {file}"
            if stored
            else f"no model is better than the seasonal naive forecast: none was stored. Report: {file}"
        )


def _show(found: Mapping[str, Any], judged: Sequence[int]) -> None:
    table = Table(
        "candidate",
        "validation MAE",
        "test MAE",
        "test RMSE",
        title=f"{found['series']}: errors {', '.join(map(str, judged))} steps ahead",
    )
    for kind, one in found["candidates"].items():
        cells = [
            " ".join(f"{value:.2f}" for value in one[key].values())
            for key in ("validation_mae", "test_mae", "test_rmse")
        ]
        table.add_row(kind, *cells, style="bold" if kind == found["winner"] else "")
    stdout.print(table)
    covered = ", ".join(f"{100 * value:.1f} %" for value in found["intervals"]["covered"].values())
    stdout.print(f"intervals of {100 * found['intervals']['level']:g} % cover {covered} of the test values")
