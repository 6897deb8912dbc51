"""Ask a broker whether it serves: one metadata request over a plain socket, with no client behind it."""

from __future__ import annotations

import socket
import struct

_METADATA = 3
_VERSION = 1
_CORRELATION = 7
_CLIENT = b"sightline-probe"
ANSWER_TIMEOUT_S = 2.0
"""A broker on the same machine answers in milliseconds; one that is still starting is asked again."""


def serves(host: str, port: int) -> bool:
    """Tell whether a broker answers a metadata request and knows itself as alive in its cluster.

    Source of the layout: the Kafka protocol guide, Metadata request version 1. Blocks up to ``ANSWER_TIMEOUT_S``.
    """
    header = struct.pack(">hhih", _METADATA, _VERSION, _CORRELATION, len(_CLIENT)) + _CLIENT
    no_topics = struct.pack(">i", 0)
    request = header + no_topics
    try:
        with socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answer:
                _size, correlation, brokers = struct.unpack(">iii", answer.read(12))
    except (OSError, struct.error):
        return False
    return bool(correlation == _CORRELATION and brokers > 0)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
