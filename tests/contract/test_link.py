"""The contract of every link, run against a link to a real Kafka and a link through an HTTPS gateway."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from edge_agent.exceptions import LinkLost, RecordRefused
from edge_agent.send.https import HttpsLink
from edge_agent.send.kafkalink import KafkaLink
from edge_agent.send.link import Link, OutboundRecord
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS, partition_for
from ingest.exceptions import LogUnavailable
from ingest.kafka import settings as clients
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import LogRecord
from ingest.kafka.settings import KafkaSettings
from ingest.site import LinkConfig
from tests.peers.certificates import Authority
from tests.peers.gateway import TestGateway

PARTITIONS = 3

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]


def parcels(count: int, topic: str = FRAMES, key: str = "gate", size: int = 2000) -> list[OutboundRecord]:
    late = topic == FRAMES_LATE
    return [OutboundRecord(topic, key, b"%d" % n + bytes(size), {}, n + 1, late) for n in range(count)]


def number(record: LogRecord) -> int:
    return int(record.value.rstrip(b"\x00"))


@pytest.fixture
async def settings(kafka: str, prefix: str) -> KafkaSettings:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=PARTITIONS)
    return settings


@pytest.fixture
async def log(settings: KafkaSettings) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(settings, "test") as log:
        yield log


async def read(log: KafkaLog, topic: str) -> list[LogRecord]:
    return [r for p, end in (await log.ends(topic)).items() async for r in log.read(topic, p, 0, end)]


class LinkContract(ABC):
    """Tests that every link passes. A subclass creates the link."""

    @pytest.fixture
    @abstractmethod
    async def link(self) -> AsyncIterator[Link]:
        """Return an open link. The fixture closes the link."""

    @abstractmethod
    def to_nowhere(self) -> Link:
        """Return a link to an address without a listener."""

    @abstractmethod
    async def lower(self, settings: KafkaSettings, max_bytes: int) -> None:
        """Make the broker or gateway refuse frames larger than ``max_bytes`` from now on."""

    async def test_records_that_a_link_acknowledged_are_complete_in_the_kafka_log(
        self, link: Link, log: KafkaLog
    ) -> None:
        headers = {"sightline-lane": b"live", "bytes": b"\x00\xff"}
        done = [
            await link.send(OutboundRecord(topic, key, b"\x00value", headers, 1, topic == FRAMES_LATE))
            for topic in (FRAMES, FRAMES_LATE, READINGS, STATUS)
            for key in ("gate", "yard")
        ]
        await asyncio.gather(*done)
        for topic in (FRAMES, FRAMES_LATE, READINGS, STATUS):
            found = sorted(await read(log, topic), key=lambda r: r.key or b"")
            assert [(r.key, r.value, dict(r.headers)) for r in found] == [
                (b"gate", b"\x00value", headers),
                (b"yard", b"\x00value", headers),
            ]
            partitions = [0 if topic == STATUS else partition_for(key, PARTITIONS) for key in ("gate", "yard")]
            assert [r.partition for r in found] == partitions

    async def test_records_of_each_lane_keep_their_order(self, link: Link, log: KafkaLog) -> None:
        lanes = {topic: parcels(150, topic) for topic in (FRAMES, FRAMES_LATE, READINGS)}
        done = []
        for three in zip(*lanes.values(), strict=True):
            done += [await link.send(parcel) for parcel in three]
        await asyncio.gather(*done)
        for topic in lanes:
            assert [number(r) for r in await read(log, topic)] == list(range(150)), topic

    async def test_a_link_refuses_too_large_records_and_delivers_the_other_records_in_order(
        self, link: Link, log: KafkaLog, settings: KafkaSettings
    ) -> None:
        await self.lower(settings, 100_000)
        wanted = parcels(20)
        wanted[7] = OutboundRecord(FRAMES, "gate", bytes(200_000), {}, 8)
        left = list(wanted)
        refused = []
        for _ in range(3):  # after a refusal a link may be lost, and then is opened anew
            answers = await self.answers(link, left)
            refused += [p for p, answer in zip(left, answers, strict=True) if isinstance(answer, RecordRefused)]
            left = [p for p, answer in zip(left, answers, strict=True) if isinstance(answer, LinkLost)]
            if not left:
                break
            await link.close()
            await link.open()
        assert refused == [wanted[7]]
        assert left == []
        found = [number(r) for r in await read(log, FRAMES)]
        assert list(dict.fromkeys(found)) == [n for n in range(20) if n != 7]

    async def answers(self, link: Link, left: list[OutboundRecord]) -> list[object]:
        done: list[asyncio.Future[None] | LinkLost] = []
        for parcel in left:
            try:
                done.append(await link.send(parcel))
            except LinkLost as error:
                done.append(error)
        waiting = [each for each in done if isinstance(each, asyncio.Future)]
        await asyncio.wait(waiting, timeout=60)
        return [each.exception() if isinstance(each, asyncio.Future) else each for each in done]

    async def test_a_heartbeat_is_written_without_waiting_for_an_acknowledgement(
        self, link: Link, log: KafkaLog
    ) -> None:
        await link.publish(OutboundRecord(STATUS, "agent", b"beat"))
        await (await link.send(OutboundRecord(STATUS, "agent", b"ended", {}, 1)))
        assert [r.value for r in await read(log, STATUS)] == [b"beat", b"ended"]

    async def test_a_link_to_an_address_without_a_listener_raises_link_lost(self) -> None:
        link = self.to_nowhere()
        with pytest.raises(LinkLost):
            await link.send(parcels(1)[0])
        with pytest.raises(LinkLost):
            await link.open()
        await link.publish(parcels(1)[0])
        await link.close()
        await link.close()

    async def test_a_link_may_be_opened_again(self, link: Link, log: KafkaLog) -> None:
        for parcel in parcels(3):
            await (await link.send(parcel))
            await link.close()
            with pytest.raises(LinkLost):
                await link.send(parcel)
            await link.open()
        assert [number(r) for r in await read(log, FRAMES)] == [0, 1, 2]


class TestKafkaLink(LinkContract):
    @pytest.fixture
    async def link(self, settings: KafkaSettings) -> AsyncIterator[Link]:
        link = KafkaLink(settings, "agent-test", {})
        await link.open()
        yield link
        await link.close()

    def to_nowhere(self) -> Link:
        return KafkaLink(KafkaSettings(bootstrap="127.0.0.1:9"), "agent-test", {})

    async def lower(self, settings: KafkaSettings, max_bytes: int) -> None:
        admin = clients.admin(settings)
        await admin.start()
        limit = {"max.message.bytes": str(max_bytes)}
        topic = ConfigResource(ConfigResourceType.TOPIC, settings.topic(FRAMES), configs=limit)
        await admin.alter_configs([topic])
        while str(max_bytes) not in str(await admin.describe_configs([topic])):
            await asyncio.sleep(0.05)
        await admin.close()

    async def test_a_record_over_the_size_limit_of_the_kafka_client_is_refused(
        self, link: Link, log: KafkaLog
    ) -> None:
        first, second = parcels(2)
        answers = await self.answers(link, [first, OutboundRecord(FRAMES, "gate", bytes(20_000_000), {}, 5), second])
        assert [type(answer) for answer in answers] == [type(None), RecordRefused, type(None)]

    async def test_records_of_a_pinned_camera_go_to_its_partition(
        self, settings: KafkaSettings, log: KafkaLog
    ) -> None:
        pinned = (partition_for("gate", PARTITIONS) + 1) % PARTITIONS
        link = KafkaLink(settings, "agent-test", {"gate": pinned})
        await link.open()
        await asyncio.gather(*[await link.send(p) for p in (*parcels(1), *parcels(1, READINGS))])
        await link.close()
        assert [r.partition for r in await read(log, FRAMES)] == [pinned]
        assert [r.partition for r in await read(log, READINGS)] == [partition_for("gate", PARTITIONS)]

    async def test_partition_pins_are_read_before_the_first_frame_is_sent(
        self, settings: KafkaSettings, log: KafkaLog
    ) -> None:
        pinned, pins = (partition_for("gate", PARTITIONS) + 1) % PARTITIONS, dict[str, int]()

        async def refresh() -> None:
            pins["gate"] = pinned

        link = KafkaLink(settings, "agent-test", pins, refresh)
        await link.open()
        await (await link.send(parcels(1)[0]))
        await link.close()
        assert [r.partition for r in await read(log, FRAMES)] == [pinned]

    async def test_a_link_does_not_open_if_partition_pins_cannot_be_read(self, settings: KafkaSettings) -> None:
        async def refresh() -> None:
            raise LogUnavailable("the config topic cannot be read")

        with pytest.raises(LinkLost, match="config topic"):
            await KafkaLink(settings, "agent-test", {}, refresh).open()

    async def test_a_heartbeat_measures_the_difference_between_agent_clock_and_broker_clock(self, link: Link) -> None:
        assert link.clock.estimate is None
        await link.publish(OutboundRecord(STATUS, "agent", b"beat"))
        await (await link.send(OutboundRecord(STATUS, "agent", b"ended", {}, 1)))
        found = link.clock.estimate
        assert found is not None
        assert abs(found.offset_ms) <= found.error_ms + 5  # agent and broker run on the same machine


class TestHttpsLink(LinkContract):
    @pytest.fixture
    async def gateway(self, settings: KafkaSettings, tmp_path: Path) -> AsyncIterator[TestGateway]:
        authority = Authority(tmp_path)
        signed = authority.sign("gateway")
        (tmp_path / "token").write_text("a token")
        self._config = {"kind": "https", "ca_file": authority.file, "token_file": tmp_path / "token"}
        async with TestGateway(settings, signed.certificate, signed.key, "a token") as gateway:
            self._gateway = gateway
            yield gateway

    @pytest.fixture
    async def link(self, gateway: TestGateway) -> AsyncIterator[Link]:
        link = HttpsLink(LinkConfig(url=gateway.url, **self._config), "agent-test")
        await link.open()
        yield link
        await link.close()

    def to_nowhere(self) -> Link:
        return HttpsLink(LinkConfig(kind="https", url="https://127.0.0.1:9"), "agent-test")

    async def lower(self, settings: KafkaSettings, max_bytes: int) -> None:
        self._gateway._max_bytes = max_bytes

    async def test_the_gateway_recognises_a_batch_repeated_after_a_lost_response(
        self, link: Link, gateway: TestGateway, log: KafkaLog
    ) -> None:
        gateway.answers_lost = 1
        left = parcels(1)
        assert [type(each) for each in await self.answers(link, left)] == [LinkLost]
        await link.close()
        await link.open()
        await (await link.send(left[0]))
        assert gateway.repeats == 1
        assert [number(r) for r in await read(log, FRAMES)] == [0]

    async def test_a_busy_gateway_asks_the_link_to_retry_later(self, link: Link, gateway: TestGateway) -> None:
        gateway.busy = True
        (answer,) = await self.answers(link, parcels(1))
        assert isinstance(answer, LinkLost)
        assert answer.retry_after_s == 1.0

    @pytest.mark.parametrize("what", ["token", "authority"])
    async def test_a_link_with_a_wrong_token_or_certificate_authority_does_not_open(
        self, gateway: TestGateway, tmp_path: Path, what: str
    ) -> None:
        config = dict(self._config)
        if what == "token":
            (tmp_path / "wrong").write_text("another token")
            config["token_file"] = tmp_path / "wrong"
        else:
            config["ca_file"] = Authority(tmp_path, "another authority").file
        link = HttpsLink(LinkConfig(url=gateway.url, **config), "agent-test")
        with pytest.raises(LinkLost, match="401" if what == "token" else "certificate verify failed"):
            await link.open()
        await link.close()
