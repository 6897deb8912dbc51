"""What applying one site changes on the ``config`` topic, on which other sites are too. Pure.

A camera or sensor is of one site. Pipelines, rules and receivers may be in the files of several: the entry on the
topic names them all, and goes when the last of them has it no more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.site.camera import CameraConfig
from ingest.site.delivery import PinConfig
from ingest.site.entry import ConfigEntry, SharedEntry
from ingest.site.file import UNNAMED, Site
from ingest.site.sensor import SensorConfig


@dataclass
class Changes:
    """What is to be written and taken out, by key, and what is left alone."""

    added: dict[str, ConfigEntry] = field(default_factory=dict)
    changed: dict[str, ConfigEntry] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Of what is changed: which of its fields."""
    taken_over: dict[str, ConfigEntry] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    """What other sites have in another way, and which sites these are. With any of it, nothing should be written."""
    unclaimed: list[str] = field(default_factory=list)
    """What no site has said to be its own, and this one does not have."""

    @property
    def written(self) -> tuple[ConfigEntry, ...]:
        """Every entry to write."""
        return (*self.added.values(), *self.changed.values(), *self.taken_over.values())

    def change(self, before: ConfigEntry | None, after: ConfigEntry) -> None:
        """Note an entry that takes the place of another, or of one that could not be used."""
        old: dict[str, Any] = before.model_dump() if before else {}
        self.changed[after.key] = after
        self.fields[after.key] = [name for name, value in after.model_dump().items() if old.get(name) != value]


def changes(
    site: Site, present: Mapping[str, ConfigEntry], *, refused: Collection[str] = (), take_over: bool = False
) -> Changes:
    """Compare a site with what the topic says. ``refused`` are keys whose newest entry cannot be used.

    ``take_over`` makes what other sites have in another way this site's, or changes it for all of them.
    """
    found = Changes()
    wanted = {entry.key: entry for entry in site.entries()}
    for key, entry in wanted.items():
        _compare(found, site.name, entry, present.get(key), unusable=key in refused, take_over=take_over)
    for key, entry in _others(present, wanted):
        _leave(found, site.name, key, entry)
    return found


def _compare(
    found: Changes, site: str, wanted: ConfigEntry, present: ConfigEntry | None, *, unusable: bool, take_over: bool
) -> None:
    owners = _owners(present)
    after = _owned(wanted, site, owners)
    foreign = sorted(owners - _owners(_owned(wanted, site, set())))
    if present is None:
        found.change(None, after) if unusable else found.added.update({after.key: after})
    elif after == present and not unusable:
        return
    elif not foreign or _says_the_same(after, present):
        found.change(present, after)
    elif take_over:
        found.taken_over[after.key] = after
    else:
        found.conflicts[after.key] = foreign


def _leave(found: Changes, site: str, key: str, entry: ConfigEntry) -> None:
    """Take out what the site has no more, unless another site still has it."""
    owners = _owners(entry)
    if owners == {site}:
        found.removed.append(key)
    elif site in owners and isinstance(entry, SharedEntry):
        found.change(entry, entry.model_copy(update={"sites": tuple(sorted(owners - {site}))}))
    elif not owners:
        found.unclaimed.append(key)


def _others(
    present: Mapping[str, ConfigEntry], wanted: Mapping[str, ConfigEntry]
) -> Iterator[tuple[str, ConfigEntry]]:
    return ((k, e) for k, e in sorted(present.items()) if k not in wanted and not isinstance(e, PinConfig))


def _owners(entry: ConfigEntry | None) -> set[str]:
    if isinstance(entry, CameraConfig | SensorConfig):
        return {entry.site or UNNAMED}
    return set(entry.sites) if isinstance(entry, SharedEntry) else set()


def _owned(entry: ConfigEntry, site: str, others: set[str]) -> ConfigEntry:
    """Return the entry as it is when this site has it too."""
    if not isinstance(entry, SharedEntry):
        return entry
    return entry.model_copy(update={"sites": tuple(sorted(others | {site}))})


def _says_the_same(after: ConfigEntry, present: ConfigEntry) -> bool:
    return isinstance(present, SharedEntry) and after.model_copy(update={"sites": present.sites}) == present
