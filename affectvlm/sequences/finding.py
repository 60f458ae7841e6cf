"""The poses of the frames of a sequence, before they are made smooth: searched at key frames, and in between followed
from frame to frame, which takes a fifth of the time.

An error must not lead to the next. So a frame is searched too where the head has moved far since the frame before, or
where the followed pose is less sure, or fits worse, than that of the key frame; nothing is followed from a doubtful
pose; and each key frame is both searched and followed: where the two do not agree, all frames since the last key frame
are searched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from affectvlm.pose import Pose
from affectvlm.pose.following import follow
from affectvlm.pose.frontal import ENOUGH, RESIDUAL, Sighting, apart, search
from affectvlm.scan import Scan, ScanError
from affectvlm.sequences.frames import spread_evenly

KEYS_APART = 16
"""Frames from key frame to key frame, at most."""
LESS_SURE = 0.05
"""By so much the certainty of a followed pose may be under that of its key frame, or under ENOUGH."""
MISFIT = 1.5
"""So many times as far from the template as at its key frame a followed face may be."""
APART_DEGREES, APART_MM = 5.0, 6.0
"""Farther apart, a searched and a followed pose of one frame are two poses: each has an error of some 2 degrees."""


def find_poses(
    frames: Sequence[int], read: Callable[[int], Scan], refuse: Callable[[int, ScanError], None]
) -> dict[int, Pose]:
    """The poses at some frames of a sequence.

    Args:
        frames: indices, rising.
        read: index → scan; it may be asked for a frame again.
        refuse: told of each frame that cannot be used, and why; it may raise.

    Returns:
        Index → pose of the frames that can be used, in the order of time.
    """
    found: dict[int, Pose] = {}

    def search_again(frame: int) -> None:
        del found[frame]
        try:
            found[frame] = search(read(frame)).pose
        except ScanError as error:
            refuse(frame, error)

    keys = {frames[i] for i in spread_evenly(len(frames), 1 + -(-(len(frames) - 1) // KEYS_APART))}
    since: list[int] = []  # frames that were followed since the key frame
    key: Sighting | None = None
    last: Pose | None = None  # of the frame before, where it may be followed
    for frame in frames:
        doubted: list[int] = []
        try:
            scan = read(frame)
            ahead = None if last is None else follow(scan, last, key)
            if ahead is not None and not _holds(ahead, key):
                ahead = None
            if ahead is not None and frame not in keys:
                found[frame] = last = ahead.pose
                since.append(frame)
            else:
                key = search(scan)
                if ahead is not None and _disagree(ahead.pose, key.pose):
                    doubted = since
                found[frame] = key.pose
                last, since = key.pose if key.pose.is_face else None, []
        except ScanError as error:
            refuse(frame, error)
        for one in doubted:
            search_again(one)
    return dict(sorted(found.items()))


def _holds(followed: Sighting, key: Sighting) -> bool:
    """Whether a followed pose is as good as that of its key frame."""
    sure = followed.pose.certainty >= min(key.pose.certainty, ENOUGH) - LESS_SURE
    return sure and followed.values[RESIDUAL] <= MISFIT * key.values[RESIDUAL]


def _disagree(a: Pose, b: Pose) -> bool:
    """Whether two poses of one frame differ by more than the errors that both have."""
    degrees, millimetres = apart(a, b)
    return degrees > APART_DEGREES or millimetres > APART_MM
