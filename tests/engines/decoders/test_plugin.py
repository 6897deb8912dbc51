"""Tests of decoders of other packages: every command and file of the tutorial, and entry points that are broken."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from engines import decoders
from engines.decoders import DecoderOptions
from engines.exceptions import DecoderNotLoaded
from engines.repository.store import Repository
from tests.engines.decoders.models import detections
from tests.paths import ROOT

TUTORIAL = (ROOT / "docs" / "tutorials" / "decoder.md").read_text()
FILES = dict(re.findall(r"^```(?:python|toml) (\S+)\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE))
COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```", TUTORIAL, re.DOTALL | re.MULTILINE))
OPTIONS = DecoderOptions(("a",), 64, 64)


def install(folder: Path, entry_points: dict[str, str]) -> None:
    """Write the metadata that an installation would leave. A real installation would need a package index."""
    info = folder / "acme_decoders-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-decoders\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{decoders.ENTRY_POINTS}]", *lines]))


@pytest.mark.timeout(120)
def test_every_command_of_the_decoder_plug_in_tutorial_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(FILES) == {"make_model.py", "acme_decoders.py", "pyproject.toml", "test_acme.py"}
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    points = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]
    assert list(points) == [decoders.ENTRY_POINTS]
    install(tmp_path, points[decoders.ENTRY_POINTS])
    assert "\npip install .\n" in COMMANDS
    script = "set -e\n" + COMMANDS.replace("\npip install .\n", "\n")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
    }
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "locator@1" in ran.stdout
    assert "1 passed" in ran.stdout
    monkeypatch.syspath_prepend(str(tmp_path))
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[10:18, 40:48] = 255
    try:
        (found,) = detections(Repository(tmp_path / "models").open("locator", 1), picture)
    finally:
        sys.modules.pop("acme_decoders", None)
    assert found.label == "bright-spot"
    np.testing.assert_allclose(found.box, (44 - 8, 14 - 8, 44 + 8, 14 + 8), atol=0.1)


def test_the_error_for_a_decoder_that_cannot_be_loaded_has_its_name_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, {"gone": "acme_missing:Decoder", "yolox": "acme_missing:Decoder"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "gone" in decoders.known()
    with pytest.raises(DecoderNotLoaded, match=r"'gone': entry point acme_missing:Decoder .*No module named"):
        decoders.make("gone", OPTIONS)
    assert type(decoders.make("yolox", OPTIONS)).__module__ == "engines.decoders.yolox"
