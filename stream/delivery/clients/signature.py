"""Signatures of webhooks as Standard Webhooks 1.0 specifies.

A signature covers ``{webhook-id}.{webhook-timestamp}.{body}``. The scheme ``v1`` is HMAC-SHA256 with a shared secret
``whsec_…``. The scheme ``v1a`` is Ed25519 (RFC 8032) with a private key ``whsk_…``. A receiver verifies the signature
with the public key ``whpk_…``.
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

PRIVATE, PUBLIC = "whsk_", "whpk_"
KEY_BYTES = 32
TOLERANCE_S = 300
"""Maximum age of a message in seconds, and maximum time by which it may come from the future."""


def sign(secret: str, message_id: str, timestamp_s: int, body: bytes) -> str:
    """Return the signature of a message, with the name of its scheme. Raise ValueError for an unusable secret."""
    if secret.startswith(PRIVATE):
        key = Ed25519PrivateKey.from_private_bytes(_decoded(secret, PRIVATE)[:KEY_BYTES])
        signature = key.sign(f"{message_id}.{timestamp_s}.".encode() + body)
        return f"v1a,{base64.b64encode(signature).decode()}"
    try:
        return str(Webhook(secret).sign(message_id, datetime.fromtimestamp(timestamp_s, UTC), body.decode()))
    except Exception as error:  # the package standardwebhooks raises its own errors and those of base64
        raise ValueError(str(error)) from None


class WebhookVerifier:
    """Verifies messages with a shared secret ``whsec_…`` or a public key ``whpk_…``.

    Raise ValueError for an unusable secret.
    """

    def __init__(self, secret: str) -> None:
        self._key: Ed25519PublicKey | Webhook
        if secret.startswith(PUBLIC):
            self._key = Ed25519PublicKey.from_public_bytes(_decoded(secret, PUBLIC))
        else:
            self._key = Webhook(secret)

    def require(self, headers: Mapping[str, str], body: bytes) -> None:
        """Raise WebhookVerificationError if no signature is valid, or if the message is too old. Header names are in
        lower case."""
        key = self._key
        if not isinstance(key, Ed25519PublicKey):
            key.verify(body, dict(headers), json_parse=False)
            return
        message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not stamp.isdecimal() or abs(time.time() - int(stamp)) > TOLERANCE_S:
            raise WebhookVerificationError("Message timestamp too old or too new")
        for signature in headers.get("webhook-signature", "").split():
            scheme, _, text = signature.partition(",")
            if scheme == "v1a" and _valid(key, text, f"{message_id}.{stamp}.".encode() + body):
                return
        raise WebhookVerificationError("No matching signature found")


def new_secret(*, ed25519: bool) -> tuple[str, str]:
    """Return a new signing secret, and the secret or public key that the receiver needs to verify signatures."""
    key = Ed25519PrivateKey.generate()
    private = base64.b64encode(key.private_bytes_raw()).decode()
    if not ed25519:
        return f"whsec_{private}", f"whsec_{private}"
    return f"{PRIVATE}{private}", f"{PUBLIC}{base64.b64encode(key.public_key().public_bytes_raw()).decode()}"


def _decoded(secret: str, prefix: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(prefix), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a key that begins with {prefix} is not base64: {error}") from None
    if len(key) not in (KEY_BYTES, 2 * KEY_BYTES):  # libsodium appends the public key
        raise ValueError(f"a key that begins with {prefix} has {len(key)} bytes: expected {KEY_BYTES}")
    return key


def _valid(key: Ed25519PublicKey, text: str, message: bytes) -> bool:
    try:
        key.verify(base64.b64decode(text, validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True
