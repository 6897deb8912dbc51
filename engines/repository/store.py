"""The model repository on disk.

``<root>/<name>/<version>/`` holds a manifest and the model file. ``<root>/<name>/promoted`` holds the number of the
promoted version. The folder of a new version is written under a temporary name and then renamed, so that no reader
sees an incomplete version. A stored version never changes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli_w

from engines.exceptions import AdoptFailed, ManifestError, ModelUnknown
from engines.repository.manifest import MANIFEST, Model, read_manifest, sha256_of
from ingest.runtime.files import replace_file

_PROMOTED = "promoted"


class Repository:
    """The model repository in one folder.

    Methods block while they read or write the disk. Any thread may call the methods.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return the names of all models, sorted."""
        return sorted({folder.parent.name for folder in self._folders()})

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, oldest first."""
        return sorted(int(folder.name) for folder in self._folders() if folder.parent.name == name)

    def promoted(self, name: str) -> int:
        """Return the version that nodes serve: the promoted version, or the newest version if no version is promoted.

        Raise ModelUnknown, or ManifestError if the promoted version does not exist.
        """
        versions = self.versions(name)
        if not versions:
            raise ModelUnknown(
                f"model repository {self.root} has no model {name!r}: expected one of its models: "
                f"{', '.join(self.names()) or 'none'}"
            )
        pointer = self.root / name / _PROMOTED
        if not pointer.exists():
            return versions[-1]
        text = pointer.read_text().strip()
        if not text.isdigit() or int(text) not in versions:
            raise ManifestError(f"file {pointer} promotes version {text!r}: expected one of {versions}")
        return int(text)

    def resolve(self, model: str) -> tuple[str, int]:
        """Return the name and version of ``NAME`` or ``NAME@VERSION``.

        For ``NAME`` alone, return the version that ``promoted`` returns.

        Raise ModelUnknown if the version is not a number, and the errors of ``promoted``.
        """
        name, separator, version = model.partition("@")
        if not separator:
            return name, self.promoted(name)
        if not version.isdecimal():
            raise ModelUnknown(f"model {model!r}: expected NAME or NAME@VERSION, such as {name}@1")
        return name, int(version)

    def open(self, model: str, version: int | None = None) -> Model:
        """Read a model version, compare the file's hash with the manifest, and return the Model.

        ``model`` is ``NAME`` or ``NAME@VERSION``. Raise ModelUnknown or ManifestError.
        """
        name, wanted = self.resolve(model) if version is None else (model, version)
        folder = self.root / name / str(wanted)
        if wanted not in self.versions(name):
            raise ModelUnknown(f"model {name!r} has no version {wanted}: expected one of {self.versions(name)}")
        manifest = read_manifest(folder)
        if (manifest.name, manifest.version) != (name, wanted):
            raise ManifestError(f"manifest {folder / MANIFEST} describes {manifest.id}: expected {name}@{wanted}")
        opened = Model(manifest, folder)
        if not opened.path.is_file():
            raise ManifestError(
                f"model {manifest.id} has no file {opened.path}: expected the file that its manifest names"
            )
        if (found := sha256_of(opened.path)) != manifest.sha256:
            raise ManifestError(f"model file {opened.path} has the SHA-256 {found}: expected {manifest.sha256}")
        return opened

    def promote(self, name: str, version: int) -> int:
        """Promote a version, and return the version that was served before.

        Running nodes serve the new version within seconds.

        Raise ModelUnknown or ManifestError, or AdoptFailed if the folder cannot be written.
        """
        self.open(name, version)
        before = self.promoted(name)
        pointer = self.root / name / _PROMOTED
        try:
            replace_file(pointer, f"{version}\n".encode())
        except OSError as error:
            raise AdoptFailed(f"promotion {pointer}: {error.strerror}: expected a writable folder") from None
        return before

    def roll_back(self, name: str) -> int:
        """Promote the version that precedes the served version, and return the number of the promoted version.

        Raise ModelUnknown if there is no earlier version.
        """
        older = [v for v in self.versions(name) if v < self.promoted(name)]
        if not older:
            raise ModelUnknown(
                f"model {name!r} has no version before version {self.promoted(name)}, which is promoted"
            )
        self.promote(name, older[-1])
        return older[-1]

    def write(self, name: str, manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Model:
        """Write the next version of a model, and return the Model. ``manifest`` lacks the version and the file hash.

        ``files`` has the contents of the files by name, among them ``manifest["file"]``. Raise AdoptFailed if the
        folder cannot be written.
        """
        version = max(self.versions(name), default=0) + 1
        folder, part = self.root / name / str(version), self.part(name, version)
        try:
            part.mkdir(parents=True)
            for file, content in files.items():
                (part / file).write_bytes(content)
            complete = {**manifest, "name": name, "version": version, "sha256": sha256_of(part / manifest["file"])}
            (part / MANIFEST).write_text(tomli_w.dumps(complete))
            part.rename(folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise AdoptFailed(f"model folder {folder}: {error.strerror}: expected a writable folder") from None
        return self.open(name, version)

    def part(self, name: str, version: int) -> Path:
        """Return the temporary folder in which this process writes a new version."""
        return self.root / name / f".{version}.{os.getpid()}.part"

    def parts(self, name: str, pid: int) -> list[Path]:
        """Return the incomplete versions of a model that a process has left behind."""
        return list((self.root / name).glob(f".*.{pid}.part"))

    def _folders(self) -> Iterator[Path]:
        return (path.parent for path in self.root.glob(f"*/*/{MANIFEST}") if path.parent.name.isdigit())
