"""Frame source for an image folder that another program fills: an inspection camera, an FTP upload or a script."""

from __future__ import annotations

import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from edge_agent.exceptions import SourceStalled, SourceUnusable
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.pictures import MAX_PICTURE_BYTES, PictureDecoder
from edge_agent.sources.source import CapturedFrame, unusable
from ingest.runtime.clock import Clock
from ingest.runtime.files import make_folder, write_private

SETTLE_S = 0.5
"""Time in seconds after which an unchanged file counts as complete.

A program that pauses longer than ``SETTLE_S`` while it writes a file should write to another folder, and then move
the complete file into the image folder.
"""
_POLL_S = 0.25
_REST_PER_LISTING = 10.0
"""Minimum pause after a folder was listed, as a multiple of the time that the listing took. Listing 100,000 files
takes 0.7 s of processor time."""
_NOTICE_S = 60.0
"""Interval in seconds between two searches for pictures in sub-folders that the source does not read. The search is
repeated because a camera may begin a new sub-folder at any time, for example for a new date."""
_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))


@dataclass(frozen=True, slots=True, order=True)
class ListedFile:
    """Entry of a folder listing. Entries are ordered by change time (ctime), then by name.

    The change time is the time at which a file was last written, renamed or moved into the folder. Files are not
    ordered by modification time, because a copied or moved file may keep an old modification time.
    """

    changed_ns: int
    name: str
    size: int = field(compare=False)
    modified_ns: int = field(compare=False)

    @property
    def content(self) -> tuple[int, int]:
        """Modification time in ns and size in bytes, which identify the file's content."""
        return self.modified_ns, self.size


class NewFiles:
    """Finds the files of one folder that are complete and that were not read yet.

    Pure. ``before`` lists files that were read or must be skipped.

    Each file that is not in ``before`` counts as new even if the file's change time is old, because the host's clock
    may be set back.
    """

    def __init__(self, settle_s: float, before: Iterable[ListedFile] = ()) -> None:
        self._settle_s = settle_s
        self._seen: dict[str, tuple[ListedFile, float]] = {}
        """Latest entry of each file, and the monotonic time since which the entry has not changed, by file name."""
        self._read = {file.name: file.content for file in before}

    def look(self, listing: Iterable[ListedFile], now_s: float) -> list[ListedFile]:
        """Return the files that became complete since the last call, ordered by change time.

        A file is returned again after its content has changed.
        """
        listed = {file.name: file for file in listing}
        self._seen = {name: self._since(file, now_s) for name, file in listed.items()}
        self._read = {name: content for name, content in self._read.items() if name in listed}
        settled = sorted(file for file, since_s in self._seen.values() if self._is_new(file, now_s - since_s))
        self._read |= {file.name: file.content for file in settled}
        return settled

    def _since(self, file: ListedFile, now_s: float) -> tuple[ListedFile, float]:
        before = self._seen.get(file.name)
        return before if before and before[0] == file and before[0].size == file.size else (file, now_s)

    def _is_new(self, file: ListedFile, quiet_s: float) -> bool:
        return quiet_s >= self._settle_s and self._read.get(file.name) != file.content


class ImagesSource:
    """Frame source that reads the new files of a folder, at most ``fps`` files a second.

    An empty folder does not end the source and is no failure.

    ``position`` is the path of a file that stores change time and name of the last picture that was read. With a
    stored position, the source also reads files that arrived while the agent was down. Without a stored position,
    files that are already in the folder are read only if ``existing`` is true. With ``recursive``, the source also
    reads sub-folders, but does not follow symbolic links.
    """

    def __init__(
        self,
        folder: Path,
        fps: float,
        clock: Clock,
        *,
        position: Path | None = None,
        existing: bool = False,
        recursive: bool = False,
        on_notice: Callable[[str], None] = lambda _: None,
        pace: FramePacer | None = None,
    ) -> None:
        self._folder, self._clock, self._existing = folder, clock, existing
        self._recursive, self._position, self._on_notice = recursive, position, on_notice
        self._pace = pace or FramePacer(fps, clock)
        self._pictures = PictureDecoder()
        self._new: NewFiles | None = None
        self._waiting: deque[ListedFile] = deque()
        self._given: ListedFile | None = None
        self._next_listing_s = self._next_notice_s = -math.inf
        self._is_saved = True
        """Whether the last attempt to save the position of the last read picture succeeded."""

    def open(self) -> None:
        """List the folder, and load the saved position of the last read picture.

        Raise SourceUnusable when the folder does not exist.
        """
        self._waiting.clear()
        self._given = None
        try:
            there = list_pictures(self._folder, recursive=self._recursive)
        except OSError as error:
            raise SourceUnusable(f"{self._folder}: expected a folder: {error.strerror}") from None
        after = self._after(there)
        self._new = NewFiles(SETTLE_S, (file for file in there if (file.changed_ns, file.name) <= after))
        self._save(*after)

    def read(self) -> CapturedFrame | None:
        """Return the next new picture, or None if there is no new picture.

        Raise SourceStalled when the folder is gone.
        """
        if self._new is None:
            raise SourceUnusable(f"image folder {self._folder} is not open")
        self._save_given()
        if not self._waiting:
            self._waiting.extend(self._look(self._new))
        if not self._waiting:
            self._pace.rest(_POLL_S)
            return None
        return self._picture() if self._pace.ready() else None

    def close(self) -> None:
        """Save the position."""
        self._save_given()
        self._new = None

    def _picture(self) -> CapturedFrame | None:
        file = self._given = self._waiting.popleft()
        now_ns = self._clock.now_ns()
        if file.size > MAX_PICTURE_BYTES:
            return unusable(f"{file.name}: {file.size} bytes exceed the limit of {MAX_PICTURE_BYTES}", now_ns)
        try:
            return self._pictures.captured((self._folder / file.name).read_bytes(), now_ns)
        except FileNotFoundError:
            return None  # another program has removed the file
        except OSError as error:
            return unusable(f"{file.name}: {error.strerror}", now_ns)

    def _look(self, new: NewFiles) -> list[ListedFile]:
        """Return the files that became complete since the last call.

        For some time after a slow listing, return an empty list without listing the folder.
        """
        now_s = self._clock.monotonic()
        if now_s < self._next_listing_s:
            return []
        try:
            listing = list_pictures(self._folder, recursive=self._recursive)
            self._notice_unread(now_s)
        except OSError as error:
            raise SourceStalled(f"{self._folder}: {error.strerror}") from None
        done_s = self._clock.monotonic()
        self._next_listing_s = done_s + (done_s - now_s) * _REST_PER_LISTING
        return new.look(listing, now_s)

    def _notice_unread(self, now_s: float) -> None:
        """Report once that the folder has pictures in sub-folders that the source does not read."""
        if self._recursive or now_s < self._next_notice_s:
            return
        self._next_notice_s = now_s + _NOTICE_S
        names = (file.name for file in list_pictures(self._folder, recursive=True))
        if unread := next((name for name in names if "/" in name), ""):
            self._next_notice_s = math.inf
            self._on_notice(
                f"pictures in sub-folders of {self._folder} are not read, such as {unread}: to read them, set "
                "stream.recursive = true"
            )

    def _after(self, there: Sequence[ListedFile]) -> tuple[int, str]:
        """Return the change time in ns and the name of the last file that was already read or must be skipped."""
        try:
            if self._position:
                changed_ns, name = json.loads(self._position.read_text())
                return int(changed_ns), str(name)
        except FileNotFoundError:
            pass  # no position was saved yet
        except (OSError, ValueError, TypeError) as error:  # for example, an empty file after a power cut
            self._on_notice(f"the saved position in the image folder is lost, restarting without it: {error}")
        newest = max(there, default=None)
        return (0, "") if self._existing or newest is None else (newest.changed_ns, newest.name)

    def _save_given(self) -> None:
        """Save the change time and name of the last returned picture.

        The position is saved when the caller requests another picture, because the caller has then processed the last
        picture.
        """
        if self._given:
            self._save(self._given.changed_ns, self._given.name)
        self._given = None

    def _save(self, changed_ns: int, name: str) -> None:
        """Save the position of the last read picture.

        Ignore a disk failure, because the only effect is that the next start reads some files again.
        """
        if self._position is None:
            return
        temporary, was_saved = self._position.with_suffix(".new"), self._is_saved
        try:
            make_folder(self._position.parent)
            write_private(temporary, json.dumps([changed_ns, name]).encode())
            temporary.replace(self._position)
            self._is_saved = True
        except OSError as error:
            self._is_saved = False
            if was_saved:
                self._on_notice(f"the position in the image folder cannot be saved: {error.strerror}")


def list_pictures(root: Path, *, recursive: bool) -> list[ListedFile]:
    """List the pictures of a folder.

    Raise OSError if the folder cannot be read; skip sub-folders that cannot be read.
    """
    found, folders = list[ListedFile](), [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}".lstrip("/")
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders += [name] if recursive else []
                    elif Path(name).suffix.lower() in _SUFFIXES:
                        found += _listed_file(entry, name)
        except OSError:
            if not folder:
                raise
    return found


def _listed_file(entry: os.DirEntry[str], name: str) -> list[ListedFile]:
    """Return a list with the entry of a regular file, or an empty list for anything else."""
    try:
        stat = entry.stat()
    except OSError:  # the file was removed, is a broken link, or cannot be read
        return []
    if not S_ISREG(stat.st_mode):  # opening a pipe would block until somebody writes
        return []
    return [ListedFile(stat.st_ctime_ns, name, stat.st_size, stat.st_mtime_ns)]
