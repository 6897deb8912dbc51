"""Detection of a consumer group member that is left without partitions, and of members that must not run.

A member may be left without partitions although other members hold several partitions or no member holds any. The
causes are a topic that was deleted and created again, and a rebalance that the broker lost. A member without
partitions runs and sends heartbeats, but reads nothing. Restarting the member makes the group assign all partitions
again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import Gauge

from ingest.exceptions import HostConflict, LogUnavailable, MemberIdle
from ingest.kafka.log import Log
from ingest.runtime import logs
from ingest.runtime.clock import Clock, Deadline, SystemClock
from ingest.runtime.eventloop import running_beside

_log = logs.get("ingest.membership")

CHECK_S = 10.0
"""Time between two requests to the group's coordinator, in seconds. Requests may be this frequent because each
request is small."""
IDLE_LIMIT_S = 120.0
"""Time without partitions after which the process ends, in seconds. The limit is longer than the group needs to
notice a lost member and to assign its partitions to other members."""
LEAVE_S = 30.0
"""Maximum time to wait until the members of another service have left their group, in seconds. A killed member leaves
its group when its session ends, after 12 s."""
_LEAVE_POLL_S = 1.0


async def require_no_members(log: Log, group: str, client_prefix: str, advice: str) -> None:
    """Wait until no member of a group has a client id that begins with ``client_prefix``.

    Raise HostConflict with ``advice`` if a member with this prefix remains after ``LEAVE_S``. Raise LogUnavailable if
    Kafka does not respond.
    """
    deadline, waits = Deadline.after(LEAVE_S), False
    while found := sorted(client for client in await log.clients(group) if client.startswith(client_prefix)):
        if deadline.passed:
            raise HostConflict(f"the consumer group {group} has the members {', '.join(found)}: {advice}")
        if not waits:
            waits = True
            _log.warning("waiting_for_members_to_leave", group=group, members=found, at_most_s=LEAVE_S)
        await asyncio.sleep(min(_LEAVE_POLL_S, deadline.left))


class GroupLog(Protocol):
    """The part of ``KafkaLog`` that a MemberGuard needs."""

    async def partitions(self) -> Mapping[str, int]:
        """Return the number of partitions of each topic."""

    async def members(self, group: str) -> Sequence[tuple[str, int]] | None:
        """Return (client id, number of partitions) of each member of a group; None while the group rebalances."""


class IdleMemberDetector:
    """Decides whether a group member is left without partitions, and for how long.

    The detector reads no clock: the caller passes the time.
    """

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._since_s: float | None = None

    def check(self, now_s: float, partitions: int, members: Sequence[tuple[str, int]] | None) -> float | None:
        """Return how long this member has been idle (left without partitions), in seconds; None if it is not idle.

        A member without partitions counts as idle only if there are more partitions than members that hold a
        partition. A rebalance (``members`` is None) neither starts nor resets the idle time.
        """
        if members is None:
            return None if self._since_s is None else now_s - self._since_s
        holders = [client_id for client_id, held in members if held]
        if self._client_id in holders or partitions <= len(holders):
            self._since_s = None
            return None
        self._since_s = now_s if self._since_s is None else self._since_s
        return now_s - self._since_s


class MemberGuard:
    """Watches one member of a consumer group.

    The gauge ``idle`` is 1 while the member is left without partitions, else 0.
    """

    def __init__(
        self,
        log: GroupLog,
        group: str,
        topics: Sequence[str],
        client_id: str,
        idle: Gauge,
        *,
        clock: Clock | None = None,
        check_s: float = CHECK_S,
    ) -> None:
        self._log, self._group, self._topics, self._idle = log, group, topics, idle
        self._detector = IdleMemberDetector(client_id)
        self._clock, self._check_s = clock or SystemClock(), check_s

    @contextlib.asynccontextmanager
    async def watching(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Watch the member until the context ends.

        Set ``stop`` and raise MemberIdle if the member has been left without partitions for ``IDLE_LIMIT_S``.
        """
        async with running_beside(stop, self._watch()):
            yield

    async def _watch(self) -> None:
        warned = False
        while True:
            await asyncio.sleep(self._check_s)
            try:
                counts, members = await self._log.partitions(), await self._log.members(self._group)
            except LogUnavailable as error:
                _log.debug("group_members_unknown", group=self._group, error=str(error))
                continue
            partitions = sum(counts.get(topic, 0) for topic in self._topics)
            idle_s = self._detector.check(self._clock.monotonic(), partitions, members)
            self._idle.set(idle_s is not None)
            if idle_s is None:
                if warned:
                    _log.info("member_has_partitions", group=self._group)
                warned = False
                continue
            if not warned:
                warned = True
                held = dict(members or ())
                _log.warning("member_without_partitions", group=self._group, partitions=partitions, members=held)
            if idle_s >= IDLE_LIMIT_S:
                raise MemberIdle(self._group, partitions, idle_s)
