"""Choice of the pictures that one browser gets. Pure.

A browser acknowledges each picture after it has drawn it. After the acknowledgement of a camera's picture, the
console sends the newest picture of this camera. A slow browser or link therefore skips pictures, and never lags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from console.live.pictures import LivePicture

MAX_IN_FLIGHT = 16
"""Maximum number of pictures that a browser has not acknowledged, of all cameras together."""
MAX_WATCHED = 200


class LiveViewer:
    """The cameras that one browser watches, and the pictures that it has got."""

    def __init__(self) -> None:
        self._watched: tuple[str, ...] = ()
        self._sent: dict[str, int] = {}
        self._in_flight: set[str] = set()
        self._turn = 0

    def watch(self, cameras: Iterable[str]) -> None:
        """Watch the given cameras and no others, at most ``MAX_WATCHED``."""
        self._watched = tuple(dict.fromkeys(cameras))[:MAX_WATCHED]

    def acknowledge(self, camera: str) -> None:
        """Note that the browser has drawn the last picture of a camera."""
        self._in_flight.discard(camera)

    def next(
        self, picture_of: Callable[[str], LivePicture | None], sees: Callable[[str], bool]
    ) -> LivePicture | None:
        """Return the next picture to send and note it as sent, or None if there is none to send now.

        Cameras take turns. ``sees`` returns whether the user may see a camera.
        """
        count = len(self._watched)
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            return None
        for step in range(count):
            camera = self._watched[(self._turn + step) % count]
            picture = picture_of(camera)
            if picture is None or camera in self._in_flight or picture.version == self._sent.get(camera):
                continue
            if not sees(camera):
                continue
            self._turn = (self._turn + step + 1) % count
            self._sent[camera] = picture.version
            self._in_flight.add(camera)
            return picture
        return None
