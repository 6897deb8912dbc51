"""Tests of encryption at rest: rows are unreadable without their key, and a missing key destroys no row."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.exceptions import SpoolUnavailable, WrongKey
from edge_agent.spool.schema import Row, checksum
from edge_agent.spool.seal import Seal, load_seal
from edge_agent.spool.store import SpoolStore
from ingest.exceptions import ConfigError

SECRET = b"a face nobody else may see" * 40
OLD, NEW = os.urandom(32), os.urandom(32)


def row(seq: int, kind: str = "frame") -> Row:
    return Row(kind, "a", 5, seq, seq + 1, SECRET)


def records(spool: SpoolStore) -> list[bytes]:
    return [r.record for r in (*spool.settle_live(0, 10), *spool.others(0, 10))]


def test_an_encrypted_spool_has_no_plain_text_of_a_record_on_the_disk(tmp_path: Path) -> None:
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([NEW]))
    spool.keep([row(0), row(1), row(0, "status")])
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert SECRET[:26] not in held
    assert len(held) > 3 * len(SECRET)
    stored = {bytes(r) for (r,) in spool._db.execute("SELECT record FROM outbox")}  # type: ignore[union-attr]
    assert len(stored) == 3  # equal pictures are encrypted differently
    spool.close()
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([NEW]))
    assert records(spool) == [SECRET] * 3
    spool.close()


def test_older_and_unencrypted_spool_rows_are_readable_after_a_key_rotation(tmp_path: Path) -> None:
    for seq, keys in enumerate(([], [OLD], [NEW, OLD])):
        spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal(keys))
        spool.keep([row(seq)])
        spool.close()
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([NEW, OLD]))
    assert records(spool) == [SECRET] * 3
    spool.close()


@pytest.mark.parametrize("keys", [[], [NEW]])
def test_opening_a_spool_without_its_key_fails_and_leaves_the_file_unchanged(
    tmp_path: Path, keys: list[bytes]
) -> None:
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([OLD]))
    spool.keep([row(0)])
    spool.close()
    with pytest.raises(WrongKey, match=rf"{Seal([OLD]).key_id}.*spool.previous_key_files.*nothing was changed"):
        SpoolStore(tmp_path / "spool.db", "agent", seal=Seal(keys))
    assert not list(tmp_path.glob("*.corrupt-*"))
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([OLD]))
    assert records(spool) == [SECRET]
    spool.close()


@pytest.mark.parametrize("bit", [0x01, 0x80])
@pytest.mark.parametrize("where", ["row", "index"])
def test_a_spool_with_one_damaged_encryption_key_id_opens_and_loses_at_most_one_row(
    tmp_path: Path, where: str, bit: int
) -> None:
    """An agent exits if it lacks the key of a row. One flipped bit in a key id must not look like a missing key."""
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([NEW]))
    spool.keep([row(seq) for seq in range(5)])
    spool.close()
    key = Seal([NEW]).key_id.encode()
    data = bytearray((tmp_path / "spool.db").read_bytes())
    places = [match.start() for match in re.finditer(key, data)]
    rows = [at for at in places if b"framewait" in data[at - 60 : at]]
    index = [at for at in places if at not in rows]
    assert len(rows) == len(index) == 5
    data[(rows if where == "row" else index)[2]] ^= bit
    (tmp_path / "spool.db").write_bytes(data)
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([NEW]))
    for _ in range(3):
        with contextlib.suppress(SpoolUnavailable):  # the first call salvages the file
            found = spool.settle_live(0, 10)
            break
    assert len(spool.recoveries) == 1
    assert len(found) == (4 if where == "row" else 5)
    spool.close()


def test_an_encrypted_record_moved_to_another_spool_row_is_rejected(tmp_path: Path) -> None:
    """An attacker can recompute the checksum. The cipher authenticates the identity of the row."""
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([NEW]))
    spool.keep([row(0), row(1)])
    spool.close()
    db = sqlite3.connect(tmp_path / "spool.db")
    with db:
        (other,) = db.execute("SELECT record FROM outbox WHERE seq = 1").fetchone()
        crc = checksum(replace(row(0), record=other), Seal([NEW]).key_id)
        db.execute("UPDATE outbox SET record = ?, crc = ? WHERE seq = 0", (other, crc))
    db.close()
    spool = SpoolStore(tmp_path / "spool.db", "agent", seal=Seal([NEW]))
    with pytest.raises(SpoolUnavailable, match="row 1, frame/a/5/0: the record was changed after its encryption"):
        spool.settle_live(0, 10)
    spool.close()


def test_a_spool_key_file_may_hold_raw_bytes_or_hexadecimal_digits(tmp_path: Path) -> None:
    raw, text, old = tmp_path / "raw", tmp_path / "text", tmp_path / "old"
    raw.write_bytes(NEW)
    text.write_text(NEW.hex() + "\n")
    old.write_bytes(OLD)
    assert load_seal(raw).key_id == load_seal(text, [old]).key_id == Seal([NEW]).key_id
    assert load_seal(text, [old]).knows(Seal([OLD]).key_id)
    assert load_seal(None).key_id == ""


@pytest.mark.parametrize(("name", "content"), [("short", b"too short"), ("none", None), ("hex", b"ab" * 20)])
def test_the_error_for_an_unusable_spool_key_file_names_the_file(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=f"spool.key_file = .*{name}.*a file of 32 random bytes"):
        load_seal(file)


def test_previous_spool_keys_without_a_current_key_are_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a site file that also sets spool\.key_file"):
        load_seal(None, [tmp_path / "old"])
