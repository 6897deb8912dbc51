"""Relay of a bad wire: carries IP packets between two network namespaces, and loses, delays, reorders or slows them.

The relay creates both namespaces with a TUN device in each, and prints one line of JSON with the file descriptors for
``nsenter``. The relay carries packets until its standard input ends. Both namespaces then disappear with their
contents. Each line of standard input is JSON with the new impairments. The relay answers each such line with a line
of its packet counts. The relay uses only the standard library, so that it starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
"""Flags of unshare(2), from linux/sched.h."""
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
"""Constants of linux/if_tun.h: raw IP packets without a header in front."""
MTU_BYTES = 1500
QUEUE_S = 0.5
"""Length of the queue of a slow link, in seconds. Packets beyond this length are dropped, as by a router."""
FAR, NEAR = "10.9.9.1", "10.9.9.2"


def new_network() -> int:
    """Move this process into a new network namespace. Return a file descriptor that keeps the namespace alive."""
    _unshare(CLONE_NEWNET)
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def become_root() -> None:
    """Enter a new user namespace, for users without the right to create network namespaces."""
    user, group = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")


def tun(own: str, peer: str) -> int:
    """Create a TUN device in the current namespace, with the addresses of both ends. Return its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
    for command in (
        "link set lo up",
        f"address add {own} peer {peer} dev wire",
        f"link set wire mtu {MTU_BYTES} up",
    ):
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)
    # cameras use cubic, which behaves as reno at such rates; the host's algorithm may ignore losses
    Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("reno")
    return device


class Wire:
    """Impairments of packets. Times are monotonic clock times in s."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._free_s: dict[int, float] = {}
        self._last_s: dict[int, float] = {}
        self._count = 0
        self.counts = {"carried": 0, "carried_bytes": 0, "lost": 0, "overflown": 0, "overtaken": 0}
        self.set()

    def set(self, loss: float = 0.0, jitter_s: float = 0.0, bytes_per_s: float = 0.0, in_order: bool = False) -> None:
        """Set the share of lost packets, the maximum delay, and the rate in each direction (0: unlimited)."""
        self._loss, self._jitter_s, self._bytes_per_s, self._in_order = loss, jitter_s, bytes_per_s, in_order

    def take(self, to: int, packet: bytes, now_s: float) -> None:
        """Queue a packet for a device, or drop it."""
        if self._chance.random() < self._loss:
            self.counts["lost"] += 1
            return
        free_s = max(now_s, self._free_s.get(to, now_s))
        if self._bytes_per_s:
            if free_s - now_s > QUEUE_S:
                self.counts["overflown"] += 1
                return
            free_s += len(packet) / self._bytes_per_s
        self._free_s[to] = free_s
        due_s, last_s = free_s + self._chance.uniform(0.0, self._jitter_s), self._last_s.get(to, 0.0)
        due_s = max(due_s, last_s) if self._in_order else due_s
        self.counts["overtaken"] += due_s < last_s
        self._last_s[to] = max(due_s, last_s)
        self._count += 1
        heapq.heappush(self._queue, (due_s, self._count, to, packet))

    def deliver(self, now_s: float) -> float | None:
        """Write the packets that are due. Return the time until the next packet is due, or None without a packet."""
        while self._queue and self._queue[0][0] <= now_s:
            _, _, to, packet = heapq.heappop(self._queue)
            os.write(to, packet)
            self.counts["carried"] += 1
            self.counts["carried_bytes"] += len(packet)
        return self._queue[0][0] - now_s if self._queue else None


def carry(wire: Wire, devices: dict[int, int], orders: int) -> None:
    """Carry packets until ``orders`` ends. ``devices`` maps each device to its opposite."""
    ready, text = selectors.DefaultSelector(), b""
    for source in (*devices, orders):
        ready.register(source, selectors.EVENT_READ)
    while True:
        wait_s = wire.deliver(time.monotonic())
        for key, _ in ready.select(wait_s):
            if key.fd in devices:
                wire.take(devices[key.fd], os.read(key.fd, 65536), time.monotonic())
                continue
            got = os.read(orders, 65536)
            if not got:
                return
            *lines, text = (text + got).split(b"\n")
            for line in lines:
                wire.set(**json.loads(line))
                print(json.dumps(wire.counts), flush=True)


def main() -> None:
    """Create both namespaces, print their descriptors, and carry packets."""
    if os.geteuid():
        become_root()
    far = new_network(), tun(FAR, NEAR)
    near = new_network(), tun(NEAR, FAR)
    user = os.open("/proc/self/ns/user", os.O_RDONLY)
    print(json.dumps({"far": far[0], "near": near[0], "user": user}), flush=True)
    carry(Wire(int(sys.argv[1])), {far[1]: near[1], near[1]: far[1]}, 0)


if __name__ == "__main__":
    main()
