"""Test of the training commands without Keras."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from training.convert import guard


@pytest.mark.parametrize("words", [("shipped",), ("classifier", "data", "--out", "pets")], ids=" ".join)
def test_the_error_for_training_without_keras_names_the_extra_to_install(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guard, "find_spec", lambda module: None)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", *words])
    assert result.exit_code == USAGE_EXIT, result.output
    assert "are missing. Install the extra train: pip install 'sightline[train]'" in result.stderr
    assert not list(tmp_path.iterdir())
