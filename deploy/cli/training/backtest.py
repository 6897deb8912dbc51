"""`sightline backtest`: run stored frames through a candidate model and candidate rules."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, kafka_settings, on_log, unix_ms_of
from deploy.cli.models.trial import DEFAULT_MODELS, Models, existing
from deploy.cli.output import print_rows, printable, reading_progress, stdout
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings

if TYPE_CHECKING:
    from engines.engine import Engine
    from engines.repository.backtests import BacktestRecord
    from engines.repository.manifest import Model
    from ingest.site.topic.view import Config
    from training.backtest.core import CandidateModels
    from training.backtest.figures import BacktestFigures
    from training.backtest.plan import BacktestPlan

_FAILED_EXIT = 1

CandidateRules = Annotated[
    Path | None, typer.Option(help="Site file with candidate rules. Default: the applied configuration.")
]
Pipelines = Annotated[
    list[str] | None,
    typer.Option(help="Pipeline to test. May be repeated. Default: those that use the model's name."),
]
ReportFolder = Annotated[
    Path | None, typer.Option(help="Folder for the report, an HTML page with pictures of the events.")
]
MaxGained = Annotated[
    float, typer.Option(min=0.0, help="Largest number of gained events, as a share of the live events.")
]
MinAgreement = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Smallest share of the live objects found with the same label.")
]
MaxFrameMs = Annotated[
    float, typer.Option(min=0.0, help="Largest 95th percentile of a frame's time, in ms. 0: no limit.")
]
MaxCpuMs = Annotated[float, typer.Option(min=0.0, help="Largest mean CPU time of a frame, in ms. 0: no limit.")]
Group = Annotated[str, typer.Option(help="Share the work with all members that run the same command with this name.")]


@friendly
def backtest(
    model: Annotated[str, typer.Option(help="Candidate, as NAME@VERSION.")],
    since: Annotated[str, typer.Option("--from", help="Begin of the period, such as 2026-11-30T02:00.")],
    until: Annotated[str, typer.Option("--to", help="End of the period. Default: now.", show_default=False)] = "",
    rules: CandidateRules = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera. May be repeated.")] = None,
    pipeline: Pipelines = None,
    out: ReportFolder = None,
    max_lost: Annotated[float, typer.Option(min=0.0, help="Largest share of lost events.")] = 0.05,
    max_gained: MaxGained = 0.5,
    min_agreement: MinAgreement = 0.9,
    max_frame_ms: MaxFrameMs = 0.0,
    max_cpu_ms: MaxCpuMs = 0.0,
    min_frames: Annotated[int, typer.Option(min=1, help="Smallest number of compared frames.")] = 100,
    group: Group = "",
    backend: Annotated[str, typer.Option(help="Inference backend, as for `sightline engine`.")] = "auto",
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Run stored frames through a candidate model, and compare results and events with those of the live pipeline.

    The options --from and --to select frames by the time at which they were written. A time without an offset is in
    UTC, or with --rules in the time zone of the site. No live topic is written. The outcome is recorded beside the
    version in the model repository, for `sightline models promote --require-backtest`. Exits with 0 if the candidate
    keeps all thresholds, else with 1.
    """
    from engines.repository.backtests import add_record
    from training.backtest.verdict import Thresholds, record_of

    thresholds = Thresholds(max_lost, max_gained, min_agreement, max_frame_ms, max_cpu_ms, min_frames)
    if group and not until:
        raise ConfigError("backtest", "--to", "", "a time, the same for all members of the group")
    inputs = _BacktestInputs(
        model=model,
        since=since,
        until=until,
        rules=rules,
        pipelines=tuple(pipeline or ()),
        cameras=tuple(camera or ()),
        models=models,
        backend=backend,
        out=out,
        group=group,
        settings=kafka_settings(kafka, prefix),
    )
    plan, figures, pictures = _run_frames(inputs, kafka, prefix)
    record = record_of(plan, figures, thresholds, time.time_ns())
    path = add_record(existing(models), record)
    _report(record, figures, pictures, path, out, as_json)
    raise typer.Exit(0 if record.passed else _FAILED_EXIT)


@dataclass(frozen=True, slots=True)
class _BacktestInputs:
    """The inputs of the command `sightline backtest`."""

    model: str
    since: str
    until: str
    rules: Path | None
    pipelines: tuple[str, ...]
    cameras: tuple[str, ...]
    models: Path
    backend: str
    out: Path | None
    group: str
    settings: KafkaSettings

    def work(
        self, on_progress: Callable[[int, int], None]
    ) -> Callable[[Log], Awaitable[tuple[BacktestPlan, BacktestFigures, dict[str, str]]]]:
        """Return the function that runs the backtest on a log."""

        async def run(log: Log) -> tuple[BacktestPlan, BacktestFigures, dict[str, str]]:
            from stream.explain.picture import write_pictures

            plan = await self.plan(log)
            with closing(self.open(plan)) as candidates:
                figures = await self._figures(log, plan, candidates, on_progress)
            for rule in plan.rules:
                figures.rules[rule.name]  # a rule without events is listed too
            pictures = await write_pictures(log, figures.rules, self.out) if self.out else {}
            return plan, figures, pictures

        return run

    async def _figures(
        self, log: Log, plan: BacktestPlan, models: CandidateModels, on_progress: Callable[[int, int], None]
    ) -> BacktestFigures:
        """Run the backtest on all partitions, or with ``--group`` on the partitions that the consumer group assigns
        to this process."""
        if not self.group:
            from training.backtest.run import backtest as run_backtest

            return await run_backtest(log, plan, models, on_progress)
        from ingest.runtime.heartbeat import instance_name
        from training.backtest.group import BacktestMember, group_of
        from training.backtest.share import GroupShare

        membership = GroupShare(self.settings, "sightline-backtest", group_of(self.group, plan))
        async with membership.joined() as share:
            return await BacktestMember(log, plan, models, self.group, instance_name()).run(share, on_progress)

    async def plan(self, log: Log) -> BacktestPlan:
        """Return the plan. Raise ConfigError."""
        from training.backtest.plan import BacktestPlan

        zone, config = await self._config(log)
        since_ms = unix_ms_of("backtest", self.since, zone, "--from")
        until_ms = unix_ms_of("backtest", self.until, zone, "--to") if self.until else time.time_ns() // 10**6
        if until_ms <= since_ms:
            raise ConfigError("backtest", "--to", self.until or "now", f"a time after {self.since}")
        manifest = existing(self.models).open(self.model).manifest
        period = since_ms, until_ms
        return BacktestPlan.of(config, manifest, period, pipelines=self.pipelines, cameras=self.cameras)

    async def _config(self, log: Log) -> tuple[str, Config]:
        """Return time zone and configuration: those of the site file if one is given, else UTC and the applied
        configuration."""
        from ingest import site
        from ingest.site.topic.store import read
        from ingest.site.topic.view import Config
        from stream.rules import validated, validated_site

        if self.rules is None:
            return "UTC", await read(log, validate=validated)
        found = validated_site(site.load(self.rules), self.rules)
        return found.time_zone, Config({entry.key: entry for entry in found.entries()})

    def open(self, plan: BacktestPlan) -> CandidateModels:
        """Open the models of the plan's pipelines, and return them. Raise ConfigError or EngineError."""
        from deploy.cli.services.engine import require_usable
        from engines import backends
        from engines.node.serving import RepositorySource
        from training.backtest.core import CandidateModels

        require_usable(self.backend)

        def engine(model: Model) -> Engine:
            if self.backend != backends.AUTO:
                return backends.make(self.backend, 1)
            return backends.make(backends.choose_here(model.manifest.precision).backend, 1)

        source = RepositorySource(existing(self.models), engine)
        return CandidateModels(plan.pipelines, source)


def _run_frames(
    inputs: _BacktestInputs, kafka: str, prefix: str
) -> tuple[BacktestPlan, BacktestFigures, dict[str, str]]:
    """Run the backtest with a progress bar. Return its plan, its figures and the pictures of its events."""
    with reading_progress("running frames") as on_progress:
        return on_log("sightline-backtest", kafka, prefix, inputs.work(on_progress))


def _report(
    record: BacktestRecord,
    figures: BacktestFigures,
    pictures: dict[str, str],
    path: Path,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the outcome of a backtest, and write its HTML page and its figures to the folder ``out``."""
    from stream.explain.comparison import rules_json
    from training.backtest.page import page

    rules = rules_json(figures.rules)
    values = {**record.model_dump(mode="json"), "passed": record.passed, "rules": rules, "record": str(path)}
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "index.html").write_text(page(record, rules, pictures))
        (out / "report.json").write_text(json.dumps(values, indent=2) + "\n")
    if as_json:
        stdout.print_json(data=values)
    else:
        _print(values, record, out)


def _print(values: dict[str, Any], record: BacktestRecord, out: Path | None) -> None:
    def line(text: str) -> None:
        stdout.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    figures = record.figures
    print_rows(values["rules"], False, {name: name for name in ("rule", "equal", "moved", "gained", "lost")})
    for row in values["rules"]:
        for sign, kind in (("+", "gained_events"), ("-", "lost_events")):
            for event in row[kind]:
                line(f"{sign} {row['rule']}  {event['time']}  {event['frame']}  {event['summary']}")
    labels = [{"label": label, **counts} for label, counts in figures["labels"].items()]
    columns = {"label": "label", "found": "found", "missed": "missed", "relabelled": "other label", "extra": "extra"}
    print_rows(labels, False, columns)
    stages = [{"stage": stage, **times} for stage, times in figures["stages_ms"].items()]
    print_rows(stages, False, {"stage": "stage", "mean": "mean ms", "p50": "median ms", "p95": "95 % ms"})
    live = ", ".join(record.served) or "no model"
    line(f"{record.model} beside {live}, {record.since} to {record.until}")
    line(
        f"frames {figures['frames']}, compared {figures['compared']}, agreement {figures['agreement']:.1%}, "
        f"shed live {figures['shed_live']}, without a live result {figures['missing_live']}, "
        f"failed {figures['failed']}"
    )
    line(
        f"{figures['speed']:.1f} times real time, {figures['cpu_ms_per_frame']:.2f} ms of CPU time per frame, "
        f"95 % of the frames within {figures['frame_ms']['p95']:.2f} ms"
    )
    if out:
        line(f"report: {out / 'index.html'}")
    line("passed" if record.passed else f"not passed: {'; '.join(record.reasons)}")
