"""The folder of a data set's export: it has another name until it is complete, and is continued after a kill."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.repository.manifest import sha256_of
from ingest.exceptions import ConfigError
from ingest.runtime.files import make_folder, sync, write_private
from training.datasets.request import DatasetRequest

DATASHEET, FILES = "datasheet.json", "files.jsonl"
_COMMAND = "dataset export"


class ExportFolder:
    """The folder ``.NAME.partial`` of an unfinished export. When the export ends, the data set gets the name ``NAME``
    by one rename.

    ``frames`` has the frames that were read, ``pictures`` the pictures of examples, and ``whole`` the files of the
    finished data set. Only one process can use the folder at a time; a later export with the same options continues
    the unfinished export.
    """

    def __init__(self, out: Path, request: DatasetRequest) -> None:
        """Open the folder. Raise ConfigError if ``out`` exists, or if the unfinished export of ``out`` has other
        options."""
        self.out = out.absolute()
        if self.out.exists():
            raise ConfigError(_COMMAND, "--out", str(out), "a folder that does not exist yet")
        self.partial = self.out.parent / f".{self.out.name}.partial"
        make_folder(self.partial)
        self._lock = os.open(self.partial / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.request = self._resumed(request)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(_COMMAND, "--out", str(out), "a folder that no other export is writing") from None
        except BaseException:
            os.close(self._lock)
            raise
        self.frames, self.pictures, self.whole = (self.partial / name for name in ("frames", "pictures", "whole"))
        for folder in (self.frames, self.pictures):
            make_folder(folder)
        shutil.rmtree(self.whole, ignore_errors=True)
        make_folder(self.whole)

    def seal(self, sheet: Mapping[str, Any], others: Sequence[str]) -> dict[str, Any]:
        """Write the datasheet, completed by the hashes of the list of files and of the files ``others``, and return
        the datasheet."""
        sealed = {
            **sheet,
            "files_sha256": sha256_of(self.whole / FILES),
            "other_files": {name: sha256_of(self.whole / name) for name in others},
        }
        (self.whole / DATASHEET).write_text(json.dumps(sealed, indent=1, ensure_ascii=False), encoding="utf-8")
        return sealed

    def publish(self) -> None:
        """Rename the folder of the finished data set, after all its files have been written to the disk."""
        for folder, _, names in os.walk(self.whole):
            for name in names:
                sync(Path(folder) / name)
            sync(Path(folder))
        self.whole.rename(self.out)
        sync(self.out.parent)
        shutil.rmtree(self.partial)

    def close(self) -> None:
        """Release the lock. A second call of ``close`` does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _resumed(self, request: DatasetRequest) -> DatasetRequest:
        """Return the request of the unfinished export; if there is none, save ``request`` and return it.

        A period that ends at the present time ends where the period of the unfinished export ended. Raise ConfigError
        if ``request`` has other options than the unfinished export.
        """
        path = self.partial / "request.json"
        if not path.exists():
            write_private(path.with_suffix(".part"), json.dumps(request.as_json()).encode())
            path.with_suffix(".part").rename(path)
            return request
        earlier = json.loads(path.read_bytes())
        found = replace(request, until_ns=earlier["until_ns"]) if request.until_now else request
        if json.loads(json.dumps(found.as_json())) != earlier:
            expected = (
                f"the options of the unfinished export in {self.partial}. Use them again, or delete this folder"
            )
            raise ConfigError(_COMMAND, "--out", str(self.out), expected)
        return found


def verify(folder: Path) -> list[str]:
    """Return the problems of a data set: files that are missing, changed, or not in the data set's list of files.
    The returned list is empty for a complete and unchanged data set.

    Raise ConfigError for a folder without a datasheet.
    """
    try:
        sheet: dict[str, Any] = json.loads((folder / DATASHEET).read_bytes())
        listed = (folder / FILES).read_bytes()
    except (OSError, ValueError):
        raise ConfigError("dataset verify", "folder", str(folder), "a data set of `dataset export`") from None
    problems = []
    if hashlib.sha256(listed).hexdigest() != sheet["files_sha256"]:
        problems.append(f"{FILES}: changed")
    expected = {row["file"]: row["sha256"] for row in map(json.loads, listed.splitlines())}
    expected |= sheet["other_files"]
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{name}: missing")
        elif sha256_of(path) != digest:
            problems.append(f"{name}: changed")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    problems += [f"{name}: not in the list" for name in sorted(found - expected.keys() - {DATASHEET, FILES})]
    return problems
