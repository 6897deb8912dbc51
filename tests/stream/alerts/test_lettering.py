"""Tests of text on evidence pictures: letters outside ASCII, clipping, and characters that no font has."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from ingest.exceptions import ConfigError
from stream.alerts import lettering
from stream.alerts.lettering import FONT_VARIABLE, font_for, put_text, require_font, text_size
from stream.alerts.pictures import annotated, decoded
from tests.stream.alerts.test_alerts import event, jpeg

WHITE = (255, 255, 255)


def drawn(text: str) -> np.ndarray:
    canvas = np.zeros((24, 200, 3), np.uint8)
    put_text(canvas, (2, 2), text, 14, WHITE)
    return canvas


@pytest.mark.parametrize("label", ["Fußgänger", "пешеход", "πεζός", "piéton", "مشاة"])
def test_labels_outside_ascii_are_drawn_with_their_own_letters(label: str) -> None:
    with capture_logs() as logged:
        assert drawn(label).any()
    assert not logged
    assert len({drawn(letter).tobytes() for letter in set(label)}) == len(set(label))
    assert not np.array_equal(drawn(label), drawn("?" * len(label)))
    assert not np.array_equal(drawn(label), drawn("\uffff" * len(label)))


def test_an_evidence_picture_shows_the_letters_of_its_label() -> None:
    def picture(label: str) -> np.ndarray:
        data = event().data.model_copy(update={"label": label, "summary": f"{label} in yard"})
        one = event().model_copy(update={"data": data})
        return cv2.imdecode(np.frombuffer(annotated(decoded(jpeg(), one), one), np.uint8), cv2.IMREAD_COLOR)

    german, marks = picture("Fußgänger"), picture("Fu??g??nger")
    assert german.shape == marks.shape
    assert np.abs(german[90:].astype(int) - marks[90:]).max() > 100


def test_text_drawn_into_a_picture_is_clipped_to_the_picture() -> None:
    canvas = np.zeros((20, 30, 3), np.uint8)
    for at in ((-10, 2), (20, 15), (-500, 0), (0, 300), (5, -8)):
        put_text(canvas, at, "a long line of text", 14, WHITE)
    whole = drawn("a long line of text")
    part = np.zeros((24, 40, 3), np.uint8)
    put_text(part, (2, 2), "a long line of text", 14, WHITE)
    np.testing.assert_array_equal(part, whole[:, :40])
    assert text_size("", 14)[0] == 0


def test_a_character_without_a_font_is_logged_once_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_SYSTEM", ())
    monkeypatch.delenv(FONT_VARIABLE, raising=False)
    lettering._font_files.cache_clear()
    font_for.cache_clear()
    try:
        with capture_logs() as logged:
            assert drawn("猫").any()
            drawn("猫")
        assert [(one["event"], one["code"]) for one in logged] == [("font_lacks_character", "U+732B")]
        assert FONT_VARIABLE in logged[0]["fix"]
    finally:
        lettering._font_files.cache_clear()
        font_for.cache_clear()


def test_a_font_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FONT_VARIABLE, str(tmp_path / "none.ttf"))
    with pytest.raises(ConfigError, match=r"SIGHTLINE_FONT.*expected a TrueType or OpenType font file"):
        require_font()
