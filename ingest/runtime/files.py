"""Files and folders that only their owner, or their owner and group, can read.

Other users cannot read the files that this module creates, whatever umask the user has set.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
"""Modes of files and folders that only their owner can read and write."""
GROUP_FILE, GROUP_FOLDER = 0o640, 0o750
"""Modes of files and folders that other services of the same user group can read."""


def restrict_umask() -> None:
    """Forbid other users all access to the files that this process and its children create."""
    os.umask(os.umask(0o077) | 0o027)


def make_folder(folder: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make a folder with its parents.

    If the folder exists, remove the permissions that ``mode`` does not grant, unless other users share the folder (as
    with /tmp). Raise OSError.
    """
    if not folder.parent.exists():
        make_folder(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)
    found = folder.stat()
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 & ~mode and not found.st_mode & stat.S_ISVTX:
        folder.chmod(stat.S_IMODE(found.st_mode) & mode)


def open_private(path: Path, mode: int = PRIVATE_FILE, flags: int = os.O_TRUNC) -> int:
    """Open a file for writing and return its descriptor.

    If the file exists, remove the permissions that ``mode`` does not grant. Raise OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, mode)
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and found.st_mode & 0o777 & ~mode:
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & mode)
    return descriptor


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read. Raise OSError."""
    with os.fdopen(open_private(path), "wb") as file:
        file.write(data)


def write_new(path: Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Create a file with exactly the permissions ``mode``, write the data, and sync the file to disk.

    The file must not exist yet. Raise OSError.
    """
    with os.fdopen(open_private(path, mode, os.O_EXCL), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes, mode: int = GROUP_FILE) -> None:
    """Create or replace a file with the permissions ``mode``.

    After a crash or a power failure, the file has its former or its new content, never a part of it. Raise OSError.
    The file then has its former content, unless only the folder could not be synced.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)  # of an earlier process with this id
        write_new(part, data, mode)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)  # a full disk leaves an incomplete file
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Sync a file or a folder to disk. A new or renamed file survives a power failure after its folder is synced.

    Raise OSError.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
