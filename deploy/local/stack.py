"""The services of a whole Sightline on one machine, as commands. Pure: nothing is started here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.supervisor import ServiceSpec
from ingest.kafka.settings import KafkaSettings

AGENT = "agent"
DOWNSTREAM = ("prepare-live", "prepare-late", "engine", "analyse", "sense", "alerts", "dispatch", "webhook-receiver")
"""In the order in which they are stopped: a frame's way, so that each hands on what it has before the next goes."""

ONE_THREAD = {
    # Each process has one core's worth of work; numerical libraries that start a thread per core only get in
    # each other's way when ten processes share two cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class StackFiles:
    """Where one stack keeps its files, all below one folder."""

    root: Path

    @property
    def site_file(self) -> Path:
        """The site as the agent reads it."""
        return self.root / "site.toml"

    @property
    def secret_file(self) -> Path:
        """The webhook's signing secret."""
        return self.root / "webhook.secret"

    @property
    def spool(self) -> Path:
        """The agent's data: spool, epochs, the simulated cameras' truth."""
        return self.root / "agent"

    @property
    def evidence(self) -> Path:
        """Evidence pictures."""
        return self.root / "evidence"

    @property
    def received(self) -> Path:
        """What the webhook receiver got, one JSON line each."""
        return self.root / "received.jsonl"

    @property
    def logs(self) -> Path:
        """One log file per service."""
        return self.root / "logs"


def services(files: StackFiles, settings: KafkaSettings, models: Path, receiver_port: int) -> list[ServiceSpec]:
    """Return all services, consumers before producers."""
    env = {**settings.to_env(), **ONE_THREAD}
    commands: dict[str, list[str]] = {
        "webhook-receiver": [
            "webhook-receiver",
            f"--port={receiver_port}",
            f"--secret-file={files.secret_file}",
            f"--out={files.received}",
        ],
        "dispatch": ["dispatch"],
        "alerts": ["alerts", f"--evidence={files.evidence}", "--instance=local"],
        "analyse": ["analyse", "--instance=local"],
        "sense": ["sense", "--instance=local"],
        "engine": ["engine", f"--models={models}"],
        "prepare-live": ["prepare", "--lane=live", "--instance=local"],
        "prepare-late": ["prepare", "--lane=late", "--instance=local"],
        AGENT: ["agent", "run", f"--site={files.site_file}", f"--data={files.spool}"],
    }
    return [
        ServiceSpec(name=name, argv=[sys.executable, "-m", "deploy.cli.app", *argv], env=env)
        for name, argv in commands.items()
    ]
