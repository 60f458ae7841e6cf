"""A sequence as a visitor brings it, and what is kept of it once the model has looked.

Frames are read one at a time. Of each a small picture and its probabilities stay, and the bytes that were brought.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from affectvlm.emotions import EKMAN
from affectvlm.scan import Scan, ScanError

if TYPE_CHECKING:
    from affectvlm.answers import Look
    from affectvlm.predictor import Prediction, Predictor
    from affectvlm.sequences import FrontalFrame, ScanSequence

SAMPLE_FPS = 9.0
SAMPLE_SECONDS = (0.6, 0.4, 0.6)
"""Neutral to apex, held, and back."""

QUALITY = 85  # of the pictures that are kept: 5 to 8 kB each
_MANY = ".zip"


@dataclass(frozen=True)
class Clip:
    """A sequence as it came.

    Attributes:
        title: how the pages call it.
        name: of the file; or, for a sample, the emotion it poses.
        data: the file's bytes, several files as one zip; None for a sample.
    """

    title: str
    name: str
    data: bytes | None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of name and content: the key of all that is derived from it."""
        content = b"" if self.data is None else hashlib.sha256(self.data).digest()
        return hashlib.sha256(self.name.encode() + b"\0" + content).hexdigest()

    @classmethod
    def from_files(cls, files: Sequence[tuple[str, bytes]]) -> Clip:
        """One file that holds a sequence, or its frames as files, with their textures; (name, bytes) each.

        Raises:
            ValueError: no files, two of one name, or fewer than two scans among several.
        """
        from affectvlm.scan_io import READERS
        from affectvlm.scan_io.series import scans_in_zip

        if not files:
            raise ValueError("got no files; a sequence of scans is needed")
        if len(files) == 1:
            name, data = files[0]
            return cls(name, name, data)
        names = [name for name, _ in files]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"{twice[0]} came twice; files of different names are needed")
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, data in sorted(files):
                archive.writestr(zipfile.ZipInfo(PurePath(name).name), data)
        title, data = f"{len(files)} files", stream.getvalue()
        scans = scans_in_zip(data, READERS)
        if scans < 2:
            raise ValueError(
                f"{title} with {scans or 'no'} scan among them; two scans at least, one a frame, are needed"
            )
        return cls(title, title + _MANY, data)

    @classmethod
    def sample(cls, emotion: str) -> Clip:
        """A face of our own making that goes from neutral to an emotion and back."""
        if emotion not in EKMAN:
            raise ValueError(f"sample {emotion!r} is unknown; one of {', '.join(EKMAN)} is needed")
        return cls(f"sample, {emotion} and back", emotion, None)

    def open(self, fps: float | None = None) -> ScanSequence:
        """Its frames, to be read one at a time; `fps` frames a second where that is known (a sample knows its own).

        Raises:
            ScanError: it holds no sequence.
        """
        from affectvlm.sequences import open_sequence

        if self.data is None:
            return _sample_frames(self.name)
        try:
            return open_sequence((self.data, self.name), fps)
        except ScanError as error:
            if self.name != self.title + _MANY:
                raise
            raise ScanError(str(error).replace(self.name, self.title)) from None  # the visitor knows of no zip


@dataclass(frozen=True, eq=False)
class SeenFrame:
    """One frame as it was seen.

    Attributes:
        index: 0 to T - 1 in the sequence; number: as its file has it.
        picture: front view, JPEG.
        shares: (K,) float64 probabilities.
    """

    index: int
    number: int
    picture: bytes
    shares: np.ndarray


@dataclass(frozen=True, eq=False)
class SeenClip:
    """The answer to a sequence, and its frames; total: how many there are, looked at or not."""

    prediction: Prediction
    frames: tuple[SeenFrame, ...]
    total: int


def look(
    clip: Clip,
    predictor: Predictor,
    most: int,
    fps: float | None = None,
    tell: Callable[[float, str], None] = lambda share, words: None,
) -> SeenClip:
    """What the model says of a sequence, at most `most` of its frames, spread evenly.

    Args:
        tell: called before each reading of a frame with how far it is, 0 to 1, and with what; what it raises ends it.

    Raises:
        ScanError: it cannot be used.
    """
    tell(0.0, "Opening …")
    frames: list[SeenFrame] = []
    with clip.open(fps) as sequence:
        total = len(sequence)
        sequence.on_read = _progress(min(total, most), tell)

        def keep(face: FrontalFrame, seen: Look) -> None:
            frames.append(SeenFrame(face.index, face.number, front_picture(seen), seen.answer.classes))

        prediction = predictor.predict_sequence(sequence, frames=most, on_frame=keep)
    return SeenClip(prediction, tuple(frames), total)


def _progress(count: int, tell: Callable[[float, str], None]) -> Callable[[int], None]:
    """Frames are taken up twice: first for the poses (in long sequences not all), then for the answers."""
    from affectvlm.sequences.streaming import EVERY, POSED_ALL

    posed = count if count <= POSED_ALL else len(np.union1d(np.arange(0, count, EVERY), [count - 1]))
    weights = np.concatenate([np.full(posed, 1.0), np.full(count, 2.0)])  # a pose takes about half as long as an answer
    done = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
    read = 0

    def on_read(index: int) -> None:
        nonlocal read
        finding = read < posed
        words = f"Finding the face: frame {read + 1} of {posed}" if finding else ""
        words = words or f"Asking the model: frame {min(read - posed + 1, count)} of {count}"
        tell(float(done[min(read, len(weights))]), words)
        read += 1

    return on_read


def front_picture(seen: Look) -> bytes:
    """The front view as JPEG."""
    from PIL import Image

    from affectvlm import rendering

    buffers = rendering.Buffers(
        *(getattr(seen.buffers, name)[:1] for name in ("normals", "depth", "albedo", "coverage"))
    )
    stream = io.BytesIO()
    Image.fromarray(rendering.picture(buffers, "textured")[0]).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def frame_file(clip: Clip, index: int, fps: float | None = None) -> tuple[str, bytes]:
    """Frame `index` alone as a file (name, PLY bytes): as it lies in the sequence, with a colour per vertex.

    Raises:
        ScanError: it cannot be read.
    """
    from affectvlm.mesh_files import scan_ply
    from affectvlm.ui.display import vertex_colors

    with clip.open(fps) as sequence:
        scan, number = sequence.read(index), sequence.numbers[index]
    colored = replace(scan, colors=vertex_colors(scan), texture=None, uv=None)
    return f"frame-{number}.ply", scan_ply(colored)


def _sample_frames(emotion: str) -> ScanSequence:
    from affectvlm.sequences import ScanSequence
    from affectvlm.synthesis.expressions import prototype
    from affectvlm.synthesis.timing import timeline
    from affectvlm.ui import engine

    model = engine.face_model()
    person = model.sample_identity(np.random.default_rng(engine.SAMPLE_SEED + EKMAN.index(emotion)))
    intensity = timeline(*SAMPLE_SECONDS, SAMPLE_FPS)

    def read(index: int) -> Scan:
        return model.generate(person, prototype(emotion, float(intensity[index])))

    times = np.arange(len(intensity)) / SAMPLE_FPS
    return ScanSequence(f"sample {emotion}", read, range(1, len(intensity) + 1), times)
