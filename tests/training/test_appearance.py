"""Tests of the shipped model of colour appearance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engines import backends
from engines.repository.store import Repository
from ingest.contract.records import Pixels
from tests.paths import MODELS
from training.appearance import BANDS, HEIGHT_PX, WIDTH_PX, build, palette, weights

RED, BLUE, GREEN, WHITE, BLACK = (40, 40, 180), (170, 80, 40), (60, 140, 60), (220, 220, 220), (35, 35, 35)


def picture(shirt: tuple[int, int, int], trousers: tuple[int, int, int], light: float = 1.0) -> Pixels:
    """Return a crop of a person before a grey wall, with noise."""
    drawn = np.full((HEIGHT_PX, WIDTH_PX, 3), 140.0)
    drawn[22:70, 12:52], drawn[70:126, 16:48] = shirt, trousers
    noise = np.random.default_rng(2).normal(0.0, 6.0, drawn.shape)
    return np.clip(light * drawn + noise, 0, 255).astype(np.uint8)


def embeddings(*pictures: Pixels) -> npt.NDArray[np.float32]:
    """Return the embeddings of pictures, scaled to length 1."""
    engine = backends.make("onnxruntime")
    engine.load(Repository(MODELS).open("appearance"))
    engine.begin_warm_up()
    (found,) = engine.infer(np.stack(pictures)).values()
    engine.close()
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def test_the_build_gives_the_bytes_of_the_shipped_model() -> None:
    assert build().SerializeToString(deterministic=True) == Repository(MODELS).open("appearance").path.read_bytes()


def test_the_weights_of_a_band_sum_to_one_and_an_embedding_has_the_shares_of_the_palette_in_each_band() -> None:
    assert weights().sum(axis=0) == pytest.approx([1.0] * len(BANDS), abs=1e-5)
    engine = backends.make("onnxruntime")
    engine.load(Repository(MODELS).open("appearance"))
    engine.begin_warm_up()
    (found,) = engine.infer(picture(RED, BLACK)[None]).values()
    engine.close()
    assert found.shape == (1, len(palette()) * len(BANDS))
    assert found.sum() == pytest.approx(len(BANDS), abs=1e-3)


@pytest.mark.parametrize("light", [0.9, 1.1])
@pytest.mark.parametrize(("shirt", "trousers"), [(RED, BLACK), (BLUE, BLACK), (WHITE, BLUE), (BLACK, WHITE)])
def test_the_same_clothes_in_slightly_different_light_are_similar(
    shirt: tuple[int, int, int], trousers: tuple[int, int, int], light: float
) -> None:
    one, other = embeddings(picture(shirt, trousers), picture(shirt, trousers, light))
    assert one @ other > 0.9


@pytest.mark.parametrize(("one", "other"), [(RED, BLUE), (RED, GREEN), (BLUE, WHITE), (GREEN, BLACK), (WHITE, BLACK)])
def test_shirts_of_different_colours_are_less_similar(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    a, b = embeddings(picture(one, BLACK), picture(other, BLACK))
    assert a @ b < 0.85


def test_exchanged_colours_of_shirt_and_trousers_are_different() -> None:
    a, b = embeddings(picture(WHITE, BLACK), picture(BLACK, WHITE))
    assert a @ b < 0.5
