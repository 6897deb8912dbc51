"""Run of all checks of a site's agent, one after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.factory import make_sources
from edge_agent.tools.doctor.cameras import check_camera
from edge_agent.tools.doctor.finding import Finding, bad
from edge_agent.tools.doctor.host import check_clock, check_disk, check_secret
from edge_agent.tools.doctor.link import check_link
from edge_agent.tools.doctor.sensors import check_sensors
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import SystemClock
from ingest.site import Site


async def examine(site: Site, settings: KafkaSettings, folder: Path, seconds: float) -> AsyncIterator[Finding]:
    """Yield the finding of each check: disk, clock, secrets, link, then cameras and sensors for ``seconds`` each."""
    yield await asyncio.to_thread(check_disk, folder, (*site.cameras, *site.sensors), site.spool)
    yield check_clock()
    for path, owner in secret_files(site, settings):
        yield check_secret(path, owner)
    for check in _checks(site, settings, seconds):
        for finding in await check:
            yield finding


def _checks(site: Site, settings: KafkaSettings, seconds: float) -> Iterator[Coroutine[Any, Any, list[Finding]]]:
    yield _guarded("link", check_link(site.link, settings))
    for camera in site.cameras:
        yield _guarded(f"camera {camera.name}", _one(check_camera(camera, seconds)))
    try:
        sources = make_sources(site.sensors, SystemClock())
    except SourceUnusable as error:
        yield _found(bad("sensors", str(error), "see docs/how-to.md, connecting sensors"))
        return
    for source, sensors in sources:
        names = ", ".join(sensor.name for sensor in sensors)
        yield _guarded(f"sensors {names}", check_sensors(source, sensors, seconds))


async def _guarded(subject: str, check: Coroutine[Any, Any, list[Finding]]) -> list[Finding]:
    """Return the findings of a check. An unexpected error becomes a finding, so that the other checks still run."""
    try:
        return await check
    except Exception as error:
        return [bad(subject, f"the check failed: {error!r}", "see the other findings, and report this one")]


async def _one(check: Coroutine[Any, Any, Finding]) -> list[Finding]:
    return [await check]


async def _found(finding: Finding) -> list[Finding]:
    return [finding]


def secret_files(site: Site, settings: KafkaSettings) -> Iterator[tuple[Path, str]]:
    """Yield the files that hold secrets, each with its owner."""
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
