"""Frame source that renders a simulated scene and writes the scene's ground truth."""

from __future__ import annotations

from edge_agent.exceptions import SourceEnded, SourceUnusable
from edge_agent.sources.pace import FramePacer
from edge_agent.sources.simulated.config import SceneConfig
from edge_agent.sources.simulated.scene import SimulatedScene
from edge_agent.sources.simulated.truth import TruthWriter
from edge_agent.sources.source import CapturedFrame
from ingest.runtime.clock import Clock


class SimulatedSource:
    """Frame source that renders the frames of a simulated scene.

    The source ends after ``frames`` frames; 0 means that it never ends.
    """

    def __init__(
        self,
        config: SceneConfig,
        clock: Clock,
        *,
        epoch: int = 0,
        truth: TruthWriter | None = None,
        frames: int = 0,
        pace: FramePacer | None = None,
    ) -> None:
        self._config, self._clock, self._epoch = config, clock, epoch
        self._truth, self._frames = truth, frames
        self._pace = pace or FramePacer(config.fps, clock)
        self._scene: SimulatedScene | None = None
        self._index = 0

    def open(self) -> None:
        """Create the renderer of the scene."""
        self._scene = SimulatedScene(self._config)

    def read(self) -> CapturedFrame | None:
        """Return the next frame if it is due, otherwise None."""
        if self._scene is None:
            raise SourceUnusable("the simulated scene is not open")
        if self._frames and self._index >= self._frames:
            raise SourceEnded(f"the simulated scene has ended after {self._frames} frames")
        if not self._pace.ready():
            return None
        rendered = self._scene.render(self._index)
        captured = CapturedFrame(rendered.image, self._clock.now_ns())
        if self._truth:
            self._truth.add(rendered, self._epoch, captured.captured_ns)
        self._index += 1
        return captured

    def close(self) -> None:
        """Close the ground truth file."""
        self._scene = None
        if self._truth:
            self._truth.close()
            self._truth = None
