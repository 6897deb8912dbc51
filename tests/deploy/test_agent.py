"""Tests of the agent's installation: its packages, systemd unit, image and command line."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from edge_agent.tools.doctor.finding import Finding, bad, good
from tests.paths import ROOT

AGENT = ROOT / "deploy" / "agent"
UNIT = AGENT / "sightline-agent.service"
FOREIGN = (
    "faust",
    "mode",
    "onnx",
    "onnxruntime",
    "lap",
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
            raise ModuleNotFoundError(f"{{name}} is forbidden", name=name)
sys.meta_path.insert(0, Refuse())
from deploy.cli.app import main
main()
"""


def locked() -> set[str]:
    lines = (ROOT / "requirements-agent.lock").read_text().splitlines()
    return {match[1] for line in lines if (match := re.match(r"([a-z0-9-]+)==", line))}


def test_the_agent_s_lock_file_has_no_packages_of_stream_processors_or_engines() -> None:
    assert locked() >= {"aiokafka", "av", "numpy", "opencv-python-headless"}
    assert not locked() & {"faust-streaming", "onnx", "onnxruntime", "lapx", "fastapi", "keras"}


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
def test_the_agent_runs_without_packages_of_other_services(tmp_path: Path, arguments: list[str], code: int) -> None:
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
    assert "is forbidden" not in ran.stdout + ran.stderr


def test_the_agent_s_systemd_unit_starts_an_existing_command_in_a_tight_sandbox(tmp_path: Path) -> None:
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
        pytest.skip("systemd-analyze is not installed")
    judged = subprocess.run(
        [analyze, "security", "--offline=yes", str(UNIT)], capture_output=True, text=True, timeout=60, check=False
    )
    (level,) = re.findall(r"exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert float(level) < 2.0


def test_the_installation_guide_creates_the_groups_and_folders_of_the_systemd_unit() -> None:
    """The unit does not start without a group, or with a folder that its user cannot enter."""
    unit, guide = UNIT.read_text(), (ROOT / "docs" / "install-agent.md").read_text()
    (groups,) = re.findall(r"^SupplementaryGroups=(.*)$", unit, re.MULTILINE)
    made = set(re.findall(r"groupadd .*?(\w+)$", guide, re.MULTILINE))
    assert set(groups.split()) - {"video", "dialout"} == made  # Debian has these two
    (modes,) = re.findall(r"install -d -m (\d+) /etc/sightline$", guide, re.MULTILINE)
    assert f"ConfigurationDirectoryMode={modes}" in unit
    assert int(modes, 8) & 0o005 == 0o005
    (page,) = re.findall(r"^Documentation=file:(.*)$", unit, re.MULTILINE)
    assert f"docs/install-agent.md {page}" in guide


def test_the_systemd_unit_allows_every_kind_of_serial_port() -> None:
    allowed = set(re.findall(r"^DeviceAllow=char-(\S+) rw$", UNIT.read_text(), re.MULTILINE))
    assert allowed >= {"video4linux", "ttyUSB", "ttyACM", "ttyAMA", "ttyS"}


def test_the_agent_s_container_image_copies_only_existing_folders() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (AGENT / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name


def test_the_agent_doctor_prints_brackets_in_names_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def examine(*_: object) -> AsyncIterator[Finding]:
        yield good("disk /srv/[/a]", "[b]")
        yield bad("link [fe80::1]:9092", "[c]", "[d]")

    monkeypatch.setattr("edge_agent.tools.doctor.run.examine", examine)
    (tmp_path / "site.toml").write_text(SITE)
    words = ["agent", "doctor", "--site", str(tmp_path / "site.toml"), "--data", "data"]
    result = CliRunner().invoke(app, words)
    assert result.output.splitlines() == [
        "good  disk /srv/[/a]: [b]",
        "bad   link [fe80::1]:9092: [c]",
        "      → [d]",
    ]
    assert result.exit_code == 1
