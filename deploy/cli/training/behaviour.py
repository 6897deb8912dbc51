"""`sightline train behaviour`: train a classifier of the behaviour of tracked people on simulated tracks."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.common import AsJson, friendly
from deploy.cli.models.options import read_name
from deploy.cli.models.trial import DEFAULT_MODELS, Models
from deploy.cli.output import progress, stdout
from engines.repository.manifest import BEHAVIOUR
from engines.repository.store import Repository
from training.convert.guard import require_train_extra

WINDOWS = 4
"""Number of windows (series of recent boxes) of each simulated track on which the network is trained."""

HeldOut = Annotated[int, typer.Option(min=64, help="Number of other tracks to measure on, per condition.")]
Report = Annotated[
    Path | None, typer.Option(help="Markdown file to write with the confusion matrices.", show_default=False)
]


@friendly
def behaviour(
    out: Annotated[str, typer.Option(help="Name of the model in the repository.")],
    models: Models = DEFAULT_MODELS,
    tracks: Annotated[int, typer.Option(min=64, help="Number of simulated tracks to train on.")] = 16_000,
    held_out: HeldOut = 2000,
    epochs: Annotated[int, typer.Option(min=1)] = 8,
    seed: Annotated[int, typer.Option(min=0, max=9999, help="Seed of all random numbers.")] = 0,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier of people's behaviour on simulated tracks, and add the classifier to the model repository.

    The classifier tells walking, running, loitering and fallen people apart by the boxes of their tracks. The
    classifier is measured on simulated tracks that were drawn with other random seeds. Rules of the type `behaviour`
    use the classifier.
    """
    read_name(out, "train behaviour", "--out")
    require_train_extra("train behaviour")
    from stream.analyse.behaviour.model import FILE, INPUT, BehaviourModel
    from stream.analyse.behaviour.window import FEATURES, STEPS
    from training.behaviour import evaluate, network

    started_s = time.monotonic()
    repository = Repository(models)
    trained = _trained(seed, tracks, epochs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        network.export(trained, path)
        model, content = BehaviourModel(path, out), path.read_bytes()
    scores = {name: evaluate.score(model, found) for name, found in evaluate.held_out(held_out)}
    measured: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - started_s),
        "seed": seed,
        "tracks": tracks,
        "held_out_tracks": held_out,
        "weights": int(trained.count_params()),
        "macro_f1": {name: round(one.macro_f1, 4) for name, one in scores.items()},
        "confusion": {name: one.confusion.tolist() for name, one in scores.items()},
    }
    manifest = {
        "file": FILE,
        "decoder": BEHAVIOUR,
        "labels": list(model.labels),
        "input": {"name": INPUT, "width": FEATURES, "height": STEPS},
        "training": measured,
    }
    stored = repository.write(out, manifest, {FILE: content}).manifest.id
    tables = [line for name, one in scores.items() for line in evaluate.table(name, one)]
    if report:
        report.write_text("\n".join([*evaluate.heading(stored, measured), *tables]), encoding="utf-8")
    if as_json:
        stdout.print_json(data={"model": stored, **measured})
    else:
        stdout.print("\n".join(tables), markup=False, soft_wrap=True)
        stdout.print(
            f'{stored} in {models}: {len(content)} bytes. Next: model = "{stored}" in a rule', soft_wrap=True
        )


def _trained(seed: int, tracks: int, epochs: int) -> Any:
    """Simulate tracks and train a network on them, with progress bars."""
    from rich.progress import Progress

    from training.behaviour import network
    from training.behaviour.tracks import NORMAL, examples

    with Progress(console=progress, transient=True, disable=not progress.is_terminal) as bar:
        simulating = bar.add_task("simulating tracks", total=tracks)
        found = examples(seed, tracks, NORMAL, per_track=WINDOWS, on_track=lambda: bar.advance(simulating))
        training = bar.add_task("training", total=epochs)
        model = network.build(seed)
        network.fit(model, found, epochs=epochs, seed=seed, on_epoch=lambda: bar.advance(training))
    return model
