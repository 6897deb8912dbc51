"""States of cameras and services, from the heartbeats on the topic ``status``."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from console.live.view import TopicView
from ingest.contract.codec import decode
from ingest.contract.records import CameraStatus, Heartbeat, SensorStatus
from ingest.contract.topics import STATUS
from ingest.kafka.log import LogRecord
from ingest.runtime.clock import Clock
from ingest.site import CameraConfig
from ingest.site.hours import Schedule

SILENT_S = 10.0
"""Age of an agent's or a service's last heartbeat after which it counts as silent, in seconds: five heartbeats."""
QUIET_S = 4.0
"""Time without a kept frame, while frames are captured, after which the gate counts as closed, in seconds: two
heartbeats."""
LATE_S = 10.0
"""Time for which frames wait in the spool without a pause, after which a camera counts as late, in seconds."""
LATE_FRAMES = 10
"""Minimum number of waiting frames of a late camera. A few frames wait for a moment in every healthy spool."""
GONE_S = 3600.0
"""Age after which a silent service is forgotten, in seconds."""
MAX_INSTANCES, MAX_STREAMS = 2000, 20_000

Look = Literal["good", "warn", "bad", "off"]
"""Colour of a state: good, warn, bad, or off for any other state."""


@dataclass(frozen=True, slots=True)
class ShownState:
    """The state of a camera for a person: a name, its colour, and a reason."""

    name: str
    look: Look
    reason: str = ""


class InstanceReport(NamedTuple):
    """The newest heartbeat of an agent or a service without its lists, which may have megabytes.

    ``at_ns`` is the time of the heartbeat in Unix ns, by the broker's clock.
    """

    service: str
    state: str
    reason: str
    at_ns: int


@dataclass(slots=True)
class CameraReport:
    """The newest status of a camera, with the times of its last changes, in Unix ns by the broker's clock."""

    status: CameraStatus
    instance: str
    at_ns: int
    kept_ns: int
    """Time of the last heartbeat in which the number of kept frames had grown."""
    moved_ns: int
    """Time of the last heartbeat in which the number of captured frames had grown."""
    waiting_since_ns: int
    """Time since which frames wait in the spool, 0 if none wait."""


class StatusView(TopicView):
    """The last heartbeat of each instance with its time, and the newest status of each camera and sensor.

    All times are by the broker's clock, because the clock of an agent may be wrong.
    """

    topic: ClassVar[str] = STATUS
    backlog: ClassVar[int] = 2000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.instances: OrderedDict[str, InstanceReport] = OrderedDict()
        self.cameras: OrderedDict[str, CameraReport] = OrderedDict()
        self.sensors: OrderedDict[str, tuple[int, SensorStatus]] = OrderedDict()

    def apply(self, record: LogRecord) -> None:
        """Add a heartbeat."""
        heartbeat, at_ns = decode(Heartbeat, record.value), record.timestamp_ms * 1_000_000
        report = InstanceReport(heartbeat.service, heartbeat.state, heartbeat.reason, at_ns)
        self.instances[heartbeat.instance] = report
        self.instances.move_to_end(heartbeat.instance)
        for status in heartbeat.cameras:
            known = self.cameras.get(status.camera)
            self.cameras[status.camera] = _report(known, status, heartbeat.instance, at_ns)
            self.cameras.move_to_end(status.camera)
        for sensor in heartbeat.sensors:
            self.sensors[sensor.sensor] = at_ns, sensor
            self.sensors.move_to_end(sensor.sensor)
        self._forget()

    def state_of(self, camera: CameraConfig) -> ShownState:
        """Return the state of a camera now."""
        return camera_state(camera, self.cameras.get(camera.name), self._clock.now_ns())

    def runs(self, service: str) -> bool:
        """Return whether any instance of a service has sent a heartbeat within the last ``SILENT_S``."""
        since_ns = self._clock.now_ns() - round(SILENT_S * 1e9)
        return any(one.service == service and one.at_ns >= since_ns for one in self.instances.values())

    def _forget(self) -> None:
        oldest_ns = self._clock.now_ns() - round(GONE_S * 1e9)
        while self.instances:
            name, report = next(iter(self.instances.items()))
            if report.at_ns >= oldest_ns and len(self.instances) <= MAX_INSTANCES:
                break
            del self.instances[name]
        for table in (self.cameras, self.sensors):
            while len(table) > MAX_STREAMS:
                table.popitem(last=False)


def _report(known: CameraReport | None, status: CameraStatus, instance: str, at_ns: int) -> CameraReport:
    same = known is not None and known.status.epoch == status.epoch
    waits = status.spooled >= LATE_FRAMES
    return CameraReport(
        status,
        instance,
        at_ns,
        kept_ns=known.kept_ns if known and same and status.kept <= known.status.kept else at_ns,
        moved_ns=known.moved_ns if known and same and status.captured <= known.status.captured else at_ns,
        waiting_since_ns=(known.waiting_since_ns if known and known.waiting_since_ns else at_ns) if waits else 0,
    )


def camera_state(camera: CameraConfig, report: CameraReport | None, now_ns: int) -> ShownState:
    """Return the state of a camera at ``now_ns``, in Unix ns. Pure."""
    if report is None:
        return ShownState("unknown", "off", "no agent has reported this camera")
    status, silent_s = report.status, (now_ns - report.at_ns) / 1e9
    if silent_s > SILENT_S:
        return ShownState("silent", "bad", f"its agent has been silent for {silent_s:.0f} s")
    if status.state in ("down", "stalled"):
        return ShownState(status.state, "bad", status.reason)
    if status.state in ("frozen", "black"):
        return ShownState(status.state, "bad", status.reason)
    if status.state == "tampered":
        return ShownState("masked", "bad", status.reason or "the camera is covered, out of focus or turned away")
    if status.state in ("starting", "ended"):
        return ShownState(status.state, "off", status.reason)
    if report.waiting_since_ns and report.at_ns - report.waiting_since_ns >= LATE_S * 1e9:
        return ShownState("late", "warn", f"{status.spooled} frames wait in the agent's spool")
    return _gate_state(camera, report, now_ns)


def _gate_state(camera: CameraConfig, report: CameraReport, now_ns: int) -> ShownState:
    gate = camera.gate
    if gate.armed and not Schedule(gate.armed, gate.time_zone or "UTC").contains(now_ns):
        return ShownState("disarmed", "off", "outside of its armed hours")
    if report.at_ns - report.kept_ns >= QUIET_S * 1e9 and report.moved_ns > report.kept_ns:
        return ShownState("gate closed", "off", "nothing moves")
    return ShownState("live", "good")
