"""The last good configuration, on the agent's own disk: what it starts with when Kafka cannot be reached."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ingest import logs
from ingest.exceptions import ConfigError
from ingest.site import Entry, parse_entry

__all__ = ["LastGood"]

_log = logs.get("edge_agent.config")


class LastGood:
    """One JSON file, replaced as a whole: a crash leaves the old one or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> dict[str, Entry]:
        """Return the entries by key, empty if there are none. What cannot be read is left out, and logged."""
        try:
            said = json.loads(self._path.read_bytes())
            pairs = [(str(key), json.dumps(value).encode()) for key, value in said.items()]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            _log.warning("last good configuration not read", path=str(self._path), error=repr(error))
            return {}
        entries = {}
        for key, value in pairs:
            try:
                entries[key] = parse_entry(key, value)
            except ConfigError as error:  # of an older or newer version
                _log.warning("entry of the last good configuration left out", key=key, error=str(error))
        return entries

    def save(self, entries: dict[str, Entry]) -> None:
        """Replace the file. A disk that does not take it costs the next start only, and is logged."""
        text = json.dumps({k: e.model_dump(mode="json") for k, e in sorted(entries.items())}, indent=1)
        new = self._path.with_suffix(".new")
        try:
            with new.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            _log.warning("last good configuration not kept", path=str(self._path), error=repr(error))
