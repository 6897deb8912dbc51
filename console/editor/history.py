"""The changes of the configuration that users of the console made, and the way to undo them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from console.editor.draft import EntryChange, require_needs
from console.exceptions import Conflict, NotFound
from console.state.database import Database
from ingest.runtime.clock import Clock
from ingest.site import ConfigEntry, parse_entry
from ingest.site.topic.view import Config

PAGE = 50
_COMMENT_CHARS = 500


@dataclass(frozen=True, slots=True)
class SavedChange:
    """A saved change of one entry. ``before`` and ``after`` are the entry as JSON before and after the change, empty
    if the entry did not exist."""

    id: int
    at_ns: int
    user: str
    camera: str
    key: str
    before: str
    after: str
    comment: str

    @property
    def summary(self) -> str:
        """The change in a few words."""
        if not self.before or not self.after:
            return "added" if self.after else "removed"
        old, new = json.loads(self.before), json.loads(self.after)
        names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        return f"changed {', '.join(names)}" if names else "not changed"


class ChangeHistory:
    """The table of saved changes. Entries are never changed or deleted."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db, self._clock = database, clock

    def add(self, user: str, camera: str, change: EntryChange, comment: str) -> None:
        """Append a change."""
        texts = [entry.model_dump_json() if entry else "" for entry in (change.before, change.after)]
        self._db.run(
            "INSERT INTO config_changes (at_ns, user, camera, key, before, after, comment)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(self._clock.now_ns(), user, camera, change.key, *texts),
            comment[:_COMMENT_CHARS].encode(errors="replace").decode(),
        )

    def of_camera(self, camera: str) -> list[SavedChange]:
        """Return the newest changes of a camera, the newest first."""
        rows = self._db.rows("SELECT * FROM config_changes WHERE camera = ? ORDER BY id DESC LIMIT ?", camera, PAGE)
        return [SavedChange(**dict(row)) for row in rows]

    def change(self, id_: int) -> SavedChange:
        """Return a change. Raise NotFound."""
        row = self._db.row("SELECT * FROM config_changes WHERE id = ?", id_)
        if row is None:
            raise NotFound(f"change {id_} does not exist")
        return SavedChange(**dict(row))


def undo_of(change: SavedChange, config: Config) -> EntryChange:
    """Return the change that restores the state before a saved change.

    Raise Conflict if the entry was changed again after the saved change, and BadInput if a rule needs a setting that
    the camera would lose by the undo.
    """
    present = config.entries.get(change.key)
    if present != _entry(change.key, change.after):
        raise Conflict(f"{change.key} was changed again after this: undo the later change first")
    found = EntryChange(change.key, present, _entry(change.key, change.before))
    require_needs(config, change.camera, [found])
    return found


def _entry(key: str, text: str) -> ConfigEntry | None:
    return parse_entry(key, text.encode()) if text else None
