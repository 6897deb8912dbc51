"""Which files of a folder are new and whole. Pure.

A file is read when it has not changed for a while: whoever writes it has ended. Its change time orders it, which is
when it came to be as it is, in this folder: copying keeps the times of the original otherwise, and a file that was
written elsewhere and moved here would be older than what was read before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class ListedFile:
    """A file as a listing has it. Ordered by when it last changed, then by name."""

    changed_ns: int
    name: str
    size: int = field(compare=False)
    modified_ns: int = field(compare=False)

    @property
    def content(self) -> tuple[int, int]:
        """What differs when the file's content does."""
        return self.modified_ns, self.size


class NewFiles:
    """What one folder has that was not read yet. ``before`` is what of it had been read, or is to be left.

    What comes later is new whenever it is dated: a clock may be set back.
    """

    def __init__(self, settle_s: float, before: Iterable[ListedFile] = ()) -> None:
        self._settle_s = settle_s
        self._seen: dict[str, tuple[ListedFile, float]] = {}
        """Each file with how it looks and since when it has looked so."""
        self._read = {file.name: file.content for file in before}

    def look(self, listing: Iterable[ListedFile], now_s: float) -> list[ListedFile]:
        """Return the files that have settled since the last look, in order. Each is given once."""
        listed = {file.name: file for file in listing}
        self._seen = {name: self._since(file, now_s) for name, file in listed.items()}
        self._read = {name: content for name, content in self._read.items() if name in listed}
        whole = sorted(file for file, since_s in self._seen.values() if self._is_new(file, now_s - since_s))
        self._read |= {file.name: file.content for file in whole}
        return whole

    def _since(self, file: ListedFile, now_s: float) -> tuple[ListedFile, float]:
        before = self._seen.get(file.name)
        return before if before and before[0] == file and before[0].size == file.size else (file, now_s)

    def _is_new(self, file: ListedFile, quiet_s: float) -> bool:
        return quiet_s >= self._settle_s and self._read.get(file.name) != file.content
