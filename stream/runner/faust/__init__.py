"""The only package that imports Faust.

Faust 0.15 loses records in rebalances, commits past unprocessed records, and hides settings. The modules of this
package replace the affected parts of Faust; ``docs/decisions/0004-faust-behind-a-runner.md`` lists these parts.
"""

from types import ModuleType

from ingest.runtime.imports import without

_client = ModuleType("aiohttp.client")
_client.ClientSession = object  # type: ignore[attr-defined]
# Faust needs aiohttp for one type, and PyYAML for a codec. They are half of the time and memory of Faust's import.
with without("yaml", stubs=(ModuleType("aiohttp"), _client)):
    from stream.runner.faust.member import FaustMember

__all__ = ["FaustMember"]
