"""A folder into which something puts pictures: an inspection camera, an FTP upload, a script."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from stat import S_ISREG

from edge_agent.exceptions import SourceStalled, SourceUnusable
from edge_agent.sources.folder import ListedFile, NewFiles
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.picture import MAX_PICTURE_BYTES, captured, unusable
from edge_agent.sources.source import CapturedFrame
from ingest.runtime.clock import Clock

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
        said: Callable[[str], None] = lambda _: None,
        pace: FramePacer | None = None,
    ) -> None:
        self._folder, self._clock, self._place, self._existing, self._said = folder, clock, place, existing, said
        self._pace = pace or FramePacer(fps, clock)
        self._new: NewFiles | None = None
        self._waiting: deque[ListedFile] = deque()
        self._given: ListedFile | None = None
        self._is_kept = True
        """The place, as far as the disk took it."""

    def open(self) -> None:
        """Look what is there. Raise SourceUnusable when there is no such folder."""
        self._waiting.clear()
        self._given = None
        try:
            there = _listing(self._folder)
        except OSError as error:
            raise SourceUnusable(f"{self._folder}: expected a folder: {error.strerror}") from None
        after = self._after(there)
        self._new = NewFiles(SETTLE_S, (file for file in there if (file.changed_ns, file.name) <= after))
        self._keep(*after)

    def read(self) -> CapturedFrame | None:
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

    def _picture(self) -> CapturedFrame | None:
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

    def _listed(self) -> list[ListedFile]:
        try:
            return _listing(self._folder)
        except OSError as error:
            raise SourceStalled(f"{self._folder}: {error.strerror}") from None

    def _after(self, there: Sequence[ListedFile]) -> tuple[int, str]:
        """Return the place of the last file that was read before, or is to be left."""
        try:
            if self._place:
                changed_ns, name = json.loads(self._place.read_text())
                return int(changed_ns), str(name)
        except FileNotFoundError:
            pass  # the very first start
        except (OSError, ValueError, TypeError) as error:  # a power cut leaves an empty file
            self._said(f"its place in the folder is lost, as at the first start: {error}")
        newest = max(there, default=None)
        return (0, "") if self._existing or newest is None else (newest.changed_ns, newest.name)

    def _remember(self) -> None:
        """Keep the place of the picture given last: the receiver, who asks for another one, has taken it."""
        if self._given:
            self._keep(self._given.changed_ns, self._given.name)
        self._given = None

    def _keep(self, changed_ns: int, name: str) -> None:
        """Keep a place. A disk that does not take it costs the next start only, which reads some again."""
        if self._place is None:
            return
        half, was_kept = self._place.with_suffix(".new"), self._is_kept
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            half.write_text(json.dumps([changed_ns, name]))
            half.replace(self._place)
            self._is_kept = True
        except OSError as error:
            self._is_kept = False
            if was_kept:
                self._said(f"its place in the folder is not kept: {error.strerror}")


def _listing(folder: Path) -> list[ListedFile]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in _SUFFIXES and not entry.name.startswith("."):
                try:
                    stat = entry.stat()
                except OSError:  # gone, a link to nowhere, or not to be seen
                    continue
                if S_ISREG(stat.st_mode):  # whoever opens a pipe waits for someone who writes
                    found.append(ListedFile(stat.st_ctime_ns, entry.name, stat.st_size, stat.st_mtime_ns))
    return found
