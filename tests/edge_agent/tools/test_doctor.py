"""Tests of the doctor: good, poor and bad findings, each with an observation and an advice."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest
import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import TopicAuthorizationFailedError

from edge_agent.camera.messages import CaptureProgress, KeptFrame, Message, Notice
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.source import Reading, Sink
from edge_agent.tools.doctor import cameras
from edge_agent.tools.doctor.cameras import check_camera
from edge_agent.tools.doctor.finding import Finding, bad
from edge_agent.tools.doctor.host import check_clock, check_disk, check_secret, judged_clock
from edge_agent.tools.doctor.link import check_clock_offset, check_link, check_privacy, refused_topics
from edge_agent.tools.doctor.run import examine, secret_files
from edge_agent.tools.doctor.sensors import check_sensors
from ingest.contract.codec import encode
from ingest.contract.records import STALE, Frame
from ingest.kafka import topicadmin
from ingest.kafka.settings import PLAINTEXT_ADVICE, KafkaSettings
from ingest.runtime import logs
from ingest.runtime.clock import SystemClock
from ingest.site import LEGACY_TLS, CameraConfig, DiskConfig, GateConfig, LinkConfig, SensorConfig, Site
from tests.edge_agent.smalldisk import SmallDisk

ROAD = CameraConfig(name="road", source="simulated:road", fps=2.0)
"""Camera with a frame rate so low that even a busy machine reaches it."""


async def sensor(source: str, *, seconds: float = 0.3, **settings: object) -> Finding:
    """Check a sensor. If ``seconds`` is large, the check waits until the sensor's command ends."""
    config = SensorConfig.model_validate(
        {"name": "s", "source": source, "quantity": "q", "unit": "u", "rate_hz": 20, **settings}
    )
    ((made, sensors),) = make_sources([config], SystemClock())
    (finding,) = await check_sensors(made, sensors, seconds)
    return finding


class TestDisk:
    def test_the_agent_doctor_s_check_of_a_good_disk_leaves_no_files_behind(self, tmp_path: Path) -> None:
        finding = check_disk(tmp_path / "new", [ROAD])
        assert finding.state in ("good", "poor")  # the disk of the test machine may be slow
        assert "GB free" in finding.seen
        assert list((tmp_path / "new").iterdir()) == []

    def test_the_finding_of_a_disk_smaller_than_the_spool_limits_is_poor(self, tmp_path: Path) -> None:
        huge = ROAD.model_copy(update={"spool": ROAD.spool.model_copy(update={"max_bytes": 10**18})})
        finding = check_disk(tmp_path, [huge], DiskConfig(max_bytes=10**18))
        assert (finding.state, "lower spool.max_bytes" in finding.advice) == ("poor", True)

    def test_the_disk_check_includes_sensor_spools_and_counts_existing_spool_files_as_free_space(
        self, tmp_path: Path
    ) -> None:
        free = psutil.disk_usage(str(tmp_path)).free
        huge = SensorConfig.model_validate(
            {"name": "s", "source": "host:cpu", "quantity": "q", "unit": "u", "spool": {"max_bytes": 2 * free}}
        )
        assert "the spools may take" in check_disk(tmp_path, [huge], DiskConfig(max_bytes=10**18)).seen
        with (tmp_path / "spool.db").open("wb") as file:
            file.truncate(2 * free)
        assert "the spools may take" not in check_disk(tmp_path, [huge], DiskConfig(max_bytes=10**18)).seen

    def test_the_finding_of_a_full_or_read_only_disk_is_bad(self, tmp_path: Path) -> None:
        with SmallDisk(tmp_path / "disk") as disk:
            little = check_disk(disk.folder, [ROAD])
            assert (little.state, "below 0.3 GB no frame is kept" in little.seen) == ("bad", True)
            config = DiskConfig(min_free_bytes=0, reserve_bytes=8 * 2**20, max_bytes=2**20)
            assert check_disk(disk.folder, [ROAD], config).state == "bad"
            disk.fill()
            assert (full := check_disk(disk.folder, [ROAD])).state == "bad"
            assert full.seen == "No space left on device"
            subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
            assert check_disk(disk.folder, [ROAD]).seen == "Read-only file system"

    def test_the_disk_check_assumes_that_all_spools_together_take_at_most_their_total_size_limit(
        self, tmp_path: Path
    ) -> None:
        huge = ROAD.model_copy(update={"spool": ROAD.spool.model_copy(update={"max_bytes": 10**18})})
        assert "the spools may take" not in check_disk(tmp_path, [huge], DiskConfig(max_bytes=2**20)).seen

    def test_the_finding_of_a_disk_with_slow_syncs_is_poor(self, tmp_path: Path) -> None:
        assert check_disk(tmp_path, [], sync_ms=lambda _: 80.0).state == "poor"

    def test_the_finding_of_a_spool_folder_that_is_a_file_is_bad(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert check_disk(tmp_path / "file", []).state == "bad"


def test_the_agent_doctor_s_clock_finding_follows_the_synchronisation_status_of_the_kernel() -> None:
    assert check_clock().what == "clock"
    assert judged_clock(0x2001, 1.5) == Finding("clock", "good", "synchronised within 1.5 ms")
    assert judged_clock(0x40, 16e6).state == "poor"
    assert judged_clock(0x2001, 900.0).advice == "use a nearer time server"


@pytest.mark.parametrize(
    ("text", "mode", "state"),
    [
        ("x", 0o600, "good"),
        ("x", 0o640, "good"),  # as in the installation guide
        ("x", 0o644, "poor"),
        ("x", 0o660, "poor"),
        ("", 0o600, "bad"),
    ],
)
def test_the_agent_doctor_s_finding_of_a_secret_file_follows_its_permissions_and_content(
    tmp_path: Path, text: str, mode: int, state: str
) -> None:
    path = tmp_path / "secret"
    path.write_text(text)
    path.chmod(mode)
    assert check_secret(path, "the gateway").state == state


def test_the_agent_doctor_s_finding_of_a_missing_secret_file_is_bad(tmp_path: Path) -> None:
    assert check_secret(tmp_path / "none", "Kafka's password").state == "bad"


async def test_the_good_finding_of_a_camera_shows_its_picture_size_and_time_source() -> None:
    finding = await check_camera(ROAD, 2.0)
    assert finding.state == "good", finding
    assert finding.seen.startswith("640×360, ")
    assert finding.seen.endswith("time by host")


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"source": "/no/such/file.mp4"}, "/no/such/file.mp4"),
        ({"source": "rtsp://127.0.0.1:9/x"}, "Connection refused"),
        ({"redact": {"faces": {"model": "/no/such.onnx"}}}, "/no/such.onnx"),
    ],
)
async def test_the_bad_finding_of_a_camera_shows_the_reason(settings: dict[str, object], seen: str) -> None:
    finding = await check_camera(CameraConfig.model_validate({**ROAD.model_dump(), **settings}), 1.0)
    assert finding.state == "bad"
    assert seen in finding.seen
    assert "check source" in finding.advice


async def test_the_finding_of_a_camera_below_its_configured_frame_rate_is_poor() -> None:
    finding = await check_camera(ROAD.model_copy(update={"fps": 2000.0, "gate": GateConfig(max_fps=0.0)}), 1.0)
    assert (finding.state, "configured: 2000" in finding.seen) == ("poor", True)


def observed(*messages: Message) -> Finding:
    """Return the finding of a camera whose capture process sends two frames and the given messages."""
    seen = cameras._Observed()
    for seq in (0, 1):
        frame = Frame(
            camera="road",
            epoch=1,
            seq=seq,
            captured_ns=1 + seq * 500_000_000,
            captured_by="host",
            width=64,
            height=48,
            encoding="jpeg",
            image=b"x",
        )
        seen.take(KeptFrame(seq, frame.captured_ns, encode(frame), None))
    for message in messages:
        seen.take(message)
    return cameras._judged("camera road", ROAD, seen)


def test_the_finding_of_a_camera_with_repeated_unusable_frames_is_poor_and_shows_the_reason() -> None:
    damaged = CaptureProgress(2, "a frame cannot be examined: the JPEG picture of 9000 bytes is damaged")
    assert observed().state == observed(CaptureProgress(2)).state == observed(damaged).state == "good"
    finding = observed(damaged, damaged)
    assert (finding.state, "the JPEG picture of 9000 bytes is damaged" in finding.seen) == ("poor", True)


def test_the_finding_of_a_camera_with_a_warning_from_its_source_is_poor_and_shows_the_warning() -> None:
    finding = observed(Notice(LEGACY_TLS))
    assert (finding.state, LEGACY_TLS in finding.seen) == ("poor", True)


async def test_the_finding_of_a_sensor_is_poor_with_readings_out_of_range_and_bad_without_readings() -> None:
    assert (await sensor("host:memory")).state == "good"
    assert (await sensor("host:memory", low=-2.0, high=-1.0)).state == "poor"
    silent = await sensor("command:none", options={"argv": ["/bin/sh", "-c", "exit 3"]}, seconds=20.0)
    assert silent.state == "bad"
    other = await sensor("command:some", options={"argv": ["/bin/sh", "-c", "echo t 5; sleep 1"]}, seconds=20.0)
    assert (other.state, "unclaimed readings: t" in other.seen) == ("bad", True)


async def test_the_agent_doctor_rates_a_sensor_as_poor_that_stops_or_gives_unreadable_data() -> None:
    options = {"argv": ["/bin/sh", "-c", "echo 5; echo the bus is off >&2"]}
    once = await sensor("command:once", options=options, seconds=20.0)
    assert (once.state, once.seen) == (
        "poor",
        "1 readings, the last 5 u; then the connection was lost: command /bin/sh ended: the bus is off",
    )
    half = await sensor("command:half", options={"argv": ["/bin/sh", "-c", "printf 'x\\n5\\n'; sleep 20"]})
    assert (half.state, "1 unreadable" in half.seen) == ("poor", True)


class OneReading:
    """Source that gives one reading and then fails or stays silent."""

    def __init__(self, reading: Reading, failure: Exception | None = None) -> None:
        self._reading, self._failure = reading, failure

    async def run(self, sink: Sink) -> None:
        sink.take("s", self._reading)
        if self._failure:
            raise self._failure
        await asyncio.Event().wait()


async def test_the_finding_of_a_sensor_names_a_limitation_of_its_connection_such_as_an_old_protocol() -> None:
    class OldProtocol(OneReading):
        async def run(self, sink: Sink) -> None:
            sink.limited("h speaks MQTT 3.1.1")
            await super().run(sink)

    config = SensorConfig(name="s", source="mqtt:a", quantity="q", unit="u")
    (finding,) = await check_sensors(OldProtocol(Reading(7.0)), [config], 0.05)
    assert (finding.state, finding.seen) == ("good", "1 readings, the last 7 u; h speaks MQTT 3.1.1")


async def test_the_finding_of_a_sensor_that_got_only_a_retained_mqtt_message_is_poor() -> None:
    config = SensorConfig(name="s", source="mqtt:a", quantity="q", unit="u")
    (finding,) = await check_sensors(OneReading(Reading(7.0, quality=STALE)), [config], 0.05)
    assert (finding.state, "retained" in finding.seen) == ("poor", True)


async def test_a_failing_check_of_the_agent_doctor_does_not_stop_the_other_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    options = {"username": "u", "password_file": str(tmp_path / "secret")}
    first = SensorConfig(name="s", source="mqtt:a", quantity="q", unit="u", options=options)
    last = SensorConfig(name="t", source="host:memory", quantity="q", unit="u")
    bus = OneReading(Reading(1.0), RuntimeError("a library's fault"))

    def sources(*_: object) -> object:
        return [(bus, [first]), *make_sources([last], SystemClock())]

    async def fails(*_: object) -> list[Finding]:
        raise RuntimeError("a library's fault")

    monkeypatch.setattr("edge_agent.tools.doctor.run.make_sources", sources)
    monkeypatch.setattr("edge_agent.tools.doctor.run.check_link", fails)
    found = {f.what: f async for f in examine(Site(sensors=(first, last)), KafkaSettings(), tmp_path, 0.1)}
    assert (found["link"].state, found["sensors s"].state, found["sensor t"].state) == ("bad", "bad", "good")
    assert "a library's fault" in found["sensors s"].seen
    assert found["secret of sensor s"].state == "poor"


async def test_passwords_in_the_finding_of_a_camera_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def error_line(_: object) -> str:
        return "rtsp://admin:hunter2@127.0.0.1/x: no"

    monkeypatch.setattr("edge_agent.tools.doctor.cameras.last_stderr_line", error_line)
    source = "http://127.0.0.1:9/shot?user=u&pwd=hunter2"
    finding = await check_camera(ROAD.model_copy(update={"source": source}), 1.0)
    assert (finding.state, "hunter2" in str(finding), "127.0.0.1:9/shot" in finding.advice) == ("bad", False, True)


def test_the_agent_doctor_also_checks_the_files_of_previous_spool_keys() -> None:
    disk = DiskConfig(key_file=Path("new"), previous_key_files=(Path("old"), Path("older")))
    settings = KafkaSettings(password_file=Path("kafka"))
    assert [str(path) for path, _ in secret_files(Site(spool=disk), settings)] == ["kafka", "new", "old", "older"]


class RefusedProducer:
    """Producer whose every write is refused."""

    async def send_and_wait(self, *_: object, **__: object) -> None:
        raise TopicAuthorizationFailedError("x.status")


async def test_a_refused_heartbeat_is_a_bad_finding_of_the_agent_doctor() -> None:
    finding = await check_clock_offset(cast("AIOKafkaProducer", RefusedProducer()), KafkaSettings())
    assert (finding.state, "TopicAuthorizationFailed" in finding.seen) == ("bad", True)


def test_the_agent_doctor_names_topics_without_write_permission() -> None:
    answers = [("x.frames", [(7, 29, -1)]), ("x.readings", [(7, 3, -1)]), ("x.status", [(7, 29, -1)])]
    assert refused_topics(answers) == ["x.frames", "x.status"]


@pytest.fixture
def quiet() -> Iterator[None]:
    """Configure logging as a command does, and restore the configuration afterwards."""
    clients, before = logging.getLogger("aiokafka"), structlog.get_config()
    logs.quiet_clients()
    yield
    structlog.configure(**before)
    clients.propagate = True


@pytest.mark.parametrize(
    ("bootstrap", "security", "named"),
    [
        ("broker.example:9092", "PLAINTEXT", "link to broker.example:9092"),
        ("127.0.0.1:9092, 10.0.0.5:9092", "SASL_PLAINTEXT", "link to 10.0.0.5:9092"),
        ("127.0.0.1:9092,[::1]:9092,localhost:9092", "PLAINTEXT", ""),
        ("broker.example:9092", "SSL", ""),
        ("broker.example:9092", "SASL_SSL", ""),
    ],
)
def test_a_plaintext_link_beyond_this_machine_is_a_poor_finding_of_the_agent_doctor(
    bootstrap: str, security: str, named: str
) -> None:
    found = check_privacy(KafkaSettings.model_validate({"bootstrap": bootstrap, "security": security}))
    assert [(finding.what, finding.state) for finding in found] == ([(named, "poor")] if named else [])
    assert all("without TLS" in finding.seen and finding.advice == PLAINTEXT_ADVICE for finding in found)


async def test_a_plaintext_link_is_reported_even_if_the_broker_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no_answer(_: KafkaSettings) -> Finding:
        return bad("Kafka", "no answer", "check the address")

    monkeypatch.setattr("edge_agent.tools.doctor.link._check_topics", no_answer)
    found = await check_link(LinkConfig(), KafkaSettings(bootstrap="broker.example:9092"))
    assert [finding.state for finding in found] == ["poor", "bad"]


async def test_the_finding_of_a_link_that_does_not_open_is_bad(quiet: None) -> None:
    (finding,) = await check_link(LinkConfig(), KafkaSettings(bootstrap="127.0.0.1:9"))
    assert (finding.what, finding.state) == ("Kafka 127.0.0.1:9", "bad")
    assert "Connect call failed" in finding.seen
    (finding,) = await check_link(LinkConfig(kind="https", url="https://127.0.0.1:9"), KafkaSettings())
    assert (finding.what, finding.state) == ("link https://127.0.0.1:9", "bad")


@pytest.mark.kafka
async def test_the_agent_doctor_s_kafka_findings_are_good_once_the_topics_exist(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    found = {f.what: f async for f in examine(Site(cameras=(ROAD,)), settings, tmp_path, 2.0)}
    assert (found[f"Kafka {kafka}"].state, found[f"Kafka {kafka}"].advice) == ("bad", "sightline topics create")
    await topicadmin.create(settings, partitions=1)
    try:
        found = {f.what: f async for f in examine(Site(cameras=(ROAD,)), settings, tmp_path, 2.0)}
    finally:
        await topicadmin.remove(settings, prefix)
    for what in (f"Kafka {kafka}", f"link {kafka}", "permission to write", "broker's clock", "camera road"):
        assert found[what].state == "good", found[what]
    offset_ms, _, _, error_ms, *_ = found["broker's clock"].seen.split(" ")
    # broker and agent share the clock of this machine; both figures are rounded, and slow exchanges have large errors
    assert abs(float(offset_ms)) <= float(error_ms) + 1
