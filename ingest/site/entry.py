"""What every entry of a site has, and the kinds of value that they share."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from ingest.contract.records.base import Name, Point

Relative = Annotated[float, Field(ge=0.0, le=1.0)]
RelativePoint = tuple[Relative, Relative]
"""x, y as shares of the picture's width and height, so that a change of resolution does not move a line."""
Seconds = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ConfigSection(BaseModel):
    """Something inside of an entry: frozen, its numbers finite, and with no room for misspelt keys."""

    # JSON, and so the topic, has no infinity: it would be read back as nothing, and refused
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ConfigEntry(ConfigSection):
    """One entry of a site, under its key on the ``config`` topic."""

    KIND: ClassVar[str]

    name: Name

    @property
    def key(self) -> str:
        """The entry's key on the ``config`` topic."""
        return f"{self.KIND}/{self.name}"


class SharedEntry(ConfigEntry):
    """An entry that several sites may have in common."""

    sites: tuple[str, ...] = ()
    """The sites whose files have it: written by `sightline config apply`, and not read from a file."""


class RuleEntry(SharedEntry):
    """A rule with its settings as they were written.

    Only services that run rules know which settings a type has, and validate them: see ``stream/rules.py``.
    """

    KIND: ClassVar[str] = "rule"
    model_config = ConfigDict(extra="allow")

    type: str


def to_pixels(points: tuple[RelativePoint, ...], width: int, height: int) -> tuple[Point, ...]:
    """Turn relative points into pixels of a picture of that size."""
    return tuple((x * width, y * height) for x, y in points)
