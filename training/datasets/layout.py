"""Write the files of a data set: folders of crops for classification, or whole frames with COCO JSON for detection.

The COCO format is described at https://cocodataset.org/#format-data; its boxes are ``[x, y, width, height]`` in
pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engines.repository.manifest import sha256_of
from stream.events import rfc3339
from training.datasets.folder import FILES, ExportFolder
from training.datasets.request import SPLITS, DatasetExample, DatasetRequest

Placed = Mapping[str, Sequence[DatasetExample]]
"""The examples of a data set by split."""


def folder_name(label: str) -> str:
    """Return a label as a folder's name, in which characters are escaped that a file system or a shell may misread.

    Characters are escaped as in web addresses, such as ``%2F`` for a slash.
    """
    name = quote(label, safe=" +=@,", encoding="utf-8", errors="replace")[:200]
    return f"%2E{name[1:]}" if name.startswith(".") else name


def write_layout(folder: ExportFolder, request: DatasetRequest, placed: Placed) -> list[str]:
    """Write the pictures and the list of files of a data set, and in the COCO layout the annotations. Return the
    names of the annotation files."""
    with (folder.whole / FILES).open("w", encoding="utf-8") as listed:
        for split in SPLITS:
            (folder.whole / split).mkdir()  # also without examples, because readers expect three folders
            for example in placed[split]:
                name = _place(folder, request, split, example)
                row = {"file": name, "sha256": sha256_of(folder.whole / name), **facts_of(split, example)}
                listed.write(json.dumps(row, ensure_ascii=False) + "\n")
    if request.layout == "coco":
        return _write_annotations(folder.whole, request, placed)
    return []


def facts_of(split: str, example: DatasetExample) -> dict[str, Any]:
    """Return the facts about an example that the data set's list of files has."""
    frame = example.frame
    return {
        "split": split,
        "frame": str(frame.id),
        "captured": rfc3339(frame.captured_ns),
        "pipeline": frame.pipeline,
        "reason": example.reason,
        "decided_by": list(example.decided_by),
        "objects": [
            {"label": one.label, "score": one.score, "model": one.model, "box": list(one.box)}
            for one in example.objects
        ],
    }


def _place(folder: ExportFolder, request: DatasetRequest, split: str, example: DatasetExample) -> str:
    """Move the picture of an example to its folder in the data set, and return the picture's name."""
    parts = (split, folder_name(example.labels[0])) if request.layout == "folders" else (split,)
    target = folder.whole.joinpath(*parts)
    target.mkdir(parents=True, exist_ok=True)
    (folder.pictures / example.file).rename(target / example.file)
    return "/".join((*parts, example.file))


def _write_annotations(whole: Path, request: DatasetRequest, placed: Placed) -> list[str]:
    names = sorted({label for examples in placed.values() for one in examples for label in one.labels})
    numbers = {label: number for number, label in enumerate(names, 1)}
    (whole / "annotations").mkdir()
    found = []
    for split in SPLITS:
        name = f"annotations/instances_{split}.json"
        values = coco(placed[split], numbers, request)
        (whole / name).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        found.append(name)
    return found


def coco(examples: Sequence[DatasetExample], numbers: Mapping[str, int], request: DatasetRequest) -> dict[str, Any]:
    """Return the COCO annotations of one split of the data set. ``numbers`` maps each label to its COCO category."""
    licence = [{"id": 1, "name": request.licence, "url": ""}] if request.licence else []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, example in enumerate(examples, 1):
        frame = example.frame
        images.append(
            {
                "id": image,
                "file_name": example.file,
                "width": frame.width,
                "height": frame.height,
                "date_captured": rfc3339(frame.captured_ns),
                **({"license": 1} if licence else {}),
            }
        )
        for one in example.objects:
            box = one.box.clipped(frame.width, frame.height)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": numbers[one.label],
                    "bbox": [box.left, box.top, box.width, box.height],
                    "area": box.area,
                    "iscrowd": 0,
                    "score": one.score,
                }
            )
    return {
        "info": {"description": request.purpose, "contributor": request.owner},
        "licenses": licence,
        "categories": [{"id": number, "name": label, "supercategory": ""} for label, number in numbers.items()],
        "images": images,
        "annotations": annotations,
    }
