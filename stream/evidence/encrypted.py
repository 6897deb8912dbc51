"""Evidence encrypted at rest: wraps another store, and encrypts its files with AES-256-GCM. Each key has an id.

An encrypted file is ``SLE1``, the length of the key's id (1 byte), the id, a nonce of 12 random bytes, and the
ciphertext with its tag of 16 bytes (NIST SP 800-38D). The name of the file is authenticated data, so that an exchange
of two files is noticed. Random nonces are safe for 2^32 files under one key.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.contract.records import Evidence
from ingest.exceptions import ConfigError
from ingest.runtime.files import PRIVATE_FILE, replace_file
from ingest.runtime.text import read_text
from stream.evidence.store import EvidenceStore, StoredFile, reference
from stream.exceptions import EvidenceChanged, StoreFailed

MAGIC = b"SLE1"
KEY_BYTES, NONCE_BYTES = 32, 12
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,63}")
_PLAIN_FOLDER = "holds/"
"""Folder of the legal holds, which stay unencrypted, because a legal hold must be readable even without the key."""
_WRITTEN = "application/octet-stream"


class KeyRing(NamedTuple):
    """The keys by id. New files are encrypted with the key ``current``; files of all other keys stay readable."""

    current: str
    keys: Mapping[str, bytes]


def read_keys(path: Path) -> KeyRing:
    """Read a key file: a line ``ID BASE64`` for each key of 32 bytes. The first key encrypts new files.

    Raise ConfigError.
    """
    expected = "lines `ID BASE64` with an id and a key of 32 bytes, as `sightline evidence keygen` writes them"
    keys: dict[str, bytes] = {}
    for number, line in enumerate(read_text(path, "key").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, text = line.strip().partition(" ")
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES or not _KEY_ID.fullmatch(name) or name in keys:
            raise ConfigError(str(path), f"line {number}", "…", expected)
        keys[name] = key
    if not keys:
        raise ConfigError(str(path), "file", "no key", expected)
    return KeyRing(next(iter(keys)), keys)


def add_key(path: Path, name: str) -> None:
    """Add a new random key at the top of a key file, so that this key encrypts new files.

    Make the key file if it is missing. Only the owner of the key file can read it. Raise ConfigError for an id that
    the file already has, or for a file in another format.
    """
    if not _KEY_ID.fullmatch(name):
        raise ConfigError(str(path), "id", name, "1 to 63 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`")
    older = read_text(path, "key") if path.exists() else ""
    if older and name in read_keys(path).keys:
        raise ConfigError(str(path), "id", name, "an id that the file does not have yet")
    line = f"{name} {base64.b64encode(os.urandom(KEY_BYTES)).decode()}\n"
    replace_file(path, (line + older).encode(), PRIVATE_FILE)


class EncryptedStore:
    """A store that encrypts the files of another store. Files that were stored before encryption stay readable.

    References have the hashes and sizes of the unencrypted contents. Raise EvidenceChanged for a file that was
    changed, and StoreFailed for a file whose key is missing.
    """

    def __init__(self, inner: EvidenceStore, ring: KeyRing) -> None:
        self._inner, self._ring = inner, ring

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        """Encrypt and store a file."""
        if name.startswith(_PLAIN_FOLDER):
            return self._inner.put(name, data, media_type)
        kept = self._inner.put(name, self._sealed(name, data), _WRITTEN)
        return reference(name, kept.url, data, media_type)

    def open(self, name: str) -> BinaryIO:
        """Decrypt a whole file, which proves that it is intact, and return its contents as a stream."""
        stream = self._inner.open(name)
        head = stream.read(len(MAGIC))
        if head != MAGIC or name.startswith(_PLAIN_FOLDER):
            stream.seek(0)
            return stream
        with stream:
            return io.BytesIO(self._opened(name, stream.read()))

    def delete(self, name: str) -> None:
        """Remove a file."""
        self._inner.delete(name)

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield the files of the inner store, with their encrypted sizes."""
        return self._inner.list(prefix)

    def remove_parts(self, before_ns: int) -> int:
        """Remove the incomplete files of the encrypted store."""
        return self._inner.remove_parts(before_ns)

    def _sealed(self, name: str, data: bytes) -> bytes:
        own, nonce = self._ring.current.encode(), os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._ring.keys[self._ring.current]).encrypt(nonce, data, name.encode())
        return b"".join((MAGIC, bytes([len(own)]), own, nonce, sealed))

    def _opened(self, name: str, rest: bytes) -> bytes:
        length = rest[0] if rest else 0
        own, nonce, sealed = rest[1 : 1 + length], rest[1 + length :][:NONCE_BYTES], rest[1 + length + NONCE_BYTES :]
        key = self._ring.keys.get(own.decode(errors="replace"))
        if key is None:
            raise StoreFailed(f"{name}: encrypted with the key {own[:64]!r}: expected this key in the key file")
        try:
            return AESGCM(key).decrypt(nonce, sealed, name.encode())
        except (InvalidTag, ValueError):
            raise EvidenceChanged(name) from None
