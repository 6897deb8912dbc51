"""The `sightline` command line. The packages of a command's service are imported only when the command runs."""

from __future__ import annotations

import typer

from deploy.cli.models.commands import app as models
from deploy.cli.services import agent, engine
from deploy.cli.services.stream import alerts, analyse, dispatch, prepare, sense, webhook_receiver
from deploy.cli.tools import config, deadletter, gate, kafka, results, topics
from deploy.cli.tools.audit import audit
from deploy.cli.tools.classify import classify
from deploy.cli.tools.demo import demo
from deploy.cli.tools.plan import plan
from ingest.runtime import logs
from ingest.runtime.files import restrict_umask

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _quiet() -> None:
    """Turn cameras and sensors into alerts that you can trust."""
    restrict_umask()
    logs.quiet_clients()  # a command prints an error once; a service sets up its own logging


app.command()(demo)
app.add_typer(agent.app, name="agent")
app.command()(prepare)
app.add_typer(engine.app, name="engine")
app.command()(analyse)
app.command()(sense)
app.command()(alerts)
app.command()(dispatch)
app.command("webhook-receiver")(webhook_receiver)
app.command()(classify)
app.command()(audit)
app.command()(plan)
app.add_typer(topics.app, name="topics")
app.add_typer(config.app, name="config")
app.add_typer(models, name="models")
app.add_typer(deadletter.app, name="deadletter")
app.add_typer(results.app, name="results")
app.add_typer(gate.app, name="gate")
app.add_typer(kafka.app, name="kafka")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
