"""Settings of individual decoders. A model's manifest holds the settings of its decoder in
``[decoding.settings]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.exceptions import ManifestError

Side = Annotated[float, Field(gt=0)]
Stride = Annotated[int, Field(gt=0)]
Prior = Side | tuple[Side, Side]
"""Size of a prior box in px: the side of a square, or (width, height)."""


class NoSettings(BaseModel):
    """Base class of all decoder settings, used directly by decoders that have no settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OrderSettings(NoSettings):
    """Order of the coordinates of a point, and of width and height.

    TensorFlow's models use ``top-left``: y before x.
    """

    order: Literal["left-top", "top-left"] = "left-top"


class BoxSettings(OrderSettings):
    """Settings of a decoder whose boxes are given as two corners.

    With the unit ``share``, coordinates are fractions of the input's width or height.
    """

    unit: Literal["share", "px"] = "share"


class RowSettings(OrderSettings):
    """Settings of a decoder for models that perform non-maximum suppression themselves.

    TensorFlow's models use the unit ``share`` and the order ``top-left``, and number classes from 1.
    """

    unit: Literal["share", "px"] = "px"
    first_class: Annotated[int, Field(ge=0, le=1)] = 0
    """Number by which the model's column of classes denotes the first label."""


class PriorSettings(OrderSettings):
    """Settings of the SSD decoder.

    ``priors`` maps the stride of a feature map in px to the sizes of the prior boxes in each cell.
    """

    form: Literal["corners", "centres", "offsets"] = "corners"
    scores: Literal["given", "softmax", "sigmoid"] = "given"
    priors: dict[Stride, tuple[Prior, ...]] = {}
    centre_variance: Side = 0.1
    size_variance: Side = 0.2


Settings = TypeVar("Settings", bound=NoSettings)


def read_settings(kind: type[Settings], decoder: str, given: Mapping[str, Any]) -> Settings:
    """Validate the settings of a decoder.

    Raise ManifestError that names the invalid key, its value and the known keys.
    """
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(kind.model_fields) or "none"
        raise ManifestError(
            f"decoder {decoder}, setting {'.'.join(map(str, first['loc']))} = {first['input']!r}: {first['msg']}. "
            f"Settings of this decoder: {known}"
        ) from None
