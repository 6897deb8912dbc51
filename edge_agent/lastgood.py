"""Last good configuration of an agent, saved on the agent's disk.

The agent starts with the saved configuration when Kafka is unreachable.
"""

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
    """Contents of the file with the saved configuration.

    ``entries`` contains the configuration entries by key. ``topic_holds`` is true if the ``config`` topic has
    replaced the site file. ``signed_at`` contains the time of the newest signature of each entry, by the entry's key.
    With the saved signature times, the agent can refuse a replay of an older entry even after a restart.
    """

    entries: dict[str, ConfigEntry] = field(default_factory=dict)
    topic_holds: bool = False
    signed_at: dict[str, int] = field(default_factory=dict)


class LastGood:
    """JSON file with the saved configuration, replaced atomically: after a crash, the file has either the old or the
    new contents."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> SavedConfiguration:
        """Return the saved configuration, or an empty configuration if the file does not exist or cannot be read.

        Log and skip entries that cannot be parsed.
        """
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
        """Replace the file.

        Log a disk error without raising it, because the file is needed only at the next start.
        """
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
