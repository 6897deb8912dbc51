"""The `sightline` command. Each service imports what it needs when it is called, and nothing before."""

from __future__ import annotations

import typer

from deploy.cli import agent, config, deadletter, gate, kafka, models, results, topics
from deploy.cli.alerts import alerts, dispatch, webhook_receiver
from deploy.cli.analyse import analyse, sense
from deploy.cli.audit import audit
from deploy.cli.demo import demo
from deploy.cli.engine import engine
from deploy.cli.plan import plan
from deploy.cli.prepare import prepare
from ingest import logs

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _quiet() -> None:
    """Cameras and sensors in, alerts that can be trusted out."""
    logs.quiet_clients()  # a command tells an error once; a service configures its log and hears them again


app.command()(demo)
app.add_typer(agent.app, name="agent")
app.command()(prepare)
app.command()(engine)
app.command()(analyse)
app.command()(sense)
app.command()(alerts)
app.command()(dispatch)
app.command("webhook-receiver")(webhook_receiver)
app.command()(audit)
app.command()(plan)
app.add_typer(topics.app, name="topics")
app.add_typer(config.app, name="config")
app.add_typer(models.app, name="models")
app.add_typer(deadletter.app, name="deadletter")
app.add_typer(results.app, name="results")
app.add_typer(gate.app, name="gate")
app.add_typer(kafka.app, name="kafka")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
