"""Canaries: a canary is a model version that serves a share of the cameras, beside the promoted version.

``<root>/<name>/canary.json`` names the canary version of a model. ``<root>/<name>/canaries.jsonl`` is the audit trail
of a model: a line for the begin of each canary, and a line for its end with the reason.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.exceptions import AdoptFailed, ManifestError
from engines.repository.store import Repository
from ingest.runtime.files import replace_file
from ingest.runtime.text import decode_text

_POINTER, _TRAIL = "canary.json", "canaries.jsonl"
Ending = Literal["promoted", "rolled back", "stopped"]


class Canary(BaseModel):
    """The canary of a model: its version, its share of the cameras, and its begin in Unix ns."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    version: int = Field(ge=1)
    share: float = Field(gt=0.0, le=1.0)
    since_ns: int

    @property
    def id(self) -> str:
        """The canary's model and version, such as ``regions@2``."""
        return f"{self.model}@{self.version}"

    def serves(self, camera: str) -> bool:
        """Return whether the canary serves a camera.

        The choice depends only on the names of the model and the camera, so that every engine node chooses the same
        cameras. If the share of a canary is increased, the canary keeps its cameras.
        """
        return zlib.crc32(f"{self.model}/{camera}".encode()) < self.share * 2**32


class CanaryChange(Canary):
    """One line of the audit trail: the begin or the end of a canary."""

    at_ns: int
    change: str
    reason: str = ""


def read_canary(repository: Repository, name: str) -> Canary | None:
    """Return the canary of a model; None if the model has no canary. Raise ManifestError for an unreadable
    `canary.json`."""
    path = repository.root / name / _POINTER
    try:
        return Canary.model_validate_json(decode_text(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError) as error:
        raise ManifestError(f"canary {path}: {error}: expected a file that `models promote --canary` wrote") from None


def start_canary(repository: Repository, name: str, version: int, share: float, now_ns: int) -> Canary:
    """Let a model version serve a share of the cameras. Running engine nodes load the version within seconds.

    A canary of the model that is already running ends, also if it has the same version.

    Raise ModelUnknown or ManifestError for a version that cannot be opened, or AdoptFailed if the folder cannot be
    written.
    """
    repository.open(name, version)
    canary = Canary(model=name, version=version, share=share, since_ns=now_ns)
    with contextlib.suppress(ManifestError):  # an unreadable file is replaced
        if running := read_canary(repository, name):
            _note(repository, running, "stopped", now_ns, f"replaced by {canary.id} with the share {share:g}")
    _note(repository, canary, "began", now_ns)
    path = repository.root / name / _POINTER
    try:
        replace_file(path, f"{canary.model_dump_json()}\n".encode())
    except OSError as error:
        raise AdoptFailed(f"canary {path}: {error.strerror}: expected a writable folder") from None
    return canary


def end_canary(repository: Repository, canary: Canary, ending: Ending, now_ns: int, reason: str = "") -> None:
    """End a canary, so that the promoted version serves all cameras within seconds. Raise AdoptFailed.

    The reason is written to the audit trail before the canary ends, so that no ended canary lacks a reason.
    """
    _note(repository, canary, ending, now_ns, reason)
    path = repository.root / canary.model / _POINTER
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise AdoptFailed(f"canary {path}: {error.strerror}: expected a writable folder") from None


def trail_of(repository: Repository, name: str) -> list[CanaryChange]:
    """Return the audit trail of a model's canaries, the oldest line first. Leave out unreadable lines, such as a line
    that was cut off when the disk was full."""
    path, found = repository.root / name / _TRAIL, []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValidationError):
            found.append(CanaryChange.model_validate_json(line))
    return found


def _note(repository: Repository, canary: Canary, change: str, now_ns: int, reason: str = "") -> None:
    path: Path = repository.root / canary.model / _TRAIL
    line = CanaryChange(at_ns=now_ns, change=change, reason=reason, **canary.model_dump())
    try:
        with path.open("ab+") as trail:
            if trail.tell():
                trail.seek(-1, os.SEEK_END)
                if trail.read() != b"\n":  # the last line was cut off: keep the new line apart
                    trail.write(b"\n")
            trail.write(line.model_dump_json().encode() + b"\n")
    except OSError as error:
        raise AdoptFailed(f"audit trail {path}: {error.strerror}: expected a writable folder") from None
