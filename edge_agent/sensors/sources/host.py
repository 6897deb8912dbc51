"""Source of readings about the machine that the agent runs on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import cast

import psutil

from edge_agent.exceptions import SensorSilent
from edge_agent.sensors.source import Reading, Sink
from edge_agent.sensors.sources.polling import poll
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig
from ingest.site.sensor import HostOptions

ANSWER_S = 5.0
"""Maximum time of one query, in seconds. Without a time limit, a query of a network file system could hang for
ever."""
_CPU_SETTLES_S = 0.2
"""Time between the first two measurements of the CPU time, in seconds. The kernel counts CPU time in ticks of 10 ms,
so a precise share of the CPU time needs many ticks."""


class HostSource:
    """Source of one measured quantity of this machine.

    ``cpu`` and ``memory`` are in %, ``load`` is the load average over 1 min, ``temperature`` is in °C, and ``disk``
    is the free space in bytes of the file system at a path. If the machine does not measure the quantity, the sensor
    counts as silent.
    """

    def __init__(self, sensor: SensorConfig, clock: Clock, *, answer_s: float = ANSWER_S) -> None:
        self._sensor, self._clock, self._answer_s = sensor, clock, answer_s
        self._options = cast(HostOptions, sensor.parsed)
        self._figure = {
            "cpu": _Cpu().percent,
            "memory": lambda: psutil.virtual_memory().percent,
            "load": lambda: psutil.getloadavg()[0],
            "temperature": lambda: _temperature(self._options.label),
            "disk": lambda: float(psutil.disk_usage(str(self._options.path)).free),
        }[sensor.address]
        self._asked: asyncio.Future[float] | None = None

    async def run(self, sink: Sink) -> None:
        """Pass readings to ``sink`` until cancelled."""
        if self._sensor.address == "cpu":
            await asyncio.sleep(_CPU_SETTLES_S)
        await poll([self._sensor], self._ask, sink, self._clock)

    async def _ask(self, _: SensorConfig, __: int) -> Reading:
        if self._asked is None or self._asked.done():
            self._asked = _beside(self._figure)
        try:
            async with asyncio.timeout(self._answer_s):
                return Reading(float(await asyncio.shield(self._asked)))
        except TimeoutError:  # the next query waits for the same thread: otherwise threads would pile up
            raise SensorSilent(
                f"{self._sensor.source}: the operating system gave no value within {self._answer_s:g} s"
            ) from None
        except (OSError, ValueError) as error:
            raise SensorSilent(str(error)) from None


class _Cpu:
    """Measures the share of the CPU time of all cores that was used since the last call of ``percent``.

    Any thread may call ``percent``.
    """

    def __init__(self) -> None:
        self._before, self._percent = self._busy_and_all_s(), 0.0

    def percent(self) -> float:
        (busy_s, all_s), now = self._before, self._busy_and_all_s()
        if now[1] > all_s:  # otherwise no tick has passed
            self._before, self._percent = now, 100.0 * min(1.0, max(0.0, (now[0] - busy_s) / (now[1] - all_s)))
        return self._percent

    @staticmethod
    def _busy_and_all_s() -> tuple[float, float]:
        times = psutil.cpu_times()
        # guest time is part of user time, and a CPU that waits for a disk is idle (proc(5))
        all_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return all_s - times.idle - getattr(times, "iowait", 0.0), all_s


def _beside(figure: Callable[[], float]) -> asyncio.Future[float]:
    """Query a quantity of this machine in a daemon thread.

    The thread is a daemon thread because a query may hang, and Python does not wait for daemon threads at its exit.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[float] = loop.create_future()

    def ask() -> None:
        value, failure = 0.0, None
        try:
            value = figure()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_answer, answer, value, failure)

    threading.Thread(target=ask, name="host", daemon=True).start()
    return answer


def _answer(answer: asyncio.Future[float], value: float, failure: Exception | None) -> None:
    if not answer.done():
        answer.set_exception(failure) if failure else answer.set_result(value)
        answer.exception()  # marked as retrieved, because the query may have timed out


def _temperature(label: str) -> float:
    found = [
        reading.current
        for chip, readings in psutil.sensors_temperatures().items()
        for reading in readings
        if not label or label in (chip, reading.label)
    ]
    if not found:
        raise ValueError(f"this machine reports no temperature of {label or 'any chip'}")
    return max(found)
