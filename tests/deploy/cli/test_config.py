"""Tests of the output of `sightline config`, and of its changes to the config topic."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from deploy.cli import common
from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from deploy.cli.tools import config
from ingest import site
from ingest.contract.topics import CONFIG
from ingest.exceptions import Fenced
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.site import CameraConfig
from ingest.site.topic.signature import PUBLIC_KEY_FILE, SIGN_KEY_FILE
from ingest.site.topic.store import WRITER, commit, read
from ingest.site.topic.view import Config
from tests.paths import MODELS


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    log = MemoryLog()
    monkeypatch.setattr(common, "KafkaLog", lambda *_: log)
    return log


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "site.toml"


def write(file: Path, name: str, *cameras: str, fps: float = 5.0) -> str:
    tables = "".join(f'[[cameras]]\nname = "{c}"\nsource = "simulated:road"\nfps = {fps}\n' for c in cameras)
    file.write_text(f'name = "{name}"\n{tables}')
    return str(file)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, ["config", *words])


def keys(log: MemoryLog) -> list[str]:
    return sorted(asyncio.run(read(log)).entries)


def put(log: MemoryLog, key: str, value: bytes) -> None:
    asyncio.run(_put(log, key, value))


async def _put(log: MemoryLog, key: str, value: bytes) -> None:
    await log.produce(Outgoing(CONFIG, 0, value, key=key.encode()))


def test_config_apply_prints_added_changed_and_removed_entries(log: MemoryLog, file: Path) -> None:
    assert invoke("apply", write(file, "south", "dock")).exit_code == 0
    assert invoke("apply", write(file, "north", "gate", "yard")).exit_code == 0
    result = invoke("apply", write(file, "north", "gate", "road", fps=3.0))
    assert result.output.splitlines() == [
        "+ camera/road",
        "~ camera/gate (fps)",
        "- camera/yard",
        "north: 2 entries written, 1 removed",
    ]
    assert keys(log) == ["camera/dock", "camera/gate", "camera/road"]


def test_a_dry_run_of_config_apply_prints_the_changes_and_writes_nothing(log: MemoryLog, file: Path) -> None:
    invoke("apply", write(file, "north", "gate"))
    result = invoke("apply", write(file, "north", "yard"), "--dry-run", "--json")
    assert json.loads(result.output) == {
        "dry_run": True,
        "added": ["camera/yard"],
        "changed": {},
        "taken_over": [],
        "removed": ["camera/gate"],
        "unclaimed": [],
        "unusable": {},
    }
    assert keys(log) == ["camera/gate"]


def test_config_apply_refuses_a_camera_of_another_site_unless_take_over_is_passed(log: MemoryLog, file: Path) -> None:
    invoke("apply", write(file, "south", "gate"))
    result = invoke("apply", write(file, "north", "gate", "yard"))
    assert result.exit_code == USAGE_EXIT
    assert all(word in result.stderr for word in (str(file), "camera/gate", "south", "--take-over"))
    assert keys(log) == ["camera/gate"]
    assert invoke("apply", str(file), "--take-over").exit_code == 0
    assert keys(log) == ["camera/gate", "camera/yard"]


def test_config_apply_replaces_invalid_entries_that_its_file_defines_and_reports_the_others(
    log: MemoryLog, file: Path
) -> None:
    put(log, "camera/gate", b"{}")
    put(log, "camera/lost", b'{"name": "lost"}')
    result = invoke("apply", write(file, "north", "gate"), "--json")
    assert result.exit_code == config.UNUSABLE_EXIT
    assert set(json.loads(result.stdout)["unusable"]) == {"camera/lost"}
    assert "camera/lost invalid" in result.stderr
    assert keys(log) == ["camera/gate"]
    shown = invoke("show")
    assert (shown.exit_code, set(json.loads(shown.stdout))) == (0, {"camera/gate"})
    assert "config_entry_refused" in shown.stderr
    assert invoke("remove", "camera/lost").exit_code == 0
    assert invoke("apply", str(file)).exit_code == 0


def test_unsigned_config_entries_are_refused_while_a_public_key_is_configured(
    log: MemoryLog, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = str(tmp_path / "config.key")
    invoke("apply", write(file, "north", "gate", "yard"))
    assert invoke("keygen", key).exit_code == 0
    monkeypatch.setenv(PUBLIC_KEY_FILE, f"{key}.pub")
    assert keys(log) == []  # nothing is signed yet
    result = invoke("apply", str(file))
    assert (result.exit_code, "--sign-key" in result.stderr) == (USAGE_EXIT, True)
    assert invoke("apply", str(file), "--sign-key", key).exit_code == 0
    assert keys(log) == ["camera/gate", "camera/yard"]
    put(log, "camera/gate", b"")
    assert keys(log) == ["camera/gate", "camera/yard"]  # an unsigned tombstone removes nothing
    assert invoke("remove", "camera/gate", "--sign-key", key).exit_code == 0
    assert keys(log) == ["camera/yard"]
    monkeypatch.setenv(SIGN_KEY_FILE, key)
    assert invoke("apply", write(file, "north", "road")).exit_code == 0
    assert keys(log) == ["camera/road"]


def test_a_config_entry_of_no_site_is_reported_with_the_command_that_removes_it(log: MemoryLog, file: Path) -> None:
    """Entries of an older version do not name their sites."""
    put(log, "rule/old", b'{"name": "old", "type": "threshold", "sensor": "s", "above": 1}')
    (line,) = [line for line in invoke("apply", write(file, "north")).output.splitlines() if line.startswith("?")]
    assert line == (
        "? rule/old belongs to no site: apply the file that has it, or run `sightline config remove rule/old`"
    )


PIPELINE = '[[pipelines]]\nname = "cars"\nmodel = "m"\nwidth = 4\nheight = 4\n'


def test_the_later_of_two_concurrent_config_applies_fences_the_earlier_one(
    log: MemoryLog, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(f'name = "north"\n{PIPELINE}')
    south = tmp_path / "south.toml"
    south.write_text(f'name = "south"\n{PIPELINE}')

    async def read_and_let_south_be_applied(log: MemoryLog, **options: Any) -> Config:
        found = await read(log, **options)
        monkeypatch.setattr(config, "read", read)
        await config._apply(log, south, site.load(south), dry_run=False, take_over=False)
        return found

    monkeypatch.setattr(config, "read", read_and_let_south_be_applied)
    result = invoke("apply", str(file))
    assert (result.exit_code, "nothing was changed" in result.stderr) == (USAGE_EXIT, True)
    assert invoke("apply", str(file)).exit_code == 0
    assert asyncio.run(read(log)).entries["pipeline/cars"].model_dump()["sites"] == ("north", "south")


def test_a_dry_run_of_config_apply_does_not_fence_another_writer(log: MemoryLog, file: Path) -> None:
    async def both() -> None:
        changing = await log.writer(WRITER)
        await config._apply(log, file, site.load(file), dry_run=True, take_over=False)
        await commit(changing, site.load(file).entries())

    write(file, "north", "gate")
    asyncio.run(both())
    assert keys(log) == ["camera/gate"]


def test_config_remove_refuses_unknown_keys_and_partition_pins(log: MemoryLog) -> None:
    put(log, "pin/gate", b'{"name": "gate", "partition": 1}')
    assert "config show" in invoke("remove", "camera/gone").stderr
    assert "partition" in invoke("remove", "pin/gate").stderr
    assert keys(log) == ["pin/gate"]


@pytest.mark.parametrize("key", ["pin/gate", "camera/[/gate]"])
def test_config_remove_deletes_an_invalid_entry_under_any_key(log: MemoryLog, key: str) -> None:
    put(log, key, b"{}")
    result = invoke("remove", key)
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, f"removed: {key}")
    assert asyncio.run(read(log)).refused == {}


RULE = """
[[rules]]
type = "line"
name = "in"
camera = "gate"
pipeline = "cars"
start = [0.5, 0.0]
end = [0.5, %s]
"""


def test_the_error_for_a_wrong_rule_in_a_site_file_names_key_value_and_expected_value(
    log: MemoryLog, file: Path
) -> None:
    write(file, "north", "gate")
    file.write_text(f"{file.read_text()}{PIPELINE}{RULE % 1.5}")
    for command in ("check", "apply"):
        result = invoke(command, str(file))
        assert result.exit_code == USAGE_EXIT
        assert f"{file}: rules.0.end.1 = 1.5: expected" in result.stderr
    assert keys(log) == []


def test_config_apply_writes_a_rule_with_its_defaults_and_services_read_the_same_rule(
    log: MemoryLog, file: Path
) -> None:
    write(file, "north", "gate")
    file.write_text(f"{file.read_text()}{PIPELINE}{RULE % 1.0}")
    assert invoke("check", str(file)).exit_code == 0
    assert "+ rule/in" in invoke("apply", str(file)).output.splitlines()
    assert invoke("apply", str(file)).output == "north: 0 entries written, 0 removed\n"
    shown = json.loads(invoke("show").stdout)["rule/in"]
    assert (shown["type"], shown["end"], shown["direction"], shown["min_score"]) == ("line", [0.5, 1.0], "both", 0.3)


def test_a_rule_on_the_config_topic_whose_plug_in_is_missing_is_reported_as_unusable(
    log: MemoryLog, file: Path
) -> None:
    put(log, "rule/odd", b'{"name": "odd", "type": "unheard-of", "sites": ["south"]}')
    result = invoke("apply", write(file, "north", "gate"), "--json")
    assert result.exit_code == config.UNUSABLE_EXIT
    assert set(json.loads(result.stdout)["unusable"]) == {"rule/odd"}
    assert "rule/odd.type = 'unheard-of': expected one of" in result.stderr


@pytest.mark.kafka
async def test_configuration_committed_to_kafka_can_be_read_and_the_commit_fences_an_earlier_writer(
    kafka: str, prefix: str
) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    gate, yard = (CameraConfig(name=name, source="device:0") for name in ("gate", "yard"))
    await topicadmin.create(settings, partitions=1)
    async with KafkaLog(settings, "one") as one, KafkaLog(settings, "other") as other:
        early = await one.writer(WRITER)
        await commit(await other.writer(WRITER), [gate, yard])
        with pytest.raises(Fenced, match="nothing was changed"):
            await commit(early, [], [gate.key])
        assert (await read(one)).of(CameraConfig) == (gate, yard)
        await commit(await one.writer(WRITER), [], [yard.key])
        assert (await read(other)).of(CameraConfig) == (gate,)
    await topicadmin.remove(settings, prefix)


def test_config_check_warns_of_a_rule_that_cannot_fire_and_exits_with_0(file: Path) -> None:
    sensor = 'name = "s"\nsource = "simulated:temperature"\nquantity = "t"\nunit = "Cel"\nrate_hz = 0.2'
    file.write_text(f'[[sensors]]\n{sensor}\n[[rules]]\ntype = "threshold"\nname = "hot"\nsensor = "s"\nabove = 60\n')
    text = invoke("check", str(file))
    assert text.exit_code == 0
    assert text.stdout.replace("\n", "").endswith("is valid: 2 entries")
    assert "warning:" in text.stderr
    assert "rule hot cannot fire as intended: min_readings: 3 is more than the 1" in text.stderr
    report = json.loads(invoke("check", str(file), "--json").stdout)
    (warning,) = report["warnings"]
    assert (report["entries"], warning["rule"], warning["key"]) == (2, "hot", "min_readings")


def test_config_check_warns_of_a_camera_with_legacy_tls(file: Path) -> None:
    file.write_text('[[cameras]]\nname = "old"\nsource = "https://10.0.0.9/a.jpg"\nstream.tls = "legacy"\n')
    text = invoke("check", str(file))
    assert (text.exit_code, "camera old: stream.tls" in text.stderr) == (0, True)
    (warning,) = json.loads(invoke("check", str(file), "--json").stdout)["warnings"]
    assert (warning["camera"], warning["key"]) == ("old", "stream.tls")


def test_config_check_warns_of_the_step_distortion_for_cameras_without_a_lens(file: Path) -> None:
    lens = (
        "lens = {width = 640, height = 360, fx = 600, fy = 600, cx = 320, cy = 180, distortion = [-0.1, 0, 0, 0]}\n"
    )
    site = '[[cameras]]\nname = "gate"\nsource = "device:0"\n{}[[cameras]]\nname = "yard"\nsource = "device:1"\n'
    for name, cameras in (("all", ""), ("one", 'cameras = ["gate"]\n'), ("other", 'cameras = ["yard"]\n')):
        site += (
            f'[[pipelines]]\nname = "{name}"\nmodel = "m"\nwidth = 64\nheight = 64\nsteps = ["distortion"]\n{cameras}'
        )
    for given, expected in (("", ["all", "one", "other"]), (lens, ["other"])):
        file.write_text(site.replace("{}", given))
        text = invoke("check", str(file))
        assert text.exit_code == 0, text.stderr
        assert text.stderr.count("the step distortion has no effect") == len(expected)
        warnings = json.loads(invoke("check", str(file), "--json").stdout)["warnings"]
        assert [one["pipeline"] for one in warnings if one["key"] == "steps"] == expected


def test_config_check_compares_the_labels_of_rules_with_those_of_the_models(file: Path) -> None:
    file.write_text(
        '[[cameras]]\nname = "c"\nsource = "simulated:road"\n'
        '[[pipelines]]\nname = "p"\nmodel = "regions"\nwidth = 64\nheight = 64\n'
        '[[rules]]\ntype = "line"\nname = "l"\ncamera = "c"\npipeline = "p"\nstart = [0, 0]\nend = [1, 1]\n'
        'labels = ["unicorn"]\n'
    )
    assert json.loads(invoke("check", str(file), "--json").stdout)["warnings"] == []
    found = json.loads(invoke("check", str(file), "--json", "--models", str(MODELS)).stdout)["warnings"]
    assert [one["key"] for one in found] == ["labels"]
    assert invoke("check", str(file), "--models", str(file)).exit_code == USAGE_EXIT


WITH_LIGHTER = """
[[pipelines]]
name = "p"
model = "regions"
width = 64
height = 64
overload = "lighter"
lighter = "regions"
"""


@pytest.mark.parametrize("setting", ["model", "lighter"])
@pytest.mark.parametrize("model", ["behaviour", "appearance"])
def test_config_check_refuses_a_model_that_finds_no_objects(file: Path, setting: str, model: str) -> None:
    file.write_text(WITH_LIGHTER)
    assert invoke("check", str(file), "--models", str(MODELS)).exit_code == 0
    file.write_text(WITH_LIGHTER.replace(f'{setting} = "regions"', f'{setting} = "{model}"', 1))
    result = invoke("check", str(file), "--models", str(MODELS))
    assert result.exit_code == USAGE_EXIT
    assert f"pipelines.0.{setting} = '{model} (decoder" in result.stderr
    assert "expected a model that finds or labels objects" in result.stderr


def test_config_check_refuses_a_lighter_model_that_the_repository_lacks(file: Path) -> None:
    file.write_text(WITH_LIGHTER.replace('lighter = "regions"', 'lighter = "small"'))
    result = invoke("check", str(file), "--models", str(MODELS))
    assert result.exit_code == USAGE_EXIT
    assert "small" in result.stderr


SECOND = """
[[pipelines]]
name = "p"
model = "regions"
width = 64
height = 64

[[pipelines.then]]
name = "type"
model = "MODEL"
on = ["LABEL"]
"""


def test_config_check_accepts_a_second_stage_model_that_classifies_labels_of_the_first_model(file: Path) -> None:
    file.write_text(SECOND.replace("MODEL", "regions").replace("LABEL", "car"))
    assert invoke("check", str(file), "--models", str(MODELS)).exit_code == 0


def test_config_check_refuses_a_second_stage_model_for_a_label_that_the_first_model_lacks(file: Path) -> None:
    file.write_text(SECOND.replace("MODEL", "regions").replace("LABEL", "unicorn"))
    result = invoke("check", str(file), "--models", str(MODELS))
    assert result.exit_code == USAGE_EXIT
    assert "pipelines.0.then.0.on = 'unicorn': expected labels of regions" in result.stderr
    assert invoke("check", str(file)).exit_code == 0  # without the repository, labels are unknown


def test_config_check_refuses_a_detector_as_second_stage_model(file: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    for name in ("regions", "boxes"):
        shutil.copytree(MODELS / "regions", models / name)
    manifest = models / "boxes" / "1" / "model.toml"
    text = manifest.read_text().replace('name = "regions"', 'name = "boxes"', 1)
    manifest.write_text(text.replace('decoder = "softmax"', 'decoder = "yolov8"'))
    file.write_text(SECOND.replace("MODEL", "boxes").replace("LABEL", "car"))
    result = invoke("check", str(file), "--models", str(models))
    assert result.exit_code == USAGE_EXIT
    assert "pipelines.0.then.0.model = 'boxes (decoder yolov8)'" in result.stderr
    assert "expected a model whose decoder is binary or embedding" in result.stderr


APPEARANCE = """
[pipelines.appearance]
second_model = "type"
"""


def test_config_check_accepts_reidentification_by_a_second_model_of_embeddings(file: Path) -> None:
    file.write_text(SECOND.replace("MODEL", "appearance").replace("LABEL", "car") + APPEARANCE)
    assert invoke("check", str(file), "--models", str(MODELS)).exit_code == 0


def test_config_check_refuses_reidentification_by_a_classifier(file: Path) -> None:
    file.write_text(SECOND.replace("MODEL", "regions").replace("LABEL", "car") + APPEARANCE)
    result = invoke("check", str(file), "--models", str(MODELS))
    assert result.exit_code == USAGE_EXIT
    assert "pipelines.0.appearance.second_model = 'regions (decoder softmax)'" in result.stderr
    assert "expected a second model of embeddings" in result.stderr


def test_config_check_refuses_embeddings_that_nothing_uses(file: Path) -> None:
    file.write_text(SECOND.replace("MODEL", "appearance").replace("LABEL", "car"))
    result = invoke("check", str(file), "--models", str(MODELS))
    assert result.exit_code == USAGE_EXIT
    assert "pipelines.0.then.0.model = 'appearance (decoder embedding)'" in result.stderr
    assert "appearance.second_model = 'type'" in result.stderr


def test_config_check_refuses_reidentification_by_a_second_model_that_the_pipeline_lacks(file: Path) -> None:
    file.write_text(SECOND.replace("MODEL", "appearance") + APPEARANCE.replace('"type"', '"look"'))
    result = invoke("check", str(file))
    assert result.exit_code == USAGE_EXIT
    assert "appearance.second_model = 'look': expected the name of a second model in then: type" in result.stderr


def test_config_check_refuses_two_second_stage_models_with_the_same_name(file: Path) -> None:
    then = SECOND.replace("MODEL", "regions").replace("LABEL", "car")
    file.write_text(then + then[then.index("[[pipelines.then]]") :])
    result = invoke("check", str(file))
    assert result.exit_code == USAGE_EXIT
    assert "pipelines.0.then" in result.stderr
    assert "type is defined twice" in result.stderr
