"""Archives of reviewed events: pictures, clips and records, with a manifest of the SHA-256 hashes of all files.

An archive is a zip file without compression, because pictures and clips do not shrink. The manifest is the last file
of the archive.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Self

from ingest.exceptions import ConfigError
from stream.evidence.store import require_name
from stream.evidence.verify import FileVerdict
from stream.exceptions import UnusableName

MANIFEST = "manifest.json"
FORMAT = "sightline-export/1"
_READ_BYTES = 1024 * 1024
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_EARLIEST = datetime(1980, 1, 1, tzinfo=UTC)
"""Earliest file time that a zip archive can hold."""


class ExportWriter:
    """Writes an archive. ``made_ns`` is the time of the export in Unix ns."""

    def __init__(self, file: IO[bytes], made_ns: int) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        self._made = max(datetime.fromtimestamp(made_ns / 1e9, UTC), _EARLIEST)
        self._files: dict[str, dict[str, Any]] = {}

    def add(self, name: str, data: bytes) -> None:
        """Add a file to the archive, unless a file of this name was added before. Raise UnusableName for a name that
        leads out of the archive."""
        require_name(name)
        if name not in self._files:
            self._files[name] = {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            self._write(name, data)

    def finish(self, **facts: Any) -> str:
        """Write the manifest with ``facts``, close the archive, and return the SHA-256 of the manifest."""
        made = self._made.isoformat(timespec="seconds")
        manifest = {"format": FORMAT, "made": made, **facts, "files": list(self._files.values())}
        data = json.dumps(manifest, indent=1, ensure_ascii=False).encode(errors="replace")
        self._write(MANIFEST, data)
        self._zip.close()
        return hashlib.sha256(data).hexdigest()

    def _write(self, name: str, data: bytes) -> None:
        info = zipfile.ZipInfo(name, self._made.timetuple()[:6])
        info.external_attr = 0o640 << 16
        self._zip.writestr(info, data)


class ExportArchive:
    """Reads an archive of reviewed events, or a folder into which the archive was unpacked. Raise ConfigError for a
    file or folder that has no manifest of an archive."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        expected = f"an archive that the console exported, or the folder with its {MANIFEST}"
        try:
            self._zip = None if path.is_dir() else zipfile.ZipFile(path)
            with self._open(MANIFEST) as file:
                data = file.read(_MAX_MANIFEST_BYTES)
            manifest = json.loads(data)
            self._expected = {str(one["name"]): str(one["sha256"]) for one in manifest["files"]}
            if manifest["format"] != FORMAT:
                raise ValueError(f"format {str(manifest['format'])[:40]!r}: expected {FORMAT}")
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            self.close()
            raise ConfigError("evidence", "--export", str(path), f"{expected} ({error})") from None
        self.manifest_sha256 = hashlib.sha256(data).hexdigest()

    def __enter__(self) -> Self:
        """Return the archive."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the archive."""
        self.close()

    def close(self) -> None:
        """Close the archive's file."""
        if self._zip:
            self._zip.close()

    def verdicts(self) -> Iterator[FileVerdict]:
        """Yield for each file of the archive whether it is intact, changed, missing, or not named in the manifest."""
        for name, sha256 in sorted(self._expected.items()):
            try:
                require_name(name)
                found = self._sha256(name)
            except (OSError, KeyError):
                yield FileVerdict(name, "missing")
            except (UnusableName, zipfile.BadZipFile) as error:
                yield FileVerdict(name, "changed", str(error))
            else:
                about = "" if found == sha256 else f"sha256 {found}: expected {sha256}"
                yield FileVerdict(name, "changed" if about else "intact", about)
        for name in sorted(self._names() - self._expected.keys() - {MANIFEST}):
            yield FileVerdict(name, "unreferenced")

    def _names(self) -> set[str]:
        if self._zip:
            return {one.filename for one in self._zip.infolist() if not one.is_dir()}
        return {one.relative_to(self._path).as_posix() for one in self._path.rglob("*") if one.is_file()}

    def _open(self, name: str) -> IO[bytes]:
        return self._zip.open(name) if self._zip else (self._path / name).open("rb")

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self._open(name) as file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
        return digest.hexdigest()
