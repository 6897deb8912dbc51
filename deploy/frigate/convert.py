"""Converts a Frigate configuration into the values of a site file. Pure.

The meaning of Frigate's keys comes from its reference configuration (docs.frigate.video). Keys without an equivalent
become notes, so that the user knows what the site file lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deploy.frigate.geometry import ground, lengths_of, polygon, polygons
from deploy.frigate.section import FrigateSection, parse, unread
from deploy.frigate.source import detect_input, source_of

_KM_PER_MILE = 1.609344
WHOLE_PICTURE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
_ALERTS, _TRACKED = ("person", "car"), ("person",)
"""Labels for which Frigate raises alerts, and labels that Frigate tracks, unless the configuration names others."""
_NAME_CHARS = 58
"""Maximum length of a name before a number is appended; a name in a site file has at most 63 characters."""
_REASONS = {
    "audio": "no equivalent: Sightline does not listen to sound",
    "auth": "use the users of `sightline console`",
    "birdseye": "use the wall of `sightline console`",
    "camera_groups": "give cameras of one place the same `place`",
    "classification": "add a second model with [[pipelines.then]]",
    "database": "not needed: the log in Kafka is the database",
    "detectors": "the engine nodes choose their device: `sightline engine --help`",
    "face_recognition": "no equivalent; `redact.faces` makes faces unrecognisable",
    "filters": "only threshold is converted: use min_score and min_move of the rules",
    "genai": "no equivalent",
    "go2rtc": "not needed: viewers read the log, not the camera",
    "live": "use the wall of `sightline console`",
    "lpr": "no equivalent; `redact.plates` makes number plates unrecognisable",
    "model": "add the model with `sightline models add`, and name it with --model",
    "mqtt": "add a [[receivers]] entry",
    "notifications": "add a [[receivers]] entry",
    "onvif": "no equivalent: Sightline does not move cameras",
    "profiles": "use `gate.armed` of a camera and `hours` of a rule",
    "record": "frames stay in Kafka for the retention of the topic frames",
    "semantic_search": "no equivalent",
    "snapshots": "each alert has its evidence pictures",
}
"""Advice about sections that are not converted, by the name of the section."""


class Note(NamedTuple):
    """One thing that the user should know. ``key`` is the key of the Frigate configuration."""

    key: str
    text: str


class PipelineChoice(NamedTuple):
    """The pipeline of all cameras: a model, and the preparation of pictures that the model needs."""

    model: str
    width: int
    height: int
    colour: str = "bgr"
    fit: str = "letterbox"


@dataclass
class FrigateSite:
    """The result: values of a site file, notes, and the cameras' passwords by the name of their file."""

    site: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    passwords: dict[str, str] = field(default_factory=dict)

    def note(self, section: FrigateSection, key: str, text: str) -> None:
        """Add a note about a key of a section."""
        self.notes.append(Note(".".join((*section.path, key)), text))


def convert(text: str, name: str, choice: PipelineChoice, secrets: str) -> FrigateSite:
    """Convert a Frigate configuration into a site called ``name``.

    ``secrets`` is the folder of the password files on the agents' machine. Raise ConfigError for a configuration that
    Frigate would not accept, as far as the conversion reads it.
    """
    root, found = parse(text), FrigateSite()
    cameras, rules, left_out = [], [], []
    names: set[str] = set()
    for camera_name, camera in root.section("cameras").sections():
        section = _CameraSection(root, camera, _unique(_slug(camera_name), names))
        if section.name != camera_name:
            found.note(
                root.section("cameras"),
                camera_name,
                f"the camera is called {section.name}: names have lower-case letters",
            )
        if not camera.is_on():
            found.note(camera, "enabled", "the camera is switched off, so it is left out")
            left_out.append(camera.path)
        elif (values := _camera(section, found, secrets)) is None:
            left_out.append(camera.path)
        else:
            cameras.append(values)
            rules += _rules(section, found, choice.model) if section.detect.is_on() else []
    rule_names: set[str] = set()
    for rule in rules:
        rule["name"] = _unique(rule["name"], rule_names)
    if not cameras:
        raise root.error(
            "cameras", sorted(names), "at least one camera that is switched on and has a readable stream"
        )
    pipeline = {"name": choice.model, **choice._asdict()}
    zone = root.section("ui").value("timezone")
    found.site = {"name": name, **({"time_zone": zone} if zone else {}), "cameras": cameras, "pipelines": [pipeline]}
    found.site |= {"rules": rules} if rules else {}
    found.notes += [Note(".".join(path), _reason(path)) for path in unread(root) if path[:2] not in left_out]
    return found


class _CameraSection:
    """Sections of one camera. A section of a camera may leave out keys that the section of the same name for all
    cameras has."""

    def __init__(self, root: FrigateSection, camera: FrigateSection, name: str) -> None:
        self.root, self.camera, self.name = root, camera, name
        self.detect, self.motion, self.objects, self.review = (
            camera.section(key, root.section(key)) for key in ("detect", "motion", "objects", "review")
        )
        self.size = self.detect.number("width"), self.detect.number("height")
        self.imperial = root.section("ui").value("unit_system") == "imperial"


def _camera(section: _CameraSection, found: FrigateSite, secrets: str) -> dict[str, Any] | None:
    camera = section.camera
    given = detect_input(camera)
    camera.section("ffmpeg").value("inputs")
    source = source_of(given, section.root.section("go2rtc").section("streams"))
    if source is None:
        text = "Sightline cannot read this source, so the camera is left out: expected rtsp, http or a device"
        found.note(given, "path", text)
        return None
    for variable in re.findall(r"\$\{(\w+)\}", source.address):
        found.note(given, "path", f"set {variable} in the environment of the camera's agent")
    stream: dict[str, Any] = {}
    if source.password:
        file = f"{section.name}.password"
        found.passwords[file] = source.password
        for variable in re.findall(r"\$\{(\w+)\}", source.password):
            found.note(given, "path", f"replace ${{{variable}}} in the file {file} by its value")
        stream = {"user": source.user, "password_file": f"{secrets}/{file}"}
    if "udp" in str(given.value("input_args", camera.section("ffmpeg").value("input_args", ""))):
        stream["transport"] = "udp"
    gate: dict[str, Any] = {"masks": masks} if (masks := polygons(section.motion, "mask", section.size)) else {}
    if (fps := section.detect.number("fps", 5.0)) != 5.0:
        gate["open_fps"] = fps
    values: dict[str, Any] = {"name": section.name, "source": source.address}
    if all(section.size):
        values |= {"width": int(section.size[0]), "height": int(section.size[1])}
    planes = _ground_planes(section, found)
    values |= {key: value for key, value in (("stream", stream), ("gate", gate), ("ground", planes)) if value}
    return values


def _ground_planes(section: _CameraSection, found: FrigateSite) -> dict[str, Any] | None:
    """Return the ground plane of the first zone with ``distances``. Add a note about each other zone with
    ``distances``."""
    first: dict[str, Any] | None = None
    for _, zone in section.camera.section("zones").sections():
        if not (lengths := lengths_of(zone, "distances")):
            continue
        corners = polygon(zone, "coordinates", zone.value("coordinates"), section.size)
        plane = ground(corners, lengths, imperial=section.imperial)
        if plane is None or first is not None:
            text = "a ground plane needs four corners" if plane is None else "a camera has one ground plane"
            found.note(zone, "distances", f"{text}, so these lengths are left out")
        else:
            first = plane
            found.note(zone, "distances", "became the camera's ground plane: check its corners and lengths")
    return first


def _rules(section: _CameraSection, found: FrigateSite, pipeline: str) -> list[dict[str, Any]]:
    """Return rules over a camera: one per zone, and rules over the whole picture if alerts need no zone."""
    tracked = section.objects.texts("track", _TRACKED)
    alerts, others = section.review.section("alerts"), section.review.section("detections")
    alert_labels = [label for label in alerts.texts("labels", _ALERTS) if label in tracked] if alerts.is_on() else []
    other_labels = [label for label in others.texts("labels", tracked) if label in tracked] if others.is_on() else []
    alert_zones, other_zones = alerts.texts("required_zones"), others.texts("required_zones")
    common = {"type": "zone", "camera": section.name, "pipeline": pipeline}
    rules: list[dict[str, Any]] = []
    if alert_labels and not alert_zones:
        whole = {"name": f"{section.name}-alert", "polygon": WHOLE_PICTURE, "severity": "warning"}
        rules += _by_score(section, {**common, **whole}, alert_labels)
    quiet = [label for label in other_labels if label not in alert_labels]
    if quiet and not other_zones:
        whole = {"name": f"{section.name}-detection", "polygon": WHOLE_PICTURE, "severity": "info"}
        rules += _by_score(section, {**common, **whole}, quiet)
    for zone_name, zone in section.camera.section("zones").sections():
        if not zone.is_on():
            found.note(zone, "enabled", "the zone is switched off, so it is left out")
            continue
        labels = [label for label in zone.texts("objects", tracked) if label in tracked]
        if not labels:
            found.note(zone, "objects", f"the camera tracks none of these labels, only {', '.join(tracked)}")
            continue
        corners = polygon(zone, "coordinates", zone.value("coordinates"), section.size)
        severity = "warning" if zone_name in alert_zones else "info"
        place = {
            "name": f"{section.name}-{_slug(zone_name)}",
            "polygon": corners,
            "severity": severity,
        }
        stay = {"dwell_s": dwell_s} if (dwell_s := zone.number("loitering_time")) else {}
        rules += _by_score(section, {**common, **place, **stay}, labels)
        if speed := zone.number("speed_threshold"):
            limit = round(speed * (_KM_PER_MILE if section.imperial else 1.0), 2)
            fast = {"type": "speed", "name": f"{place['name']}-speed", "above_km_h": limit}
            rules.append({**common, **place, **fast, "labels": labels})
            found.note(zone, "speed_threshold", "became a rule that reports faster objects")
    return rules


def _by_score(section: _CameraSection, rule: Mapping[str, Any], labels: Iterable[str]) -> list[dict[str, Any]]:
    """Return one copy of the rule for each minimum score, with the labels that have this minimum score."""
    groups: dict[float, list[str]] = {}
    for label in labels:
        filters = section.objects.section("filters").section(label)
        groups.setdefault(filters.number("threshold", filters.number("min_score")), []).append(label)
    rules = []
    for number, (score, group) in enumerate(groups.items()):
        name = rule["name"] if number == 0 else f"{rule['name']}-{_slug(group[0])}"
        rules.append({**rule, "name": name, "labels": group, **({"min_score": score} if score else {})})
    return rules


def _slug(name: str) -> str:
    """Return a name with the characters that Sightline allows."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._") or "unnamed"


def _unique(name: str, names: set[str]) -> str:
    """Return ``name``, or ``name`` with a number if it is in ``names`` already, and add the result to ``names``.

    A long name is shortened.
    """
    name = name[:_NAME_CHARS].rstrip("-._")
    free = next(
        one for one in (name, *(f"{name}-{number}" for number in range(2, len(names) + 3))) if one not in names
    )
    names.add(free)
    return free


def _reason(path: tuple[str, ...]) -> str:
    return next((_REASONS[part] for part in reversed(path) if part in _REASONS), "not converted: no equivalent")
