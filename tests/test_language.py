"""Tests of the project's prose: the rules that a script can check."""

from __future__ import annotations

from tests.language import CODE, DOCS, prose, rate
from tests.paths import ROOT


def test_the_word_what_occurs_at_most_once_in_a_thousand_words() -> None:
    count, words = rate(prose(ROOT / name for name in (*CODE, *DOCS)))
    assert words > 0
    assert 1000 * count / words <= 1.0, "see `python -m tests.language rate`; name the noun instead"
