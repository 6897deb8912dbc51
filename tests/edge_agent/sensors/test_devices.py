"""Tests of readings from real commands, serial lines and Modbus devices that are killed, unplugged or silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
import threading
import tty
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from pymodbus.framer import FramerRTU

from edge_agent.exceptions import SensorSilent, SourceUnusable
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.source import Reading
from edge_agent.sensors.sources.command import CommandSource, _read
from edge_agent.sensors.sources.host import HostSource
from edge_agent.sensors.sources.lines import LineReader
from ingest.runtime.clock import SystemClock
from tests.edge_agent.sensors.feedbench import fed
from tests.edge_agent.sensors.listener import Listener, ended, running, sensor
from tests.peers import modbus
from tests.peers.mosquitto import free_port
from tests.peers.network.wires import Line, wired

SPEAKS = """
import os, subprocess, sys, time
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("pid", os.getpid(), flush=True)
print("helper", helper.pid, flush=True)
while True:
    print("temp 21.5", flush=True)
    print("\\x00\\xff garbage \\xfe", flush=True)
    time.sleep(0.01)
"""


def command(name: str, script: str, **options: Any) -> Any:
    return sensor(name, "command:it", options={"argv": [sys.executable, "-c", script]} | options, max_delay_s=0.02)


async def until_gone(pid: float) -> None:
    """Wait until a killed process has exited, which a busy machine delays."""
    async with asyncio.timeout(60):
        while not gone(pid):
            await asyncio.sleep(0.01)


def gone(pid: float) -> bool:
    try:
        return psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_a_killed_sensor_command_is_restarted_and_its_child_processes_die_with_it(tmp_path: Path) -> None:
    sensors = command("temp", SPEAKS), command("pid", SPEAKS), command("helper", SPEAKS)
    async with fed(tmp_path, *sensors) as bench:
        await bench.until_kept("temp", len)
        (pid,) = await bench.until_kept("pid", len)
        os.kill(int(pid), signal.SIGKILL)
        assert "status -9" in await bench.state("temp", "down")
        await bench.more("temp")
        await bench.stop()
        pids = {*bench.values("pid"), *bench.values("helper")}
        assert len(pids) == 4
        for each in pids:
            await until_gone(each)
        assert set(bench.values("temp")) == {21.5}
        assert bench.withheld("temp") == {"outage": 1}
        assert bench.figure("sightline_agent_unclaimed_readings_total", source="command:it")


async def test_a_command_that_ignores_signals_is_killed_and_a_failed_command_reports_its_error() -> None:
    deaf = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf += "print('temp 1', flush=True)\ntime.sleep(600)"
    ((source, _),) = make_sources([command("temp", deaf)], SystemClock())
    async with running(source, sink := Listener()):
        await sink.has("temp")
    for ends, values in (("sys.exit('the bus is off')", [2.0]), ("sys.stderr.write('done\\n')", [2.0, 3.0])):
        script = f"import sys\nprint('temp 2')\nprint('temp 3', end='')\n{ends}"
        ((source, _),) = make_sources([command("temp", script)], SystemClock())
        async with running(source, sink := Listener()) as task:
            error = await ended(task)
        assert isinstance(error, SourceUnusable)
        assert str(error).endswith(("the bus is off", "done"))
        assert sink.values("temp") == values, "a last line without a line end counts only if the exit status is 0"


async def test_a_sensor_command_that_floods_its_output_leaves_time_for_other_tasks() -> None:
    """Other tasks run after every few KB of output, however much output waits."""
    config = command("a", "")
    output, turns = asyncio.StreamReader(), 0
    output.feed_data(b"1\n" * 50_000)
    output.feed_eof()
    process = cast("asyncio.subprocess.Process", SimpleNamespace(stdout=output))
    sink = Listener()
    reading = asyncio.create_task(_read(process, LineReader([config]), sink))
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert (len(sink.readings["a"]), turns >= 24) == (50_000, True)


async def test_a_sensor_command_that_closes_its_output_but_keeps_running_is_stopped() -> None:
    script = "import os, time\nprint('temp 1', flush=True)\nos.close(1)\ntime.sleep(600)"
    source = CommandSource([command("temp", script)], stop_s=0.2)
    async with running(source, sink := Listener()) as task:
        assert isinstance(await ended(task), SourceUnusable)
    assert sink.values("temp") == [1.0]


async def test_a_child_process_in_another_process_group_does_not_delay_the_end_of_a_sensor_command() -> None:
    script = "import subprocess, sys\nsleeps = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
    script += "print('temp', subprocess.Popen(sleeps, start_new_session=True).pid, flush=True)"
    source = CommandSource([command("temp", script)], stop_s=0.5)
    async with running(source, sink := Listener()) as task:
        assert isinstance(await ended(task), SourceUnusable)
    (helper,) = sink.values("temp")
    assert helper
    os.kill(int(helper), signal.SIGKILL)


async def test_each_column_of_the_csv_output_of_a_command_gives_the_readings_of_one_sensor() -> None:
    script = "print('time,a,b')\nprint('2020-01-01,1,2')\nprint('2020-01-01,3')"
    sensors = [command(name, script, format="csv", field=field) for name, field in (("one", "a"), ("two", "b"))]
    ((source, _),) = make_sources(sensors, SystemClock())
    async with running(source, sink := Listener()) as task:
        await ended(task)
    assert (sink.values("one"), sink.values("two"), sink.unwanted) == ([1.0, None], [2.0, None], [])


async def test_an_unplugged_serial_line_is_one_outage_until_it_is_plugged_in_again(tmp_path: Path) -> None:
    line, port = Line(), tmp_path / "port"
    port.symlink_to(line.path)
    async with fed(tmp_path, sensor("temp", f"serial:{port}", max_delay_s=0.02)) as bench:
        await bench.state("temp", "running")
        line.say(b"mp 19\n\xff\xfe\x00\ntemp 20\r\ntemp 2")
        line.say(b"1\n22\n")
        await bench.until(lambda: bench.sensors["temp"].captured == 4)
        line.hang_up()
        port.unlink()
        assert str(port) in await bench.state("temp", "down")
        line = Line()
        port.symlink_to(line.path)
        await bench.state("temp", "running")
        line.say(b"temp 23\n")
        await bench.until(lambda: bench.sensors["temp"].captured == 6)
        await bench.stop()
        assert bench.values("temp") == [20.0, 21.0, 22.0, 23.0]
        assert bench.withheld("temp") == {"unusable": 1, "outage": 1}
    line.hang_up()


async def test_two_sensors_of_a_serial_port_must_have_the_same_port_settings() -> None:
    sensors = [sensor("a", "serial:/dev/ttyX"), sensor("b", "serial:/dev/ttyX", options={"baud": 4800})]
    with pytest.raises(SourceUnusable, match="sensors a and b share the device serial:/dev/ttyX"):
        make_sources(sensors, SystemClock())


REGISTERS = {
    "tenths": ({"address": 0, "scale": 0.1, "offset": 1.0}, 22.5),
    "signed": ({"address": 1, "type": "int16"}, -5.0),
    "unsigned": ({"address": 1, "type": "uint16", "table": "input"}, 65531.0),
    "long": ({"address": 2, "type": "uint32"}, 70000.0),
    "swapped": ({"address": 2, "type": "int32", "word_order": "little"}, float((70000 & 0xFFFF) << 16 | 70000 >> 16)),
    "real": ({"address": 4, "type": "float32"}, 21.5),
}


@pytest.mark.parametrize("kind", ["tcp", "rtu"])
async def test_every_modbus_register_type_is_read_from_a_real_device(kind: str) -> None:
    with wired() as (ours, theirs):
        port = free_port()
        where, source = (theirs, f"modbus:{ours}") if kind == "rtu" else (str(port), f"modbus:127.0.0.1:{port}")
        async with modbus.serving(kind, where):
            sensors = [
                sensor(name, source, options={"baud": 115200} | options, rate_hz=20.0)
                for name, (options, _) in REGISTERS.items()
            ]
            ((reader, _),) = make_sources(sensors, SystemClock())
            async with running(reader, sink := Listener()):
                for name in REGISTERS:
                    await sink.has(name)
    assert {name: sink.values(name)[0] for name in REGISTERS} == pytest.approx(
        {name: value for name, (_, value) in REGISTERS.items()}
    )


async def test_a_killed_modbus_device_is_one_outage_until_it_is_restarted(tmp_path: Path) -> None:
    port = free_port()
    async with modbus.serving("tcp", str(port)) as device:
        config = sensor("a", f"modbus:127.0.0.1:{port}", options={"address": 0, "timeout_s": 20.0}, max_delay_s=0.02)
        async with fed(tmp_path, config) as bench:
            await bench.more("a")
            device.kill()
            assert "127.0.0.1" in await bench.state("a", "down")
            await device.start()
            await bench.more("a")
            await bench.stop()
            assert set(bench.values("a")) == {215.0}
            assert bench.withheld("a") == {"outage": 1}


async def test_a_missing_modbus_device_or_register_silences_no_other_sensor(tmp_path: Path) -> None:
    port = free_port()
    async with modbus.serving("tcp", str(port)):
        options = {"well": {"address": 0}, "unit": {"address": 0, "unit_id": 2}, "far": {"address": 4000}}
        sensors = [
            sensor(name, f"modbus:127.0.0.1:{port}", options={"timeout_s": 0.2} | more, max_delay_s=0.02)
            for name, more in options.items()
        ]
        async with fed(tmp_path, *sensors) as bench:
            assert "Modbus unit 2 at 127.0.0.1" in await bench.state("unit", "stalled")
            # a busy device may first miss its timeout
            await bench.reason("far", "refuses the holding register 4000: illegal address")
            await bench.more("well", 20)
            assert bench.sensors["unit"].state == bench.sensors["far"].state == "stalled"
            assert bench.sensors["unit"].captured == 1
            await bench.stop()


@pytest.mark.parametrize(
    ("figure", "options", "least", "most"),
    [("cpu", {}, 0, 100), ("memory", {}, 0, 100), ("load", {}, 0, 1e4), ("disk", {"path": "/"}, 1, 1e18)],
)
async def test_each_system_metric_that_a_host_sensor_reads_is_within_its_valid_range(
    figure: str, options: dict[str, str], least: float, most: float
) -> None:
    config = sensor("host", f"host:{figure}", options=options)
    read = await HostSource(config, SystemClock())._ask(config, 0)
    assert read.value is not None
    assert least <= read.value <= most


async def test_a_host_sensor_is_silent_if_the_machine_does_not_provide_its_system_metric(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    core = [SimpleNamespace(label=f"Core {n}", current=current) for n, current in enumerate((51.0, 49.0))]
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: {"coretemp": core}, raising=False)
    hottest, one, none, disk = (
        sensor("t", "host:temperature"),
        sensor("t", "host:temperature", options={"label": "Core 1"}),
        sensor("t", "host:temperature", options={"label": "battery"}),
        sensor("t", "host:disk", options={"path": str(tmp_path / "none")}),
    )
    assert await HostSource(hottest, SystemClock())._ask(hottest, 0) == Reading(51.0)
    assert await HostSource(one, SystemClock())._ask(one, 0) == Reading(49.0)
    for config in (none, disk):
        with pytest.raises(SensorSilent, match=r"battery|none"):
            await HostSource(config, SystemClock())._ask(config, 0)


async def test_two_sensors_of_the_cpu_load_do_not_affect_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"user": 10.0, "idle": 90.0, "iowait": 0.0, "guest": 0.0}
    monkeypatch.setattr(psutil, "cpu_times", lambda: namedtuple("Times", now)(**now))
    configs = [sensor(name, "host:cpu") for name in ("a", "b")]
    sources = [HostSource(config, SystemClock()) for config in configs]
    for user, idle, share in ((30.0, 90.0, 100.0), (40.0, 120.0, 25.0), (40.0, 120.0, 25.0)):
        now |= {"user": user, "idle": idle}
        read = [await each._ask(config, 0) for each, config in zip(sources, configs, strict=True)]
        assert read == [Reading(share), Reading(share)]


async def test_the_sensor_of_a_hanging_disk_is_silent_and_starts_only_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back, asked, before = threading.Event(), [], set(threading.enumerate())

    def usage(path: str) -> SimpleNamespace:
        asked.append(path)
        back.wait(60)
        return SimpleNamespace(free=7)

    monkeypatch.setattr(psutil, "disk_usage", usage)
    config = sensor("disk", "host:disk")
    source = HostSource(config, SystemClock(), answer_s=0.02)
    for _ in range(3):
        with pytest.raises(SensorSilent, match="the operating system gave no value"):
            await source._ask(config, 0)
    async with asyncio.timeout(60):
        while not asked:  # a busy machine starts the thread late
            await asyncio.sleep(0.01)
    threads = [each for each in threading.enumerate() if each.name == "host" and each not in before]
    assert (asked, [each.daemon for each in threads]) == (["/"], [True])
    back.set()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(SensorSilent):
                assert await source._ask(config, 0) == Reading(7.0)
                break


async def test_a_late_modbus_answer_on_a_serial_line_is_not_used_for_another_register() -> None:
    """The first answer comes after its timeout: before the second request or together with it."""
    line, loop, timeout_s, late = Line(), asyncio.get_running_loop(), 1.0, list[asyncio.TimerHandle]()
    tty.setraw(line.master)

    def answer() -> None:
        unit, function, register = struct.unpack(">BBH", os.read(line.master, 256)[:4])
        body = struct.pack(">BBBH", unit, function, 2, 100 + register)
        frame = body + struct.pack(">H", FramerRTU.compute_CRC(body))
        if not late:
            late.append(loop.call_later(1.2 * timeout_s, line.say, frame))
            first.append(frame)
            return
        if late[0].when() > loop.time():
            late[0].cancel()
            line.say(first[0])
        line.say(frame)

    first = list[bytes]()
    loop.add_reader(line.master, answer)
    options = {"timeout_s": timeout_s, "baud": 115200}
    sensors = [
        sensor(f"r{register}", f"modbus:{line.path}", options={"address": register, **options}) for register in (0, 1)
    ]
    ((source, _),) = make_sources(sensors, SystemClock())
    async with running(source, sink := Listener()):
        for name in ("r0", "r1"):
            await sink.has(name)
    loop.remove_reader(line.master)
    line.hang_up()
    assert list(sink.silent) == ["r0"]
    assert (set(sink.values("r0")), set(sink.values("r1"))) == ({100.0}, {101.0})


@pytest.mark.parametrize("registers", [0, 1, 4])
async def test_a_wrong_number_of_modbus_registers_is_reported_and_does_not_end_the_source(registers: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while asked := await reader.readexactly(12):
                body = bytes([asked[7], 2 * registers]) + bytes(2 * registers)
                writer.write(asked[:4] + struct.pack(">HB", len(body) + 1, asked[6]) + body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = sensor("a", f"modbus:127.0.0.1:{port}", options={"address": 0, "type": "float32"})
    ((source, _),) = make_sources([config], SystemClock())
    async with server, running(source, sink := Listener()) as task:
        await sink.until(lambda: f"{registers} registers" in sink.silent.get("a", ""))
        assert not task.done()
