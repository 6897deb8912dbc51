"""The only package that imports Faust.

Faust 0.15 loses records in rebalances, commits past unprocessed records, and hides settings. The modules of this
package replace the affected parts of Faust; ``docs/decisions/0004-faust-behind-a-runner.md`` lists these parts.
"""

from stream.runner.faust.member import FaustMember

__all__ = ["FaustMember"]
