"""Settings of single decoders, which a model's manifest holds in ``[decoding.settings]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.exceptions import ManifestError

Side = Annotated[float, Field(gt=0)]
Stride = Annotated[int, Field(gt=0)]
Prior = Side | tuple[Side, Side]
"""Side of a square prior box in px, or its width and height."""


class NoSettings(BaseModel):
    """Settings of a decoder without settings of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OrderSettings(NoSettings):
    """Order of the two coordinates of a point, or of a size: TensorFlow's models use ``top-left``, y before x."""

    order: Literal["left-top", "top-left"] = "left-top"


class BoxSettings(OrderSettings):
    """Settings of boxes with corners. ``share`` is the share of the input's width or height."""

    unit: Literal["share", "px"] = "share"


class RowSettings(OrderSettings):
    """Settings of models with NMS inside. TensorFlow's models use ``share``, ``top-left``, and classes from 1."""

    unit: Literal["share", "px"] = "px"
    first_class: Annotated[int, Field(ge=0, le=1)] = 0
    """Number of the first label in the column of classes."""


class PriorSettings(OrderSettings):
    """Settings of an SSD. ``priors`` holds the prior boxes of a cell by the stride of their feature map."""

    form: Literal["corners", "centres", "offsets"] = "corners"
    scores: Literal["given", "softmax", "sigmoid"] = "given"
    priors: dict[Stride, tuple[Prior, ...]] = {}
    centre_variance: Side = 0.1
    size_variance: Side = 0.2


Settings = TypeVar("Settings", bound=NoSettings)


def read_settings(kind: type[Settings], decoder: str, given: Mapping[str, Any]) -> Settings:
    """Validate the settings of a decoder. Raise ManifestError with the key, the value and the known keys."""
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(kind.model_fields) or "none"
        raise ManifestError(
            f"decoder {decoder}, setting {'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}. "
            f"Settings of this decoder: {known}"
        ) from None
