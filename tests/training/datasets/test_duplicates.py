"""Tests of fingerprints and near-duplicates."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np

from ingest.contract.records import Box, Pixels
from stream.labels.candidates import CandidateObject
from tests.training.datasets.footage import texture
from training.datasets.duplicates import NearDuplicates, fingerprint


def noisy(picture: Pixels, seed: int, sigma: float = 4.0) -> Pixels:
    noise = np.random.default_rng(seed).normal(0.0, sigma, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def recompressed(picture: Pixels, quality: int) -> Pixels:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cast(Pixels, cv2.imdecode(data, cv2.IMREAD_COLOR))


def at(left: float) -> CandidateObject:
    return CandidateObject("id", Box(left, 10.0, left + 40.0, 50.0), "car", 0.9, "m@1")


def test_a_picture_with_added_noise_compression_or_scaling_is_a_near_duplicate_of_the_original() -> None:
    seen, base = NearDuplicates(), texture(1, 96, 160)
    seen.add(fingerprint(base))
    changed = (
        noisy(base, 1),
        recompressed(base, 30),
        cast(Pixels, cv2.resize(base, (80, 48))),
        cast(Pixels, cv2.convertScaleAbs(base, alpha=0.9, beta=8)),
    )
    assert [list(seen.of(fingerprint(one))) for one in changed] == [[0]] * 4


def test_flat_pictures_with_different_noise_are_near_duplicates() -> None:
    flat = np.full((96, 160, 3), 120, np.uint8)
    seen = NearDuplicates()
    seen.add(fingerprint(noisy(flat, 1)))
    assert list(seen.of(fingerprint(noisy(flat, 2)))) == [0]


def test_five_hundred_different_pictures_are_no_near_duplicates() -> None:
    seen = NearDuplicates()
    for seed in range(500):
        known = fingerprint(texture(seed, 64, 64))
        assert list(seen.of(known)) == []
        seen.add(known)
    assert len(seen) == 500


def test_whole_frames_with_objects_at_different_places_are_no_near_duplicates() -> None:
    seen, base = NearDuplicates(), texture(1, 96, 160)
    seen.add(fingerprint(base, [at(10.0)]))
    assert list(seen.of(fingerprint(base, [at(12.0)]))) == [0]
    assert list(seen.of(fingerprint(base, [at(80.0)]))) == []
    assert list(seen.of(fingerprint(base, [at(10.0), at(80.0)]))) == []
    assert list(seen.of(fingerprint(base, []))) == []
