"""The HTTP server of the console, in the event loop of its service."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from ingest.exceptions import ConfigError

STOP_S = 3
"""Time in seconds that open requests and WebSockets have to end when the console stops."""
_MESSAGE_BYTES = 64 * 1024
"""Maximum size of a WebSocket message from a browser, in bytes. Browsers send short commands only."""
_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options of the HTTP server.

    ``certificate`` and ``key`` are PEM files for HTTPS. ``proxies`` names the addresses of reverse proxies, separated
    by commas: the headers ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are trusted only from these addresses.
    """

    certificate: Path | None = None
    key: Path | None = None
    proxies: str = ""


class ConsoleServer(uvicorn.Server):
    """HTTP server that leaves the signals of the process to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle no signal."""
        yield


def parse_listen(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT`` or ``[IPV6]:PORT``. Raise ConfigError."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError("console", "--listen", text, "HOST:PORT, such as 127.0.0.1:8090 or [::1]:8090")
    return host, int(port)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. With port 0, the system chooses a free port. Raise ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        found = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        expected = f"a free port on an address of this machine ({reason})"
        raise ConfigError("console", "--listen", found, expected) from None


async def serve(app: ASGIApp, listener: socket.socket, options: ServerOptions, stop: asyncio.Event) -> None:
    """Serve the application on a socket until ``stop`` is set. Raise ConfigError for an unusable certificate."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        ws_max_size=_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # JPEG does not shrink
        server_header=False,
        proxy_headers=bool(options.proxies),
        forwarded_allow_ips=options.proxies or None,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    try:
        config.load()
    except OSError as error:
        found = f"{options.certificate}, {options.key}"
        raise ConfigError("console", "--certificate", found, f"a certificate and its key as PEM ({error})") from None
    server = ConsoleServer(config)
    stopping = asyncio.create_task(_stop(server, stop))
    try:
        await server.serve([listener])
    finally:
        stopping.cancel()


async def _stop(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True
