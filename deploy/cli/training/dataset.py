"""`sightline dataset`: data sets for training, from stored frames and results."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log, unix_ns_of, user_name
from deploy.cli.output import print_rows, printable, progress, stdout
from ingest.contract.identity import NAME_PATTERN
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.site.topic import store
from stream.labels.preference import REASONS, parse_shares
from training.datasets.request import SPLITS, DatasetRequest, Duplicates, Layout

app = typer.Typer(help="Make data sets for training from stored frames and results.", no_args_is_help=True)
_COMMAND = "dataset export"

LayoutOption = Annotated[
    Layout,
    typer.Option(help="folders: crops in a folder for each label. coco: whole frames with COCO JSON."),
]
Pipeline = Annotated[str, typer.Option(help="Pipeline whose results to use. Needed if the cameras have several.")]
LabelBy = Annotated[
    str, typer.Option(metavar="MODEL", help="Use labels of this model only, as NAME or NAME@VERSION.")
]
Review = Annotated[
    bool, typer.Option("--review", help="Use only labels that people decided on the console's page Labels.")
]
MinScore = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Minimum score of a model's label. Decided labels need none.")
]
Every = Annotated[float, typer.Option(min=0.0, help="Minimum time between two frames of a camera, in seconds.")]
Prefer = Annotated[
    str,
    typer.Option(help=f"Reasons to prefer a picture, with shares: {', '.join(REASONS)}.", metavar="REASON=SHARE,…"),
]
Margin = Annotated[
    float, typer.Option(min=0.0, max=2.0, help="Margin of a crop on each side, as a share of the box.")
]
Split = Annotated[str, typer.Option(help="Shares of train, validation and test.", metavar="TRAIN,VALIDATION,TEST")]
Block = Annotated[
    float, typer.Option(min=1.0, help="Length of a block of time, in seconds. A block is in one split.")
]
Gap = Annotated[
    float, typer.Option(min=0.0, help="Time left out between two blocks in different splits, in seconds.")
]
HoldOut = Annotated[list[str] | None, typer.Option(help="Camera whose pictures are all tests. May be repeated.")]
DuplicatesOption = Annotated[
    Duplicates,
    typer.Option(help="drop: leave out near-duplicates. group: keep near-duplicates, all in one split."),
]


@app.command()
@friendly
def export(
    out: Annotated[Path, typer.Option(help="Folder to write. It must not exist yet.")],
    camera: Annotated[list[str], typer.Option(help="Camera whose frames to use. May be repeated.")],
    since: Annotated[str, typer.Option("--from", help="Begin of the capture times, such as 2026-11-30T02:00 (UTC).")],
    until: Annotated[str, typer.Option("--to", help="End of the capture times. Default: now.")] = "",
    layout: LayoutOption = "folders",
    pipeline: Pipeline = "",
    label_by: LabelBy = "",
    review: Review = False,
    label: Annotated[list[str] | None, typer.Option(help="Use only this label. May be repeated.")] = None,
    min_score: MinScore = 0.3,
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of pictures. 0: all.")] = 2000,
    per_label: Annotated[int, typer.Option(min=0, help="Maximum number of objects of one label. 0: all.")] = 0,
    every: Every = 0.0,
    prefer: Prefer = "disagreement=0.3,audit=0.2,uncertain=0.3,random=0.2",
    margin: Margin = 0.1,
    split: Split = "0.7,0.15,0.15",
    block: Block = 600.0,
    gap: Gap = 10.0,
    hold_out: HoldOut = None,
    duplicates: DuplicatesOption = "drop",
    owner: Annotated[str, typer.Option(help="Owner of the data set, for the datasheet.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the data set, for the datasheet.")] = "",
    purpose: Annotated[str, typer.Option(help="Purpose of the data set, for the datasheet.")] = "",
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Write a data set of stored frames, with the labels that a model or people gave.

    Useful pictures are preferred, near-duplicates are left out, and all pictures of a block of time are in the same
    split. The folder of the data set appears when all its files are written. If the command is killed, the same
    command continues the export. Pictures are as the agents redacted them; a frame is left out if a present mask of
    its camera was not applied.
    """
    if review and label_by:
        raise ConfigError(_COMMAND, "--label-by", label_by, "either --label-by or --review")
    request = DatasetRequest(
        cameras=_cameras(camera),
        since_ns=_time_ns(since, "--from"),
        until_ns=_time_ns(until, "--to") if until else time.time_ns(),
        until_now=not until,
        layout=layout,
        pipeline=pipeline,
        model=label_by,
        review=review,
        labels=tuple(label or ()),
        min_score=min_score,
        limit=limit,
        per_label=per_label,
        every_s=every,
        prefer=_shares(prefer),
        margin=margin,
        split=_split(split),
        block_s=block,
        gap_s=gap,
        hold_out=_held_out(hold_out or [], camera),
        duplicates=duplicates,
        owner=owner,
        licence=licence,
        purpose=purpose,
    )
    if request.until_ns <= request.since_ns:
        raise ConfigError(_COMMAND, "--to", until or "now", f"a time after {since}")
    sheet = _export(request, out, kafka, prefix)
    if as_json:
        stdout.print_json(data=sheet)
        return
    _print(sheet, out)


@app.command()
@friendly
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    as_json: AsJson = False,
) -> None:
    """Check that a data set is complete and that no file has changed. Exit with 1 if a file is missing, changed or
    added."""
    from training.datasets.folder import verify as problems_of

    problems = problems_of(folder)
    if as_json:
        stdout.print_json(data={"problems": problems})
    else:
        for problem in problems:
            sys.stdout.write(printable(problem) + "\n")
        if not problems:
            sys.stdout.write(f"{folder}: whole and unchanged\n")
    raise typer.Exit(1 if problems else 0)


def _export(request: DatasetRequest, out: Path, kafka: str, prefix: str) -> dict[str, Any]:
    from training.datasets.export import export as write_dataset  # imports OpenCV, which takes 35 MB

    with Progress(console=progress, transient=True, disable=not progress.is_terminal) as bar:
        task = bar.add_task("reading", total=None)

        def show(step: str, done: int, total: int) -> None:
            bar.update(task, description=step, completed=done, total=total or None)

        async def work(log: Log) -> dict[str, Any]:
            config = await store.read(log)
            return await write_dataset(log, request, config, out, by=user_name(), at_ns=time.time_ns(), on_step=show)

        return on_log("sightline-dataset", kafka, prefix, work)


def _time_ns(text: str, option: str) -> int:
    """Return the Unix time in ns of an ISO 8601 time, which is in UTC without an offset. Raise ConfigError."""
    return unix_ns_of(_COMMAND, text, "UTC", option)


def _cameras(names: list[str]) -> tuple[str, ...]:
    for name in names:
        if not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(_COMMAND, "--camera", name, "the name of a camera, such as gate")
    return tuple(sorted(set(names)))


def _held_out(names: list[str], cameras: list[str]) -> tuple[str, ...]:
    for name in names:
        if name not in cameras:
            raise ConfigError(_COMMAND, "--hold-out", name, f"a camera of --camera: {', '.join(cameras)}")
    return tuple(sorted(set(names)))


def _shares(text: str) -> Mapping[str, float]:
    try:
        return parse_shares(text)
    except ValueError as error:
        raise ConfigError(_COMMAND, "--prefer", text, str(error)) from None


def _split(text: str) -> tuple[float, float, float]:
    try:
        train, validation, test = (float(part) for part in text.split(","))
        if min(train, validation, test) >= 0.0 and abs(train + validation + test - 1.0) < 1e-6:
            return train, validation, test
    except ValueError:
        pass
    raise ConfigError(_COMMAND, "--split", text, "three shares that add up to 1, such as 0.7,0.15,0.15")


def _print(sheet: Mapping[str, Any], out: Path) -> None:
    counts = sheet["counts"]
    names = sorted({name for split in SPLITS for name in counts[split]["labels"]})
    rows = [{"label": name, **{split: counts[split]["labels"].get(name, 0) for split in SPLITS}} for name in names]
    rows.append({"label": "pictures", **{split: counts[split]["pictures"] for split in SPLITS}})
    print_rows(rows, False, {name: name for name in ("label", *SPLITS)})
    for gap in sheet["gaps"]:
        sys.stdout.write(printable(gap) + "\n")
    sys.stdout.write(f"{out}: see DATASHEET.md\n")
