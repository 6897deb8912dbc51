"""Computes which records to write to the ``config`` topic after a site file has changed. Pure.

The topic may contain several sites.

A camera or sensor belongs to one site. A pipeline, rule or receiver may be in the files of several sites. A shared
entry lists all sites whose files contain the entry. The shared entry is removed from the topic when no site's file
contains the entry any more.
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
    """Entries to write to the ``config`` topic, and keys to remove from the topic. The keys in ``conflicts`` and
    ``unclaimed`` stay unchanged."""

    added: dict[str, ConfigEntry] = field(default_factory=dict)
    changed: dict[str, ConfigEntry] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)
    """Names of the changed fields, by the key of the changed entry."""
    taken_over: dict[str, ConfigEntry] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    """Names of other sites that define an entry differently, by the key of the entry. If there is a conflict, the
    caller should write nothing."""
    unclaimed: list[str] = field(default_factory=list)
    """Keys of entries on the topic that belong to no site and are missing in this site's file."""

    @property
    def written(self) -> tuple[ConfigEntry, ...]:
        """All entries to write to the topic."""
        return (*self.added.values(), *self.changed.values(), *self.taken_over.values())

    def change(self, before: ConfigEntry | None, after: ConfigEntry) -> None:
        """Add the change of a site's entry from ``before`` to ``after``. ``before`` is None if the topic's present
        entry is invalid."""
        old: dict[str, Any] = before.model_dump() if before else {}
        self.changed[after.key] = after
        self.fields[after.key] = [name for name, value in after.model_dump().items() if old.get(name) != value]


def site_changes(
    site: Site, present: Mapping[str, ConfigEntry], *, refused: Collection[str] = (), take_over: bool = False
) -> ConfigChanges:
    """Compare a site with the entries on the topic, and return the changes to make. ``refused`` contains the keys
    whose newest entry on the topic is invalid.

    With ``take_over``, the definitions of this site replace the definitions of other sites. A camera or sensor that
    is taken over belongs to this site from now on. A shared entry that is taken over changes for all its sites.
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
    """Return a copy of a shared entry that is owned by ``sites``. Return every other entry unchanged."""
    if not isinstance(entry, SharedEntry):
        return entry
    return entry.model_copy(update={"sites": tuple(sorted(sites))})
