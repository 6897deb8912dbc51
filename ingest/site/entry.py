"""Base classes of the configuration entries of a site, common value types, and the entries for rules and pins."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from ingest.contract.records.base import Name, Point
from ingest.contract.records.event import MAX_CLIP_S

MAX_S = 100 * 366 * 86_400.0
"""Longest time in seconds that a setting may have: a hundred years. The sum of a hundred years and any capture time,
in ns, fits into 64 bits."""
Seconds = Annotated[float, Field(ge=0.0, le=MAX_S)]
PositiveSeconds = Annotated[float, Field(gt=0.0, le=MAX_S)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
RelativePoint = tuple[Share, Share]
"""A point ``(x, y)`` in shares of the picture's width and height, so that a shape stays in place when the resolution
changes."""


def _has_length(line: tuple[RelativePoint, RelativePoint]) -> tuple[RelativePoint, RelativePoint]:
    if line[0] == line[1]:
        raise ValueError("expected two different points as start and end of a line")
    return line


RelativeLine = Annotated[tuple[RelativePoint, RelativePoint], AfterValidator(_has_length)]
"""Start and end of a line, which are different points."""
Anchor = Literal["centre", "foot"]
"""Point of an object's box: its centre, or the middle of its lower edge."""
Polygon = Annotated[tuple[RelativePoint, ...], Field(min_length=3)]


class ConfigSection(BaseModel):
    """Base class of the sections of a configuration. A configuration section is immutable, accepts finite numbers
    only, and refuses unknown keys."""

    # JSON has no infinity: it would be read back from the topic as null, and refused. Validators are built at their
    # first use, because a process uses a few of the many types.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class ConfigEntry(ConfigSection):
    """Base class of a site's configuration entries. An entry is one record on the ``config`` topic, with the entry's
    key as record key."""

    KIND: ClassVar[str]

    name: Name

    @property
    def key(self) -> str:
        """The entry's key on the ``config`` topic."""
        return f"{self.KIND}/{self.name}"


class SharedEntry(ConfigEntry):
    """Base class of configuration entries that several sites may share."""

    sites: tuple[str, ...] = ()
    """The sites whose files contain this entry. `sightline config apply` writes the field ``sites``; a site file
    cannot set this field."""


ClipSeconds = Annotated[float, Field(ge=0.0, le=MAX_CLIP_S)]


class ClipConfig(ConfigSection):
    """The clip that the alerts of a rule get: its length before and after the event. If ``before_s`` and ``after_s``
    are both 0, there is no clip."""

    before_s: ClipSeconds = 5.0
    after_s: ClipSeconds = 10.0
    boxes: bool = False
    """If true, a second clip has the boxes of the detected objects drawn."""


class RuleEntry(SharedEntry):
    """A rule whose type-specific settings are not validated yet.

    The services that run rules validate the settings of each rule type: see ``stream/rules.py``.
    """

    KIND: ClassVar[str] = "rule"
    model_config = ConfigDict(extra="allow")

    type: str


class PinConfig(ConfigEntry):
    """A pin, which fixes a camera to one partition. When `sightline topics grow` adds partitions, it writes pins so
    that each camera keeps its partition."""

    KIND: ClassVar[str] = "pin"

    partition: int = Field(ge=0)


def to_pixels(points: tuple[RelativePoint, ...], width: int, height: int) -> tuple[Point, ...]:
    """Convert relative points to pixels of a picture that is ``width`` × ``height`` pixels large."""
    return tuple((x * width, y * height) for x, y in points)


_KNOWN_KEY = "a known key (extra keys are not permitted); this one is misspelt, or needs a newer version of sightline"
_PHRASES = (
    (r"^Value error, (expected )?", ""),
    (r"^Invalid JSON: (.*)", r"valid JSON (\1)"),
    (r"^\w+ should be (?=greater|less)", "a number "),
    (r"^\w+ should be ", ""),
    (r"^\w+ should have ", "a value with "),
    (r"^\w+ should match ", "a value that matches "),
)
"""Pairs of a pattern for the beginning of a pydantic message, and its replacement. After the replacement, pydantic's
message is a noun phrase that fits after the word ``expected``."""


def expectation(error: ErrorDetails) -> str:
    """Describe the value that a validation error expected, and return the description as a noun phrase."""
    if error["type"] == "extra_forbidden":
        return _KNOWN_KEY
    if error["type"] == "missing":
        return "a value, as this key is required"
    message = error["msg"]
    for pattern, phrase in _PHRASES:
        message = re.sub(pattern, phrase, message, flags=re.DOTALL)
    return message
