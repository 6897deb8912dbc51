"""A forecast model: an ONNX graph together with the description of its series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from stream.exceptions import ForecastModelUnusable
from stream.sense.forecast.features import features, history_steps, layout
from stream.sense.forecast.spec import METADATA, Array, SeriesSpec, local_steps

FEATURES, RESIDUALS = "features", "residuals"


class ForecastModel:
    """A model that forecasts the next steps of a series from its last steps.

    ``id`` is the ``NAME@VERSION`` of the model. Loading a file that is no forecast model raises
    ForecastModelUnusable.
    """

    def __init__(self, path: Path, id_: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a forecast takes less than a millisecond
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            found: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
            self.spec = SeriesSpec.model_validate_json(found[METADATA])
        except KeyError:
            raise ForecastModelUnusable(
                f"model {id_} describes no series: expected a model of `sightline train forecast`"
            ) from None
        except ValidationError as error:
            first = error.errors()[0]
            raise ForecastModelUnusable(
                f"model {id_}, {METADATA}.{'.'.join(map(str, first['loc']))}: {first['msg']}. Train it again"
            ) from None
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise ForecastModelUnusable(f"model {id_}: ONNX Runtime cannot load {path}: {error}") from None
        self.id = id_
        self._check_shape()

    def _check_shape(self) -> None:
        given: Any = self._session.get_inputs()[0].shape
        width = layout(self.spec).width
        if given[-1] != width:
            raise ForecastModelUnusable(
                f"model {self.id} takes {given[-1]} features: expected {width} by its description. Train it again"
            )

    @property
    def history(self) -> int:
        """Number of past time steps that a forecast needs."""
        return history_steps(self.spec)

    def forecast(self, values: Array, last: int, time_zone: str) -> Array:
        """Return the forecast of the steps after step ``last``, ``(horizons,)`` in scaled units.

        ``last`` is a number of steps since the Unix epoch, and ``values`` has the values of the ``history`` steps up
        to ``last``: NaN for a step that was not observed.
        """
        slots, weekdays = local_steps(
            last - len(values) + 1, len(values) + self.spec.horizons, self.spec.step_s, time_zone
        )
        expected = self.spec.expected(slots, weekdays)
        residuals = self.spec.scaled(values) - expected[: len(values)]
        inputs = features(residuals, expected, slots, weekdays, self.spec)[-1:]
        found = np.asarray(self._session.run([RESIDUALS], {FEATURES: inputs})[0][0], np.float64)
        return np.asarray(expected[len(values) :] + found)

    def expected(self, first: int, count: int, time_zone: str) -> Array:
        """Return the scaled profile at ``count`` steps from step ``first``."""
        return self.spec.expected(*local_steps(first, count, self.spec.step_s, time_zone))


ModelSource = Callable[[str], ForecastModel]
"""Returns the model of ``NAME@VERSION``, or the promoted version of ``NAME``. Raises ForecastModelUnusable."""
