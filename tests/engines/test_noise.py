"""Tests of the difference between the outputs of two models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engines.noise import largest_difference


def test_the_difference_of_two_outputs_is_relative_to_the_largest_expected_value() -> None:
    large = (np.array([200.0, -400.0]), np.array([200.0, -402.0]))
    small = (np.array([0.1]), np.array([0.102]))
    assert largest_difference([small, large]) == pytest.approx(0.005)
    assert largest_difference([small]) == pytest.approx(0.002)


@pytest.mark.parametrize("place", [0, 1])
def test_nan_in_a_model_output_counts_as_a_difference(place: int) -> None:
    pairs = [(np.zeros(2), np.full(2, 0.01)), (np.zeros(2), np.full(2, 0.02))]
    pairs[place] = (np.zeros(2), np.array([0.0, np.nan]))
    assert math.isnan(largest_difference(pairs))


def test_equal_model_outputs_and_outputs_without_rows_have_no_difference() -> None:
    empty, same = np.zeros((0, 4), np.float32), np.array([np.nan, np.inf, 1.0])
    assert largest_difference([(empty, empty), (same, same)]) == 0.0
    assert largest_difference([]) == 0.0
