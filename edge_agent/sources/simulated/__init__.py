"""Simulated camera: reproducible scenes with ground truth."""

from edge_agent.sources.simulated.config import COUNTING_LINES, KINDS, RESTRICTED_ZONE, SceneConfig
from edge_agent.sources.simulated.scene import Rendered, SimulatedScene

__all__ = ["COUNTING_LINES", "KINDS", "RESTRICTED_ZONE", "Rendered", "SceneConfig", "SimulatedScene"]
