"""Signatures of entries on the ``config`` topic: Ed25519 (RFC 8032), in Kafka headers.

A signature covers the key, the value and the time of signing. A record is stale if its time of signing is earlier
than the time of a record already seen with the same key. A stale record means that someone has written an old record
again. Tombstones are signed as well. The package cryptography is imported only where a site uses signatures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ingest.exceptions import ConfigError
from ingest.runtime.files import write_new
from ingest.runtime.text import decode_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_KEY_FILE = "SIGHTLINE_CONFIG_PUBLIC_KEY_FILE"
SIGN_KEY_FILE = "SIGHTLINE_CONFIG_SIGN_KEY_FILE"
SIGNATURE, SIGNED_AT = "sightline-signature", "sightline-signed-at"
_DOMAIN = b"sightline config 1\n"
"""Prefix of each signed message. Because of the prefix, a signature that was made with the same key for another
purpose is invalid here."""
_MAX_DIGITS = 19
"""Number of decimal digits of the largest time in ns that fits into a signed 64-bit integer."""


class ConfigSigner:
    """Signs entries with a private key. The time of each signature is later than the time of the previous signature
    and later than ``after``."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.after = 0
        """Latest time of signing on the topic, in ns. A new signature gets a later time even if this host's clock is
        slow, so that the new entry does not count as stale."""

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a private key. Raise ConfigError."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        expected = "a private key that `sightline config keygen` made"
        try:
            key = serialization.load_pem_private_key(decode_text(file.read_bytes()).encode(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError("config", "--sign-key", str(file), f"{expected} ({error})") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("config", "--sign-key", str(file), expected)
        return cls(key)

    def trust(self) -> ConfigTrust:
        """Return a ConfigTrust that accepts this key's signatures."""
        return ConfigTrust(self._key.public_key())

    def headers(self, key: str, value: bytes) -> dict[str, bytes]:
        """Return the headers with the signature of one record; an empty value is a tombstone."""
        self.after = max(time.time_ns(), self.after + 1)
        return {
            SIGNED_AT: str(self.after).encode(),
            SIGNATURE: self._key.sign(_message(key, value, self.after)),
        }


class ConfigTrust:
    """Checks signatures with a public key. ``seen`` maps each key of the topic to the latest time of signing, in ns.

    A caller may store ``seen`` on disk, so that stale records are also refused after a restart.
    """

    def __init__(self, key: Ed25519PublicKey, seen: MutableMapping[str, int] | None = None) -> None:
        self._key = key
        self.seen: MutableMapping[str, int] = {} if seen is None else seen

    @classmethod
    def load(cls, file: Path, seen: MutableMapping[str, int] | None = None) -> Self:
        """Read a public key. Raise ConfigError."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        expected = "a public key that `sightline config keygen` made"
        try:
            key = serialization.load_pem_public_key(decode_text(file.read_bytes()).encode())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError("config", PUBLIC_KEY_FILE, str(file), f"{expected} ({error})") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError("config", PUBLIC_KEY_FILE, str(file), expected)
        return cls(key, seen)

    @classmethod
    def from_env(cls, seen: MutableMapping[str, int] | None = None) -> Self | None:
        """Return the ConfigTrust for the public key in the file that the environment variable
        ``SIGHTLINE_CONFIG_PUBLIC_KEY_FILE`` names. Return None if the variable is not set.

        Raise ConfigError.
        """
        file = os.environ.get(PUBLIC_KEY_FILE)
        return cls.load(Path(file), seen) if file else None

    def check(self, key: str, value: bytes, headers: Mapping[str, bytes]) -> None:
        """Raise ConfigError for a record that is unsigned, signed with another key, or stale."""
        from cryptography.exceptions import InvalidSignature

        where, signature, stamp = f"config topic, {key}", headers.get(SIGNATURE), headers.get(SIGNED_AT, b"")
        if not signature:
            raise ConfigError(where, SIGNATURE, "", "a signature. Run `sightline config apply --sign-key`")
        at = int(stamp) if stamp.isdigit() and len(stamp) <= _MAX_DIGITS else -1
        try:
            self._key.verify(signature, _message(key, value, at))
        except InvalidSignature:
            raise ConfigError(
                where,
                SIGNATURE,
                signature.hex()[:16],
                f"a signature that the public key in {PUBLIC_KEY_FILE} verifies",
            ) from None
        newest = self.seen.get(key, 0)
        if at < newest:
            raise ConfigError(
                where,
                SIGNED_AT,
                at,
                f"at least {newest}: a newer entry was read before. Apply the site file again",
            )
        self.seen[key] = at


def generate(file: Path) -> Path:
    """Write a new private key, readable by its owner only, and the public key in the same folder.

    Return the path of the public key. Raise ConfigError if one of the two files already exists or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, public = Ed25519PrivateKey.generate(), file.with_name(f"{file.name}.pub")
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for path, data, mode in ((file, private_pem, 0o600), (public, public_pem, 0o644)):
        try:
            write_new(path, data, mode)
        except OSError as error:
            raise ConfigError(
                "config", "FILE", str(path), f"a new file in a writable folder ({error.strerror})"
            ) from None
    return public


def _message(key: str, value: bytes, at: int) -> bytes:
    return b"%s%d:%s\n%d\n%s" % (_DOMAIN, len(key.encode()), key.encode(), at, value)
