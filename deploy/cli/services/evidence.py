"""`sightline evidence`: the worker that completes evidence, and commands to list, verify, hold and delete it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from deploy.cli.common import (
    LOOPBACK,
    AsJson,
    Evidence,
    Instance,
    Kafka,
    MetricsHost,
    MetricsPort,
    Prefix,
    friendly,
    kafka_settings,
    on_log,
    unix_ns_of,
    user_name,
)
from ingest.exceptions import ConfigError
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.runtime.clock import SystemClock
from ingest.runtime.service import Service
from ingest.site.file import config_error
from stream.events import rfc3339
from stream.evidence.export import ExportArchive
from stream.evidence.holds import LegalHold, place, read_holds
from stream.evidence.holds import release as release_hold
from stream.evidence.location import open_store
from stream.evidence.retention import (
    DAY_NS,
    DeletionReport,
    EvidenceGroup,
    RetentionPolicy,
    grouped,
    holds_of,
    prune_for_ever,
)
from stream.evidence.retention import prune as prune_store
from stream.evidence.verify import FileVerdict, logged_evidence, verdicts

app = typer.Typer(help="Complete, list, verify, hold and delete evidence.", no_args_is_help=True)

Camera = Annotated[str, typer.Option(help="Only evidence of this camera.")]
Since = Annotated[str, typer.Option("--from", help="First time of capture, such as 2026-11-30T02:00 (UTC).")]
Until = Annotated[str, typer.Option("--to", help="Last time of capture, such as 2026-11-30T02:00 (UTC).")]
KeepDays = Annotated[float, typer.Option(min=0.0, help="Delete evidence that is older. 0: no limit.")]
MaxGb = Annotated[
    float,
    typer.Option(min=0.0, help="Delete the oldest evidence until the rest fits into these gigabytes. 0: no limit."),
]
LATEST_NS = 2**63 - 1
NICENESS = 10
"""Niceness of the worker. On a busy machine, frames and alerts are processed first, but clips still make progress."""


@app.command()
@friendly
def run(
    evidence: Evidence,
    keep_days: KeepDays = 30.0,
    max_gb: MaxGb = 0.0,
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    instance: Instance = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Make the clips of alerts, record all evidence, and delete old evidence once an hour, until stopped.

    Exits with 70 after an error, and with 75 if Kafka cannot be reached.
    """
    import cv2

    from stream.alerts.lettering import require_font
    from stream.evidence.stage import EvidenceStage
    from stream.runner.loop import serve

    require_font()
    os.nice(NICENESS)
    cv2.setNumThreads(1)  # clips of several partitions are made in parallel already
    store, policy = open_store(evidence), retention_policy(keep_days, max_gb)
    service = Service("evidence", kafka_settings(kafka, prefix), metrics_port, metrics_host)

    async def make(log: Log) -> EvidenceStage:
        return EvidenceStage(store)

    def open_log() -> KafkaLog:
        return KafkaLog(service.settings, f"evidence-prune-{os.getpid()}")

    async def work(stop: asyncio.Event) -> None:
        pruning = asyncio.create_task(prune_for_ever(open_log, store, policy, user()))
        try:
            await serve(service, make, stop, instance)
        finally:
            pruning.cancel()
            await asyncio.wait({pruning})

    raise typer.Exit(service.run(work))


@app.command("list")
@friendly
def list_evidence(
    evidence: Evidence,
    camera: Camera = "",
    since: Since = "",
    until: Until = "",
    as_json: AsJson = False,
) -> None:
    """List the evidence of each event in the store, oldest event first."""
    store = open_store(evidence)
    first_ns, last_ns = _period(since, until)
    holds = read_holds(store)
    groups = [
        group
        for group in grouped(store.list(f"{camera}/" if camera else ""))
        if group.name.first_ns <= last_ns and group.name.last_ns >= first_ns
    ]
    rows = [{**_row(group), "held_by": ", ".join(holds_of(group, holds))} for group in groups]
    _print_rows(rows, as_json, ("time", "camera", "event", "kinds", "bytes", "held_by"))


@app.command()
@friendly
def verify(
    evidence: Evidence = "",
    export: Annotated[
        Path | None, typer.Option(help="Verify this archive of the console, or its folder, with its own manifest.")
    ] = None,
    camera: Camera = "",
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Compare each evidence file with its hash on the log, or the files of an archive with the hashes in its
    manifest. Exits with 1 if a file is changed or missing."""
    if export:
        with ExportArchive(export) as archive:
            _report(archive.verdicts(), as_json, manifest_sha256=archive.manifest_sha256)
    elif not evidence:
        raise ConfigError("evidence", "--evidence", "", "the evidence store, or an archive with --export")
    else:
        logged = on_log("sightline-evidence", kafka, prefix, logged_evidence)
        _report(verdicts(open_store(evidence), logged, camera), as_json, unreadable_records=logged.unreadable)


def _report(all_verdicts: Iterable[FileVerdict], as_json: bool, **facts: object) -> None:
    """Print the verdicts. Raise Exit with 1 if a file is changed or missing."""
    counts: Counter[str] = Counter()
    found = []
    for one in all_verdicts:
        counts[one.verdict] += 1
        if one.verdict not in ("intact", "deleted"):
            found.append(one._asdict())
    if as_json:
        _say(json.dumps({"counts": counts, "files": found, **facts}))
    else:
        if found:
            _print_rows(found, False, ("verdict", "name", "about"))
        _say(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "no evidence")
        if "manifest_sha256" in facts:
            _say(f"manifest SHA-256 {facts['manifest_sha256']}: compare it with the audit trail of the console")
    if counts["changed"] or counts["missing"]:
        raise typer.Exit(1)


@app.command()
@friendly
def hold(
    name: Annotated[str, typer.Argument(help="Name of the hold, such as case-17.")],
    evidence: Evidence,
    reason: Annotated[str, typer.Option(help="Why the evidence must stay.")],
    camera: Annotated[str, typer.Option(help="Hold the evidence of this camera.")] = "",
    since: Since = "",
    until: Until = "",
    event: Annotated[str, typer.Option(help="Hold the evidence of this event.")] = "",
) -> None:
    """Place a legal hold: neither retention nor `erase` deletes the evidence that it covers, until it is released."""
    first_ns, last_ns = _period(since, until)
    settings: dict[str, Any] = {"name": name, "camera": camera or None, "event": event or None, "reason": reason}
    settings |= {"since_ns": first_ns, "until_ns": last_ns, "by": user(), "placed_ns": time.time_ns()}
    try:
        placed = LegalHold(**settings)
    except ValidationError as error:
        raise config_error("evidence hold", error) from None
    store = open_store(evidence)
    if any(one.name == name for one in read_holds(store)):
        raise ConfigError(
            "evidence hold", "NAME", name, "a name that no hold has. Release that hold, or choose another name"
        )
    place(store, placed)
    covered = [group for group in grouped(store.list()) if placed.covers(group.name)]
    _say(f"{name} holds {len(covered)} events, {sum(group.size for group in covered)} bytes")


@app.command()
@friendly
def release(name: Annotated[str, typer.Argument(help="Name of the hold.")], evidence: Evidence) -> None:
    """Release a legal hold. The next prune deletes the evidence that retention does not keep."""
    store = open_store(evidence)
    if not release_hold(store, name):
        known = ", ".join(one.name for one in read_holds(store)) or "none is placed"
        raise ConfigError("evidence release", "NAME", name, f"the name of a hold ({known})")
    _say(f"{name} is released")


@app.command()
@friendly
def holds(evidence: Evidence, as_json: AsJson = False) -> None:
    """List the legal holds."""
    rows = [
        {
            "name": one.name,
            "covers": f"event {one.event}" if one.event else f"camera {one.camera}",
            "from": rfc3339(one.since_ns) if one.since_ns else "",
            "to": rfc3339(one.until_ns) if one.until_ns < LATEST_NS else "",
            "reason": one.reason,
            "by": one.by,
            "placed": rfc3339(one.placed_ns),
        }
        for one in read_holds(open_store(evidence))
    ]
    _print_rows(rows, as_json, ("name", "covers", "from", "to", "reason", "by", "placed"))


@app.command()
@friendly
def prune(
    evidence: Evidence,
    keep_days: KeepDays = 30.0,
    max_gb: MaxGb = 0.0,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Delete the evidence that is too old or too large for the store, once. Held evidence stays.

    Exits with 1 if the store could not delete a file.
    """
    store, policy = open_store(evidence), retention_policy(keep_days, max_gb)

    async def work(log: Log) -> DeletionReport:
        return await prune_store(log, store, policy, SystemClock(), user())

    _print_deletion(on_log("sightline-evidence", kafka, prefix, work), as_json)


@app.command()
@friendly
def erase(
    evidence: Evidence,
    reason: Annotated[str, typer.Option(help="Why the data is erased. The tombstones have this reason.")],
    camera: Annotated[str, typer.Option(help="Camera whose data is erased.")] = "",
    event: Annotated[str, typer.Option(help="Id of an event: erase all events of its track instead.")] = "",
    since: Since = "",
    until: Until = "",
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking.")] = False,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Erase the evidence and dead letters of a camera in a period, or of one track, and report which data is left and
    until when.

    Exits with 1 if evidence was not erased, because of a legal hold or an error of the store.
    """
    from stream.evidence.erase import Erasure, ErasureReport, erasure_of_track
    from stream.evidence.erase import erase as erase_data

    if bool(camera) == bool(event) or (event and (since or until)):
        raise ConfigError("evidence", "--event", event, "--event alone, or --camera with --from and --to")
    store = open_store(evidence)
    if event:
        wanted = on_log("sightline-evidence", kafka, prefix, lambda log: erasure_of_track(log, event, reason))
    else:
        wanted = Erasure(camera, *_period(since, until), reason)
    covered = [group for group in grouped(store.list(f"{wanted.camera}/")) if wanted.covers(group)]
    if not yes:
        names = "".join(f"\n{rfc3339(group.name.first_ns)} {group.name.event}" for group in covered) if event else ""
        typer.confirm(
            f"Erase the evidence of {len(covered)} events of {wanted.camera}?{names}\n", abort=True, err=True
        )

    async def work(log: Log) -> ErasureReport:
        return await erase_data(log, store, wanted, SystemClock(), user())

    report = on_log("sightline-evidence", kafka, prefix, work)
    left = [
        {"place": one.place, "contents": one.contents, "until": rfc3339(one.until_ns) if one.until_ns else "unknown"}
        for one in report.left
    ]
    if as_json:
        _say(json.dumps({"evidence": vars(report.evidence), "dead_letters": report.dead_letters, "left": left}))
    else:
        _say(f"erased: {report.evidence.events} events, {report.dead_letters} dead letters. Data that is left:")
        _print_rows(left, False, ("place", "contents", "until"))
        _print_kept(report.evidence)
    if report.evidence.held or report.evidence.failed:
        raise typer.Exit(1)


@app.command()
@friendly
def keygen(
    file: Annotated[Path, typer.Argument(help="The key file.")],
    key_id: Annotated[
        str, typer.Option("--id", help="Id of the new key. Default: the time.", show_default=False)
    ] = "",
) -> None:
    """Add a new key at the top of a key file. New evidence is encrypted with the new key. The older keys stay in the
    file, because older evidence is encrypted with them.

    Name the file in SIGHTLINE_EVIDENCE_KEYS for every service that uses the evidence, and restart the service.
    """
    from stream.evidence.encrypted import add_key

    name = key_id or datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    add_key(file, name)
    _say(f"key {name} added to {file}")


def retention_policy(keep_days: float, max_gb: float) -> RetentionPolicy:
    """Return the policy for an age in days and a size in GB."""
    return RetentionPolicy(round(keep_days * DAY_NS), round(max_gb * 1e9))


def user() -> str:
    """Return the user and the host that run this process, as ``user@host``."""
    return f"{user_name()}@{socket.gethostname()}"[:100]


def _print_rows(rows: list[dict[str, Any]], as_json: bool, columns: Iterable[str]) -> None:
    from deploy.cli.output import print_rows  # rich takes memory, which the worker would never free

    print_rows(rows, as_json, {name: name for name in columns})


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_deletion(report: DeletionReport, as_json: bool) -> None:
    if as_json:
        _say(json.dumps(vars(report)))
    else:
        _say(f"deleted: {report.events} events, {report.files} files, {report.bytes} bytes")
        _print_kept(report)
    if report.failed:
        raise typer.Exit(1)


def _print_kept(report: DeletionReport) -> None:
    for event, name in report.held.items():
        _say(f"{event}: not deleted, held by {name}")
    for event, error in report.failed.items():
        _say(f"{event}: not deleted, {error}")


def _row(group: EvidenceGroup) -> dict[str, Any]:
    name = group.name
    exact = name.last_ns - name.first_ns < 10**9
    return {
        "time": rfc3339(name.first_ns) if exact else rfc3339(name.first_ns)[:10],
        "camera": name.subject,
        "event": name.event,
        "kinds": ", ".join(group.kinds),
        "bytes": group.size,
        "files": [file.name for file in group.files],
    }


def _period(since: str, until: str) -> tuple[int, int]:
    first_ns = unix_ns_of("evidence", since, "UTC", "--from") if since else 0
    last_ns = unix_ns_of("evidence", until, "UTC", "--to") if until else LATEST_NS
    if last_ns < first_ns:
        raise ConfigError("evidence", "--to", until, f"a time after {since}")
    return first_ns, last_ns
