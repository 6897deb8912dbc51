"""`sightline models promote`, `rollback` and `watch`: change the served version, and watch a canary."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.models.trial import DEFAULT_MODELS, Models, Name, existing
from deploy.cli.output import printable, progress, stdout
from engines.repository.store import Repository
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.log import Log

if TYPE_CHECKING:
    from training.canary.meter import SkillMeter
    from training.canary.skill import LiveSkill, SkillLimits

_ROLLED_BACK_EXIT = 1


@friendly
def promote(
    model: Annotated[str, typer.Argument(help="Model as NAME@VERSION, or NAME with VERSION.")],
    version: Annotated[int, typer.Argument(min=0, help="Version.", show_default=False)] = 0,
    require_backtest: Annotated[
        bool, typer.Option("--require-backtest", help="Refuse a version that has not passed a backtest.")
    ] = False,
    canary: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Serve only this share of the cameras. 0: all cameras.")
    ] = 0.0,
    models: Models = DEFAULT_MODELS,
) -> None:
    """Serve this version of a model: running engine nodes load the version within seconds.

    With --canary, the version serves a share of the cameras, and the promoted version serves all other cameras. A
    hash of the names of model and camera decides whether a camera belongs to the share. `sightline models watch`
    rolls back a canary that fails on frames, disagrees with the promoted version, or changes the number of events.
    """
    from engines.repository.backtests import require_passed
    from engines.repository.canary import end_canary, read_canary, start_canary

    repository = existing(models)
    name, _, number = model.partition("@")
    if bool(number) == bool(version) or (number and not number.isdecimal()):
        raise ConfigError("models promote", "MODEL", model, "NAME@VERSION, such as regions@2")
    version = version or int(number)
    if require_backtest:
        record = require_passed(repository, name, version)
        stdout.print(f"{record.model} passed its backtest at {record.at}")
    if canary:
        _require_other(repository, name, version)
        began = start_canary(repository, name, version, canary, time.time_ns())
        stdout.print(f"{began.id} serves {canary:.0%} of the cameras, {name}@{repository.promoted(name)} all others")
        return
    before = repository.promote(name, version)
    if running := read_canary(repository, name):
        end_canary(repository, running, "promoted" if running.version == version else "stopped", time.time_ns())
    stdout.print(f"{name}: {before} → {version}")


@friendly
def rollback(name: Name, models: Models = DEFAULT_MODELS) -> None:
    """End the canary of a model; if the model has no canary, serve the next older version instead of the promoted
    version."""
    from engines.repository.canary import end_canary, read_canary

    repository = existing(models)
    if running := read_canary(repository, name):
        end_canary(repository, running, "rolled back", time.time_ns(), "by `sightline models rollback`")
        stdout.print(f"{running.id} is no canary any more: {name}@{repository.promoted(name)} serves all cameras")
        return
    stdout.print(f"{name}: back to {repository.roll_back(name)}")


@friendly
def watch(
    name: Name,
    window: Annotated[float, typer.Option(min=1.0, help="Length of the judged period, in seconds.")] = 600.0,
    every: Annotated[float, typer.Option(min=0.1, help="Time between two judgements, in seconds.")] = 30.0,
    max_errors: Annotated[float, typer.Option(min=0.0, help="Largest share of failed frames.")] = 0.01,
    min_agreement: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Smallest agreement with the promoted version in shadow mode.")
    ] = 0.8,
    max_change: Annotated[
        float, typer.Option(min=1.0, help="Largest factor by which the events may change against other cameras.")
    ] = 3.0,
    once: Annotated[bool, typer.Option("--once", help="Judge once and exit.")] = False,
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Watch the canary of a model, and roll the canary back when its live skill falls below a limit.

    A rollback ends the canary, writes an event that becomes an alert, and is noted in the audit trail of the model.
    Exits with 1 after a rollback, and with 0 if the canary has ended in another way.
    """
    from engines.repository.canary import read_canary
    from training.canary.skill import SkillLimits

    repository = existing(models)
    if read_canary(repository, name) is None:
        raise ConfigError(
            "models watch", "NAME", name, "a model with a canary. Run `sightline models promote --canary`"
        )
    limits = SkillLimits(window, max_errors, min_agreement, max_change)

    async def work(log: Log) -> bool:
        judge = _Judge(log, repository, name, limits, as_json)
        while True:
            try:
                if await judge.judge():
                    return True
            except LogUnavailable as error:
                if once:
                    raise
                progress.print(printable(f"{name} was not judged: {error}. Next try in {every:g} s"), markup=False)
            if once or read_canary(repository, name) is None:
                return False
            await asyncio.sleep(every)

    raise typer.Exit(_ROLLED_BACK_EXIT if on_log("sightline-models-watch", kafka, prefix, work) else 0)


class _Judge:
    """Judges the canary of a model, and rolls it back when its live skill falls below a limit."""

    def __init__(self, log: Log, repository: Repository, name: str, limits: SkillLimits, as_json: bool) -> None:
        self._log, self._repository, self._name = log, repository, name
        self._limits, self._as_json = limits, as_json
        self._meter: SkillMeter | None = None

    async def judge(self) -> bool:
        """Measure the live skill of the canary once, and return whether the canary was rolled back."""
        from engines.repository.canary import read_canary
        from training.canary.meter import SkillMeter
        from training.canary.watch import roll_back

        canary = read_canary(self._repository, self._name)
        if canary is None:
            return False
        if self._meter is None or self._meter.canary != canary:
            self._meter = SkillMeter(self._log, canary, self._limits)
        now_ns = time.time_ns()
        skill = await self._meter.measure(f"{self._name}@{self._repository.promoted(self._name)}", now_ns)
        reasons = skill.reasons(self._limits)
        if reasons and await roll_back(self._log, self._repository, canary, reasons, now_ns) is None:
            return False
        self._print(canary.id, skill, reasons)
        return bool(reasons)

    def _print(self, canary: str, skill: LiveSkill, reasons: list[str]) -> None:
        if self._as_json:
            stdout.print_json(data={"model": canary, **skill.as_json(), "rolled_back": reasons})
            return
        verdict = f"rolled back: {'; '.join(reasons)}" if reasons else "good"
        line = (
            f"{canary}: frames {skill.canary.frames}, failed {skill.errors:.1%}, agreement {skill.agreement:.1%} of "
            f"{skill.compared} frames, events {skill.canary.events} (before {skill.canary.events_before}): {verdict}"
        )
        stdout.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _require_other(repository: Repository, name: str, version: int) -> None:
    if repository.promoted(name) == version:
        expected = f"another version than {version}, which serves all cameras. Promote the version before first"
        raise ConfigError("models promote", "--canary", f"{name}@{version}", expected)
