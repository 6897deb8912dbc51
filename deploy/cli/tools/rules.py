"""`sightline rules`: try the rules of a site file on stored results before they are applied."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log, unix_ms_of
from deploy.cli.output import print_rows, printable, reading_progress, stdout
from ingest import site
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.site import Site
from stream.analyse.analysers import RuleSet
from stream.analyse.rule import CameraRule
from stream.events import rfc3339
from stream.explain.comparison import rules_json
from stream.explain.trial import TrialReport, try_rules
from stream.rules import validated_site

app = typer.Typer(help="Try rules on stored results.", no_args_is_help=True)


@app.command("test")
@friendly
def run_rules(
    file: Annotated[Path, typer.Argument(help="The site's TOML file.")],
    since: Annotated[str, typer.Option("--from", help="Begin of the period, such as 2026-11-30T02:00.")],
    until: Annotated[str, typer.Option("--to", help="End of the period. Default: now.", show_default=False)] = "",
    camera: Annotated[list[str] | None, typer.Option(help="Only this camera. May be repeated.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write the evidence pictures of gained and lost events to this folder.")
    ] = None,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Run the rules of a site file over stored results, and compare their events with the emitted events.

    The options --from and --to select results by the time at which they were written. A time without an offset is in
    the site's time zone. Nothing is written to Kafka.
    """
    found = validated_site(site.load(file), file)
    since_ms = unix_ms_of("rules test", since, found.time_zone, "--from")
    until_ms = unix_ms_of("rules test", until, found.time_zone, "--to") if until else time.time_ns() // 1_000_000
    if until_ms <= since_ms:
        raise ConfigError("rules test", "--to", until or "now", f"a time after {since}")
    cameras = _cameras(found, camera or [])
    rules = [rule for rule in found.rules if isinstance(rule, CameraRule) and rule.camera in cameras]
    untested = [rule.name for rule in found.rules if not isinstance(rule, CameraRule)]
    used = RuleSet(
        rules,
        (one for one in found.cameras if one.name in cameras),
        (one for one in found.measures if one.camera in cameras),
        found.pipelines,
    )
    with reading_progress("reading results") as on_progress:

        async def work(log: Log) -> tuple[TrialReport, int]:
            report = await try_rules(log, used, cameras, since_ms, until_ms, on_progress)
            return report, await _write_pictures(log, report, pictures) if pictures else 0

        report, missing = on_log("sightline-rules-test", kafka, prefix, work)
    for rule in rules:
        report.rules[rule.name]  # a rule without events is listed too
    values = {
        "from": rfc3339(since_ms * 10**6),
        "to": rfc3339(until_ms * 10**6),
        "results": report.results,
        "failed": report.failed,
        "rules": rules_json(report.rules),
        "not_tested": untested,
        "pictures_missing": missing,
    }
    if as_json:
        stdout.print_json(data=values)
    else:
        _print(values)


def _cameras(found: Site, wanted: list[str]) -> set[str]:
    known = {one.name for one in found.cameras}
    for name in wanted:
        if name not in known:
            raise ConfigError("rules test", "--camera", name, f"one of {', '.join(sorted(known)) or 'no camera'}")
    return set(wanted) or known


def _print(values: dict[str, Any]) -> None:
    columns = ("rule", "equal", "moved", "gained", "lost")
    print_rows(values["rules"], False, dict(zip(columns, columns, strict=True)))
    for row in values["rules"]:
        for sign, kind in (("+", "gained_events"), ("-", "lost_events")):
            for event in row[kind]:
                line = f"{sign} {row['rule']}  {event['time']}  {event['frame']}  {event['summary']}"
                sys.stdout.write(printable(line) + "\n")
    for name in values["not_tested"]:
        sys.stdout.write(f"rule {name} evaluates no camera: not tested\n")
    failed = f", {values['failed']} could not be processed" if values["failed"] else ""
    missing = f", {values['pictures_missing']} pictures have expired" if values["pictures_missing"] else ""
    sys.stdout.write(f"{values['results']} results from {values['from']} to {values['to']}{failed}{missing}\n")


async def _write_pictures(log: Log, report: TrialReport, folder: Path) -> int:
    """Write the annotated pictures of gained and lost events. Return the number of pictures that have expired."""
    from stream.explain.picture import write_pictures  # imports OpenCV, which takes 35 MB

    events = {event.id for one in report.rules.values() for event in (*one.gained_events, *one.lost_events)}
    return len(events) - len(await write_pictures(log, report.rules, folder))
