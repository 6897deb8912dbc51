"""Tests of `sightline dataset`: the commands of its how-to, JSON, and wrong options."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from ingest.site.topic.store import publish
from stream.labels.candidates import CandidateExample, frame_of
from stream.labels.decisions import write_decision
from tests.paths import ROOT
from tests.training.datasets.footage import GATE, YARD, Footage

HOW_TO = ROOT / "docs" / "how-to" / "dataset.md"
PERIOD = ("--camera", "gate", "--from", "2026-05-28T20:30", "--out", "set")


@pytest.fixture
def footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Footage:
    """Return a log with half an hour of the cameras gate and yard, which the commands use in place of Kafka."""
    found = Footage()
    for n in range(15):
        frame = frame_of(found.write("gate", n, score=0.5 + n / 50))
        found.write("yard", n, shows=100 + n)
        decision = CandidateExample(frame, frame.objects[0]).decision("accept", "otto", n)
        asyncio.run(write_decision(found.log, decision))
    asyncio.run(publish(found.log, (GATE, YARD)))
    monkeypatch.setattr("deploy.cli.common.KafkaLog", lambda *_: found.log)
    monkeypatch.chdir(tmp_path)
    return found


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["dataset", *words])
    return done.exit_code, done.stdout, done.stderr


def test_every_command_of_the_how_to_guide_for_data_sets_works(footage: Footage, tmp_path: Path) -> None:
    text = "\n".join(re.findall(r"^```sh\n(.*?)^```", HOW_TO.read_text(), re.DOTALL | re.MULTILINE))
    commands = [words for line in text.replace("\\\n", " ").splitlines() if (words := shlex.split(line))]
    assert len(commands) == 6
    for command in commands:
        assert command[:2] == ["sightline", "dataset"]
        code, out, err = run(*command[2:])
        assert code == 0, (command, out, err)
    assert {path.name for path in tmp_path.iterdir()} == {"crops", "frames", "difficult", "reviewed", "boxes"}
    sheets = {path.name: json.loads((path / "datasheet.json").read_text()) for path in tmp_path.iterdir()}
    assert set(sheets["difficult"]["selection"]["chosen"]) == {"random", "uncertain"}
    assert sheets["reviewed"]["labelled_by"] == {"models": {}, "people": {"otto": 13}}  # two are near a border
    assert sheets["boxes"]["review"]["accepted"] == 15


def test_the_datasheet_is_printed_as_json_and_verify_fails_on_a_changed_file(footage: Footage) -> None:
    code, out, _ = run("export", *PERIOD, "--json")
    assert code == 0
    sheet = json.loads(out)
    assert sheet["by"]
    assert sheet["counts"]["train"]["pictures"] > 0
    assert run("verify", "set", "--json")[:2] == (0, '{\n  "problems": []\n}\n')
    next(Path("set").rglob("*.jpg")).write_bytes(b"")
    code, out, _ = run("verify", "set")
    assert (code, out.count("changed")) == (1, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--camera", "no/slash"), "--camera"),
        (("--to", "yesterday"), "--to"),
        (("--to", "2026-05-28T20:00"), "a time after 2026-05-28T20:30"),
        (("--split", "0.5,0.5"), "three shares that add up to 1"),
        (("--split", "0.9,0.9,0.9"), "three shares that add up to 1"),
        (("--prefer", "random=0.2"), "add up to 1"),
        (("--review", "--label-by", "m"), "either --label-by or --review"),
        (("--hold-out", "yard"), "a camera of --camera: gate"),
        (("--label-by", "other"), "the results of the period are by m@1"),
    ],
)
def test_wrong_options_are_refused_and_leave_no_data_set(
    footage: Footage, options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    code, _, err = run("export", *PERIOD, *options)
    assert code == USAGE_EXIT
    assert said in err
    assert not (tmp_path / "set").exists()
    code, _, err = run("verify", "set")
    assert (code, "a data set of `dataset export`" in err) == (USAGE_EXIT, True)
