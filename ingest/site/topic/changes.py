"""Changes to the ``config`` topic when one of several sites is applied. Pure.

A camera or sensor belongs to one site. A pipeline, rule or receiver may be in the files of several sites. A shared
entry names all its sites, and is removed when the last site drops the entry.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.site.camera import CameraConfig
from ingest.site.entry import ConfigEntry, PinConfig, SharedEntry
from ingest.site.file import UNNAMED, Site
from ingest.site.sensor import SensorConfig


@dataclass
class ConfigChanges:
    """Entries to write and keys to remove, and keys that stay unchanged."""

    added: dict[str, ConfigEntry] = field(default_factory=dict)
    changed: dict[str, ConfigEntry] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Changed fields of each changed entry."""
    taken_over: dict[str, ConfigEntry] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    """Keys that other sites define with other settings, and the names of these sites. After a conflict, the caller
    should write nothing."""
    unclaimed: list[str] = field(default_factory=list)
    """Keys of entries on the topic that belong to no site and are missing in this site's file."""

    @property
    def written(self) -> tuple[ConfigEntry, ...]:
        """All entries to write."""
        return (*self.added.values(), *self.changed.values(), *self.taken_over.values())

    def change(self, before: ConfigEntry | None, after: ConfigEntry) -> None:
        """Add an entry that replaces a valid or an invalid entry."""
        old: dict[str, Any] = before.model_dump() if before else {}
        self.changed[after.key] = after
        self.fields[after.key] = [name for name, value in after.model_dump().items() if old.get(name) != value]


def site_changes(
    site: Site, present: Mapping[str, ConfigEntry], *, refused: Collection[str] = (), take_over: bool = False
) -> ConfigChanges:
    """Compare a site with the entries on the topic. ``refused`` are the keys whose newest entry is invalid.

    With ``take_over``, this site's definition wins over other sites': a camera or sensor becomes this site's, and a
    shared entry changes for all sites.
    """
    found = ConfigChanges()
    wanted = {entry.key: entry for entry in site.entries()}
    for key, entry in wanted.items():
        _compare(found, site.name, entry, present.get(key), invalid=key in refused, take_over=take_over)
    for key, entry in sorted(present.items()):
        if key not in wanted and not isinstance(entry, PinConfig):
            _drop(found, site.name, key, entry)
    return found


def _compare(
    found: ConfigChanges,
    site: str,
    wanted: ConfigEntry,
    present: ConfigEntry | None,
    *,
    invalid: bool,
    take_over: bool,
) -> None:
    owners = _owners(present)
    is_same = isinstance(present, SharedEntry) and wanted.model_copy(update={"sites": present.sites}) == present
    after = _with_owners(wanted, owners | {site})
    foreign = sorted(owners - _owners(_with_owners(wanted, {site})))
    if present is None:
        found.change(None, after) if invalid else found.added.update({after.key: after})
    elif after == present and not invalid:
        return
    elif not foreign or is_same:
        found.change(present, after)
    elif take_over:
        found.taken_over[after.key] = after
    else:
        found.conflicts[after.key] = foreign


def _drop(found: ConfigChanges, site: str, key: str, entry: ConfigEntry) -> None:
    """Remove an entry that the site no longer has, unless another site still has the entry."""
    owners = _owners(entry)
    if owners == {site}:
        found.removed.append(key)
    elif site in owners:
        found.change(entry, _with_owners(entry, owners - {site}))
    elif not owners:
        found.unclaimed.append(key)


def _owners(entry: ConfigEntry | None) -> set[str]:
    if isinstance(entry, CameraConfig | SensorConfig):
        return {entry.site or UNNAMED}
    return set(entry.sites) if isinstance(entry, SharedEntry) else set()


def _with_owners(entry: ConfigEntry, sites: set[str]) -> ConfigEntry:
    """Return a shared entry with these sites as its owners, and any other entry unchanged."""
    if not isinstance(entry, SharedEntry):
        return entry
    return entry.model_copy(update={"sites": tuple(sorted(sites))})
