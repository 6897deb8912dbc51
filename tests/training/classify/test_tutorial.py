"""Test of the tutorial from two folders of pictures to predictions on a topic, with a real Kafka."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.shell import blocks, run_commands

pytestmark = [pytest.mark.train, pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(600)]


def test_every_command_of_the_training_tutorial_works(tmp_path: Path, home: Path) -> None:
    pytest.importorskip("keras")
    said = run_commands("\n".join(blocks(ROOT / "docs" / "tutorials" / "train.md")), tmp_path, home, timeout_s=540)
    assert said.count("balanced: every captured frame") == 2
    assert len(re.findall(r"classified +(?:cat|dog) ", said)) == 32
    assert "resumed at epoch" in said
    assert "grey-int8-u8s8@1" in said
    assert (tmp_path / "compared.html").stat().st_size > 10_000
    for name in ("pets", "grey", "again"):
        assert (tmp_path / "runs" / name / "report.html").is_file()
