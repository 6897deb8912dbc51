"""A bad wire: carries IP packets between two network namespaces, and loses, delays, reorders or slows them.

It makes both namespaces and a TUN device in each, prints one line of JSON with what ``nsenter`` needs to get into
them, and carries packets until its standard input ends; with it go the namespaces and all that was in them. Each line
of standard input is JSON: what the wire is like from then on. Each is answered by a line of what it has done so far.
It runs on the standard library alone, so that it starts in milliseconds.
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
"""linux/sched.h"""
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
"""linux/if_tun.h: packets as they are, cut and summed by the kernel, with nothing before them."""
MTU_BYTES = 1500
QUEUE_S = 0.5
"""What a router holds of a link that is too thin for what comes; the rest falls off its end."""
FAR, NEAR = "10.9.9.1", "10.9.9.2"


def new_network() -> int:
    """Move this process into a new network namespace, and return what holds it open."""
    _unshare(CLONE_NEWNET)
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def become_root() -> None:
    """Get a user namespace of one's own, for one who may not make networks otherwise."""
    user, group = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")


def tun(own: str, peer: str) -> int:
    """Make the device in the namespace that this process is in now, with its address and the way to the other."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
    for command in (
        "link set lo up",
        f"address add {own} peer {peer} dev wire",
        f"link set wire mtu {MTU_BYTES} up",
    ):
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)
    # a camera has cubic, which does as reno at such rates; the host's may be one that does not mind losses
    Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("reno")
    return device


class Wire:
    """What becomes of packets. Times are monotonic, in s."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._line: list[tuple[float, int, int, bytes]] = []
        self._free_s: dict[int, float] = {}
        self._last_s: dict[int, float] = {}
        self._count = 0
        self.told = {"carried": 0, "carried_bytes": 0, "lost": 0, "overflown": 0, "overtaken": 0}
        self.set()

    def set(self, loss: float = 0.0, jitter_s: float = 0.0, bytes_per_s: float = 0.0, in_order: bool = False) -> None:
        """Lose a share, delay each by 0 to ``jitter_s``, and let ``bytes_per_s`` through each way (0: all)."""
        self._loss, self._jitter_s, self._bytes_per_s, self._in_order = loss, jitter_s, bytes_per_s, in_order

    def take(self, to: int, packet: bytes, now_s: float) -> None:
        """Take a packet for a device, or lose it."""
        if self._chance.random() < self._loss:
            self.told["lost"] += 1
            return
        free_s = max(now_s, self._free_s.get(to, now_s))
        if self._bytes_per_s:
            if free_s - now_s > QUEUE_S:
                self.told["overflown"] += 1
                return
            free_s += len(packet) / self._bytes_per_s
        self._free_s[to] = free_s
        due_s, last_s = free_s + self._chance.uniform(0.0, self._jitter_s), self._last_s.get(to, 0.0)
        due_s = max(due_s, last_s) if self._in_order else due_s
        self.told["overtaken"] += due_s < last_s
        self._last_s[to] = max(due_s, last_s)
        self._count += 1
        heapq.heappush(self._line, (due_s, self._count, to, packet))

    def deliver(self, now_s: float) -> float | None:
        """Hand on what is due. Return how long until the next one is, None if none waits."""
        while self._line and self._line[0][0] <= now_s:
            _, _, to, packet = heapq.heappop(self._line)
            os.write(to, packet)
            self.told["carried"] += 1
            self.told["carried_bytes"] += len(packet)
        return self._line[0][0] - now_s if self._line else None


def carry(wire: Wire, devices: dict[int, int], orders: int) -> None:
    """Carry packets until the orders end. ``devices`` are both, each with the other one."""
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
                print(json.dumps(wire.told), flush=True)


def main() -> None:
    """Make both ends, say where they are, and carry."""
    if os.geteuid():
        become_root()
    far = new_network(), tun(FAR, NEAR)
    near = new_network(), tun(NEAR, FAR)
    user = os.open("/proc/self/ns/user", os.O_RDONLY)
    print(json.dumps({"far": far[0], "near": near[0], "user": user}), flush=True)
    carry(Wire(int(sys.argv[1])), {far[1]: near[1], near[1]: far[1]}, 0)


if __name__ == "__main__":
    main()
