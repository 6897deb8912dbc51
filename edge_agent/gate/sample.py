"""Which withheld frames are sent all the same. Pure, and the same for whoever asks again."""

from __future__ import annotations

from hashlib import blake2b

_BYTES = 8
_ALL = 1 << (8 * _BYTES)


def sampled(camera: str, epoch: int, seq: int, share: float) -> bool:
    """Tell whether a frame belongs to a sample of that ``share``: its name is hashed, so that a replay agrees."""
    digest = blake2b(f"{camera}/{epoch}/{seq}".encode(), digest_size=_BYTES).digest()
    return int.from_bytes(digest, "big") < share * _ALL
