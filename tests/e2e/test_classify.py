"""Test of `sightline classify` with prepare and an engine node on a real Kafka."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import cv2
import pytest

from deploy.local.supervisor import Supervisor
from edge_agent.sources.simulated import SceneConfig, SimulatedScene
from ingest.contract.records import Box
from ingest.kafka.kafkalog import KafkaLog
from ingest.ledger.auditor import audit
from ingest.site.topic.store import publish
from tests.e2e.test_garbage import CAMERA, MODELS, PIPELINE, log, stack  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(180)]

COUNT, SUFFIXES = 40, (".jpg", ".png", ".tiff", ".webp")
RIGHT = 36
"""Least number of the pictures with the right label. The model has an accuracy of more than 95 %."""
OTHER = PIPELINE.model_copy(update={"name": "other"})
"""A pipeline of all cameras, which must not get the pictures."""
BOUND = PIPELINE.model_copy(update={"cameras": (CAMERA.name,)})
"""A pipeline of another camera, which must get the pictures that name it."""


async def run(log: KafkaLog, *words: str | Path) -> tuple[int, str, str]:  # noqa: F811
    """Return the exit code, standard output and standard error of `sightline classify`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "deploy.cli.app", "classify", *map(str, words)),
        env=os.environ | log.settings.to_env(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def pictures(folder: Path) -> dict[str, str]:
    """Write pictures of single objects in several formats. Return the label of each path, ordered by name."""
    folder.mkdir()
    scene, labels = SimulatedScene(SceneConfig("road", seed=3)), dict[str, str]()
    for index in range(0, 2000, 20):
        frame = scene.render(index)
        height, width = frame.image.shape[:2]
        for seen in frame.objects:
            box = Box(*seen.box)
            around = box.widened(PIPELINE.region_margin)
            if around.clipped(width, height) != around or len(labels) == COUNT:
                continue  # cut off by the edge of the frame
            path = folder / f"{len(labels):02}{SUFFIXES[len(labels) % len(SUFFIXES)]}"
            left, top, right, bottom = map(round, around)
            assert cv2.imwrite(str(path), frame.image[top:bottom, left:right])
            labels[str(path)] = seen.label
    return labels


def truncated(folder: Path, picture: str) -> Path:
    """Write the first 500 bytes of a picture to a new file."""
    path = folder / "truncated.jpg"
    path.write_bytes(Path(picture).read_bytes()[:500])
    return path


async def test_a_folder_of_pictures_is_classified_and_the_ledger_balances(
    log: KafkaLog,  # noqa: F811
    stack: Callable[..., Awaitable[Supervisor]],  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "pictures"
    labels = pictures(folder)
    first = next(iter(labels))
    await publish(log, [CAMERA, BOUND, OTHER])
    code, out, err = await run(log, folder, "--pipeline", "x-rays")
    assert (code, out) == (2, "")
    assert "--pipeline = 'x-rays': expected one of other, regions" in err
    await stack("prepare-live", "prepare", "--lane=live", "--instance=test")
    await stack("engine", "engine", f"--models={MODELS}")

    code, out, err = await run(log, folder, "--pipeline", "regions", "--json")
    *answers, last = map(json.loads, out.splitlines())
    assert code == 0, (out, err)
    assert [answer["picture"] for answer in answers] == list(labels)
    assert {(answer["outcome"], answer["model"][:7]) for answer in answers} == {("classified", "regions")}
    assert {answer["frame"].split("/")[0] for answer in answers} == {last["ledger"]["stream"]}
    found = {answer["picture"]: [one["label"] for one in answer["detections"]] for answer in answers}
    assert sum(found[path] == [label] for path, label in labels.items()) >= RIGHT
    ledger = {key: last["ledger"][key] for key in ("captured", "delivered", "classified", "unaccounted", "balanced")}
    assert ledger == {"captured": 40, "delivered": 40, "classified": 40, "unaccounted": 0, "balanced": True}

    code, out, err = await run(log, truncated(folder, first), first, "--pipeline", "regions")
    assert code == 1, (out, err)
    assert "unreadable" in out
    assert "the JPEG picture of 500 bytes is truncated" in out
    assert "balanced: every captured frame ended in exactly one state" in out

    balance = await audit(log, wait_s=30.0)
    assert balance.balanced
    totals = balance.totals
    assert (totals.captured, totals.withheld, totals.classified) == (42, {"unusable": 1}, 41)
