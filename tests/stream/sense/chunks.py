"""Pass records to a processor as the runner does."""

from __future__ import annotations

from ingest.kafka.log import LogRecord
from stream.runner.processor import Processor, Work


def in_one_chunk(processor: Processor, *records: LogRecord) -> list[Work]:
    """Process records as one chunk, and return the work."""
    works = [work for record in records for work in processor.process(record)]
    return [*works, *processor.end_chunk()]
