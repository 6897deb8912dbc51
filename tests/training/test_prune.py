"""Tests of pruning and fine-tuning: which channels go together, which weights become zero, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from deploy.cli.app import app
from engines.exceptions import OptimiseFailed
from engines.repository.adopt import KERAS_FILE
from engines.repository.store import Repository
from training.prune.channels import kept_count
from training.prune.finetune import batches_of, largest_mask

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
]
"""TensorFlow 2.21 does not have the signature that NumPy 2 expects."""
SIZE = 16
LABELS = ("blue", "green", "red")


@given(channels=st.integers(1, 600), share=st.floats(0, 0.95))
def test_pruning_keeps_at_least_one_channel_and_above_eight_channels_a_multiple_of_eight(
    channels: int, share: float
) -> None:
    kept = kept_count(channels, share)
    assert 1 <= kept <= channels
    assert kept == channels or channels <= 8 or kept % 8 == 0
    assert channels <= 8 or abs(kept - channels * (1 - share)) <= 8


@given(kernel=arrays(np.float32, (3, 4), elements=st.floats(-1, 1, width=32)), share=st.floats(0, 1))
def test_the_pruning_mask_removes_the_smallest_weights(kernel: np.ndarray, share: float) -> None:
    mask = largest_mask(kernel, share)
    assert (mask == 0).sum() == int(share * kernel.size)
    removed, stays = np.abs(kernel[mask == 0]), np.abs(kernel[mask == 1])
    assert not removed.size or not stays.size or removed.max() <= stays.min()


def test_the_number_of_training_batches_includes_a_smaller_last_batch() -> None:
    assert [batches_of(count, 3) for count in (1, 32, 33)] == [3, 3, 6]


def residual(classes: int = 3) -> Any:
    """Return a classifier with a sum, a concatenation and a depthwise convolution."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(4)
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    top = layers.Conv2D(32, 3, padding="same", activation="relu", name="first")(inputs)
    inner = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same", name="inner")(top))
    top = layers.Add()([inner, top])
    top = layers.DepthwiseConv2D(3, padding="same", activation="relu")(top)
    side = layers.Conv2D(16, 1, name="side")(top)
    top = layers.Concatenate()([top, side])
    top = layers.Conv2D(32, 3, strides=2, activation="relu", name="last")(top)
    top = layers.Dense(24, activation="relu", name="hidden")(layers.Flatten()(layers.MaxPooling2D()(top)))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="scores")(top))


@pytest.mark.train
def test_channels_of_layers_whose_outputs_are_added_are_pruned_together() -> None:
    pytest.importorskip("keras")
    from training.prune.channels import ChannelMap, without_channels

    model = residual()
    channels = ChannelMap(model)
    first, inner = channels.roots(channels.outputs["first"]), channels.roots(channels.outputs["inner"])
    assert first.tolist() == inner.tolist()
    smaller = without_channels(model, 0.5)
    counts = {layer.name: layer.output.shape[-1] for layer in smaller.layers}
    assert (counts["first"], counts["inner"], counts["side"], counts["last"]) == (16, 16, 8, 16)
    assert (counts["hidden"], counts["scores"]) == (16, 3)
    assert smaller.count_params() < 0.4 * model.count_params()


@pytest.mark.train
def test_a_model_pruned_of_its_dead_channels_gives_the_same_outputs() -> None:
    pytest.importorskip("keras")
    from training.prune.channels import without_channels

    model = residual()
    dead = set(range(0, 32, 2))
    for name in ("first", "inner", "last"):
        layer = model.get_layer(name)
        kernel, bias = (w.copy() for w in layer.get_weights())
        kernel[..., sorted(dead)], bias[sorted(dead)] = 0, 0
        layer.set_weights([kernel, bias])
    for name in ("side", "hidden"):
        layer = model.get_layer(name)
        kernel, bias = (w.copy() for w in layer.get_weights())
        kernel[..., ::2], bias[::2] = 0, 0
        layer.set_weights([kernel, bias])
    depthwise = next(layer for layer in model.layers if type(layer).__name__ == "DepthwiseConv2D")
    assert not depthwise.get_weights()[1].any()
    images = np.random.default_rng(0).normal(0, 1, (4, SIZE, SIZE, 3)).astype(np.float32)
    wanted, found = model.predict(images, verbose=0), without_channels(model, 0.5).predict(images, verbose=0)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.train
def test_pruning_a_nested_model_or_a_model_without_removable_channels_is_refused() -> None:
    keras = pytest.importorskip("keras")
    from training.prune.channels import without_channels

    inputs = keras.Input((SIZE, SIZE, 3))
    nested = keras.Model(inputs, residual()(inputs))
    with pytest.raises(OptimiseFailed, match="is a model of its own: expected a functional model of single layers"):
        without_channels(nested, 0.5)
    only = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(inputs)))
    with pytest.raises(OptimiseFailed, match="removes no channel of the model"):
        without_channels(only, 0.5)


@pytest.fixture
def coloured(tmp_path: Path) -> Path:
    """Return a folder of pictures by the colour that dominates them."""
    random = np.random.default_rng(5)
    for index in range(96):
        channel = index % 3
        image = random.integers(0, 160, (SIZE, SIZE, 3), np.uint8)
        image[..., channel] += 90
        folder = tmp_path / "pictures" / LABELS[channel]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return tmp_path / "pictures"


@pytest.mark.train
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("by", "labelled"), [("channels", True), ("weights", False)])
def test_a_keras_model_is_pruned_fine_tuned_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coloured: Path, by: str, labelled: bool
) -> None:
    pytest.importorskip("keras")
    from training.prune.finetune import Pixels, fine_tune

    monkeypatch.setenv("SIGHTLINE_MODELS", str(tmp_path / "models"))
    model = residual()
    files = sorted(coloured.rglob("*.png"))
    images = [cv2.imread(str(file))[None] for file in files]
    classes = np.array([LABELS.index(file.parent.name) for file in files])
    scale = (1 / 255, 1 / 255, 1 / 255)
    fine_tune(model, model, Pixels(images, (0, 0, 0), scale, "float32"), classes, epochs=30)
    model.save(tmp_path / "colours.keras")
    words = ["--labels", ",".join(LABELS), "--colour", "bgr", "--fit", "stretch", "--mean", *"000"]
    runner = CliRunner()
    added = runner.invoke(
        app, ["models", "add", str(tmp_path / "colours.keras"), *words, "--scale", *map(str, scale)]
    )
    assert added.exit_code == 0, added.output
    folder = coloured
    if not labelled:
        folder = tmp_path / "plain"
        folder.mkdir()
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
    result = runner.invoke(
        app,
        [
            *("models", "optimise", "colours", "--prune", "0.5", "--prune-by", by, "--epochs", "30"),
            *("--calibrate", str(folder), "--max-loss", "0.2", "--seconds", "0"),
            *("--backend", "onnxruntime", "--json"),
        ],
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    (version,) = report["versions"]
    assert version["quality"]["measure"] == ("accuracy" if labelled else "agreement")
    assert version["quality"]["original"] >= 0.9
    pruned = report["pruned"]
    if by == "channels":
        assert pruned["weights_after"] < 0.5 * pruned["weights_before"]
        assert version["optimised_bytes"] < 0.6 * version["original_bytes"]
    else:
        assert pruned["weights_after"] == pruned["weights_before"]
        assert pruned["zeros"] > 0.45
        assert version["optimised_packed_bytes"] < 0.75 * version["original_packed_bytes"]
    stored = Repository(tmp_path / "models").open("colours-pruned")
    assert (stored.folder / KERAS_FILE).is_file()
    assert stored.manifest.origin["optimised"]["pruned"]["by"] == by
