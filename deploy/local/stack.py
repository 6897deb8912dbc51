"""Commands of all services of a stack on one machine. Pure: nothing is started here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.supervisor import ServiceSpec
from ingest.kafka.settings import KafkaSettings

AGENT = "agent"
DOWNSTREAM = ("prepare-live", "prepare-late", "engine", "analyse", "sense", "alerts", "dispatch", "webhook-receiver")
"""Services in the order of a frame's path. Stopping follows it, so that each hands on its records before the next."""

ONE_THREAD = {
    # Each process has work for one core. Ten processes whose numerical libraries start a thread per core slow each
    # other down when they share two cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class StackFiles:
    """Paths of a stack's files, all below one folder."""

    root: Path

    @property
    def site_file(self) -> Path:
        """Return the path of the site file that the agent reads."""
        return self.root / "site.toml"

    @property
    def secret_file(self) -> Path:
        """Return the path of the webhook's signing secret."""
        return self.root / "webhook.secret"

    @property
    def spool(self) -> Path:
        """Return the folder of the agent: spool, epochs, ground truth of the simulated cameras."""
        return self.root / "agent"

    @property
    def evidence(self) -> Path:
        """Return the folder of evidence pictures."""
        return self.root / "evidence"

    @property
    def received(self) -> Path:
        """Return the path of the received webhooks, a JSON line each."""
        return self.root / "received.jsonl"

    @property
    def logs(self) -> Path:
        """Return the folder of log files, one per service."""
        return self.root / "logs"


def services(files: StackFiles, settings: KafkaSettings, models: Path, receiver_port: int) -> list[ServiceSpec]:
    """Return the specs of all services, consumers before producers."""
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
