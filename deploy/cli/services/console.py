"""`sightline console`: web pages and an HTTP API for the people who work with a deployment."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import LOOPBACK, Kafka, MetricsHost, MetricsPort, Prefix, friendly, kafka_settings
from ingest.exceptions import ConfigError
from ingest.runtime.service import Service

if TYPE_CHECKING:
    from console.context import ConsoleContext
    from console.server import ServerOptions

DEFAULT_PORT = 8090


@friendly
def console(
    listen: Annotated[
        str, typer.Option(help="Address and port of the pages. 0.0.0.0:8090: all networks of this machine.")
    ] = f"{LOOPBACK}:{DEFAULT_PORT}",
    data: Annotated[Path, typer.Option(help="Folder for users, sessions and the audit trail.")] = Path(
        ".sightline/console"
    ),
    certificate: Annotated[Path | None, typer.Option(help="Certificate for HTTPS, as PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of the certificate, as PEM.")] = None,
    proxies: Annotated[
        str, typer.Option(help="Addresses of reverse proxies with HTTPS, whose X-Forwarded-For is believed.")
    ] = "",
    reset_password: Annotated[
        str, typer.Option(metavar="USER", help="Give a user a new one-time password, print it, and exit.")
    ] = "",
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Serve the console until stopped. The first start prints the one-time password of the user admin.

    Without HTTPS, passwords and pictures can be read in the network: listen on loopback only, use a certificate, or
    put a reverse proxy with HTTPS in front.
    """
    from console.context import ConsoleContext, ConsoleOptions
    from console.server import ServerOptions, parse_listen
    from console.server import listen as bind

    if (certificate is None) != (key is None):
        raise ConfigError("console", "--key", str(key), "--certificate and --key together")
    host, port = parse_listen(listen)
    https = bool(certificate or proxies)
    context = ConsoleContext(data, ConsoleOptions(https=https))
    try:
        if reset_password:
            _say(f"one-time password of {reset_password}: {context.reset_password(reset_password)}")
            return
        service = Service("console", kafka_settings(kafka, prefix), metrics_port, metrics_host)
        with bind(host, port) as listener:
            name = f"[{host}]" if ":" in host else host
            _say(f"console: http{'s' if certificate else ''}://{name}:{listener.getsockname()[1]}/")
            if password := context.add_first_admin():
                _say(f"first sign-in: user admin, one-time password {password} (shown only now)")
            options = ServerOptions(certificate, key, proxies)
            code = service.run(lambda stop: _serve(context, listener, options, stop))
    finally:
        context.close()
    raise typer.Exit(code)


async def _serve(
    context: ConsoleContext, listener: socket.socket, options: ServerOptions, stop: asyncio.Event
) -> None:
    from console.app import make_app
    from console.server import serve

    await serve(make_app(context), listener, options, stop)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
