"""`ScanSequence`: scans in the order of time, read one at a time, wherever they come from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.scan import Scan, ScanError
from affectvlm.scan_io import READERS, holds_animation, open_animation, read_scan, scan_at
from affectvlm.scan_io.limits import MAX_SERIES_FRAMES
from affectvlm.scan_io.raw import MILLIMETRES
from affectvlm.scan_io.series import Series, open_folder, open_zip, scans_in_zip

ANIMATED = (".glb", ".gltf", ".zip")
FRAME_RATE = 25.0
"""Frames a second at which an animation is looked at where nothing else is said; BU-4DFE and BP4D have 25."""


class ScanSequence:
    """Scans in the order of time; use it in a `with` statement, which lets go of its file.

    Attributes:
        name: for messages.
        numbers: (T,) numbers of the frames as the files have them, rising; of lists and animations 1 to T.
        times: (T,) float64 seconds from the first frame, or None where they are not known.
        remarks: gaps and what was passed over, in plain words.
        reading_ms: milliseconds that reading took so far.
        on_read: called with the index before each reading, also where a scan that was kept is taken up again, or None;
            what it raises ends the reading.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[int], Scan],
        numbers: Sequence[int],
        times: np.ndarray | None = None,
        remarks: Sequence[str] = (),
        close: Callable[[], None] = lambda: None,
    ) -> None:
        if not len(numbers):
            raise ScanError(f"{name}: no frames; at least one scan is needed")
        if len(numbers) > MAX_SERIES_FRAMES:
            raise ScanError(f"{name}: {len(numbers):,} frames; at most {MAX_SERIES_FRAMES:,} are accepted")
        self.name, self.numbers, self.times, self.remarks = name, tuple(numbers), times, tuple(remarks)
        self._read, self._close = read, close
        self._unit: str | None = None
        self.reading_ms = 0.0
        self.on_read: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __enter__(self) -> ScanSequence:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, index: int) -> Scan:
        """Frame `index`, 0 to T - 1, in the unit that was found for the frame that was read first: a unit is guessed
        from the size of a scan, and the guess must not change within a sequence.

        Raises:
            ScanError: the frame cannot be used; the message has its number.
        """
        self.announce(index)
        start = time.perf_counter()
        try:
            scan = self._read(index)
        except ScanError as error:
            raise ScanError(f"frame {self.numbers[index]}: {error}") from None
        finally:
            self.reading_ms += 1000 * (time.perf_counter() - start)
        self._unit = self._unit or scan.unit
        if scan.unit == self._unit:
            return scan
        factor = MILLIMETRES.get(self._unit, 1.0) / MILLIMETRES.get(scan.unit, 1.0)
        return replace(scan.transformed(np.eye(3), np.zeros(3), factor), unit=self._unit)

    def announce(self, index: int) -> None:
        """Tells `on_read` that frame `index` is taken up."""
        if self.on_read is not None:
            self.on_read(index)


def is_sequence(source: Any) -> bool:
    """Whether `open_sequence` takes it: a list of scans, a folder, a zip of several scans, an animated glTF, a
    `ScanSequence`.

    A file that cannot be opened is none; whoever reads it as a scan says what is wrong.
    """
    if isinstance(source, ScanSequence):
        return True
    if isinstance(source, list | tuple) and not _is_upload(source):
        return len(source) > 0 and all(map(_is_frame, source))
    if isinstance(source, str | Path) and os.path.isdir(source):
        return True
    if not isinstance(source, str | Path | tuple) or not _named(source).lower().endswith(ANIMATED):
        return False
    try:
        return _scans_in(source) > 1 or holds_animation(*_arguments(source))
    except ScanError:
        return False


def open_sequence(source: Any, fps: float | None = None) -> ScanSequence:
    """The frames of whatever holds them; none is read yet.

    Args:
        source: a list of scans in the order of time (each a `Scan`, a path, or bytes with a name); the path of a
            folder; the path of a zip, or its bytes and name; an animated glTF or GLB, in the same ways; a
            `ScanSequence`.
        fps: frames a second; it gives the frames their times, and says how densely an animation is looked at (25 where
            it is None).

    Raises:
        ScanError: the source cannot be opened or holds no frames.
        ValueError: something else was given.
    """
    if fps is not None and not (np.isfinite(fps) and fps > 0):
        raise ValueError(f"fps is {fps}; more than 0 is needed")
    if isinstance(source, ScanSequence):
        return source
    if isinstance(source, list | tuple) and not _is_upload(source):
        if not source or not all(map(_is_frame, source)):
            raise ValueError(f"got a {type(source).__name__} of {len(source)}; a list of scans is needed")
        frames = list(source)
        numbers = range(1, len(frames) + 1)
        return ScanSequence("the list", lambda index: _read_frame(frames[index]), numbers, _times(numbers, fps))
    if not isinstance(source, str | Path | tuple):
        raise ValueError(f"got {type(source).__name__}; a folder, a zip, an animated glTF or a list of scans is needed")
    name = _named(source)
    if isinstance(source, str | Path) and os.path.isdir(source):
        return _files(name, lambda: open_folder(Path(source), READERS), fps)
    if _scans_in(source) > 1:
        data = source[0] if isinstance(source, tuple) else Path(source)
        return _files(name, lambda: open_zip(data, READERS), fps)
    if name.lower().endswith(ANIMATED) and holds_animation(*_arguments(source)):
        return _animation(source, fps)
    read_scan(*_arguments(source))  # says what is wrong with a file that is no scan either
    raise ScanError(f"{name}: a single scan; a folder, a zip of several scans or an animated glTF makes a sequence")


def spread_evenly(count: int, most: int | None) -> np.ndarray:
    """At most `most` of the indices 0 to count - 1, first and last among them, evenly; None = all. (n,) int64.

    Raises:
        ValueError: `most` is under 1.
    """
    if most is not None and most < 1:
        raise ValueError(f"frames is {most}; at least 1, or None for all, is needed")
    if most == 1:
        return np.array([(count - 1) // 2])
    return np.unique(np.linspace(0, count - 1, count if most is None else min(count, most)).round().astype(np.int64))


def _files(name: str, open_files: Callable[[], Series], fps: float | None) -> ScanSequence:
    try:
        series = open_files()
    except ScanError as error:
        raise ScanError(f"{name}: {error}") from None
    times = _times(series.numbers, fps)
    return ScanSequence(
        name, lambda index: read_scan(series.open(index)), series.numbers, times, series.remarks, series.close
    )


def _animation(source: Any, fps: float | None) -> ScanSequence:
    """A glTF at even times from the first to the last key of its animation."""
    animation = open_animation(*_arguments(source))
    rate = fps or FRAME_RATE
    span = (animation.end - animation.start) * rate
    if not span < MAX_SERIES_FRAMES:
        raise ScanError(f"{animation.name}: {span:.3g} animated frames; under {MAX_SERIES_FRAMES:,} are accepted")
    times = np.arange(int(span + 1e-6) + 1) / rate
    unit = scan_at(animation, animation.start).unit
    known = unit if unit in MILLIMETRES else None

    def read(index: int) -> Scan:
        return scan_at(animation, animation.start + times[index], known)

    return ScanSequence(animation.name, read, range(1, len(times) + 1), times, animation.remarks)


def _times(numbers: Sequence[int], fps: float | None) -> np.ndarray | None:
    return None if fps is None else (np.array(numbers, np.float64) - numbers[0]) / fps


def _read_frame(source: Any) -> Scan:
    return source if isinstance(source, Scan) else read_scan(*_arguments(source))


def _scans_in(source: Any) -> int:
    """Scans in a zip, 0 for what is none."""
    if not _named(source).lower().endswith(".zip") or (isinstance(source, str | Path) and not os.path.isfile(source)):
        return 0
    return scans_in_zip(source[0] if isinstance(source, tuple) else Path(source), READERS)


def _is_upload(source: Any) -> bool:
    return (
        isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], bytes) and isinstance(source[1], str)
    )


def _is_frame(source: Any) -> bool:
    return isinstance(source, Scan | str | Path) or _is_upload(source)


def _named(source: Any) -> str:
    return Path(str(source[1] if isinstance(source, tuple) else source)).name


def _arguments(source: Any) -> tuple[Any, ...]:
    return source if isinstance(source, tuple) else (source,)
