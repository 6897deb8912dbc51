"""A minimal HTTP/1.1 client that posts a body and reads only the status and two headers of the response.

A receiver is third-party software, which may be faulty or hostile. A receiver may send informational responses
without end (RFC 9110, §15.2), send its headers very slowly, or send a body of another length than announced. A
general HTTP client reads and checks the whole response, so one hostile receiver could occupy the event loop and block
deliveries to other receivers. The client reads the status line of a receiver's response, and limits the number of
bytes and seconds for the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping

import httpx

from ingest.exceptions import ConfigError
from stream.delivery.clients.connect import Connector
from stream.delivery.schedule import AttemptResult

MAX_HEAD_LINES = 128
"""Maximum number of lines up to the end of the response head, including the lines of informational responses."""
MAX_BODY_BYTES = 64 * 1024
"""Maximum number of bytes of a response body that the client reads. The client reads the body because a receiver may
report an error if the client disconnects before the response is sent completely."""
REST_S = 1.0
"""Maximum time in seconds to read the rest of a response after the status line. The status line alone decides whether
the delivery succeeded."""
MAX_REASON_CHARS = 300
"""Maximum length of the reason in a receipt, in characters."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?:[ \r\n])")
_HOST = re.compile(r"(https?://)(?:[^/?#@]*@)?([^/?#@]{1,100})", re.IGNORECASE)
"""Scheme and host of a redirect's address. The path of the address is left out, because it may repeat the receiver's
path, which may be a secret."""
_HEADERS = (b"retry-after", b"location")
"""Names of the response headers that are read."""


class HttpPoster:
    """An HTTP client of one receiver. Each post opens its own connection, and posts may run concurrently."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> AttemptResult:
        """Post a body and return the final status. If the post fails, return a result whose status is None.

        A redirect is not followed, because its address is chosen by the receiver. ``timeout_s`` limits the time from
        the look-up of the host name to the arrival of the status line.
        """
        writer: asyncio.StreamWriter | None = None
        try:
            host, port, head = _request(url, headers, len(body))
            async with asyncio.timeout(timeout_s):
                tls = url.lower().startswith("https:")
                reader, writer = await self._connector.open(host, port, tls=tls, timeout_s=timeout_s)
                await _send(writer, head + body)
                status = await _final_status(reader)
            if 200 <= status < 300:
                await _skip_body(reader)
                return AttemptResult(status)
            return _failure(status, await _response_headers(reader))
        except TimeoutError:
            return AttemptResult(None, f"no status within {timeout_s:g} s")
        except asyncio.IncompleteReadError:
            return AttemptResult(None, "the connection was closed before the status line")
        except ssl.SSLCertVerificationError as error:
            reason = f"the receiver's certificate is refused: {error.verify_message}. Set ca_file to its authority"
            return AttemptResult(None, reason[:MAX_REASON_CHARS])
        except (OSError, ValueError, asyncio.LimitOverrunError, ConfigError) as error:
            return AttemptResult(None, f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS])
        finally:
            if writer is not None:
                writer.transport.abort()


def _request(url: str, headers: Mapping[str, str], length: int) -> tuple[str, int, bytes]:
    """Return the host, the port and the head of a request. Raise ValueError for an invalid URL, without its path,
    which may be a secret."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError("the address is invalid: expected http://host[:port]/path or https://…") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("the address is invalid: expected http:// or https:// with a host")
    fixed = {"user-agent": "sightline", "accept": "*/*", "connection": "close", "content-length": str(length)}
    lines = [f"{name}: {value}\r\n".encode("ascii") for name, value in {**fixed, **headers}.items()]
    head = b"POST %s HTTP/1.1\r\nhost: %s\r\n%s\r\n" % (parsed.raw_path, parsed.netloc, b"".join(lines))
    return (
        parsed.raw_host.decode("ascii").strip("[]"),
        parsed.port or (443 if parsed.scheme == "https" else 80),
        head,
    )


def _failure(status: int, headers: Mapping[bytes, str]) -> AttemptResult:
    """Return the result of a response that is not a success."""
    reason = ""
    if 300 <= status < 400:
        found = _HOST.match("".join(c for c in headers.get(b"location", "") if c.isprintable()))
        place = f" at {found[1]}{found[2]}" if found else ""
        reason = f"status {status}: redirects are not followed, enter the new address of the receiver{place}"
    return AttemptResult(status, reason, retry_after=headers.get(b"retry-after", ""))


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write a request.

    If the receiver closes the connection during the write, ignore the error, because the receiver may already have
    sent its status.
    """
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        await writer.drain()


async def _final_status(reader: asyncio.StreamReader) -> int:
    """Skip informational responses (1xx), and return the status of the final response.

    Raise ValueError if the response is not HTTP/1.
    """
    informational = False
    for _ in range(MAX_HEAD_LINES):
        line = await reader.readuntil(b"\n")
        found = _STATUS.match(line)
        if found is None and not informational:
            raise ValueError(f"the receiver answered {line[:60]!r}: expected an HTTP/1 status line")
        if found is not None and int(found[1]) >= 200:
            return int(found[1])
        informational = True
    raise ValueError(
        f"the receiver sent {MAX_HEAD_LINES} header lines of informational responses (HTTP 1xx): "
        "expected a final response"
    )


async def _response_headers(reader: asyncio.StreamReader) -> dict[bytes, str]:
    """Return the headers of ``_HEADERS`` that arrive within ``REST_S`` and ``MAX_HEAD_LINES``."""
    found: dict[bytes, str] = {}
    with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(REST_S):
            for _ in range(MAX_HEAD_LINES):
                name, _, value = (await reader.readuntil(b"\n")).strip().partition(b":")
                if name.lower() in _HEADERS:
                    found.setdefault(name.lower(), value.strip().decode("ascii", errors="replace"))
                if not name or len(found) == len(_HEADERS):
                    break
    return found


async def _skip_body(reader: asyncio.StreamReader) -> None:
    """Read and discard at most ``MAX_BODY_BYTES`` of the response body within ``REST_S``. The body is read because a
    receiver may abort its work if the client disconnects early."""
    left = MAX_BODY_BYTES
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(REST_S):
            while left > 0 and (part := await reader.read(left)):
                left -= len(part)
