"""Look at everything that a site's agent needs, one thing after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.factory import make_sources
from edge_agent.tools.doctor.cameras import look_at_camera
from edge_agent.tools.doctor.finding import Finding, bad
from edge_agent.tools.doctor.host import look_at_clock, look_at_disk, look_at_secret
from edge_agent.tools.doctor.link import look_at_link
from edge_agent.tools.doctor.sensors import look_at_sensors
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import SystemClock
from ingest.site import Site


async def examine(site: Site, settings: KafkaSettings, folder: Path, seconds: float) -> AsyncIterator[Finding]:
    """Yield what each look has shown: disk, clock, secrets, link, then cameras and sensors for ``seconds`` each."""
    yield await asyncio.to_thread(look_at_disk, folder, (*site.cameras, *site.sensors), site.spool)
    yield look_at_clock()
    for path, of in _secrets(site, settings):
        yield look_at_secret(path, of)
    for look in _looks(site, settings, seconds):
        for finding in await look:
            yield finding


def _looks(site: Site, settings: KafkaSettings, seconds: float) -> Iterator[Coroutine[Any, Any, list[Finding]]]:
    yield _guarded("link", look_at_link(site.link, settings))
    for camera in site.cameras:
        yield _guarded(f"camera {camera.name}", _one(look_at_camera(camera, seconds)))
    try:
        sources = make_sources(site.sensors, SystemClock())
    except SourceUnusable as error:
        yield _one(_found(bad("sensors", str(error), "see docs/how-to.md, connecting sensors")))
        return
    for source, sensors in sources:
        names = ", ".join(sensor.name for sensor in sensors)
        yield _guarded(f"sensors {names}", look_at_sensors(source, sensors, seconds))


async def _guarded(what: str, look: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    """Return what a look has shown. What nobody has foreseen at one thing is told, and the others are looked at."""
    try:
        return await look
    except Exception as error:
        return [bad(what, f"the look failed: {error!r}", "see what the other findings say, and report this one")]


async def _one(look: Coroutine[Any, Any, Finding]) -> list[Finding]:
    return [await look]


async def _found(finding: Finding) -> Finding:
    return finding


def _secrets(site: Site, settings: KafkaSettings) -> Iterator[tuple[Path, str]]:
    """Yield the files in which secrets are, and whose they are."""
    for path, of in (
        (settings.key_file, "Kafka's TLS key"),
        (settings.password_file, "Kafka's password"),
        (site.link.token_file, "the gateway's token"),
        (site.link.key_file, "the gateway's TLS key"),
        (site.spool.key_file, "the spool"),
    ):
        if path:
            yield path, of
    for path in site.spool.previous_key_files:
        yield path, "the spool, from before"
    for camera in site.cameras:
        if camera.stream.password_file:
            yield camera.stream.password_file, f"camera {camera.name}"
    for sensor in site.sensors:
        for name in ("password_file", "key_file"):
            if secret := getattr(sensor.parsed, name, None):
                yield secret, f"sensor {sensor.name}"
