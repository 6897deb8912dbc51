"""The only package that imports Faust.

Faust 0.15 loses records in rebalances, commits past unprocessed records, and hides settings. The modules of this
package replace the affected parts of Faust; ``docs/decisions/0004-faust-behind-a-runner.md`` lists these parts.
"""

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def _without_unused_packages() -> Iterator[None]:
    """Keep Faust from importing aiohttp, of which Faust needs one class as a type, and PyYAML, which is optional.

    The two packages are a fifth of the time and of the memory that the import of Faust takes.
    """
    client = ModuleType("aiohttp.client")
    client.ClientSession = object  # type: ignore[attr-defined]
    stubs = {"aiohttp": ModuleType("aiohttp"), "aiohttp.client": client, "yaml": None}
    added = {name: stub for name, stub in stubs.items() if name.partition(".")[0] not in sys.modules}
    sys.modules.update(added)  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


with _without_unused_packages():
    from stream.runner.faust.member import FaustMember

__all__ = ["FaustMember"]
