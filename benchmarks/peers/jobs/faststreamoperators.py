"""FastStream with its client for confluent-kafka: the operators of ``quixoperators.py``, over single messages or over
batches of up to ``--batch`` messages.

FastStream has no windows and no state, so the state of all operators is in memory, and lost at a restart. The offsets
of a batch are committed after the events of the batch are published. The offsets of single messages are committed
every 5 s, which is FastStream's default.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import uvloop
from faststream import FastStream
from faststream.confluent import KafkaMessage

from benchmarks.peers.jobs.faststreamclient import make_broker, subscription
from benchmarks.peers.jobs.operations import ByteTrackCounter, SensorWindows, exceeds, read_arguments, single, sums

OPTIONS = read_arguments()
broker = make_broker(OPTIONS)
windows: defaultdict[bytes, SensorWindows] = defaultdict(SensorWindows)
outside: defaultdict[bytes, bool] = defaultdict(bool)
counters: defaultdict[bytes, ByteTrackCounter] = defaultdict(ByteTrackCounter)


def _window(key: bytes, value: Any) -> list[Any]:
    return windows[key].add([single(value)])


def _columns(key: bytes, value: Any) -> list[Any]:
    return windows[key].add(sums(value))


def _threshold(key: bytes, value: Any) -> list[Any]:
    was_above = outside[key]
    outside[key] = is_above = exceeds(value["values"][0], was_above=was_above)
    return [value] if is_above and not was_above else []


def _line(key: bytes, value: Any) -> list[Any]:
    return counters[key].step(value)


OPERATORS: dict[str, Callable[[bytes, Any], list[Any]]] = {
    "window": _window,
    "columns": _columns,
    "threshold": _threshold,
    "line": _line,
}
operator = OPERATORS[OPTIONS.how]


def _events(record: Any) -> list[Any]:
    return operator(record.key(), orjson.loads(record.value()))


async def _publish(found: Sequence[tuple[Any, Any]]) -> None:
    sent = [
        broker.publish(orjson.dumps(event), OPTIONS.target, key=record.key(), partition=record.partition())
        for record, event in found
    ]
    await asyncio.gather(*sent)


if OPTIONS.batch > 1:

    @broker.subscriber(OPTIONS.source, **subscription(OPTIONS, batches=True))  # type: ignore[untyped-decorator]
    async def apply_to_batch(message: KafkaMessage) -> None:
        """Apply the operator to a batch of messages, and publish the events."""
        await _publish([(one, event) for one in message.raw_message for event in _events(one)])

else:

    @broker.subscriber(OPTIONS.source, **subscription(OPTIONS, batches=False))  # type: ignore[untyped-decorator]
    async def apply(message: KafkaMessage) -> None:
        """Apply the operator to one message, and publish the events."""
        await _publish([(message.raw_message, event) for event in _events(message.raw_message)])


if __name__ == "__main__":
    uvloop.run(FastStream(broker, logger=None).run())
