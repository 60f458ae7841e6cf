"""A sequence's frames in the canonical frame, one after the other: read, turned by a smooth pose, cut and cleaned.

It takes two passes. The first reads frames to find their poses; the second hands out the faces. A few frames at most
are kept from the first to the second, the others are read again: memory does not grow with the length of a sequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from affectvlm.pose import Pose, frontalize
from affectvlm.scan import Scan, ScanError
from affectvlm.sequences.finding import find_poses
from affectvlm.sequences.frames import ScanSequence
from affectvlm.sequences.tracking import PoseTrack, smooth_poses

BROKEN_SHARE = 0.1
"""Share of the frames that may be unusable; of 4 frames or more, one always may."""
POSED_ALL = 32
"""Up to so many frames the pose is found for each; of longer sequences, for every EVERY-th."""
EVERY = 3
KEPT_FRAMES, KEPT_BYTES = 32, 1 << 26
"""So many scans, of so many bytes together, need not be read twice."""
MOST_REMARKS = 20


@dataclass(frozen=True, eq=False)
class FrontalFrame:
    """index: 0 to T - 1; number: as the file has it; scan: cleaned, cropped, in the canonical frame (mm); pose:
    smoothed."""

    index: int
    number: int
    scan: Scan
    pose: Pose


class FrontalFrames:
    """The faces of a sequence, for one walk over them; making it finds the poses.

    Args:
        sequence: stays open as long as this is used.
        frames: indices of those that are wanted, rising; None = all.
        every: look for the pose in every so manieth of them; None = of all up to POSED_ALL frames, else of every third.
        correction: yaw, pitch, roll in degrees, as for `pose.frontalize`.

    Attributes:
        track: the poses.

    Raises:
        ScanError: more frames cannot be used than may be (here, or while walking).
        ValueError: `every` is under 1.
    """

    def __init__(
        self,
        sequence: ScanSequence,
        frames: Sequence[int] | np.ndarray | None = None,
        every: int | None = None,
        correction: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        frames = np.arange(len(sequence)) if frames is None else np.asarray(frames, np.int64)
        every = every or (1 if len(frames) <= POSED_ALL else EVERY)
        if every < 1:
            raise ValueError(f"every is {every}; 1 or more is needed")
        self._sequence, self._correction = sequence, correction
        self._broken = _Broken(len(frames))
        self._said = Remarks()
        self._kept: dict[int, Scan] = {}
        self._room = KEPT_BYTES
        self.track = self._find_poses(frames, every)

    def __iter__(self) -> Iterator[FrontalFrame]:
        """One frame after the other; those that cannot be used are left out."""
        for index, pose in zip(self.track.frames, self.track.poses, strict=True):
            index = int(index)
            if index in self._broken:
                continue
            try:
                frontal = frontalize(self._read_again(index), self._correction, pose)
            except ScanError as error:
                self._broken.add(index, error)
                continue
            self._said.add(frontal.scan.warnings)
            yield FrontalFrame(index, self._sequence.numbers[index], frontal.scan, frontal.pose)

    @property
    def left_out(self) -> tuple[str, ...]:
        """In words, how many frames could not be used so far and why; nothing where all could."""
        return self._broken.words()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of the frames walked over so far, each kind of remark once."""
        return (*self._sequence.remarks, *self._broken.words(), *self._said.words())

    def _find_poses(self, frames: np.ndarray, every: int) -> PoseTrack:
        looked = np.union1d(frames[::every], frames[-1:]).tolist()
        found = find_poses(looked, self._read, self._broken.add)
        if not found:
            raise ScanError(f"{self._sequence.name}: none of the {len(looked)} frames looked at can be used")
        return smooth_poses(np.array(list(found)), list(found.values()), frames)

    def _read(self, index: int) -> Scan:
        """A frame, which is kept where there is room."""
        if index in self._kept:
            return self._kept[index]
        scan = self._sequence.read(index)
        size = _bytes(scan)
        if len(self._kept) < KEPT_FRAMES and size <= self._room:
            self._kept[index] = scan
            self._room -= size
        return scan

    def _read_again(self, index: int) -> Scan:
        if index not in self._kept:
            return self._sequence.read(index)
        self._sequence.announce(index)
        return self._kept.pop(index)


def _bytes(scan: Scan) -> int:
    arrays = (scan.vertices, scan.faces, scan.uv, scan.colors, scan.texture)
    return sum(array.nbytes for array in arrays if array is not None)


class _Broken:
    """Frames that cannot be used, up to the share that may be."""

    def __init__(self, total: int) -> None:
        self._total, self._most = total, max(int(BROKEN_SHARE * total), 1 if total >= 4 else 0)
        self._why: dict[int, str] = {}

    def __contains__(self, index: int) -> bool:
        return index in self._why

    def add(self, index: int, error: ScanError) -> None:
        self._why[index] = str(error)
        if len(self._why) > self._most:
            first = next(iter(self._why.values()))
            if self._total == 1:
                raise ScanError(first) from None
            raise ScanError(
                f"{len(self._why)} of {self._total} frames cannot be used, at most {self._most} may be ({first})"
            ) from None

    def words(self) -> tuple[str, ...]:
        if not self._why:
            return ()
        return (f"{len(self._why)} of {self._total} frames were left out ({next(iter(self._why.values()))})",)


class Remarks:
    """Warnings of many frames, told once each whatever numbers they hold."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, int]] = {}

    def add(self, warnings: Iterable[str]) -> None:
        for warning in warnings:
            kind = re.sub(r"\d[\d.,]*", "#", warning)
            if kind in self._kinds or len(self._kinds) < MOST_REMARKS:
                first, count = self._kinds.get(kind, (warning, 0))
                self._kinds[kind] = first, count + 1

    def words(self) -> tuple[str, ...]:
        return tuple(
            text if count == 1 else f"{text} (in {count} frames alike)" for text, count in self._kinds.values()
        )
