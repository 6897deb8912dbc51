"""Functions that open and check the SQLite file of a spool, and replace a damaged file with its salvaged copy."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

from edge_agent.exceptions import SpoolVersionMismatch
from edge_agent.spool.schema import CREATE, PRAGMAS, SCHEMA_VERSION
from ingest.runtime import logs
from ingest.runtime.files import PRIVATE_FILE, open_private, sync

_log = logs.get("edge_agent.spool")

CHECK_S = 5.0
"""Maximum duration of the structure check when the spool is opened, in seconds. The check reads about 1 GB a second.
Rows that the check does not reach are verified by their checksum when the agent reads them."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or create a spool's file with permissions that let only its owner read the file.

    Raise sqlite3.Error or OSError.
    """
    if not path.exists():
        os.close(open_private(path, flags=0))  # SQLite gives the -wal and -shm files the same mode
    elif path.stat().st_mode & 0o077:
        path.chmod(PRIVATE_FILE)
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        for pragma in PRAGMAS:
            db.execute(pragma).fetchall()
    except UnicodeDecodeError as error:  # SQLite's error message quotes bytes of a damaged table
        db.close()
        raise sqlite3.DatabaseError(f"the spool's tables cannot be read: {error.reason}") from error
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Create the tables in an empty file. Raise SpoolVersionMismatch or sqlite3.Error."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    if version or db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise SpoolVersionMismatch(path, version, SCHEMA_VERSION)
    db.executescript(CREATE)


def check_structure(db: sqlite3.Connection, limit_s: float = CHECK_S) -> None:
    """Check the structure of the file for at most ``limit_s``. Raise sqlite3.DatabaseError for a damaged file."""
    timer = threading.Timer(limit_s, db.interrupt)
    timer.start()
    try:
        (result,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        _log.info("spool_check_stopped_at_time_limit", limit_s=limit_s)
        return
    finally:
        timer.cancel()
        timer.join()
    if result != "ok":
        raise sqlite3.DatabaseError(result)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file is damaged. A write that the disk refuses is not damage."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        found = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        return found or _is_invalid_text(error)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_damaged_page(error: sqlite3.Error) -> bool:
    """Return whether an error concerns only one page of the file, so that the other pages may be intact."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT or _is_invalid_text(error)


def _is_invalid_text(error: sqlite3.Error) -> bool:
    """Return whether an error means that a text column is not UTF-8.

    SQLite does not check the encoding of text. Python's error has no error code, so this function searches the
    message.
    """
    return isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)


def salvaged(path: Path) -> Path:
    """Return the path of the new file into which the rows of a damaged file are copied."""
    return path.with_suffix(".salvaged")


def exchange(path: Path) -> Path:
    """Rename a damaged file, and give its name to the salvaged file. Return the damaged file's new path.

    If a crash interrupts the exchange, either the damaged file still has its name, or the salvaged file is complete.
    ``finish_exchange`` ends an interrupted exchange at the next start. Damaged files from earlier exchanges are
    deleted, to free disk space for the spool.
    """
    older = list(path.parent.glob(f"{path.stem}.corrupt-*"))
    aside = path.with_suffix(f".corrupt-{time.time_ns() // 1_000_000}")
    path.rename(aside)
    _move_companions(path, aside)
    salvaged(path).rename(path)
    sync(path.parent)
    for file in older:
        file.unlink(missing_ok=True)
    return aside


def finish_exchange(path: Path) -> None:
    """Finish the replacement of a damaged file after a crash. Raise OSError.

    If the damaged file still has its name, delete the salvaged file, which may be incomplete. The agent copies the
    readable rows again when it opens the damaged file. If the damaged file was already renamed, give its name to the
    salvaged file.
    """
    if not salvaged(path).exists():
        return
    if path.exists():
        for file in (salvaged(path), Path(f"{salvaged(path)}-wal"), Path(f"{salvaged(path)}-shm")):
            file.unlink(missing_ok=True)
        return
    _move_companions(path, path.with_suffix(".corrupt-unfinished"))
    salvaged(path).rename(path)
    sync(path.parent)


def _move_companions(path: Path, aside: Path) -> None:
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
