"""Tests of the commands `sightline explain` and `sightline rules test`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from ingest.contract.records import Event
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from tests.stream.explain import history
from tests.stream.explain.history import CROSSING, EPOCH

SITE = """
name = "here"

[[cameras]]
name = "road"
source = "simulated:road"

[[pipelines]]
name = "p"
model = "m"
width = 64
height = 64

[[rules]]
name = "line"
type = "line"
camera = "road"
pipeline = "p"
start = [0.5, 1.0]
end = [0.5, 0.0]
"""


@pytest.mark.kafka
def test_the_explain_command_and_the_trial_of_changed_rules_work_with_a_real_broker(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    env = {"SIGHTLINE_KAFKA": kafka, "SIGHTLINE_KAFKA_PREFIX": prefix}

    def invoke(*words: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, words, env=env)
        return done.exit_code, done.stdout, done.stderr

    assert invoke("topics", "create", "--partitions", "1")[0] == 0
    file, picture = tmp_path / "site.toml", tmp_path / "frame.jpg"
    file.write_text(SITE)
    assert invoke("config", "apply", str(file))[0] == 0
    event = asyncio.run(_write_history(KafkaSettings(bootstrap=kafka, prefix=prefix)))
    name = f"road/{EPOCH}/{CROSSING}"
    code, out, err = invoke("explain", name, "--json", "--picture", str(picture))
    assert code == 0, err
    found = json.loads(out)
    assert found["frame"] == name
    assert [hop["name"] for hop in found["hops"]][-1] == "delivery"
    assert [rule["fired"] for rule in found["pipelines"][0]["rules"]] == [True]
    assert picture.stat().st_size > 1000
    assert f"frame {name} (live)" in invoke("explain", event.id)[1]
    assert "withheld" in invoke("explain", f"road/{EPOCH}/5")[1]
    file.write_text(SITE.replace('name = "line"', 'name = "other"'))
    code, out, err = invoke("rules", "test", str(file), "--from", "2026-01-01", "--pictures", str(tmp_path), "--json")
    assert code == 0, err
    rows = {row["rule"]: (row["equal"], row["gained"], row["lost"]) for row in json.loads(out)["rules"]}
    assert rows == {"other": (0, 1, 0), "line": (0, 0, 1)}
    assert [len(list((tmp_path / kind).iterdir())) for kind in ("gained", "lost")] == [1, 1]
    text = invoke("rules", "test", str(file), "--from", "2026-01-01", "--camera", "road")[1]
    assert f"- line  {event.time}  {name}  {event.data.summary}" in text
    code, _, err = invoke("rules", "test", str(file), "--from", "2026-01-01", "--camera", "elsewhere")
    assert (code, "--camera" in err) == (USAGE_EXIT, True)
    code, _, err = invoke("explain", "elsewhere/1/2")
    assert (code, "camera elsewhere" in err) == (USAGE_EXIT, True)


async def _write_history(settings: KafkaSettings) -> Event:
    async with KafkaLog(settings, "test") as log:
        await history.write_drive(log)
        (event,) = await history.analyse(log, history.config(history.LINE))
        await history.alert(log, event)
        return event


def test_the_explain_command_refuses_an_argument_that_names_no_frame_event_or_alert() -> None:
    done = CliRunner().invoke(app, ("explain", "nonsense"))
    assert done.exit_code == USAGE_EXIT
    assert "CAMERA/EPOCH/SEQ" in done.stderr
