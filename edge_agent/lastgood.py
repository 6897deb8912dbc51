"""Last good configuration, saved on the agent's disk. The agent starts with this copy when Kafka is unreachable."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.runtime.files import open_private
from ingest.site import ConfigEntry, parse_entry

_log = logs.get("edge_agent.config")


@dataclass(frozen=True, slots=True)
class SavedConfiguration:
    """Configuration entries by key, as saved on disk.

    ``topic_holds`` means that the ``config`` topic has replaced the site file. ``signed_at`` has the time of the
    newest signature of each entry, by the entry's key. With these times, the agent refuses replayed older entries
    even after a restart.
    """

    entries: dict[str, ConfigEntry] = field(default_factory=dict)
    topic_holds: bool = False
    signed_at: dict[str, int] = field(default_factory=dict)


class LastGood:
    """One JSON file, replaced atomically: after a crash, the file has either the old or the new contents."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> SavedConfiguration:
        """Return the saved configuration, or an empty one if there is no file. Log and skip unreadable entries."""
        try:
            saved = json.loads(self._path.read_bytes())
            topic_holds = saved["topic_holds"] is True
            pairs = [(str(key), json.dumps(value).encode()) for key, value in saved["entries"].items()]
            signed_at = {str(key): int(at) for key, at in saved.get("signed_at", {}).items()}
        except FileNotFoundError:
            return SavedConfiguration()
        except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
            _log.warning("last_good_configuration_unreadable", path=str(self._path), error=repr(error))
            return SavedConfiguration()
        entries: dict[str, ConfigEntry] = {}
        for key, value in pairs:
            try:
                entries[key] = parse_entry(key, value)
            except ConfigError as error:  # an entry of an older or newer version
                _log.warning("last_good_entry_skipped", key=key, error=str(error))
        return SavedConfiguration(entries, topic_holds and (bool(entries) or not pairs), signed_at)

    def save(self, saved: SavedConfiguration) -> None:
        """Replace the file. Log a disk error and continue, because the file is needed only at the next start."""
        entries = {key: entry.model_dump(mode="json") for key, entry in sorted(saved.entries.items())}
        whole = {
            "topic_holds": saved.topic_holds,
            "entries": entries,
            "signed_at": dict(sorted(saved.signed_at.items())),
        }
        text = json.dumps(whole, indent=1)
        new = self._path.with_suffix(".new")
        try:
            with os.fdopen(open_private(new), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            _log.warning("last_good_configuration_not_saved", path=str(self._path), error=repr(error))
