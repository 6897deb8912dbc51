"""One run of the demo command: choice of broker, model and site."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local.demo import run
from deploy.local.demo import site as demosite
from deploy.local.demo.figures import Figures
from deploy.local.demo.run import Demo, DemoOutcome, RunningStack
from deploy.local.demo.truth import LineCrossing
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles
from edge_agent.sources.simulated import COUNTING_LINES, RESTRICTED_ZONE
from edge_agent.sources.simulated.truth import read_truth
from engines.decoders import CLASSIFIERS
from engines.repository.manifest import Manifest
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.kafka import topicadmin
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.eventloop import stop_event
from ingest.site import ReceiverConfig, Site

_PREFIX = "sightline-demo-"
_SHIPPED_MODEL = "regions"

During = Callable[[RunningStack], Coroutine[Any, Any, None]]
"""Work that a test does on the running stack."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of the demo command. ``home`` is the folder of the run's files; ``model`` needs ``decoder``."""

    seconds: float
    videos: tuple[Path, ...]
    model: Path | None
    decoder: str
    labels: tuple[str, ...]
    home: Path
    shipped_models: Path


async def run_demo(
    options: DemoOptions,
    *,
    on_step: Callable[[str], None],
    on_tick: Callable[[Figures, float | None, dict[str, int]], None],
    during: During | None = None,
    broker: Broker | None = None,
) -> DemoOutcome:
    """Run one demo with its own topics. Raise ConfigError, DeployError, EngineError or IngestError.

    The demo runs on the cluster of ``SIGHTLINE_KAFKA`` and leaves no topic there. Without that variable it runs on
    ``broker``, by default a new one, where its topics stay until the next demo.
    """
    demosite.require_videos(options.videos)
    models, manifest = _model(options)
    base = KafkaSettings.from_env()
    own = None if "SIGHTLINE_KAFKA" in os.environ else broker or Broker()
    if own:
        on_step("starting Kafka")
        base = base.model_copy(update={"bootstrap": own.start()})
    settings = base.model_copy(update={"prefix": f"{_PREFIX}{time.time_ns() // 1_000_000}."})
    running = Demo(
        settings=settings,
        files=StackFiles(options.home),
        models=models,
        make_site=lambda receiver: _site(options, manifest, receiver),
        read_truth=_truth,
        seconds=options.seconds,
        on_tick=on_tick,
        on_step=on_step,
        during=during,
        stop=stop_event(),
    )
    try:
        if own:  # earlier demos left gigabytes of pictures
            await topicadmin.remove(settings, prefix=_PREFIX)
        try:
            return await run.run(running)
        finally:
            if not own:  # leave no topic in a shared cluster, and do not touch other demos there
                await topicadmin.remove(settings, prefix=settings.prefix)
    finally:
        if own and not own.attached:
            own.stop()


def _model(options: DemoOptions) -> tuple[Path, Manifest]:
    """Return the model repository and the manifest of the model to use."""
    if options.model is None:
        repository = Repository(options.shipped_models)
        return repository.root, repository.open(_SHIPPED_MODEL).manifest
    if not options.decoder:
        raise ConfigError("demo", "--decoder", "", "the decoder of the model's outputs, e.g. yolox")
    from engines.repository.adopt import AdoptOptions, adopt

    repository = Repository(options.home.parent / "models")
    name = "".join(c if c.isalnum() else "-" for c in options.model.stem.lower()).strip("-")
    model = adopt(options.model, repository, AdoptOptions(name, options.decoder, options.labels))
    repository.promote(name, model.manifest.version)
    return repository.root, model.manifest


def _site(options: DemoOptions, manifest: Manifest, receiver: ReceiverConfig) -> Site:
    classifier = manifest.decoder in CLASSIFIERS
    if options.videos:
        return demosite.video_site(options.videos, manifest, receiver=receiver, regions=classifier)
    return demosite.simulated_site(manifest, lines=dict(COUNTING_LINES), zone=RESTRICTED_ZONE, receiver=receiver)


def _truth(folder: Path) -> list[LineCrossing]:
    """Return the true crossings that the simulated cameras wrote into an agent's folder."""
    return [
        LineCrossing(
            camera=header["camera"],
            direction=crossing["direction"],
            at_ns=frame.crossed_ns(crossing, header["scene"]["fps"]),
            label=crossing["label"],
        )
        for path in sorted((folder / "truth").glob("*.jsonl"))
        for header, frame in read_truth(path)
        for crossing in frame.crossings
    ]
