"""The evidence store in a local folder."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ingest.contract.records import Evidence
from ingest.runtime.files import GROUP_FOLDER, make_folder, replace_file
from stream.evidence.store import StoredFile, reference, require_name
from stream.exceptions import NotStored, StoreFailed, UnusableName

_PART = ".part"
"""Suffix of a temporary file. The name of a temporary file also begins with a dot."""


class FolderStore:
    """An evidence store in a local folder. A file is written to a temporary file, synced to disk, and renamed.

    A folder that is missing when the store is opened counts as a store without files. If the folder disappears later,
    as when its disk is unmounted, ``open`` raises StoreFailed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._was_there = False

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Write data to a temporary file, sync it to disk and rename it to its name."""
        path = self._path(name)
        try:
            make_folder(path.parent, GROUP_FOLDER)
            replace_file(path, data)
        except OSError as error:
            raise StoreFailed(f"{path}: {error.strerror}: expected a writable folder with free space") from error
        return reference(name, path.as_uri(), data, media_type)

    def open(self, name: str) -> BinaryIO:
        """Open the file of a name."""
        path = self._path(name)
        try:
            found = path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            is_there = self._root.is_dir()
            if self._was_there and not is_there:
                raise StoreFailed(f"{self._root}: the folder is gone: expected a mounted folder") from None
            self._was_there = is_there
            raise NotStored(name) from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise NotStored(name) from None
            raise StoreFailed(f"{path}: {error.strerror}: expected a readable file") from error
        self._was_there = True
        return found

    def delete(self, name: str) -> None:
        """Remove a file, and the folders that are empty without it."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self._root:
                    break
                folder.rmdir()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if path.exists():
                raise StoreFailed(f"{path}: {error.strerror}: expected a file that can be deleted") from error

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the complete files whose names begin with ``prefix``."""
        begin = self._root / prefix.rpartition("/")[0]
        try:
            for path in _files_below(begin):
                name = path.relative_to(self._root).as_posix()
                if not name.startswith(prefix) or (path.name.startswith(".") and path.name.endswith(_PART)):
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield StoredFile(name, found.st_size, found.st_mtime_ns)
        except OSError as error:
            raise StoreFailed(f"{begin}: {error.strerror}: expected a readable folder") from error

    def remove_parts(self, before_ns: int) -> int:
        """Remove the temporary files that killed processes left before ``before_ns``, and return their number."""
        count = 0
        try:
            for path in _files_below(self._root):
                if path.name.startswith(".") and path.name.endswith(_PART):
                    with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
                        if path.lstat().st_mtime_ns < before_ns:
                            path.unlink()
                            count += 1
        except OSError as error:
            raise StoreFailed(
                f"{self._root}: {error.strerror}: expected a readable folder whose files can be deleted"
            ) from error
        return count

    def _path(self, name: str) -> Path:
        require_name(name)
        path = (self._root / name).resolve()
        if not path.is_relative_to(self._root.resolve()):
            raise UnusableName(name)  # a symbolic link inside the folder leads out of it
        return path


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the paths of all files below a folder. Raise OSError for a folder that cannot be read.

    ``Path.rglob`` would silently leave out a folder that cannot be read. If the folder of the legal holds were left
    out, held evidence would be deleted.
    """

    def fail(error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):  # deleted meanwhile
            raise error

    for parent, _, files in os.walk(folder, onerror=fail):
        yield from (Path(parent, file) for file in files)
