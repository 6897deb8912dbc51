"""Tests of `sightline alerts list|show|ack|replay|test|keygen` on an in-memory log."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.tools import alerts
from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Delivery, IncidentAction
from ingest.contract.topics import ALERTS, DELIVERIES, INCIDENT_ACTIONS
from ingest.kafka.log import Log, LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.site import ReceiverConfig
from ingest.site.topic.store import publish
from stream.alerts.alert import alert_id, make_alert
from stream.alerts.stage import ID
from stream.delivery.clients.guard import DeliveryPolicy
from stream.delivery.clients.signature import WebhookVerifier, sign
from stream.delivery.replay import replay_of
from stream.delivery.schedule import AttemptResult
from tests.peers.receiver import Reaction, answer, receiving
from tests.stream.alerts.test_alerts import event

T = TypeVar("T")


class AlertsRig:
    """A log with three alerts: one delivered to ``ops``, one dead, and one without a receipt."""

    def __init__(self, tmp_path: Path) -> None:
        self.log = MemoryLog(partitions=2)
        self.secret = tmp_path / "secret"
        self.secret.write_text("whsec_" + "a" * 32)
        asyncio.run(self.fill())

    def receiver(self, url: str, **fields: Any) -> ReceiverConfig:
        return ReceiverConfig(name="ops", url=url, secret_file=self.secret, allow_private=True, **fields)

    async def fill(self) -> None:
        await publish(self.log, [self.receiver("http://127.0.0.1:9/")])
        for number in range(3):
            made = make_alert(event(number), ())
            headers = {ID: made.id.encode()}
            for _ in range(2):  # an alert may be on the topic twice
                record = Outgoing(ALERTS, number % 2, encode_json(made), key=made.id.encode(), headers=headers)
                await self.log.produce(record)
        for number, state, attempt in ((0, "retrying", 1), (0, "delivered", 2), (1, "retrying", 1), (1, "dead", 2)):
            receipt = Delivery(
                alert=alert_id(event(number)),
                incident=f"incident-{number}",
                receiver="ops",
                state=state,  # type: ignore[arg-type]
                attempt=attempt,
                status=500 if state != "delivered" else 204,
                reason="status 500" if state != "delivered" else "",
                attempted_ns=1_800_000_000_000_000_000 + attempt,
            )
            key = receipt.alert.encode()
            await self.log.produce(Outgoing(DELIVERIES, number % 2, encode_json(receipt), key=key))

    def on_log(self, client_id: str, kafka: str, prefix: str, work: Callable[[Log], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work(self.log)

        return asyncio.run(run())

    def records(self, topic: str) -> list[LogRecord]:
        async def read() -> list[LogRecord]:
            ends = await self.log.ends(topic)
            return [one for p, end in ends.items() async for one in self.log.read(topic, p, 0, end)]

        return asyncio.run(read())

    def run(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["alerts", *arguments])
        return done.exit_code, done.output


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AlertsRig:
    made = AlertsRig(tmp_path)
    monkeypatch.setattr("deploy.cli.tools.alerts.on_log", made.on_log)
    return made


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ((), [0, 1, 2]),
        (("--state", "delivered"), [0]),
        (("--state", "dead", "--receiver", "ops"), [1]),
        (("--state", "waiting"), [2]),
        (("--receiver", "nobody"), []),
    ],
)
def test_the_list_of_alerts_can_be_filtered_by_state(
    rig: AlertsRig, options: tuple[str, ...], numbers: list[int]
) -> None:
    status, output = rig.run("list", "--json", *options)
    assert status == 0
    assert {row["id"] for row in json.loads(output)} == {alert_id(event(number)) for number in numbers}


def test_the_list_of_alerts_has_at_most_limit_rows(rig: AlertsRig) -> None:
    assert len(json.loads(rig.run("list", "--json", "--limit", "2")[1])) == 2
    assert rig.run("list")[1].count("msg_") >= 1


def test_an_alert_is_shown_with_all_receipts(rig: AlertsRig) -> None:
    found = json.loads(rig.run("show", alert_id(event(1)), "--json")[1])
    assert (found["receivers"], found["alert"]["id"]) == ({"ops": "dead"}, alert_id(event(1)))
    assert [(one["attempt"], one["state"], one["status"]) for one in found["receipts"]] == [
        (1, "retrying", 500),
        (2, "dead", 500),
    ]
    assert "status 500" in rig.run("show", alert_id(event(1)))[1]


def test_an_unknown_or_ambiguous_alert_id_is_refused(rig: AlertsRig) -> None:
    assert "3 alerts have ids that begin with 'msg_'" in rig.run("show", "msg_")[1]
    assert "no alert has the id 'nothing'" in rig.run("ack", "nothing", "--by", "alice")[1]


def test_an_acknowledgement_is_written_to_the_incident_of_the_alert(rig: AlertsRig) -> None:
    assert rig.run("ack", alert_id(event(1)), "--by", "alice", "--comment", "on my way")[0] == 0
    (action,) = [decode_json(IncidentAction, record.value) for record in rig.records(INCIDENT_ACTIONS)]
    assert (action.incident, action.action, action.by) == ("incident-1", "acknowledge", "alice")
    assert action.comment == "on my way"


def test_the_error_for_an_acknowledgement_with_a_too_long_comment_names_the_comment_field(rig: AlertsRig) -> None:
    status, output = rig.run("ack", alert_id(event(1)), "--by", "alice", "--comment", "x" * 5000)[:2]
    assert (status, "incident acknowledge: comment = 'xxx" in output) == (2, True), output


def test_an_acknowledgement_by_an_operating_system_user_without_a_name_has_the_user_id(
    rig: AlertsRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    status, output = rig.run("ack", alert_id(event(1)))[:2]
    assert (status, output.strip()) == (0, f"incident incident-1 acknowledged by user {os.getuid()}")


def test_the_alerts_replay_command_writes_a_copy_for_one_receiver_to_the_partition_of_the_alert(
    rig: AlertsRig,
) -> None:
    assert "1 alerts sent to ops again" in rig.run("replay", alert_id(event(1)), "--receiver", "ops")[1]
    assert "1 alerts sent to ops again" in rig.run("replay", "--receiver", "ops", "--state", "dead")[1]
    replays = [record for record in rig.records(ALERTS) if replay_of(record.headers)[0]]
    assert {record.partition for record in replays} == {1}
    assert {replay_of(record.headers)[1] for record in replays} == {"ops"}
    assert {record.headers[ID] for record in replays} == {alert_id(event(1)).encode()}
    assert len(json.loads(rig.run("list", "--json")[1])) == 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("replay", "msg_x"), "--receiver"),
        (("replay", "msg_x", "--receiver", "ops", "--state", "dead"), "either the id of an alert or --state"),
        (("replay", "msg_x", "--receiver", "nobody"), "expected one of ops"),
        (("test", "nobody"), "expected one of ops"),
        (("list", "--last", "1w"), "such as 24h"),
        ((), "expected a folder for the evidence pictures"),
    ],
)
def test_wrong_arguments_of_the_alerts_commands_are_refused(
    rig: AlertsRig, arguments: tuple[str, ...], expected: str
) -> None:
    status, output = rig.run(*arguments)
    assert status == 2
    assert expected in output


@pytest.mark.parametrize(
    ("react", "status", "expected"),
    [
        (answer(b"HTTP/1.1 204 \r\n\r\n"), 0, (True, 204, "status 204")),
        (answer(b"HTTP/1.1 401 \r\n\r\n"), 1, (False, 401, "status 401")),
        (answer(b""), 1, (False, None, "the connection was closed before the status line")),
    ],
)
def test_a_receiver_is_tested_with_an_alert_that_is_written_to_no_topic(
    rig: AlertsRig, monkeypatch: pytest.MonkeyPatch, react: Reaction, status: int, expected: tuple[bool, int, str]
) -> None:
    before = len(rig.records(ALERTS))

    real = alerts._attempt

    async def attempt(_: ReceiverConfig, policy: DeliveryPolicy) -> AttemptResult:
        async with receiving(react) as peer:
            return await real(rig.receiver(peer.url), policy)

    monkeypatch.setattr(alerts, "_attempt", attempt)
    found, output = rig.run("test", "ops", "--json")
    answered = json.loads(output)
    assert (found, answered["accepted"], answered["status"], answered["reason"]) == (status, *expected)
    assert len(rig.records(ALERTS)) == before


@pytest.mark.parametrize("options", [(), ("--ed25519",)])
def test_the_alerts_keygen_command_prints_the_key_that_verifies_signatures_of_the_new_secret(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = tmp_path / "new.secret"
    printed = CliRunner().invoke(app, ["alerts", "keygen", str(file), *options]).output.strip()
    assert file.stat().st_mode & 0o777 == 0o600
    now_s = int(time.time())
    signature = sign(file.read_text().strip(), "m", now_s, b"x")
    headers = {"webhook-id": "m", "webhook-timestamp": str(now_s), "webhook-signature": signature}
    WebhookVerifier(printed).require(headers, b"x")
    assert CliRunner().invoke(app, ["alerts", "keygen", str(file), *options]).exit_code == 2
    refused = CliRunner().invoke(app, ["alerts", "keygen", str(file), *options]).stderr
    assert refused == f"error: alerts keygen: FILE = {str(file)!r}: expected a new file\n"
