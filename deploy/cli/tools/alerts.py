"""`sightline alerts`: the service that raises alerts, and commands for alerts, their receipts and their receivers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.common import AsJson, Kafka, Last, Prefix, friendly, on_log, since_ms_of, user_name
from deploy.cli.services.stream import Deny, HttpsOnly, alerts
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.site import ReceiverConfig

if TYPE_CHECKING:
    from stream.delivery.clients.guard import DeliveryPolicy
    from stream.delivery.history import PastAlert
    from stream.delivery.schedule import AttemptResult

app = typer.Typer(invoke_without_command=True, callback=alerts)

FAILED_EXIT = 1
"""Exit status of `test` if the receiver has not accepted the alert."""

Id = Annotated[str, typer.Argument(help="Id of an alert, or its beginning, as in `alerts list`.", metavar="ALERT")]
Receiver = Annotated[str, typer.Option("--receiver", help="Name of a receiver.")]


class ListedState(StrEnum):
    """States of an alert at a receiver."""

    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD = "dead"
    SKIPPED = "skipped"
    WAITING = "waiting"


State = Annotated[ListedState | None, typer.Option("--state", help="Only alerts in this state. waiting: no receipt.")]


@app.command("list")
@friendly
def list_alerts(
    last: Last = "24h",
    state: State = None,
    receiver: Receiver = "",
    limit: Annotated[int, typer.Option(min=1, help="Number of the latest alerts to show.")] = 100,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """List alerts with their state at each receiver, the oldest first."""
    from deploy.cli.output import print_rows

    since_ms = since_ms_of("alerts", last)
    found = on_log("sightline-alerts", kafka, prefix, lambda log: _select(log, since_ms, state, receiver))
    rows: list[dict[str, Any]] = [past.summary() for past in found[-limit:]]
    if not as_json:
        for row in rows:
            row["receivers"] = ", ".join(f"{name} {of}" for name, of in row["receivers"].items()) or "waiting"
    shown = ("time", "id", "severity", "rule", "subject", "summary", "receivers")
    print_rows(rows, as_json, dict(zip(shown, shown, strict=True)))


@app.command()
@friendly
def show(alert: Id, as_json: AsJson = False, kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Show one alert with the receipt of each attempt."""
    from deploy.cli.output import print_rows, printable, stdout
    from stream.delivery.history import find_alert

    details = on_log("sightline-alerts", kafka, prefix, lambda log: find_alert(log, alert)).details()
    if as_json:
        stdout.print_json(data=details)
        return
    for key in ("id", "time", "severity", "rule", "subject", "summary", "incident"):
        sys.stdout.write(f"{key}: {printable(str(details[key]))}\n")
    shown = ("at", "receiver", "attempt", "state", "status", "reason", "next_attempt")
    rows = [{key: "" if one[key] is None else one[key] for key in shown} for one in details["receipts"]]
    print_rows(rows, False, dict(zip(shown, shown, strict=True)))


@app.command()
@friendly
def ack(
    alert: Id,
    by: Annotated[str, typer.Option("--by", help="The person who acknowledges. Default: this system's user.")] = "",
    comment: Annotated[str, typer.Option(help="A comment on the incident.")] = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Acknowledge the incident of an alert, so that it is not escalated."""
    person = by or user_name()
    incident = on_log("sightline-alerts", kafka, prefix, lambda log: _acknowledge(log, alert, person, comment))
    sys.stdout.write(f"incident {incident} acknowledged by {person}\n")


@app.command()
@friendly
def replay(
    alert: Annotated[
        str, typer.Argument(help="Id of an alert, or its beginning. Without it: all that --state selects.")
    ] = "",
    receiver: Receiver = "",
    state: Annotated[
        ListedState | None,
        typer.Option("--state", help="Send every alert in this state at --receiver, such as dead."),
    ] = None,
    last: Last = "24h",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Send alerts to a receiver again, with the same ids, whatever its filters are."""
    if not receiver or bool(alert) == bool(state):
        expected = "--receiver, and either the id of an alert or --state"
        raise ConfigError("alerts replay", "ALERT", alert or "", expected)
    since_ms = since_ms_of("alerts", last)
    sent = on_log("sightline-alerts", kafka, prefix, lambda log: _replay(log, alert, receiver, state, since_ms))
    sys.stdout.write(f"{sent} alerts sent to {receiver} again: see `sightline alerts list --receiver {receiver}`\n")


@app.command("test")
@friendly
def send_trial(
    receiver: Annotated[str, typer.Argument(help="Name of a receiver in the config topic.")],
    https_only: HttpsOnly = False,
    deny: Deny = None,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Send a test alert to a receiver now, from this machine, and print its answer.

    The files and environment variables that the receiver needs must exist on this machine, as on the machine of
    `dispatch`. Exits with 1 if the receiver has not accepted the alert.
    """
    from stream.delivery.clients.guard import DeliveryPolicy

    policy = DeliveryPolicy.of(deny or (), https_only=https_only)
    config = on_log("sightline-alerts", kafka, prefix, lambda log: _receiver(log, receiver))
    began_s = time.monotonic()
    result = asyncio.run(_attempt(config, policy))
    took_ms = round((time.monotonic() - began_s) * 1000.0)
    reason = result.reason or (f"status {result.status}" if result.status else "accepted")
    if as_json:
        answer = {"receiver": receiver, "accepted": result.is_success, "status": result.status, "reason": reason}
        sys.stdout.write(json.dumps({**answer, "took_ms": took_ms}) + "\n")
    else:
        sys.stdout.write(f"{receiver} {'accepted' if result.is_success else 'failed'} in {took_ms} ms: {reason}\n")
    if not result.is_success:
        raise typer.Exit(FAILED_EXIT)


@app.command()
@friendly
def keygen(
    file: Annotated[Path, typer.Argument(help="New file for the signing secret.")],
    ed25519: Annotated[bool, typer.Option("--ed25519", help="An Ed25519 key instead of a shared secret.")] = False,
) -> None:
    """Make a signing secret for a receiver's secret_file, and print the key with which the receiver verifies."""
    from ingest.runtime.files import write_new
    from stream.delivery.clients.signature import new_secret

    secret, verifying = new_secret(ed25519=ed25519)
    try:
        write_new(file, f"{secret}\n".encode())
    except FileExistsError:
        raise ConfigError("alerts keygen", "FILE", str(file), "a new file") from None
    sys.stdout.write(f"{verifying}\n")


async def _select(log: Log, since_ms: int, state: str | None, receiver: str) -> Sequence[PastAlert]:
    from stream.delivery.history import alerts_since

    return [past for past in await alerts_since(log, since_ms) if past.is_in(state or "", receiver)]


async def _acknowledge(log: Log, wanted: str, by: str, comment: str) -> str:
    from deploy.cli.review.incidents import action_of
    from stream.delivery.history import find_alert
    from stream.incidents.reader import write_action

    incident = (await find_alert(log, wanted)).alert.data.incident
    await write_action(log, action_of(incident, "acknowledge", by, comment=comment))
    return incident


async def _replay(log: Log, wanted: str, receiver: str, state: str | None, since_ms: int) -> int:
    from stream.delivery.history import find_alert
    from stream.delivery.replay import make_replay

    await _receiver(log, receiver)
    found = [await find_alert(log, wanted)] if wanted else await _select(log, since_ms, state, receiver)
    for past in found:
        await log.produce(make_replay(past.record, receiver))
    return len(found)


async def _receiver(log: Log, name: str) -> ReceiverConfig:
    """Return the receiver of this name on the config topic. Raise ConfigError."""
    from ingest.site.topic.store import read

    receivers = {one.name: one for one in (await read(log)).of(ReceiverConfig)}
    if name not in receivers:
        known = ", ".join(sorted(receivers)) or "none, as the config topic has no receiver"
        raise ConfigError("alerts", "receiver", name, f"one of {known}")
    return receivers[name]


async def _attempt(config: ReceiverConfig, policy: DeliveryPolicy) -> AttemptResult:
    from stream.delivery.clients.service import make_deliverer
    from stream.delivery.replay import trial_alert

    deliverer = make_deliverer(config, policy)
    try:
        return await deliverer.deliver(trial_alert(time.time_ns()), time.time())
    finally:
        await deliverer.close()
