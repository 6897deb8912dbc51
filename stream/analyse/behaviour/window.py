"""The input of a behaviour model: the recent boxes of one track as an array of fixed size. Pure.

The boxes of a track come at uneven times: a camera drops frames, a detector misses objects, and an agent withholds
frames without motion. The window samples a track's boxes at fixed ages, densely in the last seconds and sparsely
before. Lengths are divided by the height of the box, so that the window does not depend on the picture's size and on
the distance between camera and person.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Windows = npt.NDArray[np.float32]

_RECENT, _RECENT_S = 24, 0.2
_EARLIER, _EARLIER_S = 24, 0.8
AGES_S: Floats = np.concatenate(
    [
        _RECENT * _RECENT_S + _EARLIER_S * np.arange(_EARLIER - 1, -1, -1.0),
        _RECENT_S * np.arange(_RECENT - 1, -1, -1.0),
    ]
)
"""Ages of a window's samples in seconds, oldest first. A run shows within two seconds, so the last 4.8 s are sampled
five times a second. Loitering shows over tens of seconds, so the samples reach back 23 s."""
STEPS = len(AGES_S)
SPAN_S = float(AGES_S[0])
FEATURES = 12
"""Number of values in each sample of a window; ``windows`` describes the values."""
_STEPS_S = np.diff(AGES_S, prepend=AGES_S[0] + _EARLIER_S) * -1.0
_MAX_HEIGHTS, _MAX_HEIGHTS_S, _MAX_LOG, _MAX_GAP_S = 20.0, 8.0, 2.0, 2.0
_SOON_S = 1e-6
"""Times in seconds that differ by less than ``_SOON_S`` count as equal."""
_EDGE = 0.01
"""A box touches the edge of the picture if it is at most this share of the picture's size away from the edge."""


def windows(tracks: Sequence[Floats], width: Floats | float, height: Floats | float) -> Windows:
    """Return the windows ``(N, STEPS, FEATURES)`` float32 of N tracks.

    A track is ``(M, 5)``: the time in s, then left, top, right and bottom in px, in order of time. The window of a
    track ends with the track's last box. ``width`` and ``height`` are the size of the picture in px: one number for
    all tracks, or ``(N,)``.

    The features of a sample, where *h* is the median height of the box in the last 4.8 s:

    0. whether the track had begun
    1. distance of the centre to the right of the last box, in *h*
    2. distance of the lower edge below that of the last box, in *h*
    3. logarithm of the box's height in *h*
    4. logarithm of the box's width divided by its height
    5. horizontal speed, in heights of the box per second
    6. vertical speed of the lower edge, in heights of the box per second
    7. time between the sample and the nearest box, in units of 2 s
    8. age of the sample, as a share of the window
    9. whether the box touches the edge of the picture
    10. height of the box, as a share of the picture's height
    11. position of the lower edge, as a share of the picture's height
    """
    sampled = np.stack([_sampled(track) for track in tracks])
    begun, gap, left, top, right, bottom = np.moveaxis(sampled, 1, 0)
    wide, tall, middle = np.maximum(right - left, 1.0), np.maximum(bottom - top, 1.0), (left + right) / 2
    across, down = (np.broadcast_to(size, len(tracks))[:, None] for size in (width, height))
    recent = np.where(begun[:, -_RECENT:] > 0.0, tall[:, -_RECENT:], tall[:, -1:])
    unit = np.sort(recent, axis=1)[:, _RECENT // 2, None]
    touches = (left <= _EDGE * across) | (right >= (1.0 - _EDGE) * across)
    touches |= (top <= _EDGE * down) | (bottom >= (1.0 - _EDGE) * down)
    found = np.empty((len(tracks), STEPS, FEATURES), np.float32)
    found[..., 0] = begun
    found[..., 1] = ((middle - middle[:, -1:]) / unit).clip(-_MAX_HEIGHTS, _MAX_HEIGHTS)
    found[..., 2] = ((bottom - bottom[:, -1:]) / unit).clip(-_MAX_HEIGHTS, _MAX_HEIGHTS)
    found[..., 3] = np.log(tall / unit).clip(-_MAX_LOG, _MAX_LOG)
    found[..., 4] = np.log(wide / tall).clip(-_MAX_LOG, _MAX_LOG)
    found[..., 5] = (_speed(middle) / tall).clip(-_MAX_HEIGHTS_S, _MAX_HEIGHTS_S)
    found[..., 6] = (_speed(bottom) / tall).clip(-_MAX_HEIGHTS_S, _MAX_HEIGHTS_S)
    found[..., 7] = np.minimum(gap, _MAX_GAP_S) / _MAX_GAP_S
    found[..., 8] = AGES_S / SPAN_S
    found[..., 9] = touches
    found[..., 10] = tall / down
    found[..., 11] = bottom / down
    return found * found[..., :1]


def _sampled(track: Floats) -> Floats:
    """Return the samples ``(6, STEPS)`` of a track: whether the track had begun, the time to the nearest box in s,
    and the four edges, interpolated between the boxes before and after the sample."""
    times = track[:, 0]
    at = times[-1] - AGES_S
    after = np.searchsorted(times, at).clip(min(1, len(times) - 1), len(times) - 1)
    before = np.maximum(after - 1, 0)
    since, until = at - times[before], times[after] - at
    share = (since / np.maximum(since + until, _SOON_S)).clip(0.0, 1.0)
    found = np.empty((6, STEPS))
    found[0] = at >= times[0] - _SOON_S
    np.minimum(np.abs(since), np.abs(until), out=found[1])
    one = track[before, 1:]
    found[2:] = (one + share[:, None] * (track[after, 1:] - one)).T
    return found


def _speed(position: Floats) -> Floats:
    return np.diff(position, axis=1, prepend=position[:, :1]) / _STEPS_S
