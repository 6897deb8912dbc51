"""Encryption of stored rows: AES-256-GCM with a nonce for each row.

The key protects pictures only if the key file is not on the agent's disk. A stored record consists of the nonce and
then the ciphertext. The cipher also authenticates the row's identity, so that a record cannot be moved to another
row. Random nonces are safe for up to 2^32 rows encrypted with one key (NIST SP 800-38D).
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
    """Encrypts records with the first key, and decrypts records with any of its keys.

    If the seal has no key, records stay unencrypted.
    """

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self.key_id = _key_id(keys[0]) if keys else PLAIN

    def knows(self, key_id: str) -> bool:
        """Return whether the seal can decrypt records that were encrypted with the key ``key_id``."""
        return key_id == PLAIN or key_id in self._ciphers

    def close(self, record: bytes, identity: bytes) -> bytes:
        """Encrypt a record with the key ``self.key_id``. Return the nonce and the ciphertext."""
        if not self.key_id:
            return record
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self.key_id].encrypt(nonce, record, identity)

    def open(self, sealed: bytes, identity: bytes, key_id: str) -> bytes:
        """Decrypt a stored record. Raise ValueError if the encrypted bytes were changed or belong to another row.

        The caller must have checked with ``knows`` that the seal has the key ``key_id``.
        """
        if key_id == PLAIN:
            return sealed
        try:
            return self._ciphers[key_id].decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], identity)
        except InvalidTag:
            raise ValueError("the record was changed after its encryption, or belongs to another row") from None


def load_seal(key_file: Path | None, previous: Sequence[Path] = ()) -> Seal:
    """Return a seal that encrypts with the key in ``key_file``.

    The seal can also decrypt with the keys in ``previous``.

    Raise ConfigError.
    """
    if key_file is None:
        if previous:
            raise ConfigError(
                "site file", "spool.previous_key_files", str(previous[0]), "a site file that also sets spool.key_file"
            )
        return Seal()
    return Seal([_key("spool.key_file", key_file), *(_key("spool.previous_key_files", file) for file in previous)])


def _key(setting: str, file: Path) -> bytes:
    expected = f"a file of {KEY_BYTES} random bytes, or of {2 * KEY_BYTES} hexadecimal digits"
    try:
        data = file.read_bytes()
        key = data if len(data) == KEY_BYTES else bytes.fromhex(decode_text(data))
    except (OSError, ValueError) as error:
        raise ConfigError("site file", setting, str(file), f"{expected} ({type(error).__name__})") from None
    if len(key) != KEY_BYTES:
        raise ConfigError("site file", setting, str(file), f"{expected}, found {len(key)} bytes")
    return key


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"sightline spool key:" + key).hexdigest()[:_ID_CHARS]
