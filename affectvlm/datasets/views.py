"""One record → its stored views, (3, S, S, 7) uint8 as `augmentation.views.store` makes them, and how sure they are.

Scans are read, turned and drawn as `Predictor` does it. A picture has no surface: its views hold its colours, the
direction (0, 0, 1) and full coverage everywhere. A sequence becomes one dynamic image a view, kept as a picture is:
every frame is turned by a pose that is smooth over the sequence and drawn as a single scan is, and the views are rank
pooled (`sequences.DynamicViews`) at a scale that is one constant for all sequences, so that the strength of a motion
stays. Frames are read one at a time, most of them twice: memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.augmentation.views import CHANNELS, store, stored_side
from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, VIEW_NAMES, render_buffers
from affectvlm.scan import Scan

SEQUENCE_CONTENT = 2
"""Raise it when a change of pose smoothing or pooling changes the pixels: older views of sequences are then not
used."""

FACING = (128, 128, 255)
"""The direction (0, 0, 1) as stored views hold it."""


SIZE = 112
"""Pixels of the pictures that are taken from stored views where nothing else is asked for."""


def scan_views(
    file: Path,
    landmarks: Path | None = None,
    size: int = SIZE,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The stored views (3, S, S, 7) uint8 of a scan, as the predictor sees it; certainty of its pose, and doubts.

    Landmarks are those of the scan's reader, or of another file; they give the pose its first guess.

    Raises:
        ScanError: the scan or the landmarks cannot be used.
        ValueError: nothing of the scan lies in the front view.
    """
    from affectvlm.pose import frontalize
    from affectvlm.scan_io import read_scan

    scan = read_scan(file)
    if landmarks is not None:
        scan = replace(scan, landmarks=_landmarks(landmarks, scan.unit))
    frontal = frontalize(scan)
    side = stored_side(size)
    views = store(render_buffers(frontal.scan, DEFAULT_YAWS, side, HALF_WIDTH_MM * side / size))
    if not views[0, ..., 6].any():
        raise ValueError(f"{file.name}: nothing of it lies where the face should be")
    certainty = float(frontal.pose.certainty)
    doubt = "" if frontal.pose.is_face else f"no clear face was found (certainty {certainty:.2f})"
    return views, {"certainty": round(certainty, 4), "doubt": doubt}


def picture_views(
    files: Sequence[Path],
    size: int = SIZE,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The stored views (3, S, S, 7) uint8 of front, left and right pictures, framed as the predictor frames photos but
    with the margin around; and how sure it is that each shows a face.

    Raises:
        PhotoError: a picture cannot be read.
    """
    from affectvlm.photos import prepare_photos, read_photo
    from affectvlm.photos.faces import cut_out

    photos = [read_photo(file, f"{name} picture") for name, file in zip(VIEW_NAMES, files, strict=True)]
    side = stored_side(size)
    prepared = prepare_photos(*photos, size=size)
    views = np.full((len(VIEW_NAMES), side, side, CHANNELS), 255, np.uint8)
    views[..., :3] = FACING
    for view, photo, box in zip(views, photos, prepared.boxes, strict=True):
        view[..., 3:6] = cut_out(photo, replace(box, half=box.half * side / size), side)
    certainty = min(float(box.score) for box in prepared.boxes)
    return views, {"certainty": round(certainty, 4), "doubt": "; ".join(prepared.warnings)}


def sequence_views(
    files: Sequence[Path],
    frames: Sequence[int],
    landmarks: Sequence[Path | None] = (),
    size: int = SIZE,
    kind: str = "normals",
    magnify: float = 1.0,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The stored views (3, S, S, 7) uint8 of the scans of a sequence; the certainty of its pose, and doubts.

    Args:
        files: scans in the order of time; frames: their numbers; landmarks: a file, or None, for each.
        kind: what is pooled, one of rendering.KINDS. magnify: how many times as strong motion is shown.

    Raises:
        ScanError: more scans or landmarks cannot be used than may be (`sequences.streaming`).
        ValueError: nothing of the face lies in the front view.
    """
    from affectvlm.pose.frontal import SURE
    from affectvlm.scan_io import read_scan
    from affectvlm.sequences import DynamicViews, FrontalFrames, ScanSequence

    def read(index: int) -> Scan:
        scan = read_scan(files[index])
        file = landmarks[index] if landmarks else None
        return scan if file is None else replace(scan, landmarks=_landmarks(file, scan.unit))

    name, side = files[0].parent.name, stored_side(size)
    faces, dynamic, seen = FrontalFrames(ScanSequence(name, read, frames)), DynamicViews(kind), False
    for face in faces:
        buffers = render_buffers(face.scan, DEFAULT_YAWS, side, HALF_WIDTH_MM * side / size)
        seen = seen or bool(buffers.coverage[0].any())
        dynamic.add(buffers)
    if not seen:
        raise ValueError(f"{name}: nothing of it lies where the face should be")
    certainty = float(np.median([pose.certainty for pose in faces.track.poses]))
    doubts = [] if certainty >= SURE else [f"no clear face was found (certainty {certainty:.2f})"]
    views = np.full((len(VIEW_NAMES), side, side, CHANNELS), 255, np.uint8)
    views[..., :3], views[..., 3:6] = FACING, dynamic.pictures(magnify=magnify)
    return views, {"certainty": round(certainty, 4), "doubt": "; ".join([*doubts, *faces.left_out]), "kind": kind}


def sequence_settings(kind: str, magnify: float = 1.0) -> dict[str, Any]:
    """What the views of a sequence depend on beside its files, and beside what those of a single scan depend on."""
    from affectvlm.sequences.dynamic import SCALE

    return {"sequence": SEQUENCE_CONTENT, "kind": kind, "scale": SCALE / magnify}


def _landmarks(file: Path, unit: str) -> dict[str, np.ndarray]:
    """The landmarks of a file that has the unit of its scan, in millimetres."""
    from affectvlm.scan import ScanError
    from affectvlm.scan_io.landmarks import parse_bnd, parse_lm3
    from affectvlm.scan_io.limits import MAX_NOTE_BYTES
    from affectvlm.scan_io.raw import MILLIMETRES

    parse = {".lm3": parse_lm3, ".bnd": parse_bnd, ".landmark": parse_bnd}.get(file.suffix.lower())
    if parse is None or file.stat().st_size > MAX_NOTE_BYTES:
        raise ScanError(f"{file.name}: a .lm3 or .bnd file of at most {MAX_NOTE_BYTES:,} bytes is needed")
    factor = MILLIMETRES.get(unit, 1.0)
    return {name: (np.asarray(point) * factor).astype(np.float32) for name, point in parse(file.read_bytes()).items()}
