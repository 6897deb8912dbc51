"""How many rows and bytes wait of each epoch, in memory: a backlog of a million is not added up every second."""

from __future__ import annotations

import sqlite3

_ADDED_UP = "INSERT INTO counts SELECT kind, name, epoch, count(*), sum(size) FROM outbox GROUP BY kind, name, epoch"
_COUNTED = """
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


class Counts:
    """Adds up what waits, and keeps count of it in ``counts`` from then on, in each transaction with its rows."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._version = -1
        db.executescript(_COUNTED)
        self.hold()

    def hold(self) -> None:
        """Add up anew if another process has written: what it keeps and removes, nothing here counts.

        Nobody should. But a spool that seems full for ever, since somebody has taken rows out by hand, keeps nothing.
        Raise sqlite3.Error.
        """
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        try:
            with self._db:
                self._db.execute("DELETE FROM counts")
                self._db.execute(_ADDED_UP)
        except sqlite3.IntegrityError as error:  # an epoch comes twice, or without its name: its index is damaged
            raise sqlite3.DatabaseError(f"the index of what waits: {error}") from error
        self._version = version
