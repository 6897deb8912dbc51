"""`sightline train`: the group of the training commands."""

from __future__ import annotations

import typer

from deploy.cli.training.appearance import appearance
from deploy.cli.training.behaviour import behaviour
from deploy.cli.training.classifier import classifier
from deploy.cli.training.example import example
from deploy.cli.training.forecast import forecast
from deploy.cli.training.shipped import shipped

app = typer.Typer(help="Train models. Most of these commands need the extra `train`.", no_args_is_help=True)
app.command()(appearance)
app.command()(behaviour)
app.command()(classifier)
app.command()(example)
app.command()(forecast)
app.command()(shipped)


@app.callback()
def _group() -> None:
    """Train models. Most of these commands need the extra `train`."""
