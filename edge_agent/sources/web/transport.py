"""HTTP client transport for cameras, which accepts faulty header lines and, if configured, old TLS versions.

Some cameras send faulty header lines. Browsers skip a faulty header line, but h11 refuses the whole response.
``_TidyStream`` removes faulty header lines before the HTTP parser h11 sees the response.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING

import httpcore
import httpx

from ingest.site import StreamConfig

if TYPE_CHECKING:
    from httpcore import SOCKET_OPTION

_MAX_HEADER_BYTES = 64 * 1024
_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/(\d\.\d)[ \t]+(\d{3})(?:[ \t]+([^\r\n]*))?")
_INFORMATIONAL = re.compile(rb"HTTP/\d\.\d[ \t]+1\d\d")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:[ \t]*(.*)")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = b"content-length"
_OP_LEGACY_SERVER_CONNECT = 0x4
"""OpenSSL's option that allows connections to servers without secure renegotiation (RFC 5746). The number is written
out because Python's ``ssl`` module has a name for this option only since version 3.12."""
_LEGACY_CIPHERS = "DEFAULT:@SECLEVEL=0"
"""OpenSSL cipher list for cameras with old TLS: security level 0 allows SHA-1 signatures and short keys."""


class CameraTransport(httpx.HTTPTransport):
    """Transport that accepts faulty header lines in responses."""

    def __init__(self, config: StreamConfig) -> None:
        context = _ssl_context(config)
        super().__init__(verify=context)
        # httpx has no parameter for the backend of its pool
        self._pool = httpcore.ConnectionPool(ssl_context=context, network_backend=_TidyBackend())


def _ssl_context(config: StreamConfig) -> ssl.SSLContext:
    ca_file = str(config.ca_file) if config.ca_file else None
    context = ssl.create_default_context(cafile=ca_file)
    if not config.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if config.tls == "legacy":
        context.set_ciphers(_LEGACY_CIPHERS)
        context.options |= _OP_LEGACY_SERVER_CONNECT
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # TLS 1.0, because SSL 3 stays excluded
    return context


class _TidyBackend(httpcore.NetworkBackend):
    """Network backend of httpcore that opens sockets and removes faulty header lines from responses."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        return _TidyStream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))


class _TidyStream(httpcore.NetworkStream):
    """Connection that removes faulty header lines from each HTTP response.

    After each write of a request, the connection treats the next received bytes as response headers.
    """

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._in_headers = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._in_headers:
            return self._stream.read(max_bytes, timeout)
        data, received_bytes, self._in_headers = b"", 0, False
        while received_bytes <= _MAX_HEADER_BYTES and (more := self._stream.read(max_bytes, timeout)):
            received_bytes += len(more)
            data = (data + more).lstrip(b"\r\n")
            while end := _END.search(data):
                headers, data = data[: end.start()], data[end.end() :]
                if not _INFORMATIONAL.match(headers):
                    return tidy(headers) + data
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._in_headers = True
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TidyStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def tidy(headers: bytes) -> bytes:
    """Remove the lines that are not valid header fields from the headers of a response.

    Return the headers with an empty line at the end.
    """
    first, *lines = (line.rstrip(b"\r") for line in headers.lstrip(b"\r\n").split(b"\n"))
    status = _STATUS.match(first)
    found = [b"HTTP/%s %s %s" % (status[1], status[2], _CONTROL.sub(b"", status[3] or b"")) if status else first]
    has_length = False
    for line in lines:
        field = _FIELD.fullmatch(line)
        if not field:
            continue
        name, value = field[1], _CONTROL.sub(b"", field[2]).strip()
        if name.lower() == _LENGTH:
            if has_length or not value.isdigit():
                continue
            has_length = True
        found.append(name + b": " + value)
    return b"\r\n".join(found) + b"\r\n\r\n"
