"""Tests of the service shell: exit status, stop signals, metrics port, configuration and heartbeats."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import urllib.error
import urllib.request
from typing import Literal

import pytest
from prometheus_client import Counter
from structlog.testing import capture_logs

from ingest.contract.codec import decode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import CONFIG, STATUS
from ingest.exceptions import ConfigError, Fenced, LogUnavailable
from ingest.kafka.log import Log, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import heartbeat, logs
from ingest.runtime import service as service_module
from ingest.runtime.clock import ManualClock
from ingest.runtime.health import Health
from ingest.runtime.heartbeat import HeartbeatWriter, State, instance_name
from ingest.runtime.service import EXIT_AGAIN, Service


@pytest.fixture(autouse=True)
def keep_logging_and_signal_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the logging and signal handlers of the test process, which a service would change."""
    monkeypatch.setattr(logs, "configure", lambda service: None)


@pytest.fixture
def service() -> Service:
    return Service("test", KafkaSettings(bootstrap="127.0.0.1:1"))


async def heartbeats(log: Log) -> list[Heartbeat]:
    end = (await log.ends(STATUS))[0]
    records = [record async for record in log.read(STATUS, 0, 0, end)]
    assert all(record.key == instance_name().encode() for record in records)
    return [decode(Heartbeat, record.value) for record in records]


def test_a_stop_signal_ends_a_service_with_exit_status_0(service: Service) -> None:
    async def work(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 60)

    assert service.run(work) == 0


@pytest.mark.parametrize("error", [LogUnavailable("no broker"), Fenced("a newer owner")])
def test_a_service_without_kafka_or_fenced_by_a_newer_process_exits_with_the_restart_status(
    service: Service, error: Exception
) -> None:
    async def work(stop: asyncio.Event) -> None:
        raise error

    with capture_logs() as lines:
        assert service.run(work) == EXIT_AGAIN == 75
    [line] = lines
    assert (line["event"], line["error"], line["kind"]) == ("service_ended", str(error), type(error).__name__)


def test_a_service_raises_other_errors_unchanged(service: Service) -> None:
    async def work(stop: asyncio.Event) -> None:
        raise ConfigError("engine", "--backend", "x", "one of fake, onnxruntime")

    with pytest.raises(ConfigError, match="one of fake"):
        service.run(work)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_service_waits_for_a_broker_until_its_time_limit_or_a_stop(
    service: Service, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "START_S", 3600.0 if stopped else 0.0)

    async def work(stop: asyncio.Event) -> None:
        if stopped:
            stop.set()
        async with service.open_log(stop):
            pytest.fail("there is no broker")

    with capture_logs() as lines:
        assert service.run(work) == EXIT_AGAIN
    assert "service_ended" in [line["event"] for line in lines]
    assert service.health._broker_unready == service.watch.unready_reason


async def test_a_service_is_not_ready_while_kafka_is_unavailable() -> None:
    health, reasons = Health(), ["Kafka has been unavailable for 5 s", ""]
    health.begin(asyncio.get_running_loop())
    health.ready_when(lambda: "the group has not been joined")
    health.broker_ready_when(lambda: reasons.pop(0))
    assert await asyncio.to_thread(health.unready_reason) == "Kafka has been unavailable for 5 s"
    assert await asyncio.to_thread(health.unready_reason) == "the group has not been joined"


def test_a_service_serves_metrics_on_its_port() -> None:
    with socket.create_server(("", 0)) as probe:
        port = probe.getsockname()[1]
    service = Service("test", KafkaSettings(), metrics_port=port)
    Counter("frames", "Frames", registry=service.registry).inc(3)
    server = service.serve_metrics()
    assert server is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        assert b"frames_total 3.0" in page.read()
    assert server.server_address == ("127.0.0.1", port)  # the metrics port listens on this machine only
    server.shutdown()
    server.server_close()


def status_of(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address) as page:  # noqa: S310  (an address of this test)
            return page.status, page.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_metrics_port_reports_a_service_as_live_and_as_ready_once_its_work_is_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    service, address = Service("test", KafkaSettings(), metrics_port=port), f"http://127.0.0.1:{port}"
    seen: list[tuple[int, str]] = []

    async def work(stop: asyncio.Event) -> None:
        for _ in range(2):
            seen.extend([await asyncio.to_thread(status_of, f"{address}/{path}") for path in ("live", "ready")])
            service.health.ready_when(lambda: "")

    assert service.run(work) == 0
    assert seen == [(200, "ok\n"), (503, "the service is starting\n"), (200, "ok\n"), (200, "ok\n")]
    assert status_of(f"{address}/live") == (503, "the service has ended\n")


async def test_a_service_whose_event_loop_is_blocked_is_not_live() -> None:
    health = Health()
    assert health.dead_reason() == "the service is starting"
    health.begin(asyncio.get_running_loop())
    blocked = health.dead_reason(answer_s=0.01)  # this call blocks the loop
    assert blocked == "the event loop has not responded for 0.01 s"
    assert await asyncio.to_thread(health.dead_reason) == ""


async def test_a_readiness_check_that_fails_makes_a_service_unready_with_the_error() -> None:
    health = Health()
    health.begin(asyncio.get_running_loop())
    health.ready_when(lambda: str(1 / 0))
    reason = await asyncio.to_thread(health.unready_reason)
    assert reason == "the check failed: ZeroDivisionError('division by zero')"


@pytest.mark.parametrize(
    ("bootstrap", "security", "exposed"),
    [
        ("127.0.0.1:9092,localhost,[::1]:9092", "PLAINTEXT", []),
        ("127.0.0.1:9092, kafka.example:9092", "PLAINTEXT", ["kafka.example:9092"]),
        ("10.0.0.7", "SASL_PLAINTEXT", ["10.0.0.7"]),
        ("[fd00::1]:9092", "PLAINTEXT", ["[fd00::1]:9092"]),
        ("kafka.example:9093", "SASL_SSL", []),
        ("kafka.example:9093", "SSL", []),
    ],
)
def test_a_plaintext_link_beyond_this_machine_is_logged_as_a_warning(
    bootstrap: str, security: Literal["PLAINTEXT", "SASL_PLAINTEXT", "SASL_SSL", "SSL"], exposed: list[str]
) -> None:
    async def work(stop: asyncio.Event) -> None:
        pass

    settings = KafkaSettings(bootstrap=bootstrap, security=security)
    with capture_logs() as lines:
        assert Service("test", settings).run(work) == 0
    assert [line["brokers"] for line in lines if line["event"] == "broker_link_is_plaintext"] == (
        [exposed] if exposed else []
    )


def test_a_service_runs_without_metrics_if_the_metrics_port_is_taken() -> None:
    async def work(stop: asyncio.Event) -> None:
        pass

    with socket.create_server(("", 0)) as taken, capture_logs() as lines:
        assert Service("test", KafkaSettings(), metrics_port=taken.getsockname()[1]).run(work) == 0
    assert [line["event"] for line in lines] == ["metrics_not_served"]
    assert "--metrics-port" in lines[0]["advice"]


async def test_refused_entries_of_the_configuration_are_counted(service: Service) -> None:
    log = MemoryLog()
    await log.produce(Outgoing(CONFIG, 0, b"not JSON", key=b"camera/gate"))
    assert (await service.read_config(log)).entries == {}
    assert service.registry.get_sample_value("sightline_config_refused_entries") == 1.0


async def test_heartbeats_have_the_state_and_metrics_of_a_service_and_none_is_written_without_a_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "INTERVAL_S", 0.001)
    log, clock = MemoryLog(), ManualClock()
    writer = HeartbeatWriter("engine", log.produce, lambda: {"waiting": 2.0}, clock)
    states: list[State | None] = ["starting", None, "running"]
    done = asyncio.Event()

    def state() -> State | None:
        if not states:
            done.set()
            return None
        return states.pop(0)

    running = asyncio.create_task(writer.run(state))
    await asyncio.wait_for(done.wait(), 60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await writer.write("stopped")
    written = await heartbeats(log)
    assert [beat.state for beat in written] == ["starting", "running", "stopped"]
    assert all(beat.figures == {"waiting": 2.0} and beat.at_ns == clock.now_ns() for beat in written)


async def test_only_the_first_of_several_failed_heartbeat_writes_is_logged() -> None:
    outcomes = ["fails", "fails", "written", "fails"]

    async def produce(record: Outgoing) -> None:
        if outcomes.pop(0) == "fails":
            raise LogUnavailable("no broker")

    writer = HeartbeatWriter("engine", produce, dict)
    with capture_logs() as lines:
        while outcomes:
            await writer.write("running")
    assert [(line["event"], line["service"]) for line in lines] == [("heartbeat_not_written", "engine")] * 2
