"""Tests of a real local broker: start, stop, kill, attach and its command line."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from aiokafka.admin import NewTopic
from typer.testing import CliRunner

from deploy.cli.tools.kafka import app
from deploy.local.exceptions import BrokerFailed
from deploy.local.kafka.broker import Broker
from deploy.local.kafka.fetch import class_archive, libs_folder
from ingest.contract.topics import EVENTS
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings, admin

pytestmark = pytest.mark.kafka


async def _create(settings: KafkaSettings) -> None:
    client = admin(settings)
    await client.start()
    try:
        await client.create_topics([NewTopic(settings.topic(EVENTS), 1, 1)])
    finally:
        await client.close()


async def _written(log: KafkaLog, values: list[bytes]) -> list[int]:
    return [(await log.produce(Outgoing(EVENTS, 0, value))).offset for value in values]


async def _read(log: KafkaLog) -> list[bytes]:
    stop = (await log.ends(EVENTS))[0]
    return [record.value async for record in log.read(EVENTS, 0, 0, stop)]


async def test_the_shared_broker_of_the_test_session_answers(kafka: str, prefix: str) -> None:
    async with KafkaLog(KafkaSettings(bootstrap=kafka, prefix=prefix), "test") as log:
        assert await log.partitions() == {}


async def test_acknowledged_records_survive_a_kill_of_the_broker(own_broker: Broker, prefix: str) -> None:
    settings = KafkaSettings(bootstrap=own_broker.bootstrap, prefix=prefix)
    await _create(settings)
    async with KafkaLog(settings, "test") as log:
        assert await _written(log, [b"a", b"b"]) == [0, 1]
        first = own_broker.pid
        await asyncio.to_thread(own_broker.kill)
        assert own_broker.pid is None
        assert await asyncio.to_thread(own_broker.start) == settings.bootstrap
        assert own_broker.pid != first
        assert await _written(log, [b"c"]) == [2]
        assert await _read(log) == [b"a", b"b", b"c"]


def test_a_broker_that_already_ran_keeps_running_when_an_attached_caller_leaves(own_broker: Broker) -> None:
    with Broker(own_broker.home, own_broker.folder) as other:
        assert other.attached
        assert (other.pid, other.bootstrap) == (own_broker.pid, own_broker.bootstrap)
    assert own_broker.answers
    assert own_broker.stop()
    assert not own_broker.answers
    assert own_broker.stop(), "stopping a stopped broker is not an error"


def test_a_broker_dies_with_the_process_that_started_it(broker_factory: Callable[[], Broker]) -> None:
    broker = broker_factory()
    code = f"""
from pathlib import Path
from deploy.local.kafka.broker import Broker
broker = Broker(Path({str(broker.home)!r}), Path({str(broker.folder)!r}))
broker.start()
print(broker.pid, flush=True)
input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as parent:  # type: ignore[call-overload]
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([child], timeout=60)[1] == []
    assert broker.pid is None


def test_a_broker_starts_with_a_damaged_archive_of_java_classes_in_a_home_folder_that_cannot_be_written(
    home: Path, broker_factory: Callable[[], Broker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("deploy.local.kafka.broker.feature_checkpoint", lambda _: tmp_path / "file" / "checkpoint")
    broker = broker_factory()
    broker.home = tmp_path
    (tmp_path / "kafka").mkdir()
    libs_folder(tmp_path).symlink_to(libs_folder(home))
    class_archive(tmp_path).write_bytes(b"no archive" * 1000)
    broker.start()
    assert broker.answers
    assert f"-XX:SharedArchiveFile={class_archive(tmp_path)}" in psutil.Process(broker.pid).cmdline()


def test_the_storage_of_a_second_kafka_node_is_formatted_without_starting_a_jvm(
    own_broker: Broker, broker_factory: Callable[[], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.kafka.broker.format_command", lambda *_: ["false"])
    second = broker_factory()
    second.start()
    assert second.answers
    metas = [(broker.folder / "data" / "meta.properties").read_text() for broker in (own_broker, second)]
    assert len({re.search("cluster.id=(.+)", meta)[1] for meta in metas}) == 2  # type: ignore[index]


def test_an_existing_archive_of_java_classes_is_not_made_again(home: Path) -> None:
    archive = Broker(home).archive_classes()
    made = archive.stat().st_mtime_ns
    assert Broker(home).archive_classes().stat().st_mtime_ns == made


def test_kafka_is_downloaded_even_if_no_archive_of_java_classes_can_be_made(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Broker) -> Path:
        raise BrokerFailed("Kafka stopped", str(self.folder), "")

    monkeypatch.setattr(Broker, "archive_classes", fail)
    monkeypatch.setenv("SIGHTLINE_HOME", str(home))
    monkeypatch.delenv("SIGHTLINE_KAFKA", raising=False)
    result = CliRunner().invoke(app, ["fetch"])
    assert result.exit_code == 0
    assert "a broker starts more slowly" in result.output


def test_the_error_for_a_port_in_use_names_the_port(broker_factory: Callable[[], Broker]) -> None:
    broker = broker_factory()
    port = int(broker.bootstrap.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), pytest.raises(BrokerFailed, match=str(port)):
        broker.start()


def test_the_error_for_a_broker_that_cannot_start_quotes_the_broker_log(broker_factory: Callable[[], Broker]) -> None:
    broker = broker_factory()
    data = broker.folder / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("nonsense=1\n")
    with pytest.raises(BrokerFailed, match="node ID not found"):
        broker.start()


def test_the_kafka_command_starts_attaches_to_stops_and_deletes_a_broker(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_HOME", str(home))
    folder = str(tmp_path / "node")

    def run(*args: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*args, "--folder", folder])
        return result.exit_code, result.output

    try:
        assert run("start")[0] == 0
        assert "already" in run("start")[1]
        code, output = run("status", "--json")
        found = json.loads(output)
        assert (code, found["answers"]) == (0, True)
        assert psutil.pid_exists(found["pid"])
        assert run("stop") == (0, "Kafka has stopped\n")
        assert run("status")[0] == 1
        assert run("stop") == (0, "Kafka was not running\n")
    finally:
        assert run("clean")[0] == 0
    assert not Path(folder).exists()


def test_the_error_for_a_missing_tool_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_HOME", str(tmp_path))
    monkeypatch.delenv("SIGHTLINE_KAFKA", raising=False)
    monkeypatch.setenv("PATH", str(Path(shutil.which("true") or "").parent / "nowhere"))
    result = CliRunner().invoke(app, ["fetch"])
    assert result.exit_code == 2
    assert "mvn is missing" in result.output
    assert "apt-get install maven" in result.output
    assert not list(tmp_path.glob("kafka/libs*"))
