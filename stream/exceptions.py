"""Errors of a stream processor. Every error in this module derives from StreamError.

StreamError
├── RunnerError             the runner cannot go on; the process ends and its supervisor restarts it
│   ├── NotWritten          the broker did not accept a record
│   ├── RecordsLost         a fetched record did not arrive
│   ├── TopicCreatedAgain   the topic was deleted and created again while the stage read it
│   └── Stuck               records wait without progress
├── FrameError              one frame cannot be prepared; the frame becomes a dead letter
│   ├── HeaderMismatch      the header of the record names another frame than its body
│   └── UnknownLane         the header of the record names an unknown lane
├── EvidenceMissing         the picture of an event is not available; the alert goes out without it
├── AlertNotFound           the log has no alert of this id, or several
├── FrameNotFound           the log has no frame, event or alert of this name
├── IncidentNotFound        no incident, or more than one, has this id
├── ForecastModelUnusable   a forecast model is missing, or is no forecast model
├── NoResults               the log has no results for a data set
├── BehaviourModelUnusable  a behaviour model is missing, or is no behaviour model
├── TooManyEvents           tested rules emit more events than a comparison holds
├── StoreFailed             the evidence store cannot write or read; the work is tried again
├── NotStored               the evidence store has no file of this name
├── EvidenceChanged         an encrypted file was changed
└── UnusableName            the name of an evidence file leads out of the store
"""

from __future__ import annotations


class StreamError(Exception):
    """Base of every error that a stream processor raises."""


class RunnerError(StreamError):
    """The runner cannot go on. The process ends, and the supervisor restarts the process."""


class NotWritten(RunnerError):
    """The broker did not accept a record."""

    def __init__(self, topic: str, partition: int, cause: BaseException) -> None:
        super().__init__(f"a record for {topic}[{partition}] was not written: {cause!r}")
        self.topic = topic
        self.partition = partition


class RecordsLost(RunnerError):
    """A fetched record did not arrive at its partition loop.

    The process ends, because a later commit would skip the record.
    """

    def __init__(self, due: int, came: int) -> None:
        super().__init__(f"fetched record number {came} arrived instead of number {due}: a record was lost")
        self.due = due
        self.came = came


class TopicCreatedAgain(RunnerError):
    """The topic was deleted and created again.

    After a restart, the process reads the new topic from its beginning.
    """

    def __init__(self, topic: str, partition: int, expected: int, found: int) -> None:
        super().__init__(
            f"{topic}[{partition}] came with offset {found} instead of {expected} or more: the topic was created "
            "again. The restart reads it from its beginning"
        )


class Stuck(RunnerError):
    """Records wait, but the process makes no progress. The process must be restarted."""


class FrameError(StreamError):
    """One frame cannot be prepared. The frame becomes a dead letter, and the stream goes on."""


class HeaderMismatch(FrameError):
    """The header of a record names another frame than the body of the record."""

    def __init__(self, header: str, body: str) -> None:
        super().__init__(f"header names {header or 'no frame'}, body is {body}: the producer mixed up two records")
        self.header = header
        self.body = body


class UnknownLane(FrameError):
    """The header of the record names an unknown lane."""

    def __init__(self, lane: str) -> None:
        super().__init__(f"lane {lane[:64]!r}: expected live, late or replay-RUN")
        self.lane = lane


class EvidenceMissing(StreamError):
    """The picture of an event is not available. The alert goes out without the picture, and has the reason."""

    reason = "evidencemissing"


class AlertNotFound(StreamError):
    """The log has no alert whose id begins with the given text, or several."""

    def __init__(self, wanted: str, found: int) -> None:
        count = f"{found} alerts have ids that begin with" if found else "no alert has the id"
        super().__init__(f"{count} {wanted!r}: expected an id, or its beginning, of `sightline alerts list`")


class FrameNotFound(StreamError):
    """The log has no frame, event or alert of the given name."""


class IncidentNotFound(StreamError):
    """No incident, or more than one, has an id that begins with the given text."""


class ForecastModelUnusable(StreamError):
    """A forecast model is missing from the repository, cannot be loaded, or is no forecast model."""


class NoResults(StreamError):
    """The log has no results from which a data set can be made."""


class BehaviourModelUnusable(StreamError):
    """A behaviour model is missing from the repository, cannot be loaded, or is no behaviour model."""


class TooManyEvents(StreamError):
    """Tested rules emit more events in one partition than a comparison holds in memory."""

    def __init__(self, rule: str, limit: int) -> None:
        super().__init__(
            f"the rules emit more than {limit} events, the last one by {rule}: expected fewer. "
            "Choose a shorter period or a single camera"
        )


class StoreFailed(StreamError):
    """The evidence store cannot be reached, written or read. The caller repeats the failed read or write later."""


class NotStored(StreamError):
    """The evidence store has no file of the requested name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:200]!r} is not in the evidence store: it was deleted, or is in another store. `sightline "
            "evidence verify` shows which"
        )
        self.name = name


class EvidenceChanged(StreamError):
    """An encrypted file of the evidence store was changed, or encrypted with another key of the same id."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:200]!r} cannot be decrypted: expected the file as it was stored, and its key")
        self.name = name


class UnusableName(StreamError):
    """The name of an evidence file is a path outside of the evidence store."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:200]!r}: expected a path inside the store, without `..`")
