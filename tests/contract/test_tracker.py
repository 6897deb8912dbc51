"""Contract of every tracker."""

from __future__ import annotations

import random

import pytest

from ingest.contract.records import Box, Detection
from stream.analyse.tracking.tracker import CONFIRM_FRAMES, LOST_S, ByteTracker, HeldTrack, Track, Tracker

STEP_S = 0.2
"""Frame interval in seconds: cameras send at most five frames a second."""


def detection(x: float, y: float = 100.0, *, label: str = "car", score: float = 0.9) -> Detection:
    return Detection(box=Box(x, y, x + 60, y + 30), label=label, class_id=1, score=score)


def drive(tracker: Tracker, *frames: list[Detection], start: int = 0) -> list[list[Track]]:
    return [
        [Track(t.name, t.box, t.score, t.labels.copy(), t.frames) for t in tracker.step(found, n * STEP_S, f"f{n}")]
        for n, found in enumerate(frames, start)
    ]


class TrackerContract:
    """Tests that every tracker passes. Each tracker has a subclass."""

    @pytest.fixture
    def tracker(self) -> Tracker:
        pytest.fail("each tracker has a fixture of its own")

    def test_an_object_gets_one_track_named_after_the_frame_that_confirmed_the_track(self, tracker: Tracker) -> None:
        seen = drive(tracker, *([detection(20 * n)] for n in range(10)))
        assert [len(tracks) for tracks in seen] == [0] * (CONFIRM_FRAMES - 1) + [1] * (11 - CONFIRM_FRAMES)
        assert {track.name for tracks in seen for track in tracks} == {f"f{CONFIRM_FRAMES - 1}-0"}
        assert seen[-1][0].box == detection(180).box

    def test_the_same_detections_give_the_same_tracks(self, tracker: Tracker) -> None:
        rng = random.Random(5)
        frames = [
            [detection(15 * n + rng.uniform(-3, 3)), detection(400 - 12 * n, 200 + rng.uniform(-3, 3))]
            for n in range(15)
        ]
        assert drive(tracker, *frames) == drive(type(tracker)(), *frames)

    def test_two_objects_that_pass_each_other_keep_their_tracks(self, tracker: Tracker) -> None:
        seen = drive(tracker, *([detection(20 * n, 100), detection(400 - 20 * n, 180)] for n in range(20)))
        names = {track.name for tracks in seen for track in tracks}
        assert len(names) == 2
        for name in names:
            way = [track.box.left for tracks in seen for track in tracks if track.name == name]
            assert way in (sorted(way), sorted(way, reverse=True))

    def test_a_track_survives_a_short_gap_and_ends_in_a_long_gap(self, tracker: Tracker) -> None:
        before = drive(tracker, *([detection(5 * n)] for n in range(8)))
        (short,) = drive(tracker, [], [], [detection(50)], start=8)[-1]
        assert short.name == before[-1][0].name
        after = drive(tracker, [detection(51)], [detection(52)], start=10 + round(4 * LOST_S / STEP_S))
        assert {track.name for tracks in after for track in tracks} != {short.name}

    def test_a_single_detection_makes_no_track(self, tracker: Tracker) -> None:
        assert drive(tracker, [], [detection(10)], [], [], [detection(300)], []) == [[]] * 6

    def test_the_label_of_a_track_is_its_most_frequent_label(self, tracker: Tracker) -> None:
        labels = ["car", "truck", "car", "car", "bus", "car"]
        seen = drive(tracker, *([detection(10 * n, label=label)] for n, label in enumerate(labels)))
        assert seen[-1][0].label == "car"

    def test_a_false_detection_beside_a_missed_object_does_not_take_over_its_track(self, tracker: Tracker) -> None:
        way = [[detection(10 * n, label="person")] for n in range(8)]
        way[5] = [detection(85, 115, label="car")]
        seen = drive(tracker, *way)
        assert [track.name for track in seen[5]] == []
        assert [track.name for track in seen[7]] == [track.name for track in seen[4]]

    def test_a_track_whose_label_has_changed_continues_at_the_detection_with_its_present_label(
        self, tracker: Tracker
    ) -> None:
        labels = ["car"] * CONFIRM_FRAMES + ["van"] * 6
        (track,) = drive(tracker, *([detection(100, label=label)] for label in labels))[-1]
        both = [detection(92, label="car"), detection(114, label="van")]
        (after,) = drive(tracker, both, start=len(labels))[-1]
        assert (after.name, after.label, after.box) == (track.name, "van", both[1].box)

    def test_many_tracks_have_different_names_and_are_sorted_by_name(self, tracker: Tracker) -> None:
        frames = [[detection(20 * n, 60 * lane) for lane in range(1 + n % 8)] for n in range(40)]
        for tracks in drive(tracker, *frames):
            assert len({track.name for track in tracks}) == len(tracks)
            assert [track.name for track in tracks] == sorted(track.name for track in tracks)

    @pytest.mark.parametrize("faint", [False, True])
    def test_a_track_continued_without_a_detection_keeps_its_box_and_label(
        self, tracker: Tracker, faint: bool
    ) -> None:
        seen = drive(tracker, *([detection(100)] for _ in range(5)))
        (track,) = seen[-1]
        count = round(4 * LOST_S / STEP_S)
        for n in range(5, 5 + count):
            (held,) = tracker.step([], n * STEP_S, f"f{n}", [HeldTrack(track.name, track.box, faint)])
            assert (held.name, held.box, held.held) == (track.name, track.box, True)
        (again,) = tracker.step([detection(104)], (5 + count) * STEP_S, "again")
        assert (again.name, again.held, again.frames, again.labels["car"]) == (track.name, False, 5, 5 * 90)

    def test_a_track_continued_without_a_detection_has_the_box_that_the_caller_gives(self, tracker: Tracker) -> None:
        (track,) = drive(tracker, *([detection(100)] for _ in range(5)))[-1]
        box = detection(104).box
        (held,) = tracker.step([], 5 * STEP_S, "f5", [HeldTrack(track.name, box, faint=False)])
        assert (held.name, held.box) == (track.name, box)

    def test_a_new_detection_moves_a_track_that_the_caller_asks_to_continue_without_a_detection(
        self, tracker: Tracker
    ) -> None:
        (track,) = drive(tracker, *([detection(100)] for _ in range(5)))[-1]
        for n in range(5, 15):
            hold = HeldTrack(track.name, track.box, faint=True)
            (moved,) = tracker.step([detection(100 + 15 * (n - 4))], n * STEP_S, f"f{n}", [hold])
            assert (moved.name, moved.held) == (track.name, False)

    @pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0), (1,), (2, 0)])
    def test_tracks_in_the_same_place_continue_without_detections(
        self, tracker: Tracker, order: tuple[int, ...]
    ) -> None:
        """A classifier gives several labels to one region."""
        labelled = [detection(100, label=label) for label in ("car", "taxi", "van")]
        tracks = drive(tracker, *(labelled for _ in range(5)))[-1]
        for n in range(5, 5 + round(4 * LOST_S / STEP_S)):
            hold = [HeldTrack(tracks[number].name, tracks[number].box, faint=False) for number in order]
            held = tracker.step([], n * STEP_S, f"f{n}", hold)
            kept = [tracks[number] for number in sorted(order)]
            assert [(one.name, one.label, one.held) for one in held] == [(t.name, t.label, True) for t in kept]

    def test_asking_the_tracker_to_continue_an_unknown_track_creates_no_track(self, tracker: Tracker) -> None:
        for n in range(10):
            assert tracker.step([], n * STEP_S, f"f{n}", [HeldTrack("nobody", detection(100).box, faint=False)]) == []


class TestByteTracker(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Tracker:
        return ByteTracker()

    def test_two_detections_with_a_frame_between_them_make_no_track(self, tracker: Tracker) -> None:
        assert drive(tracker, [detection(100)], [], [detection(100)]) == [[]] * 3

    @pytest.mark.parametrize("edge", range(4))
    @pytest.mark.parametrize("value", [float("nan"), float("-inf"), 1e8])
    def test_a_box_with_an_edge_beyond_any_picture_is_refused(
        self, tracker: Tracker, edge: int, value: float
    ) -> None:
        box = Box(*(value if n == edge else 10.0 * (n + 1) for n in range(4)))
        for found, held in (([detection(0).model_copy(update={"box": box})], []), ([], [HeldTrack("t", box, True)])):
            with pytest.raises(ValueError, match="expected edges of at most"):
                tracker.step(found, 0.0, "f0", held)
