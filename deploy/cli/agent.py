"""`sightline agent`: what runs next to the cameras."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import Kafka, Prefix, friendly, kafka_settings, run, stdout
from ingest import logs, site
from ingest.exceptions import ConfigError
from ingest.kafka import KafkaSettings
from ingest.site import Site

__all__ = ["app"]

app = typer.Typer(help="Run an edge agent, or check its site file.", no_args_is_help=True)

SiteFile = Annotated[Path, typer.Option("--site", help="The site's TOML file.")]


@app.command("run")
@friendly
def run_agent(
    site_file: SiteFile,
    data: Annotated[Path, typer.Option(help="Where the spool is kept. A disk that survives a power cut.")],
    only: Annotated[list[str] | None, typer.Option(help="Only these cameras of the site; may be repeated.")] = None,
    exit_at_end: Annotated[
        bool, typer.Option("--exit-at-end", help="End when every camera's source is over.")
    ] = False,
    metrics_port: Annotated[int, typer.Option(min=0, help="Serve Prometheus metrics here; 0 for nowhere.")] = 0,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Capture, gate, spool and send until told to stop; then hand over what is spooled.

    The site's file is where an agent begins. Once the config topic has cameras or sensors of the site, see
    `sightline config apply`, the agent runs those instead, and follows the topic while it runs.
    """
    logs.configure("agent")
    wanted = site.load(site_file)
    unknown = set(only or ()) - {camera.name for camera in wanted.cameras}
    if unknown:
        names = ", ".join(camera.name for camera in wanted.cameras)
        raise ConfigError("agent", "--only", sorted(unknown), f"cameras of {site_file}: {names or 'it has none'}")
    run(_serve(wanted, kafka_settings(kafka, prefix), data, only or [], exit_at_end, metrics_port))


@app.command()
@friendly
def check(site_file: SiteFile) -> None:
    """Check a site file as an agent would read it."""
    found = site.load(site_file)
    stdout.print(f"{len(found.cameras)} cameras, {len(found.sensors)} sensors: good")


async def _serve(
    wanted: Site, settings: KafkaSettings, data: Path, only: list[str], exit_at_end: bool, metrics_port: int
) -> None:
    from prometheus_client import CollectorRegistry, start_http_server

    from edge_agent.agent import Agent
    from edge_agent.metrics import AgentMetrics
    from ingest.signals import stop_event

    registry = CollectorRegistry()
    if metrics_port:
        start_http_server(metrics_port, registry=registry)
    stop = stop_event()
    agent = await asyncio.to_thread(Agent, wanted, settings, data, metrics=AgentMetrics(registry), only=only)
    await agent.run(stop, exit_at_end=exit_at_end)
