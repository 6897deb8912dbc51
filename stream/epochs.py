"""Detect repeated records of one camera or sensor, and records of a lower epoch that begin a new run. Pure."""

from __future__ import annotations

from enum import Enum, auto

from ingest.runtime import logs

_log = logs.get("stream.epochs")

QUIET_S = 30.0
"""Time without a record of the present epoch after which records of a lower epoch begin a new run. It is longer than
the time between two reports of a camera's stationary objects, and longer than a capture process takes to restart."""
RUN_RECORDS = 20
"""Number of consecutive records of a lower epoch that begin a new run at once, even in a backlog that is processed
quickly. After a crash, fewer records of a lower epoch (capture run) arrive, not counting repeated records."""
EPOCHS_KEPT = 64
"""Number of epochs (capture runs) whose last sequence number is remembered. If records of an older epoch arrive
again, they look like a new capture run with a lower epoch."""


class Admission(Enum):
    """Whether a record repeats an earlier record, and whether the record's epoch (capture run) is lower than, equal
    to or newer than the present epoch."""

    REPEAT = auto()
    """All sequence numbers of the record were seen before."""
    LOWER = auto()
    """The record belongs to a lower epoch, and the present epoch still runs."""
    PRESENT = auto()
    """The record belongs to the present epoch (capture run)."""
    BEGIN = auto()
    """The record is the first record of an epoch, which becomes the present epoch."""


class EpochGate:
    """Decides from the epoch (capture run) of each record of one camera or sensor whether the record counts.

    Records of an epoch lower than the present epoch have three sources: repeats, a second agent, and an agent that
    lost its spool or had its clock corrected. Records of a lower epoch do not count until the present epoch has
    ended: see ``QUIET_S`` and ``RUN_RECORDS``.
    """

    def __init__(self) -> None:
        self.present = -1
        """The number of the present epoch (capture run), -1 before the first record."""
        self._seqs: dict[int, int] = {}  # epoch → highest number, in the order of the last records
        self._seen_ns = 0  # time of the present epoch's last record
        self._lower = 0  # consecutive records of a lower epoch
        self._warned = -1  # the lower epoch that was logged last

    def last(self, epoch: int) -> int:
        """Return the highest sequence number of an epoch (capture run) so far, -1 if the epoch has no record."""
        return self._seqs.get(epoch, -1)

    def admit(self, epoch: int, last: int, at_ns: int, **subject: str) -> Admission:
        """Note a record whose highest sequence number in its epoch is ``last``, and return its admission.

        ``at_ns`` is the Unix time at which the record was written. ``subject`` has the log fields that name the
        camera or sensor. Log one line for each lower epoch, and one line when a lower epoch replaces the present
        epoch.
        """
        if last <= self.last(epoch):
            return Admission.REPEAT
        self._seqs.pop(epoch, None)
        self._seqs[epoch] = last
        if epoch == self.present:
            self._seen_ns, self._lower = at_ns, 0
            return Admission.PRESENT
        if len(self._seqs) > EPOCHS_KEPT:
            del self._seqs[next(iter(self._seqs))]
        if epoch < self.present and not self._is_new_run(epoch, at_ns, subject):
            return Admission.LOWER
        self.present, self._seen_ns, self._lower = epoch, at_ns, 0
        return Admission.BEGIN

    def _is_new_run(self, epoch: int, at_ns: int, subject: dict[str, str]) -> bool:
        self._lower += 1
        if at_ns - self._seen_ns < QUIET_S * 1e9 and self._lower < RUN_RECORDS:
            if epoch != self._warned:
                self._warned = epoch
                fix = "if two agents capture this stream, give one of them another name"
                _log.warning("lower_epoch_without_events", **subject, epoch=epoch, present=self.present, fix=fix)
            return False
        ignored = self._lower - 1
        _log.warning(
            "lower_epoch_accepted", **subject, epoch=epoch, before=self.present, records_without_events=ignored
        )
        return True
