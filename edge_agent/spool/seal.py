"""Encryption at rest: AES-256-GCM with a nonce per row. Keep the key off the disk that may be stolen with the agent.

A sealed record is the nonce followed by the ciphertext. The cipher authenticates the row's identity too, so that
records cannot be moved between rows (NIST SP 800-38D; random nonces are safe for 2^32 rows of one key).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.exceptions import ConfigError
from ingest.runtime.text import decode_text

KEY_BYTES = 32
NONCE_BYTES = 12
PLAIN = ""
"""Key id of an unencrypted record."""
_ID_CHARS = 12


class Seal:
    """Seals records with the first key, and opens them with any key; without keys, records stay unencrypted."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self.key_id = _key_id(keys[0]) if keys else PLAIN

    def knows(self, key_id: str) -> bool:
        """Return whether records sealed with this key can be opened."""
        return key_id == PLAIN or key_id in self._ciphers

    def close(self, record: bytes, identity: bytes) -> bytes:
        """Return the record, sealed with the key ``self.key_id``."""
        if not self.key_id:
            return record
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self.key_id].encrypt(nonce, record, identity)

    def open(self, sealed: bytes, identity: bytes, key_id: str) -> bytes:
        """Return the record of a sealed one. Raise ValueError if it differs from the record that was sealed.

        The key must be known.
        """
        if key_id == PLAIN:
            return sealed
        try:
            return self._ciphers[key_id].decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], identity)
        except InvalidTag:
            raise ValueError("its record is not the sealed one") from None


def load_seal(key_file: Path | None, previous: Sequence[Path] = ()) -> Seal:
    """Return the seal with the keys of these files; ``key_file`` seals. Raise ConfigError for an unusable file."""
    if key_file is None:
        if previous:
            raise ConfigError(
                "site file", "spool.previous_key_files", str(previous[0]), "spool.key_file to be set as well"
            )
        return Seal()
    return Seal([_key("spool.key_file", key_file), *(_key("spool.previous_key_files", file) for file in previous)])


def _key(setting: str, file: Path) -> bytes:
    expected = f"a file of {KEY_BYTES} random bytes, or of them as {2 * KEY_BYTES} hexadecimal digits"
    try:
        data = file.read_bytes()
        key = data if len(data) == KEY_BYTES else bytes.fromhex(decode_text(data))
    except (OSError, ValueError) as error:
        raise ConfigError("site file", setting, str(file), f"{expected} ({type(error).__name__})") from None
    if len(key) != KEY_BYTES:
        raise ConfigError("site file", setting, str(file), f"{expected}; it holds {len(key)}")
    return key


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"sightline spool key:" + key).hexdigest()[:_ID_CHARS]
