"""Connection to a spool's file: open the file on demand, count its rows, and salvage a damaged file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_agent.exceptions import SpoolError, SpoolUnavailable, WrongKey
from edge_agent.spool import file
from edge_agent.spool.salvage import Recovery, salvage
from edge_agent.spool.schema import COLUMNS, DamagedRow, Row, checksum
from edge_agent.spool.seal import Seal
from ingest.runtime import logs
from ingest.runtime.files import make_folder

_log = logs.get("edge_agent.spool")

_COUNT_ALL = "INSERT INTO counts SELECT kind, name, epoch, count(*), sum(size) FROM outbox GROUP BY kind, name, epoch"
_COUNTS = """
CREATE TEMP TABLE counts (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    rows INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, name, epoch)
);
CREATE TEMP TRIGGER kept AFTER INSERT ON main.outbox BEGIN
    INSERT OR IGNORE INTO counts (kind, name, epoch) VALUES (NEW.kind, NEW.name, NEW.epoch);
    UPDATE counts SET rows = rows + 1, bytes = bytes + NEW.size
        WHERE kind = NEW.kind AND name = NEW.name AND epoch = NEW.epoch;
END;
CREATE TEMP TRIGGER gone AFTER DELETE ON main.outbox BEGIN
    UPDATE counts SET rows = rows - 1, bytes = bytes - OLD.size
        WHERE kind = OLD.kind AND name = OLD.name AND epoch = OLD.epoch;
    DELETE FROM counts WHERE kind = OLD.kind AND name = OLD.name AND epoch = OLD.epoch AND rows = 0;
END;
"""
"""SQL that creates an in-memory table with the number and total bytes of the rows of each epoch (capture run). The
spool reads this table every second, instead of counting up to a million rows."""


class SpoolConnection:
    """Connection to one spool file: opens, checks and salvages the file, and runs transactions on it.

    All methods block on the disk, and must be called in the same thread.
    """

    def __init__(self, path: Path, seal: Seal) -> None:
        self.path = path
        self._seal = seal
        self._db: sqlite3.Connection | None = None
        self._data_version = -1
        self._closed = False
        self._checked = False
        self.recoveries: list[Recovery] = []
        """Results of salvaging damaged spool files that no status row has reported yet. The caller that reports a
        result removes it from this list."""
        try:
            make_folder(path.parent)
        except OSError as error:
            raise SpoolError(
                f"spool folder {path.parent}: {error}: expected a folder that can be written to"
            ) from error
        with contextlib.suppress(SpoolUnavailable):  # each later call opens the file again
            self._opened()

    def close(self) -> None:
        """Close the file for good: later calls raise SpoolError."""
        self._closed = True
        if self._db is not None:
            self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the ``with`` block as a transaction: commit at the end of the block, or roll back after an error.

        Raise SpoolUnavailable or SpoolError for SQLite errors.
        """
        try:
            db = self._opened()
            self._recount_foreign_writes(db)
            with db:
                yield db
        except DamagedRow as error:
            self._salvage(str(error))
        except sqlite3.Error as error:
            if file.is_damage(error):
                self._salvage(str(error))
            typed = self._typed(error)
            if isinstance(typed, SpoolUnavailable) and typed.why == "failing":
                self.disconnect()  # the disk may have been unplugged: the next call opens the file again
            raise typed from error

    def disconnect(self) -> None:
        """Close the connection to the file until the next transaction, which opens the file again."""
        if self._db is not None:
            self._db.close()
        self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._closed:
            raise SpoolError(f"the spool {self.path} is closed")
        if self._db is None:
            try:
                file.finish_exchange(self.path)
                self._db = file.connect(self.path)
                file.prepare(self._db, self.path)
                if not self._checked:
                    file.check_structure(self._db)
                self._checked = True
                self._db.executescript(_COUNTS)
                self._data_version = -1
                self._recount_foreign_writes(self._db)
                self._require_keys(self._db)
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, sqlite3.Error) and file.is_damage(error):
                    self._salvage(str(error))
                self.disconnect()
                raise self._typed(error) from error
            except SpoolError:
                self.disconnect()
                raise
        return self._db

    def _recount_foreign_writes(self, db: sqlite3.Connection) -> None:
        """Count all rows again if another process has written to the file. Raise sqlite3.Error.

        Only the agent should write to the file, but an operator may delete rows by hand. If the spool did not count
        again after a manual deletion, the spool would seem full for ever.
        """
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version == self._data_version:
            return
        try:
            with db:
                db.execute("DELETE FROM counts")
                db.execute(_COUNT_ALL)
        except sqlite3.IntegrityError as error:  # an epoch occurs twice or has no name
            raise sqlite3.DatabaseError(f"the spool's index of waiting rows is damaged: {error}") from error
        self._data_version = version

    def _salvage(self, error: str) -> None:
        """Replace a damaged file with a new file that holds the readable rows, and raise SpoolUnavailable.

        The caller may repeat the failed call after the SpoolUnavailable error.
        """
        self.disconnect()
        try:
            recovery = salvage(self.path)
        except (sqlite3.Error, OSError) as failure:
            raise self._typed(failure) from failure
        _log.error("spool_salvaged", error=error, result=str(recovery))
        self.recoveries.append(recovery)
        raise SpoolUnavailable(self.path, "salvaged", error)

    def _require_keys(self, db: sqlite3.Connection) -> None:
        """Raise WrongKey if an intact row is encrypted with a key that is not configured.

        Raise sqlite3.DatabaseError if only damaged rows name keys that are not configured.
        """
        unknown = [key for (key,) in db.execute("SELECT DISTINCT key FROM outbox") if not self._seal.knows(key)]
        if not unknown:
            return
        query = f"SELECT {COLUMNS} FROM outbox NOT INDEXED WHERE key = ? LIMIT 1"  # noqa: S608
        for key in unknown:
            for *fields, _, crc in db.execute(query, (key,)):
                if crc == checksum(Row(*fields), key):
                    raise WrongKey(self.path, unknown)
        raise sqlite3.DatabaseError(f"rows with the unknown encryption keys {unknown} are damaged")

    def _typed(self, error: Exception) -> SpoolError:
        """Return the SpoolError that corresponds to an error of SQLite or of the disk."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if not isinstance(error, OSError) and code in (0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE):
            return SpoolError(f"{self.path}: {error}")
        if code == sqlite3.SQLITE_FULL:
            return SpoolUnavailable(self.path, "full", error)
        with contextlib.suppress(OSError):
            if code == sqlite3.SQLITE_READONLY or os.statvfs(self.path.parent).f_flag & os.ST_RDONLY:
                return SpoolUnavailable(self.path, "read-only", error)
        return SpoolUnavailable(self.path, "failing", error)
