"""Configuration of a pipeline: the preparation of frames for one model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from ingest.contract.codec import MAX_RECORD_BYTES
from ingest.contract.records.base import Name
from ingest.site.entry import ConfigSection, Seconds, Share, SharedEntry

MAX_PIXEL_BYTES = MAX_RECORD_BYTES - 1024 * 1024
"""Maximum size of a batch's pixels and attached frames in bytes. The remaining 1 MiB of the largest record holds the
metadata of the batch's items. The metadata of 64 items with 64 regions each takes less than half a MiB. With the
largest number of moving and stationary boxes, the metadata of a batch just fits into 1 MiB."""
UNROUTED_NAME = "none"
"""Pipeline name in batches of frames from cameras that no pipeline processes."""
MOTION_MODEL = "motion"
"""Value of ``model`` for a pipeline without a model, whose objects are the moving regions that the agents report."""
MOTION_LABEL = "object"
"""Label of the objects of a pipeline without a model."""
MAX_SECOND_MODELS = 8
"""Maximum number of second-stage models of one pipeline."""
MIN_TILED_REGIONS = 3
"""Minimum number of regions of a pipeline with tiles: the whole frame and two tiles."""
_CHANNELS = 3


Precision = Literal["fp32", "bf16", "fp16", "int8"]
"""Lowest numeric precision in which a model may be computed. A backend may compute in a higher precision."""
Priority = Literal["high", "normal", "low"]
"""Priority of a pipeline on an engine node. While pipelines of a higher priority have work, each lower priority still
gets a tenth of the device time."""
Overload = Literal["shed", "every-nth", "lighter"]
"""Policy of a pipeline while an engine node has more work than it can finish in time."""
LightStep = Literal["low-light", "fog"]
"""Correction of the light of a frame."""
Step = Literal["low-light", "fog", "distortion"]
"""Correction of a frame before the model. Steps run after ``denoise``, because brightening amplifies noise, and the
noise would then be estimated wrongly. ``low-light`` runs before ``fog``, because a dark frame lacks contrast until it
is brightened. ``distortion`` runs last, because the empty border of an undistorted frame is no part of its light."""
USUAL_GOAL_S = 1.0
"""Latency goal of a pipeline without ``latency_goal_s`` and ``freshness_s``, in seconds."""


class SecondModelConfig(ConfigSection):
    """A second-stage model of a pipeline: a classifier of the objects that the pipeline's own model detects."""

    name: Name
    """Name of the attribute that the second-stage model adds to an object, such as ``type``."""
    model: str
    """The second-stage model in the model repository, as ``NAME`` or ``NAME@VERSION``."""
    on: tuple[str, ...] = ()
    """Labels of the objects to classify; empty for all."""
    min_score: Share = 0.3
    """Minimum score of a label of the second-stage model."""
    min_pixels: int = Field(default=32, ge=1)
    """Minimum width and height of an object's box, in pixels of the frame, or of the undistorted frame with the step
    ``distortion``. An object with a smaller box is not classified."""
    margin: Share = 0.1
    """Margin added to a box on each side, as a share of the box's size."""
    max_objects: int = Field(default=16, ge=1, le=256)
    """Maximum number of objects in one frame that the second-stage model classifies. If a frame has more objects than
    ``max_objects``, the objects with the highest scores are classified."""
    precision: Precision | None = None
    """Lowest precision in which the model may be computed. If None, the precision in the model's manifest applies."""


class AppearanceConfig(ConfigSection):
    """Settings of the re-identification of tracks by the appearance of their objects."""

    second_model: Name
    """Name of the second-stage model of the pipeline that computes the embeddings."""
    min_similarity: float = Field(default=0.9, gt=0.0, lt=1.0)
    """Minimum cosine similarity of a new object and a lost track of the same object."""
    min_lead: Share = 0.15
    """Minimum difference between the similarities of the most similar and the second most similar track."""
    window_s: float = Field(default=30.0, ge=2.0, le=300.0)
    """Time in seconds since it was last seen within which a lost track can return."""
    also_left: bool = False
    """Whether a track can also return after its object has left the picture. A track whose box touched the edge of
    the picture when it was last seen counts as left."""


class PipelineConfig(SharedEntry):
    """Settings of a pipeline: its model, the preparation of frames for the model, and the cameras of these frames."""

    KIND: ClassVar[str] = "pipeline"

    model: str
    """Name of the model in the repository, or name and version, such as ``regions@2``. If ``model`` names no version,
    engine nodes serve the promoted version of the model. With ``motion``, the pipeline has no model: each moving or
    stationary region that the agent reports is an object with the label ``object``."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    colour: Literal["bgr", "rgb"] = "bgr"
    fit: Literal["stretch", "letterbox", "crop"] = "stretch"
    """How a picture is fitted to the aspect ratio of the model's input. ``stretch`` distorts the picture,
    ``letterbox`` pads the picture, and ``crop`` cuts off its longer sides."""
    regions: Literal["full", "motion", "tiles"] = "full"
    """Part of a frame that the model examines: ``full`` is the whole frame, ``motion`` is each region with motion.
    ``tiles`` is the whole frame and each tile of a grid, for small objects in large pictures."""
    tile_overlap: float = Field(default=0.2, ge=0.0, le=0.5)
    """Minimum share of a tile's width and height that a neighbouring tile also shows. An object that is smaller than
    the overlap of two tiles is whole in at least one tile."""
    region_margin: Share = 0.15
    """Margin added to a moving region on each side, as a share of the region's size."""
    max_regions: int = Field(default=8, ge=1, le=64)
    denoise: Literal["none", "median", "bilateral", "temporal", "auto"] = "auto"
    denoise_budget_ms: float = Field(default=20.0, gt=0.0)
    """CPU time in ms that ``denoise = "auto"`` may take for a frame. If the temporal filter would take longer,
    ``auto`` uses a cheaper filter, or none. The time is estimated from the size of the frame."""
    steps: tuple[Step, ...] = ()
    """Corrections of a frame, each at most once, in the order ``low-light``, ``fog``, ``distortion``. ``low-light``
    and ``fog`` apply to dark and foggy frames, ``distortion`` to frames of cameras with a ``lens``."""
    max_items: int = Field(default=8, ge=1, le=64)
    max_delay_s: Seconds = 0.05
    max_bytes: int = Field(default=6 * 1024 * 1024, ge=64 * 1024)
    freshness_s: Seconds = 0.0
    """Age in seconds from which a live frame is dropped as stale, by the prepare stage or by an engine node; 0 for
    never."""
    latency_goal_s: Seconds = 0.0
    """Time in seconds from capture to result that engine nodes aim for. If 0, the goal is ``freshness_s``, or 1 s if
    ``freshness_s`` is 0 as well."""
    priority: Priority = "normal"
    overload: Overload = "shed"
    """Policy of engine nodes under overload. ``shed`` drops live frames that become older than ``freshness_s``,
    ``every-nth`` keeps every n-th live frame of a camera, and ``lighter`` uses the model ``lighter`` for live
    frames."""
    lighter: str = ""
    """Model that replaces ``model`` under overload if ``overload = "lighter"``, as ``NAME`` or ``NAME@VERSION``. The
    input of the lighter model has the same size, colour and fit as the input of ``model``."""
    max_waiting: int = Field(default=0, ge=0)
    """Maximum number of live frames of one camera that wait on an engine node; 0 for no limit. If more frames wait,
    the oldest are dropped, so that a camera with a high frame rate does not delay the other cameras."""
    min_score: Share = 0.3
    precision: Precision | None = None
    """Lowest precision in which the model may be computed. If None, the precision in the model's manifest applies."""
    shadow: str = ""
    """Candidate model, as ``NAME@VERSION``, whose results are compared with the results of the served model; empty
    for no candidate."""
    shadow_share: Share = 0.1
    """Share of the frames that the candidate model ``shadow`` classifies."""
    cameras: tuple[Name, ...] = ()
    """Names of the cameras whose frames the pipeline processes; empty for all cameras."""
    then: tuple[SecondModelConfig, ...] = Field(default=(), max_length=MAX_SECOND_MODELS)
    """Second-stage models, which classify the detected objects at full resolution."""
    appearance: AppearanceConfig | None = None
    """Re-identification of tracks by appearance; None if a lost track never returns."""

    @model_validator(mode="before")
    @classmethod
    def _motion_needs_no_size(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model") == MOTION_MODEL:
            return {"width": 1, "height": 1, **values}
        return values

    @field_validator("then")
    @classmethod
    def _attributes_are_unique(cls, then: tuple[SecondModelConfig, ...]) -> tuple[SecondModelConfig, ...]:
        names = [one.name for one in then]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"expected each name once among the second models, but {', '.join(twice)} is defined twice"
            )
        return then

    @field_validator("steps")
    @classmethod
    def _steps_are_in_order(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        ordered = tuple(step for step in get_args(Step) if step in steps)
        if steps != ordered:
            raise ValueError(f"expected each step once, in this order: {', '.join(ordered)}")
        return steps

    @field_validator("shadow")
    @classmethod
    def _names_a_version(cls, shadow: str) -> str:
        name, _, version = shadow.partition("@")
        if shadow and not (name and version.isdecimal() and version[0] != "0"):
            raise ValueError("expected a model as NAME@VERSION, such as regions@2")
        return shadow

    @model_validator(mode="after")
    def _lighter_model_has_its_policy(self) -> Self:
        if bool(self.lighter) != (self.overload == "lighter"):
            raise ValueError('expected both overload = "lighter" and a model in lighter, or neither')
        return self

    @model_validator(mode="after")
    def _appearance_has_a_second_model(self) -> Self:
        names = [one.name for one in self.then]
        if self.appearance and self.appearance.second_model not in names:
            raise ValueError(
                f"appearance.second_model = {self.appearance.second_model!r}: expected the name of a second model in "
                f"then: {', '.join(names) or 'this pipeline has none'}"
            )
        return self

    @model_validator(mode="after")
    def _motion_has_no_models(self) -> Self:
        if self.model == MOTION_MODEL and (self.then or self.shadow or self.lighter):
            raise ValueError('expected no then, shadow or lighter with model = "motion", which has no model')
        return self

    @model_validator(mode="after")
    def _tiles_cover_the_frame(self) -> Self:
        if self.regions == "tiles" and self.fit == "crop":
            raise ValueError('expected fit = "stretch" or "letterbox" with regions = "tiles": a crop loses objects')
        if self.regions == "tiles" and self.max_regions < MIN_TILED_REGIONS:
            raise ValueError(
                f'expected max_regions of at least {MIN_TILED_REGIONS} with regions = "tiles": the frame and 2 tiles'
            )
        return self

    @model_validator(mode="after")
    def _can_be_carried(self) -> Self:
        if self.name == UNROUTED_NAME:
            raise ValueError(
                f"expected another name than {self.name!r}, which is reserved for frames without a pipeline"
            )
        if self.width * self.height * _CHANNELS > MAX_PIXEL_BYTES:
            raise ValueError(
                f"expected at most {MAX_PIXEL_BYTES} bytes per picture, not {self.width} × {self.height} px × 3 bytes"
            )
        return self

    @property
    def has_model(self) -> bool:
        """Whether engine nodes load a model for this pipeline."""
        return self.model != MOTION_MODEL

    @property
    def goal_s(self) -> float:
        """Time from capture to result that engine nodes aim for, in seconds."""
        return self.latency_goal_s or self.freshness_s or USUAL_GOAL_S

    @property
    def light_steps(self) -> tuple[LightStep, ...]:
        """The steps that correct the light of a frame."""
        return tuple(step for step in self.steps if step != "distortion")

    def wants(self, camera: str) -> bool:
        """Return whether this pipeline processes a camera's frames."""
        return not self.cameras or camera in self.cameras
