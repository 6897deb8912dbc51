"""Find labelled pictures in folders, and assign them to training, validation and test.

``DATA/LABEL/picture.jpg`` is split by a hash of the picture's group, so that new pictures never move other pictures
to another part. In ``DATA/{train,validation,test}/LABEL/picture.jpg``, the folder tells whether a picture is for
training, validation or test.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from edge_agent.sources.images import list_pictures
from ingest.exceptions import ConfigError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
LAYOUTS = "DATA/LABEL/*.jpg, or DATA/{train,validation,test}/LABEL/*.jpg"
GROUP_END = "__"
"""Separator after the name of a picture's group in a file name: ``part17__3.jpg`` and ``part17__4.jpg`` belong to
``part17``."""
_TRAIN_SHARE = 0.7
_VALIDATION_SHARE = 0.15
_MIN_LABELS = 2


class LabelledFile(NamedTuple):
    """A picture file with its label and its part of the data (training, validation or test)."""

    path: Path
    label: str
    part: Part


class LabelledFolder(NamedTuple):
    """The labels of a folder, sorted, and the picture files in the folder."""

    labels: tuple[str, ...]
    files: tuple[LabelledFile, ...]


def labelled_files(data: Path, command: str) -> LabelledFolder:
    """Return the labelled pictures of a folder. Error messages name the command ``command``.

    Raise ConfigError for a folder that cannot be read, that has fewer than two labels, or that has only some of the
    folders ``train``, ``validation`` and ``test``.
    """
    tops = _folders(data, command)
    parts = [name for name in PARTS if name in tops]
    if parts and len(parts) < len(PARTS):
        missing = ", ".join(name for name in PARTS if name not in parts)
        raise ConfigError(command, "DATA", str(data), f"folders {', '.join(PARTS)}; {missing} is missing")
    if parts:
        files = [
            LabelledFile(path, label, part)
            for part in PARTS
            for label, paths in _by_label(data / part, command).items()
            for path in paths
        ]
    else:
        files = [
            LabelledFile(path, label, part_of(label, path.stem))
            for label, paths in _by_label(data, command).items()
            for path in paths
        ]
    roots = [data / part for part in PARTS] if parts else [data]
    labels = tuple(sorted({label for root in roots for label in _folders(root, command)}))
    if len(labels) < _MIN_LABELS:
        shown = ", ".join(labels) or "none"
        raise ConfigError(command, "DATA", str(data), f"folders of at least two labels, found {shown}: {LAYOUTS}")
    return LabelledFolder(labels, tuple(files))


def part_of(label: str, stem: str) -> Part:
    """Return the part of a picture: training, validation or test. All pictures with the same label and the same group
    are in the same part."""
    group = stem.partition(GROUP_END)[0]
    digest = hashlib.sha256(f"{label}/{group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < _TRAIN_SHARE:
        return "train"
    return "validation" if share < _TRAIN_SHARE + _VALIDATION_SHARE else "test"


def _by_label(folder: Path, command: str) -> dict[str, list[Path]]:
    return {
        label: sorted(folder / label / found.name for found in list_pictures(folder / label, recursive=True))
        for label in _folders(folder, command)
    }


def _folders(folder: Path, command: str) -> list[str]:
    """Return the names of the sub-folders, sorted, without hidden folders. Raise ConfigError."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(command, "DATA", str(folder), f"a readable folder ({error.strerror}): {LAYOUTS}") from None
