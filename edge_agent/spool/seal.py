"""Encryption at rest: AES-256-GCM with a nonce per row. The key is not on the disk that is stolen with the agent.

A sealed record is the nonce, then what the cipher makes of the record. The row's identity is authenticated with it,
so that rows cannot be exchanged for each other (NIST SP 800-38D; random nonces are safe for 2^32 rows of one key).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.exceptions import ConfigError

KEY_BYTES = 32
NONCE_BYTES = 12
PLAIN = ""
"""The key id of a record that is not encrypted."""
_ID_CHARS = 12


class Seal:
    """Seals with the first key, and opens with any of them; without keys it leaves records as they are."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self.key_id = _key_id(keys[0]) if keys else PLAIN

    def knows(self, key_id: str) -> bool:
        """Tell whether records under this key id can be opened."""
        return key_id == PLAIN or key_id in self._ciphers

    def close(self, record: bytes, identity: bytes) -> bytes:
        """Return a record as it is kept, under ``self.key_id``."""
        if not self.key_id:
            return record
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self.key_id].encrypt(nonce, record, identity)

    def open(self, kept: bytes, identity: bytes, key_id: str) -> bytes:
        """Return a record from what was kept of it. Raise ValueError when it is not what was sealed.

        The key must be known.
        """
        if key_id == PLAIN:
            return kept
        try:
            return self._ciphers[key_id].decrypt(kept[:NONCE_BYTES], kept[NONCE_BYTES:], identity)
        except InvalidTag:
            raise ValueError("its record is not the sealed one") from None


def load_seal(key_file: Path | None, previous: Sequence[Path] = ()) -> Seal:
    """Read the keys, the one to seal with first. Raise ConfigError for a file that holds none."""
    if key_file is None:
        if previous:
            raise ConfigError("site file", "spool.previous_key_files", str(previous[0]), "spool.key_file beside it")
        return Seal()
    return Seal([_key("spool.key_file", key_file), *(_key("spool.previous_key_files", file) for file in previous)])


def _key(setting: str, file: Path) -> bytes:
    expected = f"a file of {KEY_BYTES} random bytes, or of them as {2 * KEY_BYTES} hexadecimal digits"
    try:
        data = file.read_bytes()
        key = data if len(data) == KEY_BYTES else bytes.fromhex(data.decode())
    except (OSError, ValueError) as error:
        raise ConfigError("site file", setting, str(file), f"{expected} ({type(error).__name__})") from None
    if len(key) != KEY_BYTES:
        raise ConfigError("site file", setting, str(file), f"{expected}; it holds {len(key)}")
    return key


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"sightline spool key:" + key).hexdigest()[:_ID_CHARS]
