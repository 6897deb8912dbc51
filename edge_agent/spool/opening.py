"""A spool's file: opened, looked over, and exchanged for what could be saved of it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

from edge_agent.spool.schema import PRAGMAS
from ingest.runtime import logs

_log = logs.get("edge_agent.spool")

LOOK_S = 5.0
"""A check reads the whole file, at about a second a GB: it begins with what the start can wait for. What it does not
reach is checked row by row, when it is read."""


def connect(path: Path) -> sqlite3.Connection:
    """Open or make a spool's file, with the tables that it has. Raise sqlite3.Error."""
    db = sqlite3.connect(path, check_same_thread=False)
    try:
        for pragma in PRAGMAS:
            db.execute(pragma).fetchall()
    except UnicodeDecodeError as error:  # what SQLite says of a damaged table holds some of it
        db.close()
        raise sqlite3.DatabaseError(f"the tables cannot be read: {error.reason}") from error
    except BaseException:
        db.close()
        raise
    return db


def look_over(db: sqlite3.Connection, limit_s: float = LOOK_S) -> None:
    """Check the structure of the file for so long. Raise sqlite3.DatabaseError when it is damaged."""
    timer = threading.Timer(limit_s, db.interrupt)
    timer.start()
    try:
        (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        _log.info("spool is too large to be checked at once", checked_for_s=limit_s)
        return
    finally:
        timer.cancel()
        timer.join()
    if said != "ok":
        raise sqlite3.DatabaseError(said)


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error means that the file is damaged, and no trouble with the disk."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        found = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        return found or _is_no_text(error)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_damaged_page(error: sqlite3.Error) -> bool:
    """Tell whether an error is about some page, beside which others may be whole."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT or _is_no_text(error)


def _is_no_text(error: sqlite3.Error) -> bool:
    """Tell whether a text was not what a text may be: SQLite knows nothing of it, and Python has no code for it."""
    return isinstance(error, sqlite3.OperationalError) and "decode to UTF-8" in str(error)


def salvaged(path: Path) -> Path:
    """Return where a new file is built from what a damaged one still holds."""
    return path.with_suffix(".salvaged")


def exchange(path: Path) -> Path:
    """Put the salvaged file in a damaged one's place, which is moved aside. Return where it is now.

    A crash at any moment leaves either the damaged file, whole and in its place, or a salvaged one that is complete:
    ``finish_exchange`` tells them apart. Only the newest damaged file is kept, for it takes the spool's room.
    """
    older = list(path.parent.glob(f"{path.stem}.corrupt-*"))
    aside = path.with_suffix(f".corrupt-{time.time_ns() // 1_000_000}")
    path.rename(aside)
    _move_companions(path, aside)
    salvaged(path).rename(path)
    _sync(path.parent)
    for file in older:
        file.unlink(missing_ok=True)
    return aside


def finish_exchange(path: Path) -> None:
    """Finish an exchange that a crash broke off, or forget one that had not begun. Raise OSError."""
    if not salvaged(path).exists():
        return
    if path.exists():
        for file in (salvaged(path), Path(f"{salvaged(path)}-wal"), Path(f"{salvaged(path)}-shm")):
            file.unlink(missing_ok=True)
        return
    _move_companions(path, path.with_suffix(".corrupt-unfinished"))
    salvaged(path).rename(path)
    _sync(path.parent)


def _move_companions(path: Path, aside: Path) -> None:
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
