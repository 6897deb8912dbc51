"""Ground truth file of a simulated camera, in JSON lines, for comparison with detected objects and crossings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from edge_agent.sources.simulated.config import COUNTING_LINES, RESTRICTED_ZONE, SceneConfig
from edge_agent.sources.simulated.scene import Rendered
from ingest.runtime.files import make_folder


@dataclass(frozen=True, slots=True)
class TruthFrame:
    """Ground truth of one captured frame.

    ``objects`` and ``crossings`` contain dictionaries with the fields of SceneObject and SimulatedCrossing.
    """

    index: int
    epoch: int
    captured_ns: int
    objects: list[dict[str, Any]]
    crossings: list[dict[str, Any]]

    def crossed_ns(self, crossing: dict[str, Any], fps: float) -> int:
        """Return the time of a crossing in Unix ns, computed from the capture time of the frame."""
        return self.captured_ns - round((self.index / fps - float(crossing["at_s"])) * 1e9)


class TruthWriter:
    """Writer of one camera's ground truth.

    Each line is flushed at once, so that no line is lost if the process is killed.
    """

    def __init__(self, path: Path, camera: str, config: SceneConfig) -> None:
        make_folder(path.parent)
        self._file: TextIO = path.open("a", encoding="utf-8")
        zone = RESTRICTED_ZONE if config.kind == "yard" else ()
        self._line({"camera": camera, "scene": asdict(config), "line": COUNTING_LINES[config.kind], "zone": zone})

    def add(self, rendered: Rendered, epoch: int, captured_ns: int) -> None:
        """Write the ground truth of one frame."""
        objects = [asdict(o) for o in rendered.objects]
        crossings = [asdict(c) for c in rendered.crossings]
        self._line(asdict(TruthFrame(rendered.index, epoch, captured_ns, objects, crossings)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()


def read_truth(path: Path) -> Iterator[tuple[dict[str, Any], TruthFrame]]:
    """Yield the ground truth of each frame, together with the last header line before the frame.

    The file has several headers, because each start of a capture writes a new header.
    """
    header: dict[str, Any] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return  # an incomplete last line, from a killed writer
            values = json.loads(line)
            if "scene" in values:
                header = values
            else:
                yield header, TruthFrame(**values)
