"""Base classes of a site's entries, the types of their values, and the small entries: rules, pins, receivers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from ingest.contract.records.base import Name, Point
from ingest.site.url import WebUrl

Seconds = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
RelativePoint = tuple[Share, Share]
"""x, y as shares of the picture's width and height, so that a shape stays in place when the resolution changes."""
Polygon = Annotated[tuple[RelativePoint, ...], Field(min_length=3)]


class ConfigSection(BaseModel):
    """Base of a section of an entry: frozen, with finite numbers only, and without unknown keys."""

    # JSON has no infinity: it would be read back from the topic as null, and refused
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ConfigEntry(ConfigSection):
    """Base of an entry of a site, stored under its key on the ``config`` topic."""

    KIND: ClassVar[str]

    name: Name

    @property
    def key(self) -> str:
        """The entry's key on the ``config`` topic."""
        return f"{self.KIND}/{self.name}"


class SharedEntry(ConfigEntry):
    """Base of an entry that several sites may share."""

    sites: tuple[str, ...] = ()
    """The sites whose files contain this entry. `sightline config apply` writes this field; a site file cannot set
    it."""


class RuleEntry(SharedEntry):
    """A rule with unvalidated settings.

    Only services that run rules know and validate the settings of a rule type: see ``stream/rules.py``.
    """

    KIND: ClassVar[str] = "rule"
    model_config = ConfigDict(extra="allow")

    type: str


class PinConfig(ConfigEntry):
    """A camera's partition. `sightline topics grow` writes pins so that each camera keeps its partition."""

    KIND: ClassVar[str] = "pin"

    partition: int = Field(ge=0)


class ReceiverConfig(SharedEntry):
    """A webhook that receives alerts. The secret is read from a file (``whsec_…``, Standard Webhooks)."""

    KIND: ClassVar[str] = "receiver"

    url: WebUrl
    secret_file: Path
    history: bool = False
    """Whether a new receiver gets all alerts that the topic still has. Otherwise the receiver gets only new
    alerts."""
    timeout_s: float = Field(default=10.0, gt=0.0, le=60.0)
    retry_s: tuple[Seconds, ...] = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    """Pause before each attempt in seconds: the schedule of Standard Webhooks, 75 hours in all."""


def to_pixels(points: tuple[RelativePoint, ...], width: int, height: int) -> tuple[Point, ...]:
    """Return relative points as pixels of a picture of this size."""
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
"""Beginnings of pydantic's messages, and the noun phrases that replace them after the word ``expected``."""


def expectation(error: ErrorDetails) -> str:
    """Return the value that a validation error expected, as a noun phrase."""
    if error["type"] == "extra_forbidden":
        return _KNOWN_KEY
    if error["type"] == "missing":
        return "a value, as this key is required"
    message = error["msg"]
    for pattern, phrase in _PHRASES:
        message = re.sub(pattern, phrase, message, flags=re.DOTALL)
    return message
