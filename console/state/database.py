"""The SQLite file of the console, and its tables."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from console.exceptions import StateUnusable
from ingest.runtime.files import make_folder, open_private

FILE = "console.sqlite"
_BUSY_S = 5.0
"""Time to wait for another process that writes to the file, such as `sightline console --reset-password`, in
seconds."""
_MIGRATIONS = (
    """
    CREATE TABLE users (
      id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, password TEXT NOT NULL, role TEXT NOT NULL,
      everywhere INTEGER NOT NULL, sites TEXT NOT NULL, cameras TEXT NOT NULL, must_change INTEGER NOT NULL,
      enabled INTEGER NOT NULL, created_ns INTEGER NOT NULL) STRICT;
    CREATE TABLE sessions (
      hash TEXT PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE, csrf TEXT NOT NULL,
      address TEXT NOT NULL, agent TEXT NOT NULL, created_ns INTEGER NOT NULL, seen_ns INTEGER NOT NULL) STRICT;
    CREATE INDEX sessions_user ON sessions(user_id);
    CREATE TABLE tokens (
      id INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL UNIQUE,
      user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE, name TEXT NOT NULL, role TEXT NOT NULL,
      created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL, used_ns INTEGER NOT NULL) STRICT;
    CREATE INDEX tokens_user ON tokens(user_id);
    CREATE TABLE audit (
      id INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL, user TEXT NOT NULL, via TEXT NOT NULL,
      address TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
    CREATE INDEX audit_user ON audit(user, id);
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
      BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
    CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
      BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
    """,
    """
    CREATE TABLE config_changes (
      id INTEGER PRIMARY KEY AUTOINCREMENT, at_ns INTEGER NOT NULL, user TEXT NOT NULL, camera TEXT NOT NULL,
      key TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL, comment TEXT NOT NULL) STRICT;
    CREATE INDEX config_changes_camera ON config_changes(camera, id);
    """,
    """
    CREATE INDEX audit_action ON audit(action, id);
    """,
)
"""Scripts that bring the file to the next version. The file's ``user_version`` counts the scripts that have run. A
script that has been released is never changed."""


def digest(secret: str) -> str:
    """Return the form in which a random session id or API token is stored. This fast hash is enough for random texts;
    a password needs Argon2 instead."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


class Database:
    """One connection to the SQLite file, for use in one thread.

    A statement outside ``transaction`` commits at once. Statements take well under a millisecond, so they run in the
    event loop.
    """

    def __init__(self, folder: Path) -> None:
        """Open the file in a folder, and create or update its tables. Raise StateUnusable."""
        path = folder / FILE
        try:
            make_folder(folder)
            os.close(open_private(path, flags=0))  # only the owner may read the file
        except OSError as error:
            raise StateUnusable(
                f"{path}: {error.strerror}: expected a writable folder. Pass another --data"
            ) from error
        self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON"
            )
            self._migrate(path)
        except sqlite3.Error as error:
            self._connection.close()
            raise StateUnusable(f"{path}: {error}: expected a file of the console. Pass another --data") from error

    def rows(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """Run a statement and return all rows."""
        return self._connection.execute(statement, values).fetchall()

    def row(self, statement: str, *values: object) -> sqlite3.Row | None:
        """Run a statement and return its first row, None without a row."""
        found: sqlite3.Row | None = self._connection.execute(statement, values).fetchone()
        return found

    def run(self, statement: str, *values: object) -> int:
        """Run a statement and return the number of changed rows."""
        return self._connection.execute(statement, values).rowcount

    def insert(self, statement: str, *values: object) -> int:
        """Run an INSERT statement and return the id of the new row."""
        return self._connection.execute(statement, values).lastrowid or 0

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the statements of the ``with`` block together, or none of them after an error."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._connection.close()

    def _migrate(self, path: Path) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(_MIGRATIONS):
            raise StateUnusable(f"{path}: written by a newer version of the console: install that version")
        for number, script in enumerate(_MIGRATIONS[version:], version + 1):
            self._connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version={number}; COMMIT;")
