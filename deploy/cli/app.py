"""The `sightline` command line. A command's module and the packages of its service are imported only when the command
runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

import typer
from typer.core import TyperGroup

from ingest.runtime.files import restrict_umask

COMMANDS: Mapping[str, str] = {
    "demo": "deploy.cli.tools.demo:demo",
    "agent": "deploy.cli.services.agent:app",
    "prepare": "deploy.cli.services.stream:prepare",
    "engine": "deploy.cli.services.engine:app",
    "analyse": "deploy.cli.services.stream:analyse",
    "sense": "deploy.cli.services.stream:sense",
    "alerts": "deploy.cli.tools.alerts:app",
    "evidence": "deploy.cli.services.evidence:app",
    "dispatch": "deploy.cli.services.stream:dispatch",
    "console": "deploy.cli.services.console:console",
    "webhook-receiver": "deploy.cli.services.stream:webhook_receiver",
    "classify": "deploy.cli.tools.classify:classify",
    "audit": "deploy.cli.tools.audit:audit",
    "plan": "deploy.cli.tools.plan:plan",
    "topics": "deploy.cli.tools.topics:app",
    "config": "deploy.cli.tools.config:app",
    "import": "deploy.frigate.command:app",
    "backtest": "deploy.cli.training.backtest:backtest",
    "dataset": "deploy.cli.training.dataset:app",
    "models": "deploy.cli.models.commands:app",
    "train": "deploy.cli.training.commands:app",
    "incidents": "deploy.cli.review.incidents:app",
    "explain": "deploy.cli.tools.explain:explain",
    "rules": "deploy.cli.tools.rules:app",
    "deadletter": "deploy.cli.tools.deadletter:app",
    "results": "deploy.cli.tools.results:app",
    "gate": "deploy.cli.tools.gate:app",
    "kafka": "deploy.cli.tools.kafka:app",
}
"""Maps the name of each command to its module and function, or to its module and Typer app if it has subcommands."""

GC_OBJECTS = 10_000
"""Number of new objects after which Python looks for unreachable cycles of objects. With Python's default of 700, a
tenth of a process's start-up time goes into searching the imported modules, which never become unreachable."""


class _Commands(Mapping[str, Any]):
    """The commands as Click objects by name. A command is imported when it is first read."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            found = resolve_name(COMMANDS[name])
            if isinstance(found, typer.Typer):
                command: Any = typer.main.get_group(found)
                command.name = name
            else:
                alone = typer.Typer(add_completion=False)
                alone.command(name)(found)
                command = typer.main.get_command(alone)
            self._made[name] = command
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _LazyGroup(TyperGroup):
    """The group of all commands. Only the help text and the messages about unknown commands import the modules of all
    commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": _Commands()})


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _quiet() -> None:
    """Turn cameras and sensors into alerts that you can trust."""
    from ingest.runtime import logs

    restrict_umask()
    logs.quiet_clients()  # a command prints an error once; a service sets up its own logging


def main() -> None:
    """Run the command line."""
    gc.set_threshold(GC_OBJECTS)
    app()


if __name__ == "__main__":
    main()
