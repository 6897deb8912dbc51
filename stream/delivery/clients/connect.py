"""Connections to a receiver: one DNS query for each attempt, a check of the addresses, a proxy, and TLS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from ingest.exceptions import ConfigError
from ingest.runtime.text import decode_text
from ingest.site import ReceiverConfig
from ingest.site.receiver import VARIABLE
from stream.delivery.clients.guard import DeliveryPolicy

MAX_LINE_BYTES = 8 * 1024
"""Maximum length of one line that is read from a connection, in bytes: the usual limit of HTTP servers."""
MAX_PROXY_LINES = 128
"""Maximum number of lines in a proxy's response to CONNECT."""
RESOLVERS = 2
"""Number of threads that look up one receiver's host name. Each receiver has its own threads, so that a name server
that hangs delays only one receiver."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AddressRefused(ValueError):
    """The dispatcher must not connect to an address."""


class Connector:
    """Opens connections to the hosts of one receiver.

    The host name is resolved once for each connection, and the connection goes to an address that was checked. A DNS
    server therefore cannot answer the check with one address and the connection with another one.
    """

    def __init__(self, receiver: ReceiverConfig, policy: DeliveryPolicy) -> None:
        self._receiver, self._policy = receiver, policy
        self._resolver = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")

    async def open(self, host: str, port: int, *, tls: bool, timeout_s: float) -> Streams:
        """Return an open connection, which the caller must close.

        Raise ConfigError for unreadable certificates, AddressRefused, OSError, or ValueError for a proxy that refuses
        the connection.
        """
        self._require_allowed(host, tls=tls)
        context = self.tls_context() if tls else None
        if self._receiver.proxy is None:
            return await self._connect(host, port, context, timeout_s)
        proxy = urlsplit(with_variables(self._receiver, "proxy", self._receiver.proxy))
        self._require_literal(host)
        self._require_name(proxy.hostname or "")
        reader, writer = await self._connect(proxy.hostname or "", proxy.port or 80, None, timeout_s)
        try:
            await _tunnel(reader, writer, proxy, host, port)
            if context:
                await _require_silence(reader)
                await writer.start_tls(context, server_hostname=host)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    def close(self) -> None:
        """Release the threads."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def resolve(self, host: str, port: int, *, tls: bool) -> list[str]:
        """Resolve a host name for a client that opens its own connection, without a proxy, and return the addresses
        that are not refused. Raise OSError or AddressRefused."""
        self._require_allowed(host, tls=tls)
        return await self._addresses(host, port)

    async def _addresses(self, host: str, port: int) -> list[str]:
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._resolver, look_up)
        addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
        refusals = {each: self._refusal(each) for each in addresses}
        allowed = [each for each, refusal in refusals.items() if not refusal]
        if not allowed:
            raise AddressRefused(next(iter(refusals.values()), f"{host} has no address"))
        return allowed

    async def _connect(self, host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> Streams:
        """Try the addresses of the host in order, and return a connection to the first address that answers.

        Each address gets an equal share of the time limit.
        """
        addresses = await self._addresses(host, port)
        failure: Exception = OSError(f"{host} has no address")
        for address in addresses:
            try:
                async with asyncio.timeout(timeout_s / len(addresses)):
                    return await asyncio.open_connection(
                        address,
                        port,
                        ssl=context,
                        server_hostname=host if context else None,
                        limit=MAX_LINE_BYTES,
                    )
            except ssl.SSLError:
                raise
            except OSError as error:  # TimeoutError is an OSError
                failure = error
        raise failure

    def _require_allowed(self, host: str, *, tls: bool) -> None:
        if self._policy.https_only and not tls:
            raise AddressRefused(f"{host} is refused by --https-only of the dispatcher: expected an address with TLS")
        self._require_name(host)

    def _require_name(self, host: str) -> None:
        if refusal := self._policy.name_refusal(host):
            raise AddressRefused(refusal)

    def _refusal(self, address: str) -> str:
        return self._policy.address_refusal(address, allow_private=self._receiver.allow_private)

    def _require_literal(self, host: str) -> None:
        """Check a host that is an IP address. The proxy resolves a host name, so only the proxy can check it."""
        try:
            refusal = self._refusal(host)
        except ValueError:
            return
        if refusal:
            raise AddressRefused(refusal)

    def tls_context(self) -> ssl.SSLContext:
        """Return the TLS settings. Files of certificates are read again for each connection, because they may be
        renewed at any time."""
        receiver = self._receiver
        if receiver.ca_file is None and receiver.cert_file is None:
            return self._usual_tls
        key = "ca_file" if receiver.ca_file else "cert_file"
        try:
            if receiver.ca_file:
                context = ssl.create_default_context(cafile=receiver.ca_file)
            else:
                context = httpx.create_ssl_context(trust_env=False)
            key = "cert_file"
            if receiver.cert_file:
                context.load_cert_chain(receiver.cert_file, receiver.key_file)
        except OSError as error:  # SSLError is an OSError
            value = str(getattr(receiver, key))
            raise ConfigError(receiver.key, key, value, f"readable certificates as PEM ({error.strerror})") from None
        return context

    @cached_property
    def _usual_tls(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=False)


async def _tunnel(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proxy: SplitResult, host: str, port: int
) -> None:
    """Ask a proxy for a connection by the method CONNECT (RFC 9110, §9.3.6). Raise ValueError if the proxy refuses
    the connection."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    head = [f"CONNECT {target} HTTP/1.1", f"host: {target}"]
    if proxy.username:
        login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        head.append(f"proxy-authorization: Basic {base64.b64encode(login.encode()).decode()}")
    writer.write("\r\n".join([*head, "", ""]).encode())
    await writer.drain()
    status = await reader.readuntil(b"\n")
    for _ in range(MAX_PROXY_LINES):
        if not (await reader.readuntil(b"\n")).strip():
            break
    else:
        raise ValueError(f"the proxy sent more than {MAX_PROXY_LINES} lines in its answer to CONNECT {target}")
    if not re.match(rb"HTTP/1\.[01] 2[0-9][0-9]\b", status):
        raise ValueError(f"the proxy answered {status[:60]!r} to CONNECT {target}: expected status 200")


async def _require_silence(reader: asyncio.StreamReader) -> None:
    """Raise ValueError if data has arrived before TLS, which would be read as the receiver's response."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            if await reader.read(1):
                raise ValueError("the proxy sent data before the receiver's TLS: expected nothing after its status")


def with_variables(receiver: ReceiverConfig, key: str, text: str) -> str:
    """Replace each ``${NAME}`` by the environment variable NAME. Raise ConfigError for a variable that is not set."""
    missing = next((name for name in VARIABLE.findall(text) if name not in os.environ), None)
    if missing:
        expected = f"the environment variable {missing} of the dispatcher to be set"
        raise ConfigError(receiver.key, key, f"${{{missing}}}", expected)
    return VARIABLE.sub(lambda found: os.environ[found[1]], text)


def address_of(receiver: ReceiverConfig) -> str:
    """Return a receiver's URL, from ``url`` or the file ``url_file``. Raise ConfigError."""
    if receiver.url_file is None:
        return with_variables(receiver, "url", receiver.url)
    return secret_lines(receiver, "url_file", receiver.url_file)[0]


def secret_lines(receiver: ReceiverConfig, key: str, file: Path | None) -> list[str]:
    """Return the lines of a secret file that are not empty. Raise ConfigError if a secret file has no line that is
    not empty."""
    if file is None:
        raise ConfigError(receiver.key, key, "", "the name of a file with a secret")
    try:
        lines = [line.strip() for line in decode_text(file.read_bytes()).splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(receiver.key, key, str(file), f"a readable file ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(receiver.key, key, str(file), f"a text file ({error})") from None
    if not lines:
        raise ConfigError(receiver.key, key, str(file), "a file with a secret on its first line")
    return lines
