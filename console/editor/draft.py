"""Drafts of a camera's rules, masks and ground plane, and the changes of the configuration that a draft stands for.

Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import PydanticSerializationError

from console.exceptions import BadInput, Conflict, NotFound
from ingest.contract.records.base import Name
from ingest.exceptions import ConfigError
from ingest.site import CameraConfig, ConfigEntry, PipelineConfig, RuleEntry, parse_entry
from ingest.site.file import UNNAMED, config_error
from ingest.site.topic.view import Config
from stream.analyse.rule import CameraRule
from stream.rules import parse_rule

MAX_RULES = 200
_WHERE = "draft"
Points = list[tuple[float, float]]


class CameraDraft(BaseModel, extra="forbid"):
    """The state of the editor for one camera.

    ``rules`` are the settings of the changed rules by name, None for a removed rule. ``gate_masks``, ``redact_masks``
    and ``ground`` are None if they are unchanged; an empty ``ground`` removes the ground plane. ``versions`` are the
    versions of the entries from which the user started, by key: see ``version_of``.
    """

    rules: dict[Name, dict[str, Any] | None] = Field(default={}, max_length=MAX_RULES)
    gate_masks: list[Points] | None = Field(default=None, max_length=100)
    redact_masks: list[Points] | None = Field(default=None, max_length=100)
    ground: dict[str, Any] | None = None
    versions: dict[str, str] = {}


class EntryChange(NamedTuple):
    """A change of one entry. ``before`` is None for a new entry, ``after`` is None for a removed entry."""

    key: str
    before: ConfigEntry | None
    after: ConfigEntry | None


def as_read(entry: ConfigEntry) -> ConfigEntry:
    """Return an entry in the form in which a reader of the config topic gets it: a rule has plain settings, and is
    not an object of its plug-in class."""
    return parse_entry(entry.key, entry.model_dump_json().encode())


def version_of(entry: ConfigEntry | None) -> str:
    """Return a short text that changes with the entry; empty without an entry."""
    return hashlib.sha256(entry.model_dump_json().encode()).hexdigest()[:16] if entry else ""


def camera_of(config: Config, name: str) -> CameraConfig:
    """Return a camera. Raise NotFound."""
    found = config.entries.get(f"{CameraConfig.KIND}/{name}")
    if not isinstance(found, CameraConfig):
        raise NotFound(f"camera {name!r} is not on the config topic")
    return found


def rules_of(config: Config, camera: str) -> list[CameraRule]:
    """Return the valid rules of a camera, sorted by name."""
    found = [_parsed(rule) for rule in config.of(RuleEntry) if (rule.model_extra or {}).get("camera") == camera]
    return [rule for rule in found if rule is not None]


def changes_of(config: Config, camera: str, draft: CameraDraft) -> list[EntryChange]:
    """Return the changes of a draft.

    Raise BadInput for a wrong value, with the key and the expected value. Raise Conflict if somebody else has changed
    an entry since the user loaded it.
    """
    present = camera_of(config, camera)
    changes = [_rule_change(config, present, name, settings) for name, settings in draft.rules.items()]
    after = _changed_camera(present, draft)
    changes += [EntryChange(present.key, present, after)] if after != present else []
    require_needs(config, camera, changes)
    for change in changes:
        if change.before is not None and change.before.key not in draft.versions:
            raise Conflict(f"{change.key} exists already: choose another name")
        if draft.versions.get(change.key, "") != version_of(config.entries.get(change.key)):
            raise Conflict(f"{change.key} was changed by somebody else: load the page again")
    return [change for change in changes if change.before != change.after]


def after_changes(config: Config, changes: list[EntryChange]) -> Config:
    """Return the configuration as it is after the changes."""
    entries = {**config.entries, **{change.key: change.after for change in changes if change.after is not None}}
    removed = {change.key for change in changes if change.after is None}
    return Config({key: entry for key, entry in entries.items() if key not in removed})


def _rule_change(config: Config, camera: CameraConfig, name: str, settings: Mapping[str, Any] | None) -> EntryChange:
    key = f"{RuleEntry.KIND}/{name}"
    before = config.entries.get(key)
    if key in config.refused:
        raise Conflict(f"{key} is refused on the config topic: choose another name, or run `sightline config remove`")
    if isinstance(before, RuleEntry) and (before.model_extra or {}).get("camera") != camera.name:
        raise BadInput(f"{key} is a rule of another camera or of a sensor: choose another name")
    if settings is None:
        return EntryChange(key, before, None)
    sites = before.sites if isinstance(before, RuleEntry) else (camera.site or UNNAMED,)
    values = {**settings, "name": name, "camera": camera.name, "sites": sites}
    if not isinstance(values.get("type"), str):
        raise BadInput(f"{key}: type = {values.get('type')!r}: expected the name of a type of rules")
    try:
        rule = parse_rule(values, _WHERE, key)
        after = as_read(rule)
    except ConfigError as error:
        raise BadInput(str(error)) from None
    except PydanticSerializationError as error:  # half of a UTF-16 surrogate pair, which JSON can contain
        raise BadInput(f"{key}: {error}: expected text that can be encoded as UTF-8") from None
    if not isinstance(rule, CameraRule):
        raise BadInput(f"{key}: type = {rule.type}: expected a rule over a camera")
    if not isinstance(config.entries.get(f"{PipelineConfig.KIND}/{rule.pipeline}"), PipelineConfig):
        raise BadInput(f"{key}: pipeline = {rule.pipeline}: expected the name of a pipeline")
    return EntryChange(key, before, after)


def _changed_camera(camera: CameraConfig, draft: CameraDraft) -> CameraConfig:
    values = camera.model_dump()
    if draft.gate_masks is not None:
        values["gate"]["masks"] = draft.gate_masks
    if draft.redact_masks is not None:
        values["redact"]["masks"] = draft.redact_masks
    if draft.ground is not None:
        values["ground"] = draft.ground or None
    try:
        found = as_read(CameraConfig.model_validate(values))
    except ValidationError as error:
        raise BadInput(str(config_error(_WHERE, error, camera.key))) from None
    return found if isinstance(found, CameraConfig) else camera


def require_needs(config: Config, name: str, changes: list[EntryChange]) -> None:
    """Raise BadInput if, after the changes, a rule needs a setting that the camera does not have."""
    after = after_changes(config, changes)
    camera = camera_of(after, name)
    for rule in rules_of(after, name):
        for setting in rule.CAMERA_NEEDS:
            if not getattr(camera, setting):
                raise BadInput(f"rule/{rule.name} needs {setting} of the camera: draw it first")


def _parsed(rule: RuleEntry) -> CameraRule | None:
    try:
        found = parse_rule(rule.model_dump(), _WHERE, rule.key)
    except ConfigError:
        return None
    return found if isinstance(found, CameraRule) else None
