"""What a camera's view was, kept over restarts: who turns a camera often pulls its plug first."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import cv2
import numpy as np

from edge_agent.sources.source import Grey

SAVE_EVERY_S = 60.0


class ViewMemory:
    """A small picture in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, max_age_s: float) -> Grey | None:
        """Return the picture that was saved last, None when there is none, or when it is older than that."""
        try:
            if time.time() - self._path.stat().st_mtime > max_age_s:
                return None
            picture = cv2.imdecode(np.frombuffer(self._path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        except (OSError, cv2.error):
            return None
        return None if picture is None else np.asarray(picture, np.uint8)

    def forget(self) -> None:
        """Take the picture off the disk, if there is one."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def save(self, picture: Grey) -> None:
        """Keep a picture. A disk that is full or gone costs the memory and nothing else."""
        encoded, data = cv2.imencode(".png", picture)
        half = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(data.tobytes() if encoded else b"")
            half.replace(self._path)
        except OSError:
            return
