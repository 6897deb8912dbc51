"""Command lines of all services of a stack on one machine. Pure: the functions start no process."""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.local.supervisor import ServiceSpec
from ingest.kafka.settings import KafkaSettings
from stream.analyse.behaviour.model import FOLDER

AGENT = "agent"
CONSOLE = "console"
DOWNSTREAM = (
    "prepare-live",
    "prepare-late",
    "engine",
    "analyse",
    "sense",
    "alerts",
    "evidence",
    "dispatch",
    "webhook-receiver",
)
"""All services except the agent, in the order in which they process a frame. When a stack stops, its services stop in
the order of ``DOWNSTREAM``, so that each service can still process the records that the previous service wrote."""

ONE_THREAD = {
    # Each process has work for one core. Ten processes whose numerical libraries start a thread per core slow each
    # other down when they share two cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class StackFiles:
    """Paths of the files of a local stack, all below the folder ``root``.

    ``evidence`` may name another evidence store, such as ``s3://BUCKET``.
    """

    def __init__(self, root: Path, evidence: str = "") -> None:
        self.root = root
        self.site_file = root / "site.toml"  # the site, for the agent
        self.secret_file = root / "webhook.secret"  # the webhook's signing secret
        self.spool = root / "agent"  # the agent's data: spool, epochs, ground truth of the simulated cameras
        self.evidence = evidence or str(root / "evidence")  # evidence pictures and clips
        self.received = root / "received.jsonl"  # received webhooks, a JSON line each
        self.console = root / "console"  # users, sessions and audit trail of the console
        self.logs = root / "logs"  # a log file per service


def services(
    files: StackFiles, settings: KafkaSettings, models: Path, receiver_port: int, *, fused: bool = False
) -> list[ServiceSpec]:
    """Return the specifications of all services in the order of their start: a consumer before its producer, and the
    agent last. With ``fused``, the engine node prepares the frames."""
    env = {**settings.to_env(), **ONE_THREAD, FOLDER: str(models)}
    commands: dict[str, list[str]] = {
        "webhook-receiver": [
            "webhook-receiver",
            f"--port={receiver_port}",
            f"--secret-file={files.secret_file}",
            f"--out={files.received}",
        ],
        "dispatch": ["dispatch"],
        "evidence": ["evidence", "run", f"--evidence={files.evidence}", "--instance=local"],
        "alerts": ["alerts", f"--evidence={files.evidence}", "--instance=local"],
        "analyse": ["analyse", "--instance=local"],
        "sense": ["sense", f"--models={models}", "--instance=local"],
        "engine": ["engine", f"--models={models}", *(["--fused"] if fused else [])],
        "prepare-live": ["prepare", "--lane=live", "--instance=local"],
        "prepare-late": ["prepare", "--lane=late", "--instance=local"],
        AGENT: ["agent", "run", f"--site={files.site_file}", f"--data={files.spool}"],
    }
    if fused:
        del commands["prepare-live"], commands["prepare-late"]
    return [
        ServiceSpec(name=name, argv=[sys.executable, "-m", "deploy.cli.app", *argv], env=env)
        for name, argv in commands.items()
    ]


def console_service(files: StackFiles, settings: KafkaSettings, port: int) -> ServiceSpec:
    """Return the specification of the console, which listens on loopback."""
    argv = [CONSOLE, f"--listen=127.0.0.1:{port}", f"--data={files.console}", f"--evidence={files.evidence}"]
    return ServiceSpec(
        name=CONSOLE, argv=[sys.executable, "-m", "deploy.cli.app", *argv], env={**settings.to_env(), **ONE_THREAD}
    )
