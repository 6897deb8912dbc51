"""From records of readings to entries in the sensors' ledger. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container

from ingest.contract.codec import decode
from ingest.contract.records import Heartbeat, Readings
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from ingest.ledger.states import Ledger


def enter_readings(ledger: Ledger, record: LogRecord) -> None:
    """Enter a record of ``readings``."""
    readings = _read(record)
    if readings and ledger.readings:
        ledger.readings.delivered_run(readings.first, readings.last_seq, readings.account)


class RetainedReadings:
    """Enters what retention has left of the readings, and finds where the ledger of each sensor begin.

    ``taken`` are the partitions of which retention has taken some. A sensor's readings are in order, so that nothing
    is missing from its first record on; a sensor of such a partition that has none left cannot be balanced.
    """

    def __init__(self, ledger: Ledger, taken: Container[int], partition_of: Callable[[str], int]) -> None:
        self._books, self._taken, self._partition_of = ledger, taken, partition_of
        self._seen: set[str] = set()

    def readings(self, record: LogRecord) -> None:
        """Enter a record of ``readings``. All of these come before what the agents say."""
        readings = _read(record)
        if readings is None:
            return
        if readings.sensor not in self._seen and record.partition in self._taken:
            first = readings.account.first if readings.account else readings.seq
            self._books.begin(readings.sensor, readings.epoch, first)
        self._seen.add(readings.sensor)
        self._books.delivered_run(readings.first, readings.last_seq, readings.account)

    def leave_out_unseen(self, beat: Heartbeat) -> None:
        """Leave out the sensors that a heartbeat is about and of which retention has taken everything."""
        said = beat.readings
        about = {a.camera for a in said.accounts} | {e.camera for e in said.ended} | {s.sensor for s in beat.sensors}
        for sensor in about:
            if sensor not in self._seen and self._partition_of(sensor) in self._taken:
                self._books.leave_out(sensor)


def _read(record: LogRecord) -> Readings | None:
    try:
        return decode(Readings, record.value)
    except CodecError:
        return None  # its numbers show up as missing
