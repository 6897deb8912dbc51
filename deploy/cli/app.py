"""The `sightline` command."""

from __future__ import annotations

import typer

from deploy.cli import kafka

__all__ = ["app", "main"]

app = typer.Typer(help="Cameras and sensors in, alerts that can be trusted out.", no_args_is_help=True)
app.add_typer(kafka.app, name="kafka")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
