"""Disk cache of TensorRT plans (compiled models), and of kernel timings, which make the next build faster.

A plan works only with the TensorRT version and the GPU compute capability that it was built for. TensorRT does not
notice that a plan does not fit until it loads the plan. The key of a plan includes the TensorRT version and the
compute capability, so that a plan that does not fit is not loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from engines.exceptions import BuildCancelled
from ingest.runtime.files import PRIVATE_FILE, make_folder, replace_file

PLANS_KEPT = 32
"""Maximum number of plans on disk. The plan that was used least recently is deleted first. The plan of one detector
has 10 to 200 MB."""
LOCK_POLL_S = 0.2
"""Time between two attempts to lock a plan that another process builds, in seconds."""
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Options with which TensorRT builds a plan.

    There is no option for the precision of layers, because the ONNX file decides the precision (strongly typed
    network).
    """

    max_batch: int
    opt_batch: int
    workspace_bytes: int = 2 << 30
    """Maximum scratch memory of a layer, in bytes. A limit of 2 GiB lets several models fit into the memory of an 8
    GB Jetson."""
    tf32: bool = False
    """Whether layers of type float32 may compute with 10 bits of mantissa (TensorFloat-32). TensorRT allows
    TensorFloat-32 by default."""
    level: int = 3
    """TensorRT's ``builder_optimization_level``, from 0 to 5. TensorRT's default is 3."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """Key of a plan in the cache: all values that a plan depends on.

    ``capability`` is the compute capability of the GPU, for example ``(9, 0)`` for an H200.
    """

    model_sha256: str
    tensorrt: str
    capability: tuple[int, int]
    options: BuildOptions

    @property
    def name(self) -> str:
        """File name of the plan without its suffix: the hash of the key."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


class PlanCache:
    """Cache of TensorRT plans in one folder. Several processes may use the folder at the same time.

    Because TensorRT runs code that a plan contains, only the owner may read or write the folder. Each file starts
    with the SHA-256 hash of its plan, so that a damaged plan is not loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: PlanKey) -> Path:
        """Return the path of a plan's file, whether the file exists or not."""
        return self.folder / f"{key.name}.plan"

    def read(self, key: PlanKey) -> bytes | None:
        """Return the stored plan of a key. Return None if the plan does not exist or is damaged."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, plan = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if hashlib.sha256(plan).digest() != digest:
            return None
        with suppress(OSError):
            os.utime(path)  # marks the plan as used
        return plan

    def write(self, key: PlanKey, plan: bytes) -> None:
        """Store a plan.

        If the folder has more than ``PLANS_KEPT`` plans, delete the least recently used plans. Raise OSError.
        """
        self._replace(self.path(key), hashlib.sha256(plan).digest() + plan)
        for old in sorted(self.folder.glob("*.plan"), key=_last_use)[:-PLANS_KEPT]:
            old.unlink(missing_ok=True)

    def timings(self, key: PlanKey) -> bytes:
        """Return the stored kernel timings for the TensorRT version and compute capability in ``key``.

        The result is empty if no build has stored timings.
        """
        try:
            return self._timings_path(key).read_bytes()
        except OSError:
            return b""

    def write_timings(self, key: PlanKey, timings: bytes) -> None:
        """Store kernel timings. Raise OSError."""
        self._replace(self._timings_path(key), timings)

    @contextmanager
    def building(self, key: PlanKey, cancelled: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Hold the build lock of a plan, so that only one process at a time builds the plan.

        If another process holds the lock, wait for the lock. Raise BuildCancelled if ``cancelled()`` returns true
        during the wait. Raise OSError if the folder cannot be written.
        """
        make_folder(self.folder)
        with (self.folder / f"{key.name}.lock").open("w") as file:
            while not _lock(file):
                if cancelled():
                    raise BuildCancelled(f"waiting for plan {key.name}, which another process builds, was cancelled")
                time.sleep(LOCK_POLL_S)
            for part in self.folder.glob(f"*{self.path(key).name}.*.part"):  # of a process that was killed
                part.unlink(missing_ok=True)
            yield

    def _timings_path(self, key: PlanKey) -> Path:
        major, minor = key.capability
        return self.folder / f"{key.tensorrt}-sm{major}{minor}.timings"

    def _replace(self, path: Path, data: bytes) -> None:
        make_folder(self.folder)
        replace_file(path, data, PRIVATE_FILE)


def default_folder() -> Path:
    """Return ``$SIGHTLINE_HOME/plans``.

    If ``SIGHTLINE_HOME`` is not set, return ``.sightline/plans`` in the working folder.
    """
    return Path(os.environ.get("SIGHTLINE_HOME") or ".sightline").absolute() / "plans"


def _lock(file: IO[str]) -> bool:
    """Lock a file, and return True. Return False if another process has locked the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has deleted it
        return 0.0
