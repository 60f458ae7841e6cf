"""What can be measured on one sample of a data set: counts, box, landmarks under both readings, texture, pose.

All that public readers disagree about is decided by the files themselves: whether the vertex numbers in a `.bnd` count
from 0 or 1, and whether v of a `.bnt` runs from the top or the bottom of the picture.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from affectvlm.datasets.records import Index, Record
from affectvlm.scan import ScanError
from affectvlm.scan_io import READERS, read_scan
from affectvlm.scan_io.landmarks import parse_bnd, parse_lm3
from affectvlm.scan_io.limits import MAX_IMAGE_BYTES, MAX_NOTE_BYTES
from affectvlm.scan_io.raw import RawScan
from affectvlm.scan_io.source import ScanFile, open_source

VIEW_PIXELS = 160
BOX_SHARE = (0.5, 99.5)
"""Percentiles between which the box is measured: single spikes do not count."""


@dataclass(frozen=True)
class Measure:
    """One sample; None where the data set has no such thing, or it could not be measured.

    Attributes:
        id, label: of the record; file: the scan measured, of a sequence the middle one.
        error: why the scan cannot be used, "" where it can.
        vertices, faces: their numbers, as written; unit: as told by its size.
        box: width, height, depth in mm, of the middle 99 % of the vertices; centre: (x, y, z) of that box, mm.
        textured: with a picture and coordinates; texture: its width and height.
        invalid: share of grid points without data; grid: rows, columns and points of a `.bnt`.
        index_error: median distance in mm from landmarks to the vertices they name, counted from 0 and from 1.
        surface_error: median distance in mm from landmarks to the nearest vertex.
        landmark_fault: why the file of landmarks cannot be used, "" where it can or there is none.
        left: which side "left" landmarks lie on: "+x" (the subject's, seen from the front) or "-x".
        picture_error: median distance in pixels from landmarks in the picture to those on the surface, v from the top
            and v from the bottom; picture_height: in pixels.
        certainty: of the pose; turn: yaw, pitch, roll in degrees that the head has in the file.
        warnings: of the reader. view: (S, S, 3) uint8, the front view.
    """

    id: str
    label: str
    file: str
    error: str = ""
    vertices: int | None = None
    faces: int | None = None
    unit: str | None = None
    box: tuple[float, float, float] | None = None
    centre: tuple[float, float, float] | None = None
    textured: bool | None = None
    texture: tuple[int, int] | None = None
    invalid: float | None = None
    grid: tuple[int, int, int] | None = None
    index_error: tuple[float, float] | None = None
    surface_error: float | None = None
    landmark_fault: str = ""
    left: str | None = None
    picture_error: tuple[float, float] | None = None
    picture_height: int | None = None
    certainty: float | None = None
    turn: tuple[float, float, float] | None = None
    warnings: tuple[str, ...] = ()
    view: np.ndarray | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without the view."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "view"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def measure(index: Index, record: Record, pose: bool = True) -> Measure:
    """Measure one sample; `pose` also finds the face and draws it, which takes most of the time."""
    place = len(record.files) // 2 if record.is_sequence else 0
    said: dict[str, Any] = {"id": record.id, "label": record.label, "file": record.files[place]}
    path = index.root / record.files[place]
    try:
        scan = read_scan(path)
        file = open_source(path, None, tuple(READERS))
        raw = READERS[file.extension](file)  # vertices in the order of the file, which landmarks count by
        said |= _shape(raw) | (_grid(file, raw) if file.extension == ".bnt" else {})
        try:
            said |= _landmarks(index, record, place, file, raw)
        except (ScanError, OSError) as error:
            said["landmark_fault"] = str(error)
        said |= {"unit": scan.unit, "warnings": scan.warnings, "textured": scan.texture is not None}
        if scan.texture is not None:
            said["texture"] = (scan.texture.shape[1], scan.texture.shape[0])
        said |= _box(scan.vertices)
        if pose:
            said |= _pose(scan)
    except (ScanError, KeyError) as error:
        said["error"] = str(error) if isinstance(error, ScanError) else f"{path.suffix} is no format of scans"
    except OSError as error:
        said["error"] = f"cannot be read: {error.strerror or error}"
    return Measure(**said)


def read_bnd(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(83,) int64 numbers of vertices as written, and (83, 3) float64 positions, of a `.bnd`.

    Raises:
        ScanError: it does not hold 83 rows of four numbers.
    """
    points = np.array(list(parse_bnd(data).values()))
    words = [line.split()[0] for line in data.decode("latin-1").splitlines() if line.strip()]
    try:
        return np.array([int(word) for word in words], np.int64), points
    except ValueError:
        raise ScanError("a row does not begin with the number of a vertex") from None


def parse_lm2(data: bytes) -> dict[str, tuple[float, float]]:
    """Label → pixel (x, y) from the top left, of an `.lm2`: comments, a count, "Labels:", then coordinates.

    Raises:
        ScanError: it is not such a file.
    """
    lines = [line.strip() for line in data.decode("latin-1").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    try:
        count = int(lines[0].split()[0])
        labels = lines[lines.index("Labels:") + 1 :][:count]
        rows = lines[lines.index("2D Image coordinates:") + 1 :][:count]
        return {label: (float(x), float(y)) for label, (x, y) in zip(labels, map(str.split, rows), strict=True)}
    except (ValueError, IndexError) as error:
        raise ScanError(f"no list of landmarks in a picture ({error})") from None


def _shape(raw: RawScan) -> dict[str, Any]:
    return {"vertices": len(raw.vertices), "faces": len(raw.faces)}


def _box(vertices: np.ndarray) -> dict[str, Any]:
    low, high = np.percentile(vertices, BOX_SHARE, axis=0)
    return {"box": _rounded(high - low, 1), "centre": _rounded((high + low) / 2, 1)}


def _grid(file: ScanFile, raw: RawScan) -> dict[str, Any]:
    """Of a `.bnt` that its reader accepted."""
    rows, cols, _, name = struct.unpack_from("<HHdH", file.data)
    points = struct.unpack_from("<I", file.data, 14 + name)[0] // 5
    return {"grid": (rows, cols, points), "invalid": round(1 - len(raw.vertices) / points, 4)}


def _landmarks(index: Index, record: Record, place: int, file: ScanFile, raw: RawScan) -> dict[str, Any]:
    """Whatever landmarks there are: listed in the record, or beside the scan."""
    listed = record.frame_landmarks[place] if record.frame_landmarks else record.landmarks
    found = None
    if listed is not None:
        found = Path(listed).suffix.lower(), (index.root / listed).read_bytes()
    else:
        for extension in (".bnd", ".landmark", ".lm3"):
            beside = file.siblings.with_stem(file.stem, (extension,), MAX_NOTE_BYTES)
            if beside is not None:
                found = extension, beside[1]
                break
    if found is None:
        return {}
    return _named(file, found[1], raw) if found[0] == ".lm3" else _numbered(found[1], raw)


def _numbered(data: bytes, raw: RawScan) -> dict[str, Any]:
    index, points = read_bnd(data)
    errors = []
    for base in (0, 1):
        inside = (index >= base) & (index - base < len(raw.vertices))
        vertices = raw.vertices[np.where(inside, index - base, 0)]
        distance = np.where(inside, np.linalg.norm(vertices - points, axis=1), np.inf)
        errors.append(float(np.median(distance)))
    surface, _ = cKDTree(raw.vertices).query(points)
    left = "+x" if points[:8, 0].mean() > points[8:16, 0].mean() else "-x"
    finite = tuple(round(min(error, 1e6), 4) for error in errors)
    return {"index_error": finite, "surface_error": round(float(np.median(surface)), 4), "left": left}


def _named(file: ScanFile, data: bytes, raw: RawScan) -> dict[str, Any]:
    """Of `.lm3` against the surface, and of `.lm2` against it through the texture coordinates."""
    from PIL import Image

    points = parse_lm3(data)
    if not points:
        return {}
    distance, nearest = cKDTree(raw.vertices).query(np.array(list(points.values())))
    sides = {side: [p[0] for name, p in points.items() if side in name.lower()] for side in ("left", "right")}
    said: dict[str, Any] = {"surface_error": round(float(np.median(distance)), 4)}
    if all(sides.values()):
        said["left"] = "+x" if np.mean(sides["left"]) > np.mean(sides["right"]) else "-x"
    in_picture = file.siblings.with_stem(file.stem, (".lm2",), MAX_NOTE_BYTES)
    picture = file.siblings.with_stem(file.stem, (".png",), MAX_IMAGE_BYTES)
    if in_picture is None or picture is None or raw.uv is None:
        return said
    try:
        width, height = Image.open(io.BytesIO(picture[1])).size
    except OSError:
        return said
    pixels = {label.lower(): place for label, place in parse_lm2(in_picture[1]).items()}
    both = [(pixels[label.lower()], raw.uv[vertex]) for label, vertex in zip(points, nearest, strict=True)
            if label.lower() in pixels]  # fmt: skip
    if both:
        there, (u, v) = np.array([pixel for pixel, _ in both]), np.array([uv for _, uv in both]).T
        errors = [np.hypot(u * width - there[:, 0], row * height - there[:, 1]) for row in (1 - v, v)]
        said |= {"picture_error": _rounded([np.median(error) for error in errors], 2), "picture_height": height}
    return said


def _pose(scan) -> dict[str, Any]:  # noqa: ANN001  a Scan
    from affectvlm.pose import frontalize
    from affectvlm.rendering import render_views

    frontal = frontalize(scan)
    kind = "textured" if scan.has_texture else "shaded"
    return {
        "certainty": round(float(frontal.pose.certainty), 3),
        "turn": _rounded((frontal.pose.yaw, frontal.pose.pitch, frontal.pose.roll), 1),
        "view": render_views(frontal.scan, kind, VIEW_PIXELS, (0.0,))[0],
    }


def _rounded(values, digits: int) -> tuple[float, ...]:  # noqa: ANN001
    return tuple(round(float(value), digits) for value in values)
