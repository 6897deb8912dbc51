"""The last good configuration, on the agent's own disk: what it starts with when Kafka cannot be reached."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import CameraConfig, ConfigEntry, SensorConfig, parse_entry

_log = logs.get("edge_agent.config")

_HELD = (f"{CameraConfig.KIND}/", f"{SensorConfig.KIND}/")


@dataclass(frozen=True, slots=True)
class SavedConfiguration:
    """What was kept: entries by key, and whether the topic has been in charge of the site, be it to run nothing."""

    entries: dict[str, ConfigEntry] = field(default_factory=dict)
    topic_holds: bool = False


class LastGood:
    """One JSON file, replaced as a whole: a crash leaves the old one or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> SavedConfiguration:
        """Return what was kept, nothing if there is no file. What cannot be read is left out, and logged."""
        try:
            said, topic_holds = _told(json.loads(self._path.read_bytes()))
            pairs = [(str(key), json.dumps(value).encode()) for key, value in said.items()]
        except FileNotFoundError:
            return SavedConfiguration()
        except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
            _log.warning("last good configuration not read", path=str(self._path), error=repr(error))
            return SavedConfiguration()
        entries = _parsed(pairs)
        return SavedConfiguration(entries, topic_holds and (bool(entries) or not pairs))

    def save(self, kept: SavedConfiguration) -> None:
        """Replace the file. A disk that does not take it costs the next start only, and is logged."""
        entries = {key: entry.model_dump(mode="json") for key, entry in sorted(kept.entries.items())}
        text = json.dumps({"topic_holds": kept.topic_holds, "entries": entries}, indent=1)
        new = self._path.with_suffix(".new")
        try:
            with new.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            _log.warning("last good configuration not kept", path=str(self._path), error=repr(error))


def _told(said: Any) -> tuple[Any, bool]:
    """Return the entries, and whether the topic holds. A file of a version before has the entries only."""
    if "topic_holds" in said:
        return said["entries"], said["topic_holds"] is True
    return said, any(key.startswith(_HELD) for key in said)


def _parsed(pairs: list[tuple[str, bytes]]) -> dict[str, ConfigEntry]:
    entries = {}
    for key, value in pairs:
        try:
            entries[key] = parse_entry(key, value)
        except ConfigError as error:  # of an older or newer version
            _log.warning("entry of the last good configuration left out", key=key, error=str(error))
    return entries
