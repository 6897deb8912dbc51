"""The compacted ``config`` topic: what a site is made of, as all services see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from ingest.log import Log, Outgoing
from ingest.site import (
    CameraConfig,
    Entry,
    LineRule,
    PinConfig,
    PipelineConfig,
    ReceiverConfig,
    SensorConfig,
    ThresholdRule,
    ZoneRule,
    parse_entry,
)
from ingest.topics import CONFIG

__all__ = ["Config", "publish", "read"]

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Config:
    """All entries by key, as they stood when the topic was read."""

    entries: dict[str, Entry]

    def of(self, cls: type[E]) -> tuple[E, ...]:
        """Return the entries of one class, by name."""
        return tuple(e for _, e in sorted(self.entries.items()) if isinstance(e, cls))

    @property
    def cameras(self) -> tuple[CameraConfig, ...]:
        """The cameras, by name."""
        return self.of(CameraConfig)

    @property
    def sensors(self) -> tuple[SensorConfig, ...]:
        """The sensors, by name."""
        return self.of(SensorConfig)

    @property
    def pipelines(self) -> tuple[PipelineConfig, ...]:
        """The pipelines, by name."""
        return self.of(PipelineConfig)

    @property
    def receivers(self) -> tuple[ReceiverConfig, ...]:
        """The webhook receivers, by name."""
        return self.of(ReceiverConfig)

    @property
    def camera_rules(self) -> tuple[ZoneRule | LineRule, ...]:
        """The rules that look at cameras, by name."""
        return (*self.of(LineRule), *self.of(ZoneRule))

    @property
    def sensor_rules(self) -> tuple[ThresholdRule, ...]:
        """The rules that look at sensors, by name."""
        return self.of(ThresholdRule)

    @property
    def pins(self) -> dict[str, int]:
        """The cameras whose partition is pinned."""
        return {pin.name: pin.partition for pin in self.of(PinConfig)}


async def publish(log: Log, entries: Iterable[Entry], removed: Iterable[str] = ()) -> None:
    """Write entries, and take out those whose keys are in ``removed``."""
    for entry in entries:
        await log.produce(Outgoing(CONFIG, 0, entry.model_dump_json().encode(), key=entry.key.encode()))
    for key in removed:
        await log.produce(Outgoing(CONFIG, 0, b"", key=key.encode()))


async def read(log: Log) -> Config:
    """Read the topic to its end. Raise ConfigError if an entry that holds cannot be used, LogUnavailable."""
    first = (await log.beginnings(CONFIG))[0]
    last = (await log.ends(CONFIG))[0]
    said: dict[str, bytes] = {}
    async for record in log.read(CONFIG, 0, first, last):
        said[(record.key or b"").decode(errors="replace")] = record.value
    return Config({key: parse_entry(key, value) for key, value in said.items() if value})
