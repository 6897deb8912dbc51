"""The datasheet of a data set: its source, its contents, and its gaps, as JSON values and as Markdown.

The datasheet answers the questions of Gebru et al., "Datasheets for Datasets", Communications of the ACM 64 (2021),
as far as the log can answer them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from ingest.contract.records import LabelDecision
from ingest.ledger.missrate import wilson
from ingest.site import CameraConfig
from stream.events import rfc3339
from training.datasets.choice import ChosenExamples
from training.datasets.duplicates import MAX_BITS
from training.datasets.layout import Placed
from training.datasets.request import SPLITS, DatasetExample, DatasetRequest

FORMAT = 1
FEW = 10
"""Number of examples in a split below which a label is named as a gap of the data set."""


class FoundCounts(Protocol):
    """Counts of the candidates that an export of a data set found."""

    @property
    def decisions(self) -> Mapping[str, LabelDecision]:
        """The decisions of people on objects of the exported period."""

    @property
    def seen(self) -> int:
        """Number of frames, or of people's decisions, among which the export chose."""

    @property
    def kept_share(self) -> float:
        """Share of the frames without a reason to be preferred among which the export chose."""


def datasheet(
    request: DatasetRequest,
    found: FoundCounts,
    chosen: ChosenExamples,
    placed: Placed,
    cameras: Mapping[str, CameraConfig],
) -> dict[str, Any]:
    """Return the datasheet of a data set as JSON values."""
    examples = [one for split in SPLITS for one in placed[split]]
    counts = {split: _counts(placed[split]) for split in SPLITS}
    return {
        "format": FORMAT,
        "layout": request.layout,
        "owner": request.owner,
        "licence": request.licence,
        "purpose": request.purpose,
        "source": {
            "topics": "frames, frames.late and results",
            "from": rfc3339(request.since_ns),
            "to": rfc3339(request.until_ns),
            "pipelines": sorted({one.frame.pipeline for one in examples}),
            "cameras": {name: _camera(name, examples, chosen, cameras) for name in request.cameras},
        },
        "counts": counts,
        "labelled_by": {
            "models": dict(Counter(o.model for one in examples if not one.decided_by for o in one.objects)),
            "people": dict(Counter(name for one in examples for name in one.decided_by)),
        },
        "review": _review(found.decisions.values()),
        "selection": {
            "candidates": found.seen,
            "examined_share": found.kept_share,
            "wanted_shares": {} if request.review else dict(request.prefer),
            "chosen": dict(Counter(one.reason for one in examples)),
            "left_out": dict(sorted(chosen.left_out.items())),
        },
        "split": {
            "method": "blocks of time at one place, stratified by label",
            "shares": dict(zip(SPLITS, request.split, strict=True)),
            "block_s": request.block_s,
            "gap_s": request.gap_s,
            "held_out_cameras": list(request.hold_out),
            "near_duplicates": request.duplicates,
            "near_duplicate_bits": MAX_BITS,
        },
        "options": request.as_json(),
        "gaps": list(_gaps(request, counts, examples, chosen)),
    }


def _camera(
    name: str, examples: Iterable[DatasetExample], chosen: ChosenExamples, cameras: Mapping[str, CameraConfig]
) -> dict[str, Any]:
    own = {one.frame.id: one.frame.captured_ns for one in examples if one.frame.id.camera == name}
    config = cameras.get(name)
    hours = Counter(datetime.fromtimestamp(at_ns / 1e9, UTC).hour for at_ns in own.values())
    return {
        "site": config.site if config else "",
        "place": config.full_place if config else name,
        "frames": len(own),
        "first": rfc3339(min(own.values())) if own else None,
        "last": rfc3339(max(own.values())) if own else None,
        "frames_by_hour_utc": {f"{hour:02}": count for hour, count in sorted(hours.items())},
        "redaction": dict(chosen.redacted.get(name, {})),
    }


def _counts(examples: Iterable[DatasetExample]) -> dict[str, Any]:
    found = list(examples)
    labels = Counter(label for one in found for label in one.labels)
    return {
        "pictures": len(found),
        "frames": len({one.frame.id for one in found}),
        "without_objects": sum(not one.objects for one in found),
        "labels": dict(sorted(labels.items())),
    }


def _review(decisions: Iterable[LabelDecision]) -> dict[str, Any] | None:
    """Return the numbers of people's verdicts, and the share of right model labels with its 95 % interval."""
    counts = Counter(one.verdict for one in decisions)
    if not counts:
        return None
    low, high = wilson(counts["accept"], counts.total())
    return {
        "accepted": counts["accept"],
        "corrected": counts["correct"],
        "rejected": counts["reject"],
        "model_right": {"share": counts["accept"] / counts.total(), "low": low, "high": high},
    }


def _gaps(
    request: DatasetRequest,
    counts: Mapping[str, Mapping[str, Any]],
    examples: Iterable[DatasetExample],
    chosen: ChosenExamples,
) -> Iterator[str]:
    """Yield the known gaps of a data set in words."""
    yield "Frames that the motion gate withheld are not in the log, except a random sample of them."
    if request.review:
        yield "People saw only objects that a model had found: objects that all models missed have no label."
    else:
        yield (
            f"The labels are those of a model, with its errors. Objects with a score below {request.min_score} "
            "and objects that the model missed have no label."
        )
    if not request.review:
        yield "The choice prefers difficult pictures, so measured accuracies are lower than on ordinary footage."
    names = sorted({label for split in counts.values() for label in split["labels"]})
    for split, share in zip(SPLITS, request.split, strict=True):
        few = [f"{name} {n}" for name in names if (n := counts[split]["labels"].get(name, 0)) < FEW]
        if share and few:
            yield f"Few examples in {split}: {', '.join(few)}."
    silent = sorted(set(request.cameras) - {one.frame.id.camera for one in examples})
    if silent:
        yield f"No example of {', '.join(silent)}."
    bare = sorted(name for name, done in chosen.redacted.items() if done.get("none"))
    if bare:
        yield f"Pictures of {', '.join(bare)} may show people: their agents redacted nothing in some or all frames."
    for reason, count in sorted(chosen.left_out.items()):
        yield f"{count} left out: {reason}."


def markdown(sheet: Mapping[str, Any]) -> str:
    """Return the datasheet of a data set as Markdown."""
    source, selection, split = sheet["source"], sheet["selection"], sheet["split"]
    lines = [
        "# Datasheet",
        "",
        f"Exported {sheet['created']} by {_cell(sheet['by'])} with `sightline dataset export`.",
        "",
        f"- Owner: {_cell(sheet['owner']) or 'not stated'}",
        f"- Licence: {_cell(sheet['licence']) or 'not stated'}",
        f"- Purpose: {_cell(sheet['purpose']) or 'not stated'}",
        f"- Layout: {sheet['layout']}",
        f"- Period: {source['from']} to {source['to']}, pipeline {', '.join(source['pipelines'])}",
        "",
        "## Cameras",
        "",
        "| Camera | Place | Frames | First | Last | Redaction by the agent |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {one['place']} | {one['frames']} | {one['first']} | {one['last']} | "
            f"{_cell('; '.join(f'{text}: {count}' for text, count in one['redaction'].items()))} |"
            for name, one in source["cameras"].items()
        ),
        "",
        "## Examples",
        "",
        *_examples_table(sheet["counts"]),
        "",
        "## Labels",
        "",
        *(f"- {count} by model {_cell(name)}" for name, count in sheet["labelled_by"]["models"].items()),
        *(f"- {count} by {_cell(name)}" for name, count in sheet["labelled_by"]["people"].items()),
        *_review_lines(sheet["review"]),
        "",
        "## Choice and split",
        "",
        f"- {selection['candidates']} candidates; chosen: "
        + ", ".join(f"{reason} {count}" for reason, count in selection["chosen"].items()),
        f"- Split by {split['method']}, of {split['block_s']:g} s each, with a gap of {split['gap_s']:g} s. "
        f"Near-duplicates: {split['near_duplicates']}.",
        "",
        "## Known gaps",
        "",
        *(f"- {_cell(text)}" for text in sheet["gaps"]),
        "",
        "`files.jsonl` lists each picture with its hash, its frame and its labels.",
        "`sightline dataset verify` checks the hashes.",
        "",
    ]
    return "\n".join(lines)


def _examples_table(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = sorted({label for split in counts.values() for label in split["labels"]})
    rows = [(_cell(name), *(str(counts[split]["labels"].get(name, 0)) for split in SPLITS)) for name in names]
    rows.append(("pictures", *(str(counts[split]["pictures"]) for split in SPLITS)))
    return [f"| Label | {' | '.join(SPLITS)} |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


def _review_lines(review: Mapping[str, Any] | None) -> list[str]:
    if review is None:
        return []
    right = review["model_right"]
    return [
        f"- People accepted {review['accepted']} labels of the model, corrected {review['corrected']} and rejected "
        f"{review['rejected']}: the model was right in {right['share']:.1%} "
        f"(95 % interval {right['low']:.1%} to {right['high']:.1%})."
    ]


def _cell(text: str) -> str:
    """Return ``text`` escaped for a cell of a Markdown table."""
    for sign in "\\|<>`[]*_":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
