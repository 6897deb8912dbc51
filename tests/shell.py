"""Run the commands of a document in one shell, in an empty folder."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from deploy.local.kafka.fetch import feature_checkpoint, libs_folder


def blocks(path: Path) -> list[str]:
    """Return the shell commands of a document, block by block."""
    return re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def run_commands(commands: str, folder: Path, home: Path, timeout_s: float) -> str:
    """Run commands as a user would who has fetched Kafka, and return their output. Fail if a command fails.

    ``home`` has Kafka's jars, and its node has run. All processes that are left are killed.
    """
    (folder / "home" / "kafka").mkdir(parents=True)
    for path in (libs_folder(home), feature_checkpoint(home)):
        (folder / "home" / "kafka" / path.name).symlink_to(path)
    env = {k: v for k, v in os.environ.items() if not k.startswith("SIGHTLINE")}
    env |= {"SIGHTLINE_HOME": str(folder / "home"), "PATH": f"{Path(sys.executable).parent}:{env['PATH']}"}
    run = subprocess.Popen(
        ["bash", "-c", f"set -eo pipefail\n{commands}"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    killer = threading.Timer(timeout_s, os.killpg, (run.pid, signal.SIGKILL))
    killer.start()
    try:
        said, _ = run.communicate()
    finally:
        killer.cancel()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 0, said
    return said
