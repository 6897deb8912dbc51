"""The types of camera rules as a browser needs them: the fields of their forms, and the shapes to draw. Pure.

A rule of another package appears like the rules that Sightline ships, because everything comes from the rule's model.
"""

from __future__ import annotations

import types
import typing
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ingest.site.entry import Polygon, RelativeLine, RelativePoint, SharedEntry
from stream.analyse.rule import CameraRule
from stream.rules import plug_ins

FieldKind = Literal["number", "integer", "text", "texts", "choice", "flag", "json"]
ShapeKind = Literal["line", "polygon", "lines"]
_POLYGON = typing.get_args(Polygon)[0]
_LINE = typing.get_args(RelativeLine)[0]
_FIXED = frozenset({"type", "name", "camera", "pipeline", *SharedEntry.model_fields})
"""Settings that have no field in the form: the editor sets them itself."""


class RuleField(BaseModel):
    """One setting of a rule. ``default`` is None for a setting that must be given, or that may be left out."""

    name: str
    kind: FieldKind
    required: bool
    default: Any = None
    choices: list[str] = []


class RuleShape(BaseModel):
    """A shape that the user draws. ``settings`` names the settings that hold the shape's points.

    A line has one setting with two points, or two settings with one point each. The shape kind ``lines`` is a mapping
    from names to lines.
    """

    kind: ShapeKind
    settings: list[str]
    required: bool


class RuleKind(BaseModel):
    """A type of rules."""

    type: str
    summary: str
    fields: list[RuleField]
    shapes: list[RuleShape]
    needs: list[str]
    """Optional settings that the camera must have, such as ``ground``."""


def rule_kinds() -> list[RuleKind]:
    """Return all types of camera rules, sorted by their names."""
    found = sorted(plug_ins().items())
    return [_kind(name, cls) for name, cls in found if issubclass(cls, CameraRule)]


def _kind(name: str, cls: type[CameraRule]) -> RuleKind:
    fields, shapes = [], []
    ends: list[str] = []
    for key, info in cls.model_fields.items():
        plain = _without_none(info.annotation)
        if key in _FIXED:
            continue
        if plain == RelativePoint:
            ends.append(key)
        elif plain in (_POLYGON, _LINE):
            kind: ShapeKind = "polygon" if plain == _POLYGON else "line"
            shapes.append(RuleShape(kind=kind, settings=[key], required=info.is_required()))
        elif typing.get_origin(plain) is dict and typing.get_args(plain)[1] == RelativeLine:
            shapes.append(RuleShape(kind="lines", settings=[key], required=info.is_required()))
        else:
            fields.append(_field(key, plain, info))
    if len(ends) == 2:
        shapes.append(RuleShape(kind="line", settings=ends, required=cls.model_fields[ends[0]].is_required()))
    summary = (cls.__doc__ or "").strip().partition("\n\n")[0]
    return RuleKind(
        type=name, summary=" ".join(summary.split()), fields=fields, shapes=shapes, needs=list(cls.CAMERA_NEEDS)
    )


def _field(key: str, plain: Any, info: FieldInfo) -> RuleField:
    choices: list[str] = []
    base = _without_metadata(plain)
    if typing.get_origin(base) is Literal:
        kind: FieldKind = "choice"
        choices = [str(choice) for choice in typing.get_args(base)]
    elif base is bool:
        kind = "flag"
    elif base is int:
        kind = "integer"
    elif base is float:
        kind = "number"
    elif base is str:
        kind = "text"
    elif typing.get_origin(base) is tuple and _is_text(_without_metadata(typing.get_args(base)[0])):
        kind = "texts"
    else:
        kind = "json"
    default = None if info.default is PydanticUndefined else info.get_default()
    return RuleField(name=key, kind=kind, required=info.is_required(), default=default, choices=choices)


def _is_text(annotation: Any) -> bool:
    return annotation is str or typing.get_origin(annotation) is Literal


def _without_none(annotation: Any) -> Any:
    """Return the type of a setting that may also be None."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        others = [one for one in typing.get_args(annotation) if one is not type(None)]
        return _without_metadata(others[0]) if len(others) == 1 else annotation
    return annotation


def _without_metadata(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
