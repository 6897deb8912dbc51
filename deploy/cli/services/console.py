"""`sightline console`: web pages and an HTTP API for the people who work with a deployment."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import (
    LOOPBACK,
    Evidence,
    Kafka,
    MetricsHost,
    MetricsPort,
    Prefix,
    SignKey,
    friendly,
    kafka_settings,
    signer,
)
from ingest.exceptions import ConfigError
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.runtime.heartbeat import HeartbeatWriter
from ingest.runtime.service import Service
from ingest.runtime.text import read_text

if TYPE_CHECKING:
    from console.access.oidc import OidcOptions
    from console.context import ConsoleContext
    from console.server import ServerOptions

DEFAULT_PORT = 8090
READ_TIMEOUT_S = 10.0
"""Time without a response from Kafka after which a page shows that Kafka cannot be read, in seconds."""

Listen = Annotated[
    str, typer.Option(help="Address and port of the pages. 0.0.0.0:8090: all networks of this machine.")
]
DataFolder = Annotated[Path, typer.Option(help="Folder for users, sessions and the audit trail.")]
Proxies = Annotated[
    str, typer.Option(help="Addresses of reverse proxies with HTTPS, whose X-Forwarded-For is believed.")
]
ResetPassword = Annotated[
    str, typer.Option(metavar="USER", help="Give a user a new one-time password, print it, and exit.")
]
OidcRole = Annotated[
    list[str] | None,
    typer.Option(metavar="GROUP=ROLE[@SITE,…]", help="Rights of a group at the provider. May be repeated."),
]


@friendly
def console(
    listen: Listen = f"{LOOPBACK}:{DEFAULT_PORT}",
    data: DataFolder = Path(".sightline/console"),
    evidence: Evidence = "",
    certificate: Annotated[Path | None, typer.Option(help="Certificate for HTTPS, as PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of the certificate, as PEM.")] = None,
    proxies: Proxies = "",
    reset_password: ResetPassword = "",
    sign_key: SignKey = None,
    oidc_issuer: Annotated[str, typer.Option(help="Address of an OpenID Connect provider for sign-in.")] = "",
    oidc_client: Annotated[str, typer.Option(help="Id of the console at the provider.")] = "",
    oidc_secret: Annotated[Path | None, typer.Option(help="File with the client's secret at the provider.")] = None,
    oidc_role: OidcRole = None,
    oidc_groups: Annotated[str, typer.Option(help="Claim of the ID token with the groups.")] = "groups",
    address: Annotated[str, typer.Option(help="Address of the console in browsers, for the provider.")] = "",
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
    from stream.evidence.location import open_store

    if (certificate is None) != (key is None):
        missing = "--certificate" if certificate is None else "--key"
        raise ConfigError("console", missing, "", "--certificate and --key together")
    host, port = parse_listen(listen)
    https = bool(certificate or proxies)
    settings = kafka_settings(kafka, prefix)

    def make_log(part: str) -> Log:
        return KafkaLog(settings, f"console-{part}-{os.getpid()}", READ_TIMEOUT_S)

    oidc = _oidc(oidc_issuer, oidc_client, oidc_secret, oidc_role or [], oidc_groups, address)
    console_options = ConsoleOptions(https, settings.to_env(), signer(sign_key), oidc)
    store = open_store(evidence) if evidence else None
    context = ConsoleContext(data, console_options, make_log=make_log, evidence=store)
    try:
        if reset_password:
            _say(f"one-time password of {reset_password}: {context.reset_password(reset_password)}")
            return
        service = Service("console", settings, metrics_port, metrics_host)
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


def _oidc(
    issuer: str, client: str, secret: Path | None, roles: list[str], groups: str, address: str
) -> OidcOptions | None:
    """Return the settings of the OpenID Connect provider; None if no provider is configured. Raise ConfigError."""
    if not issuer:
        return None
    from console.access.oidc import OidcOptions, parse_rights, require_address

    if not client or not secret or not roles or not address:
        expected = "--oidc-client, --oidc-secret, --oidc-role and --address with --oidc-issuer"
        raise ConfigError("console", "--oidc-issuer", issuer, expected)
    return OidcOptions(
        require_address("--oidc-issuer", issuer),
        client,
        read_text(secret, "secret").strip(),
        require_address("--address", address),
        tuple(parse_rights(one) for one in roles),
        groups,
    )


async def _serve(
    context: ConsoleContext, listener: socket.socket, options: ServerOptions, stop: asyncio.Event
) -> None:
    from console.app import make_app
    from console.server import serve

    feed = context.feed
    heart = HeartbeatWriter("console", lambda record: feed.log().produce(record), dict)
    serving = asyncio.create_task(serve(make_app(context), listener, options, stop))
    tasks = (
        serving,
        asyncio.create_task(feed.run()),
        asyncio.create_task(context.evidence.watch()),
        asyncio.create_task(heart.run(lambda: None if feed.outage else "running")),
    )
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await context.trials.close()
        await context.ledger.close()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
