"""Run all checks of a site's agent, one after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.source import SensorSource
from edge_agent.tools.doctor.cameras import check_camera
from edge_agent.tools.doctor.finding import Finding, bad
from edge_agent.tools.doctor.host import check_clock, check_disk, check_secret
from edge_agent.tools.doctor.link import check_link
from edge_agent.tools.doctor.sensors import check_sensors
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import SystemClock
from ingest.site import SensorConfig, Site


async def examine(site: Site, settings: KafkaSettings, folder: Path, seconds: float) -> AsyncIterator[Finding]:
    """Yield the findings of the disk, the clock, the secret files, the link, and each camera and sensor.

    Each camera and each sensor connection is checked for ``seconds``.
    """
    yield await asyncio.to_thread(check_disk, folder, (*site.cameras, *site.sensors), site.spool)
    yield check_clock()
    for path, owner in secret_files(site, settings):
        yield check_secret(path, owner)
    sources, problem = list[tuple[SensorSource, list[SensorConfig]]](), ""
    try:
        sources = make_sources(site.sensors, SystemClock())
    except SourceUnusable as error:
        problem = str(error)
    for subject, check in _checks(site, settings, sources, seconds):
        try:
            found = await check
        except Exception as error:  # an unexpected error must not stop the other checks
            found = bad(subject, f"the check failed: {error!r}", "see the other findings, and report this one")
        for finding in found if isinstance(found, list) else [found]:
            yield finding
    if problem:
        yield bad("sensors", problem, "see docs/how-to.md, connecting sensors")


def _checks(
    site: Site, settings: KafkaSettings, sources: list[tuple[SensorSource, list[SensorConfig]]], seconds: float
) -> Iterator[tuple[str, Awaitable[Finding | list[Finding]]]]:
    """Yield pairs of a subject, such as ``camera gate``, and the awaitable check of this subject."""
    yield "link", check_link(site.link, settings)
    for camera in site.cameras:
        yield f"camera {camera.name}", check_camera(camera, seconds)
    for source, sensors in sources:
        names = ", ".join(sensor.name for sensor in sensors)
        yield f"sensors {names}", check_sensors(source, sensors, seconds)


def secret_files(site: Site, settings: KafkaSettings) -> Iterator[tuple[Path, str]]:
    """Yield pairs of a secret file's path and the name of the secret's user, such as ``camera gate``."""
    for path, owner in (
        (settings.key_file, "Kafka's TLS key"),
        (settings.password_file, "Kafka's password"),
        (site.link.token_file, "the gateway's token"),
        (site.link.key_file, "the gateway's TLS key"),
        (site.spool.key_file, "the spool"),
    ):
        if path:
            yield path, owner
    for path in site.spool.previous_key_files:
        yield path, "the spool, previous key"
    for camera in site.cameras:
        if camera.stream.password_file:
            yield camera.stream.password_file, f"camera {camera.name}"
    for sensor in site.sensors:
        for name in ("password_file", "key_file"):
            if secret := getattr(sensor.parsed, name, None):
                yield secret, f"sensor {sensor.name}"
