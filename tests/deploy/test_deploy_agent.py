"""What an agent is installed from: it needs nothing of the stream processors and engines."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
AGENT = ROOT / "deploy" / "agent"
UNIT = AGENT / "sightline-agent.service"
FOREIGN = (
    "faust",
    "mode",
    "onnx",
    "onnxruntime",
    "trackers",
    "supervision",
    "fastapi",
    "uvicorn",
    "keras",
    "tensorflow",
)
SITE = """
[[cameras]]
name = "road"
source = "simulated:road"
options = {frames = 5}

[[sensors]]
name = "cpu"
source = "host:cpu"
quantity = "load"
unit = "%"
"""
WITHOUT = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOREIGN!r}:
            raise ModuleNotFoundError(f"{{name}} is not there", name=name)
sys.meta_path.insert(0, Refuse())
from deploy.cli.app import main
main()
"""


def locked() -> set[str]:
    lines = (ROOT / "requirements-agent.lock").read_text().splitlines()
    return {match[1] for line in lines if (match := re.match(r"([a-z0-9-]+)==", line))}


def test_the_lock_file_has_nothing_of_the_rest() -> None:
    assert locked() >= {"aiokafka", "av", "numpy", "opencv-python-headless"}
    assert not locked() & {"faust-streaming", "onnx", "onnxruntime", "trackers", "fastapi", "keras"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["plan", "site.toml"], 0),
        (["agent", "check", "--site", "site.toml"], 0),
        (["agent", "preview", "road", "--site", "site.toml", "--seconds", "1"], 0),
        (["agent", "preview", "road", "--site", "site.toml", "--seconds", "1", "--out", "road.tmp"], 2),
        (["agent", "doctor", "--site", "site.toml", "--data", "data", "--seconds", "1", "--kafka", "127.0.0.1:9"], 1),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else None,
)
def test_an_agent_runs_without_what_it_does_not_need(tmp_path: Path, arguments: list[str], code: int) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == code, ran.stderr
    assert "is not there" not in ran.stdout + ran.stderr


def test_the_unit_starts_a_command_that_there_is_and_can_do_no_harm(tmp_path: Path) -> None:
    text = UNIT.read_text()
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    words = shlex.split(start)
    result = CliRunner().invoke(app, [*words[1:3], "--help"], terminal_width=200)
    options = [word for word in words if word.startswith("--")]
    assert options
    for option in options:
        assert option in result.output
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not there")
    judged = subprocess.run(
        [analyze, "security", "--offline=yes", str(UNIT)], capture_output=True, text=True, timeout=60, check=False
    )
    (level,) = re.findall(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert float(level) < 2.0


def test_the_image_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (AGENT / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name
