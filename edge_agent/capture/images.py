"""A folder into which something puts pictures: an inspection camera, an FTP upload, a script."""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path

from edge_agent.capture.folder import Listed, NewFiles
from edge_agent.capture.pace import Pace
from edge_agent.capture.picture import MAX_PICTURE_BYTES, captured, unusable
from edge_agent.capture.source import Captured
from edge_agent.exceptions import SourceStalled, SourceUnusable
from ingest.clock import Clock

__all__ = ["ImagesSource"]

SETTLE_S = 0.5
"""Unchanged for so long, a file is whole: writers that pause for longer should write elsewhere and move it here."""
_POLL_S = 0.25
_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))


class ImagesSource:
    """New files of a folder, one by one, at most at a pace. It never ends, and an empty folder is no failure.

    ``place`` is a file that keeps where it was: what came in while nobody watched is read at the next start. Without
    one, or at the very first start, what is there already is read only if ``existing``.
    """

    def __init__(
        self,
        folder: Path,
        fps: float,
        clock: Clock,
        *,
        place: Path | None = None,
        existing: bool = False,
        pace: Pace | None = None,
    ) -> None:
        self._folder, self._clock, self._place, self._existing = folder, clock, place, existing
        self._pace = pace or Pace(fps, clock)
        self._new: NewFiles | None = None
        self._waiting: deque[Listed] = deque()
        self._given: Listed | None = None

    def open(self) -> None:
        """Look what is there. Raise SourceUnusable when there is no such folder."""
        self._waiting.clear()
        self._given = None
        try:
            after = self._after()
            self._new = NewFiles(SETTLE_S, after)
            self._keep(*after)
        except OSError as error:
            raise SourceUnusable(f"{self._folder}: expected a folder: {error.strerror}") from None

    def read(self) -> Captured | None:
        """Return the next new picture, None when there is none yet. Raise SourceStalled when the folder has gone."""
        if self._new is None:
            raise SourceUnusable(f"{self._folder} is not open")
        self._remember()
        if not self._waiting:
            self._waiting.extend(self._new.look(self._listed(), self._clock.monotonic()))
        if not self._waiting:
            self._pace.rest(_POLL_S)
            return None
        return self._picture() if self._pace.ready() else None

    def close(self) -> None:
        """Remember the place."""
        self._remember()
        self._new = None

    def _picture(self) -> Captured | None:
        file = self._given = self._waiting.popleft()
        now_ns = self._clock.now_ns()
        if file.size > MAX_PICTURE_BYTES:
            return unusable(f"{file.name}: {file.size} bytes, at most {MAX_PICTURE_BYTES} are read", now_ns)
        try:
            return captured((self._folder / file.name).read_bytes(), now_ns)
        except FileNotFoundError:
            return None  # whoever put it there has taken it away again
        except OSError as error:
            return unusable(f"{file.name}: {error.strerror}", now_ns)

    def _listed(self) -> list[Listed]:
        try:
            return _listing(self._folder)
        except OSError as error:
            raise SourceStalled(f"{self._folder}: {error.strerror}") from None

    def _after(self) -> tuple[int, str]:
        there = _listing(self._folder)
        if self._place and self._place.is_file():
            changed_ns, name = json.loads(self._place.read_text())
            return int(changed_ns), str(name)
        newest = max(there, default=None)
        return (0, "") if self._existing or newest is None else (newest.changed_ns, newest.name)

    def _remember(self) -> None:
        """Keep the place of the picture given last: the receiver, who asks for another one, has taken it."""
        if self._given:
            self._keep(self._given.changed_ns, self._given.name)
        self._given = None

    def _keep(self, changed_ns: int, name: str) -> None:
        if self._place:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            half = self._place.with_suffix(".new")
            half.write_text(json.dumps([changed_ns, name]))
            half.replace(self._place)


def _listing(folder: Path) -> list[Listed]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in _SUFFIXES and not entry.name.startswith("."):
                try:
                    stat = entry.stat()
                except FileNotFoundError:
                    continue
                found.append(Listed(stat.st_ctime_ns, entry.name, stat.st_size, stat.st_mtime_ns))
    return found
