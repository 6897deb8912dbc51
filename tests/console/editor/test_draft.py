"""Tests of drafts: the changes they stand for, the errors they raise, and how a saved change is undone."""

from __future__ import annotations

from typing import Any

import pytest

from console.editor.draft import CameraDraft, after_changes, as_read, changes_of, rules_of, version_of
from console.editor.history import ChangeHistory, undo_of
from console.editor.kinds import rule_kinds
from console.editor.save import save
from console.exceptions import BadInput, Conflict
from console.state.database import Database
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, ConfigEntry, PipelineConfig
from ingest.site.topic.store import publish, read
from ingest.site.topic.view import Config
from stream.analyse.rules.line import LineRule
from stream.rules import plug_ins

GATE = CameraConfig(name="gate", site="north", source="rtsp://10.0.0.1/a")
OTHER = CameraConfig(name="yard", site="north", source="rtsp://10.0.0.2/a")
PIPELINE = PipelineConfig(name="p", model="m", width=64, height=64)
LINE = LineRule(name="in", camera="gate", pipeline="p", start=(0.1, 0.5), end=(0.9, 0.5), sites=("north",))
DRAWN = {"type": "line", "pipeline": "p", "start": [0.2, 0.5], "end": [0.9, 0.5]}
GROUND = {"corners": [[0.2, 0.9], [0.8, 0.9], [0.6, 0.4], [0.4, 0.4]], "width_m": 7, "length_m": 20}


def config_of(*entries: ConfigEntry) -> Config:
    return Config({entry.key: as_read(entry) for entry in (GATE, OTHER, PIPELINE, *entries)})


def draft(config: Config, rules: dict[str, Any] | None = None, **values: Any) -> CameraDraft:
    """Return a draft that starts from the present entries."""
    versions = {key: version_of(entry) for key, entry in config.entries.items()}
    return CameraDraft(rules=rules or {}, versions=versions, **values)


def test_a_drawn_rule_becomes_an_entry_of_the_camera_s_site() -> None:
    config = config_of()
    (change,) = changes_of(config, "gate", draft(config, {"in": DRAWN}))
    assert (change.key, change.before) == ("rule/in", None)
    (rule,) = rules_of(after_changes(config, [change]), "gate")
    assert isinstance(rule, LineRule)
    assert (rule.camera, rule.sites, rule.start) == ("gate", ("north",), (0.2, 0.5))


def test_a_rule_that_did_not_change_is_not_written() -> None:
    config = config_of(LINE)
    unchanged = {**DRAWN, "start": [0.1, 0.5]}
    assert changes_of(config, "gate", draft(config, {"in": unchanged})) == []


def test_removing_a_rule_in_a_draft_deletes_its_entry_from_the_configuration() -> None:
    config = config_of(LINE)
    (change,) = changes_of(config, "gate", draft(config, {"in": None}))
    assert (change.key, change.after) == ("rule/in", None)
    assert rules_of(after_changes(config, [change]), "gate") == []


def test_masks_and_ground_plane_are_one_change_of_the_camera() -> None:
    config, mask = config_of(), [[0.0, 0.0], [0.5, 0.0], [0.5, 0.1]]
    (change,) = changes_of(config, "gate", draft(config, gate_masks=[mask], redact_masks=[mask], ground=GROUND))
    assert isinstance(change.after, CameraConfig)
    assert change.after.gate.masks == change.after.redact.masks == (((0.0, 0.0), (0.5, 0.0), (0.5, 0.1)),)
    assert change.after.ground is not None
    assert change.after.source == GATE.source


def test_a_rule_over_speeds_needs_a_ground_plane_which_the_same_draft_may_add() -> None:
    config = config_of()
    speed = {"fast": {"type": "speed", "pipeline": "p", "above_km_h": 50}}
    with pytest.raises(BadInput, match="rule/fast needs ground of the camera"):
        changes_of(config, "gate", draft(config, speed))
    assert len(changes_of(config, "gate", draft(config, speed, ground=GROUND))) == 2


def test_a_ground_plane_that_a_rule_needs_cannot_be_removed() -> None:
    speed = plug_ins()["speed"].model_validate({"name": "fast", "camera": "gate", "pipeline": "p", "above_km_h": 50})
    camera = CameraConfig.model_validate({**GATE.model_dump(), "ground": GROUND})
    config = config_of(camera, speed)
    with pytest.raises(BadInput, match="needs ground"):
        changes_of(config, "gate", draft(config, ground={}))


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({"in": {**DRAWN, "start": [2, 0]}}, "rule/in.start.0 = 2"),
        ({"in": {**DRAWN, "pipeline": "none"}}, "pipeline = none"),
        ({"in": {**DRAWN, "type": "none"}}, "type = 'none'"),
        ({"in": {"pipeline": "p"}}, "type = None"),
        ({"in": {"type": "threshold", "sensor": "s", "above": 1}}, "rule/in"),
        ({"in": {**DRAWN, "camera": "yard"}}, ""),
    ],
)
def test_an_error_of_a_draft_names_the_key_and_the_value(rules: dict[str, Any], problem: str) -> None:
    config = config_of()
    if not problem:
        (change,) = changes_of(config, "gate", draft(config, rules))
        assert (getattr(change.after, "model_extra", None) or {})["camera"] == "gate"
        return
    with pytest.raises(BadInput) as error:
        changes_of(config, "gate", draft(config, rules))
    assert problem in str(error.value)


def test_a_rule_of_another_camera_cannot_be_changed_or_removed() -> None:
    config = config_of(LINE.model_copy(update={"camera": "yard"}))
    for settings in (DRAWN, None):
        with pytest.raises(BadInput, match="rule of another camera"):
            changes_of(config, "gate", draft(config, {"in": settings}))


def test_an_entry_that_somebody_else_changed_is_not_overwritten() -> None:
    old = config_of(LINE)
    new = config_of(LINE.model_copy(update={"direction": "forward"}))
    with pytest.raises(Conflict, match="changed by somebody else"):
        changes_of(new, "gate", draft(old, {"in": DRAWN}))


def test_a_new_rule_with_the_name_of_an_existing_rule_is_refused() -> None:
    with pytest.raises(Conflict, match="exists already"):
        changes_of(config_of(LINE), "gate", CameraDraft(rules={"in": DRAWN}))


def test_a_draft_cannot_overwrite_an_invalid_rule_entry_on_the_config_topic() -> None:
    config = Config(config_of().entries, {"rule/in": "unreadable"})
    with pytest.raises(Conflict, match="rule/in is refused on the config topic"):
        changes_of(config, "gate", CameraDraft(rules={"in": DRAWN}))


def test_a_ground_plane_that_a_rule_needs_cannot_be_removed_by_undoing_it(tmp_path: Any) -> None:
    config, history = config_of(), ChangeHistory(Database(tmp_path), ManualClock())
    (change,) = changes_of(config, "gate", draft(config, ground=GROUND))
    history.add("ada", "gate", change, "")
    config = after_changes(config, [change])
    speed = {"fast": {"type": "speed", "pipeline": "p", "above_km_h": 50}}
    config = after_changes(config, changes_of(config, "gate", draft(config, speed)))
    with pytest.raises(BadInput, match="rule/fast needs ground of the camera"):
        undo_of(history.of_camera("gate")[0], config)


async def test_saved_changes_are_on_the_topic_and_can_be_undone_in_reverse_order(tmp_path: Any) -> None:
    log = MemoryLog(partitions=1)
    await publish(log, (GATE, PIPELINE))
    history = ChangeHistory(Database(tmp_path), ManualClock())
    for number, rules in enumerate(({"in": DRAWN}, {"in": {**DRAWN, "direction": "forward"}}, {"in": None})):
        for change in await save(log, lambda now, rules=rules: changes_of(now, "gate", draft(now, rules))):  # type: ignore[misc]
            history.add("ada", "gate", change, f"change {number}")
    assert "rule/in" not in (await read(log)).entries
    removed, changed, added = history.of_camera("gate")
    assert [one.summary for one in (removed, changed, added)] == ["removed", "changed direction", "added"]
    with pytest.raises(Conflict, match="undo the later change first"):
        undo_of(added, await read(log))
    directions = []
    for saved in (removed, changed, added):
        await save(log, lambda now, saved=saved: [undo_of(saved, now)])  # type: ignore[misc]
        entry = (await read(log)).entries.get("rule/in")
        directions.append((entry.model_extra or {})["direction"] if entry else None)
    assert directions == ["forward", "both", None]


async def test_nothing_is_saved_if_a_change_is_wrong() -> None:
    log = MemoryLog(partitions=1)
    await publish(log, (GATE, PIPELINE))
    rules = {"in": DRAWN, "out": {**DRAWN, "pipeline": "none"}}
    with pytest.raises(BadInput):
        await save(log, lambda now: changes_of(now, "gate", draft(now, rules)))
    assert (await read(log)).entries.keys() == {"camera/gate", "pipeline/p"}


def test_the_form_of_each_rule_type_has_a_field_or_shape_for_each_setting() -> None:
    kinds = {kind.type: kind for kind in rule_kinds()}
    for name, kind in kinds.items():
        shown = {field.name for field in kind.fields} | {key for shape in kind.shapes for key in shape.settings}
        wanted = plug_ins()[name].model_fields.keys() - {"type", "name", "camera", "pipeline", "sites"}
        assert shown == wanted
    assert [(shape.kind, shape.settings) for shape in kinds["line"].shapes] == [("line", ["start", "end"])]
    assert [(shape.kind, shape.settings) for shape in kinds["zone"].shapes] == [("polygon", ["polygon"])]
    assert [(shape.kind, shape.settings) for shape in kinds["turning"].shapes] == [("lines", ["lines"])]
    assert [shape.settings for shape in kinds["section"].shapes] == [["first"], ["second"]]
    assert {field.name: field.kind for field in kinds["count"].fields}["at_least"] == "integer"
    assert kinds["speed"].needs == ["ground"]
