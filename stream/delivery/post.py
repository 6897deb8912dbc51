"""A minimal HTTP/1.1 client that posts a body and reads only the status and ``Retry-After`` of the response.

A receiver is third-party software, which may be faulty or hostile. A receiver may send informational responses
without end (RFC 9110, §15.2), send its headers very slowly, or send a body of another length than announced. A
general HTTP client reads and checks the whole response, so one hostile receiver could occupy the event loop and block
deliveries to other receivers. This client reads the status line, and limits the number of bytes and seconds for the
rest of the response.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from stream.delivery.schedule import AttemptResult

MAX_LINE_BYTES = 8 * 1024
"""Maximum length of one line of the response head, in bytes: the usual limit of HTTP servers."""
MAX_HEAD_LINES = 128
"""Maximum number of lines up to the end of the response head, including the lines of informational responses."""
MAX_BODY_BYTES = 64 * 1024
"""Maximum number of bytes of a response body that the client reads. The client reads the body because a receiver may
report an error if the client disconnects before the response is sent completely."""
REST_S = 1.0
"""Maximum time in seconds to read the rest of a response after the status line. The status line alone decides whether
the delivery succeeded."""
RESOLVERS = 2
"""Number of threads that look up one receiver's host name. Each receiver has its own threads, so that a name server
that hangs delays only one receiver."""

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?:[ \r\n])")


class HttpPoster:
    """An HTTP client that posts to one URL. Each post opens its own connection, and posts may run concurrently.

    Raise ValueError for a URL that has no host or whose scheme is not http or https.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url}: {error}") from None
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"{url}: expected an address that begins with http:// or https:// and has a host")
        self._host = parsed.raw_host.decode("ascii").strip("[]")
        self._port = parsed.port or (443 if parsed.scheme == "https" else 80)
        self._authority, self._target = parsed.netloc, parsed.raw_path
        self._tls = httpx.create_ssl_context(trust_env=False) if parsed.scheme == "https" else None
        self._resolver = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")

    async def post(self, headers: Mapping[str, str], body: bytes, timeout_s: float) -> AttemptResult:
        """Post a body and return the final status. If the post fails, return a result whose status is None.

        ``timeout_s`` limits the time from the look-up of the host name to the arrival of the status line.
        """
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await self._connect(timeout_s)
                await _send(writer, self._head(headers, len(body)) + body)
                status = await _final_status(reader)
            if 200 <= status < 300:
                await _skip_body(reader)
                return AttemptResult(status)
            return AttemptResult(status, retry_after=await _retry_after(reader))
        except TimeoutError:
            return AttemptResult(None, f"no status within {timeout_s:g} s")
        except asyncio.IncompleteReadError:
            return AttemptResult(None, "the connection was closed before the status line")
        except (OSError, ValueError, asyncio.LimitOverrunError) as error:
            return AttemptResult(None, f"{type(error).__name__}: {error}"[:300])
        finally:
            if writer is not None:
                writer.transport.abort()

    def close(self) -> None:
        """Release the threads."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def _connect(self, timeout_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Try the addresses of the host in order, and return a connection to the first address that answers.

        Each address gets an equal share of the time limit.
        """
        loop = asyncio.get_running_loop()
        look_up = partial(socket.getaddrinfo, self._host, self._port, type=socket.SOCK_STREAM)
        addresses = list(
            dict.fromkeys(str(info[4][0]) for info in await loop.run_in_executor(self._resolver, look_up))
        )
        failure: Exception = OSError(f"{self._host} has no address")
        for address in addresses:
            try:
                async with asyncio.timeout(timeout_s / len(addresses)):
                    return await asyncio.open_connection(
                        address,
                        self._port,
                        ssl=self._tls,
                        server_hostname=self._host if self._tls else None,
                        limit=MAX_LINE_BYTES,
                    )
            except ssl.SSLError:
                raise
            except OSError as error:  # TimeoutError is an OSError
                failure = error
        raise failure

    def _head(self, headers: Mapping[str, str], length: int) -> bytes:
        fixed = {"user-agent": "sightline", "accept": "*/*", "connection": "close", "content-length": str(length)}
        lines = [f"{name}: {value}\r\n".encode("ascii") for name, value in {**fixed, **headers}.items()]
        return b"POST %s HTTP/1.1\r\nhost: %s\r\n%s\r\n" % (self._target, self._authority, b"".join(lines))


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


async def _retry_after(reader: asyncio.StreamReader) -> str:
    """Return the value of the header ``Retry-After``, or "" if the header does not arrive within ``REST_S`` and
    ``MAX_HEAD_LINES``."""
    with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(REST_S):
            for _ in range(MAX_HEAD_LINES):
                name, _, value = (await reader.readuntil(b"\n")).strip().partition(b":")
                if name.lower() == b"retry-after":
                    return value.strip().decode("ascii", errors="replace")
                if not name:
                    break
    return ""


async def _skip_body(reader: asyncio.StreamReader) -> None:
    """Read and discard at most ``MAX_BODY_BYTES`` of the response body within ``REST_S``. The body is read because a
    receiver may abort its work if the client disconnects early."""
    left = MAX_BODY_BYTES
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(REST_S):
            while left > 0 and (part := await reader.read(left)):
                left -= len(part)
