"""Look at everything that a site's agent needs, one thing after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from edge_agent.doctor.cameras import look_at_camera
from edge_agent.doctor.finding import Finding, bad
from edge_agent.doctor.host import look_at_clock, look_at_disk, look_at_secret
from edge_agent.doctor.link import look_at_link
from edge_agent.doctor.sensors import look_at_sensors
from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.factory import make_sources
from ingest.clock import SystemClock
from ingest.kafka import KafkaSettings
from ingest.site import Site

__all__ = ["examine"]


async def examine(site: Site, settings: KafkaSettings, folder: Path, seconds: float) -> AsyncIterator[Finding]:
    """Yield what each look has shown: disk, clock, secrets, link, then cameras and sensors for ``seconds`` each."""
    yield await asyncio.to_thread(look_at_disk, folder, site.cameras)
    yield look_at_clock()
    for path, of in _secrets(site, settings):
        yield look_at_secret(path, of)
    for finding in await look_at_link(site.link, settings):
        yield finding
    for camera in site.cameras:
        yield await look_at_camera(camera, seconds)
    try:
        sources = make_sources(site.sensors, SystemClock())
    except SourceUnusable as error:
        yield bad("sensors", str(error), "see docs/how-to.md, connecting sensors")
        return
    for source, sensors in sources:
        for finding in await look_at_sensors(source, sensors, seconds):
            yield finding


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
    for camera in site.cameras:
        if camera.stream.password_file:
            yield camera.stream.password_file, f"camera {camera.name}"
