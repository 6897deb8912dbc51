"""`sightline agent`: commands that run the agent next to the cameras, and commands that check its set-up."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import LOOPBACK, AsJson, Kafka, MetricsHost, MetricsPort, Prefix, friendly, kafka_settings
from ingest import site
from ingest.exceptions import ConfigError
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop
from ingest.runtime.service import Service
from ingest.site import CameraConfig, Site

if TYPE_CHECKING:
    from edge_agent.policy import AgentPolicy
    from edge_agent.tools.doctor.finding import Finding

app = typer.Typer(help="Run an edge agent, or check whether it can run.", no_args_is_help=True)

SiteFile = Annotated[Path, typer.Option("--site", help="TOML file of the site.")]
Policy = Annotated[
    Path | None,
    typer.Option(
        help="TOML file with the rights of the config topic here. Default: agent.toml beside the site file."
    ),
]


@app.command("run")
@friendly
def run_agent(
    site_file: SiteFile,
    data: Annotated[Path, typer.Option(help="Folder of the spool, on a disk that survives a power cut.")],
    only: Annotated[list[str] | None, typer.Option(help="Run only this camera or sensor. May be repeated.")] = None,
    exit_at_end: Annotated[
        bool, typer.Option("--exit-at-end", help="Exit when the sources of all cameras have ended.")
    ] = False,
    policy: Policy = None,
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Capture, gate, spool and send frames and readings until stopped, then send the rest of the spool.

    The agent starts with the cameras and sensors of the site file. Once the config topic has cameras or sensors of
    the site, the agent runs the topic's cameras and sensors instead, and applies later changes of the topic.
    `sightline config apply` writes the config topic. The agent uses a command, secret or file that the topic names
    only if the policy or the site file allows it.
    """
    from edge_agent.policy import load_policy

    wanted, rights = site.load(site_file), load_policy(site_file, policy)
    known = [entry.name for entry in (*wanted.cameras, *wanted.sensors)]
    unknown = set(only or ()) - set(known)
    if unknown:
        expected = f"cameras or sensors of {site_file}: {', '.join(known) or 'the file has none'}"
        raise ConfigError("agent", "--only", sorted(unknown), expected)
    service = Service("agent", kafka_settings(kafka, prefix), metrics_port, metrics_host)
    raise typer.Exit(service.run(lambda stop: _serve(service, stop, wanted, rights, data, only or [], exit_at_end)))


@app.command()
@friendly
def check(site_file: SiteFile) -> None:
    """Check that an agent can read a site file."""
    from deploy.cli.output import stdout

    found = site.load(site_file)
    stdout.print(f"{site_file}: valid, {len(found.cameras)} cameras, {len(found.sensors)} sensors", soft_wrap=True)


@app.command()
@friendly
def preview(
    camera: Annotated[str, typer.Argument(help="Name of the camera in the site file.")],
    site_file: SiteFile,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of the preview in seconds.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="File for the picture. Default: CAMERA.png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a camera's gate, masks and redaction for some seconds, and write a picture that shows the effect.

    In the picture, green boxes are motion, and yellow outlines are the gate's masks. No frame is stored or sent.
    """
    from deploy.cli.output import stdout

    wanted = next((c for c in site.load(site_file).cameras if c.name == camera), None)
    if wanted is None:
        raise ConfigError("agent", "CAMERA", camera, f"a camera of {site_file}")
    path = out or Path(f"{camera}.png")
    fates = _previewed(wanted, seconds, path)
    if as_json:
        stdout.print_json(data={"picture": str(path), "fates": fates})
    else:
        stdout.print(f"{path}: {', '.join(f'{reason} {count}' for reason, count in fates.items())}", soft_wrap=True)


def _previewed(camera: CameraConfig, seconds: float, path: Path) -> dict[str, int]:
    import cv2

    from deploy.cli.output import progress
    from edge_agent.tools.preview import annotated, watch
    from ingest.runtime.clock import SystemClock

    with progress.status(f"watching {camera.name} for {seconds:g} s", spinner="dots"):
        seen = watch(camera, seconds, SystemClock())
    try:
        written = cv2.imwrite(str(path), annotated(camera, seen))
    except cv2.error:  # the file extension is not an image format
        written = False
    if not written:
        raise ConfigError("agent", "--out", str(path), "a .png or .jpg file in a writable folder")
    return dict(seen.counts.most_common())


@app.command()
@friendly
def doctor(
    site_file: SiteFile,
    data: Annotated[Path, typer.Option(help="Folder of the spool.")],
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of the check of each camera and sensor.")] = 5.0,
    policy: Policy = None,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Check disk, clock, secrets, link, write permissions, and every camera and sensor.

    Exits with 1 if a check fails.

    No frame or reading is stored or sent. A few heartbeats are sent to Kafka to compare the clocks of agent and
    broker.
    """
    from deploy.cli.output import stdout
    from edge_agent.policy import Rights, load_policy

    wanted = site.load(site_file)
    rights = Rights(load_policy(site_file, policy), wanted)
    wanted = wanted.model_copy(update={"sensors": tuple(map(rights.local, wanted.sensors))})
    findings = eventloop.run(_examined(wanted, kafka_settings(kafka, prefix), data, seconds, quiet=as_json))
    if as_json:
        stdout.print_json(data=[asdict(finding) for finding in findings])
    raise typer.Exit(1 if any(finding.state == "bad" for finding in findings) else 0)


async def _examined(
    wanted: Site, settings: KafkaSettings, data: Path, seconds: float, *, quiet: bool
) -> list[Finding]:
    from rich.markup import escape

    from deploy.cli.output import progress, stdout
    from edge_agent.tools.doctor.run import examine

    findings = []
    with progress.status("checking", spinner="dots") as spinner:
        async for finding in examine(wanted, settings, data, seconds):
            findings.append(finding)
            spinner.update(f"after {escape(finding.what)}")
            if not quiet:
                colour = {"good": "green", "poor": "yellow", "bad": "red"}[finding.state]
                stdout.print(
                    f"[{colour}]{finding.state:<4}[/]  {escape(finding.what)}: {escape(finding.seen)}", soft_wrap=True
                )
                if finding.advice:
                    stdout.print(f"      → {escape(finding.advice)}", soft_wrap=True)
    return findings


async def _serve(
    service: Service,
    stop: asyncio.Event,
    wanted: Site,
    policy: AgentPolicy,
    data: Path,
    only: list[str],
    exit_at_end: bool,
) -> None:
    from edge_agent.agent import Agent
    from edge_agent.metrics import AgentMetrics

    metrics = AgentMetrics(service.registry)
    agent = await asyncio.to_thread(Agent, wanted, service.settings, data, metrics=metrics, only=only, policy=policy)
    service.health.ready_when(lambda: "")
    await agent.run(stop, exit_at_end=exit_at_end)
