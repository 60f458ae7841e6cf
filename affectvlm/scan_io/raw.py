"""What a reader hands over (`RawScan`) and how it becomes a `Scan`: checked, cleaned, uv a vertex, in millimetres.

The readers only turn bytes into arrays; all that is the same for every format is here, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from affectvlm.scan import Scan, ScanError
from affectvlm.scan_io.images import pack_atlas
from affectvlm.scan_io.limits import (
    MAX_BAD_SHARE,
    MAX_COORDINATE,
    MAX_FACES,
    MAX_VERTICES,
    MIN_POINTS,
)

UNITS = (("mm", 1.0, 90.0, 900.0), ("cm", 10.0, 6.0, 90.0), ("m", 1000.0, 0.06, 0.9))
"""Unit, millimetres in it, and the bounding-box diagonals that speak for it: a face mask (from 60 mm) to a head with
shoulders (900 mm). A diagonal of 60 to 90 could be a small mask in mm or a bust in cm: masks are seldom that
small."""

MAX_TILES = 1e4
"""Texture coordinates are clipped to this many repetitions of the image."""

MILLIMETRES = {unit: factor for unit, factor, _, _ in UNITS}


@dataclass
class RawScan:
    """A scan as it stands in a file.

    Attributes:
        vertices: (V, 3) float64 in the file's unit and axes.
        faces: (F, 3) int64 into `vertices`; F = 0 for points.
        uv: (T, 2) float64 texture coordinates, v from the bottom; `uv_faces` says which corner has which.
        uv_faces: (F, 3) int64 into `uv`, -1 where a corner has none.
        images: textures, each (H, W, 3) uint8; `face_image` (F,) int64 says which face has which, -1 for none.
        colors: (V, 3) uint8.
        landmarks: name → (3,) in the file's unit.
        unit: "mm" where the format fixes it, None where it has to be guessed.
        warnings: what was repaired, in plain words.
    """

    vertices: np.ndarray
    faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    images: list[np.ndarray] = field(default_factory=list)
    face_image: np.ndarray | None = None
    colors: np.ndarray | None = None
    landmarks: Mapping[str, np.ndarray] = field(default_factory=dict)
    unit: str | None = None
    warnings: list[str] = field(default_factory=list)


def check_counts(vertices: int, faces: int = 0) -> None:
    """ScanError where a file declares more vertices or triangles than are accepted, or a negative number."""
    for count, most, what in ((vertices, MAX_VERTICES, "vertices"), (faces, MAX_FACES, "triangles")):
        if not 0 <= count <= most:
            raise ScanError(f"{_shown(count)} {what} declared; 0 to {most:,} are accepted")


def _shown(count: int) -> str:
    return f"{count:,}" if abs(count) < 10**15 else "an absurd number of"


def check_indices(index: np.ndarray, count: int, what: str, least: int = 0) -> None:
    """ScanError where an index is below `least` or not below `count`."""
    if index.size and (index.min() < least or index.max() >= count):
        raise ScanError(f"{what} {index.min()} to {index.max()} are named, but there are {count} (counted from 0)")


def whole(values: np.ndarray, what: str) -> np.ndarray:
    """Numbers read as floats, as int64; ScanError where one is no whole number."""
    if not (np.abs(values) < 2**53).all() or (values != np.floor(values)).any():
        raise ScanError(f"{what} are named by numbers that are not whole")
    return values.astype(np.int64)


def fan(count: np.ndarray) -> np.ndarray:
    """Triangles of polygons with `count` (n,) corners each that stand one after the other in a flat corner list.

    Returns (F, 3) int64 positions in that list: (first, k, k + 1) for every k; polygons of fewer than 3 corners give
    none.
    """
    count = np.asarray(count, np.int64)
    triangles = np.maximum(count - 2, 0)
    check_counts(0, int(triangles.sum()))
    first = np.repeat(np.cumsum(count) - count, triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    return np.stack([first, first + step + 1, first + step + 2], axis=1)


def _mixed(*parts: np.ndarray) -> np.ndarray:
    """One well-mixed uint64 of several whole numbers a row, (n,): equal rows get equal keys, others all but never."""
    key = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        key = (key ^ part.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    return key


def merge_equal(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) float32 with bitwise equal rows made one → (distinct (m, 3), index (n,)), in order of
    appearance."""
    points = np.ascontiguousarray(points, np.float32) + np.float32(0)  # -0 becomes 0
    bits = points.view(np.uint32)
    key = _mixed(*bits.T)
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    if not np.array_equal(bits[first][index], bits):  # two points with one key: settle it exactly
        _, first, index = np.unique(bits, axis=0, return_index=True, return_inverse=True)
        index = index.ravel()
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return points[first[order]], rank[index]


def to_bytes(colors: np.ndarray) -> np.ndarray:
    """Colours (n, 3+) as (n, 3) uint8: values up to 1 with fractions are shares, all others 0 to 255 already."""
    colors = np.nan_to_num(np.asarray(colors, np.float64)[:, :3], nan=0.0, posinf=255.0, neginf=0.0)
    if colors.size and colors.max() <= 1.0:
        colors = colors * 255.0
    return np.clip(np.rint(colors), 0, 255).astype(np.uint8)


def finish(raw: RawScan, source: str) -> Scan:
    """The `Scan` of what a reader found.

    Bad coordinates, faces without area and doubled faces go, corners get one uv each by doubling vertices at texture
    seams, several textures become one image, vertices in no face go, the unit is guessed.

    Raises ScanError where nothing usable is left.
    """
    warnings = list(raw.warnings)
    vertices = np.asarray(raw.vertices, np.float64).reshape(-1, 3)
    check_counts(len(vertices), len(raw.faces))
    if len(vertices) < MIN_POINTS:
        raise ScanError(f"{len(vertices)} vertices; at least {MIN_POINTS} are needed")
    faces = np.asarray(raw.faces, np.int64).reshape(-1, 3)
    check_indices(faces, len(vertices), "vertices")

    good = _good_points(vertices, warnings)
    if len(faces):
        keep = _good_faces(vertices, faces, good, warnings)
        source_vertex, faces, uv, texture = _one_uv_a_vertex(raw, faces[keep], keep, warnings)
        lost = len(vertices) - int(_named(source_vertex, len(vertices)).sum()) - int((~good).sum())
        if lost > 0:
            said = "belongs to no triangle and was" if lost == 1 else "belong to no triangle and were"
            warnings.append(f"{lost} of {len(vertices)} vertices {said} left out.")
    else:
        source_vertex, uv, texture = np.flatnonzero(good), None, None
        if len(source_vertex) < MIN_POINTS:
            raise ScanError(f"{len(source_vertex)} usable points; at least {MIN_POINTS} are needed")
    points = vertices[source_vertex]
    if not np.ptp(points, axis=0).max() > 0:
        raise ScanError(f"all {len(points)} vertices lie in one place; a surface is needed")

    unit, factor = _unit(points, raw.unit, warnings)
    landmarks = {
        name: (np.asarray(point, np.float64) * factor).astype(np.float32) for name, point in raw.landmarks.items()
    }
    return Scan(
        vertices=points * factor,
        faces=faces,
        uv=uv,
        texture=texture,
        colors=None if raw.colors is None else raw.colors[source_vertex],
        landmarks=landmarks,
        unit=unit,
        source=source,
        warnings=tuple(warnings),
    )


def _good_points(vertices: np.ndarray, warnings: list[str]) -> np.ndarray:
    """(V,) bool: finite and of sane size."""
    good = (np.abs(vertices) < MAX_COORDINATE).all(axis=1)
    bad = int((~good).sum())
    if bad > max(1, MAX_BAD_SHARE * len(vertices)):
        raise ScanError(
            f"{bad} of {len(vertices)} vertices have no usable coordinates (NaN, infinite or beyond "
            f"{MAX_COORDINATE:g}); at most {MAX_BAD_SHARE:.0%} may"
        )
    if bad:
        warnings.append(f"{bad} of {len(vertices)} vertices had no usable coordinates and were left out.")
    return good


def _good_faces(vertices: np.ndarray, faces: np.ndarray, good: np.ndarray, warnings: list[str]) -> np.ndarray:
    """(F,) bool: all corners good, an area, and the first of its kind."""
    usable = good[faces].all(axis=1)
    corners = np.where(good[:, None], vertices, 0.0).astype(np.float32)[faces]  # as exact as they will be kept
    flat = (
        (corners[:, 0] == corners[:, 1]).all(axis=1)
        | (corners[:, 1] == corners[:, 2]).all(axis=1)
        | (corners[:, 2] == corners[:, 0]).all(axis=1)
    )
    keep = usable & ~flat
    same = _repeated(faces)
    for mask, one, more in (
        (usable & flat, "has no area and was", "have no area and were"),
        (keep & same, "is there twice and was", "are there twice and were"),
    ):
        if count := int(mask.sum()):
            warnings.append(f"{count} of {len(faces)} triangles {one if count == 1 else more} left out.")
    keep &= ~same
    if not keep.any():
        raise ScanError(f"none of the {len(faces)} triangles is usable (no area, or corners without coordinates)")
    return keep


def _repeated(faces: np.ndarray) -> np.ndarray:
    """(F,) bool: the same three vertices, in any order, make up an earlier face too."""
    low, high = faces.min(axis=1), faces.max(axis=1)
    middle = faces.sum(axis=1) - low - high
    order = np.argsort(_mixed(low, middle, high), kind="stable")
    same = np.ones(len(faces) - 1, bool)
    for part in (low, middle, high):
        same &= part[order[1:]] == part[order[:-1]]
    result = np.zeros(len(faces), bool)
    result[order[1:]] = same
    return result


def _one_uv_a_vertex(
    raw: RawScan, faces: np.ndarray, keep: np.ndarray, warnings: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Doubles vertices where faces meet with different uv → (vertex of origin (V,), faces, uv or None, texture or
    None).

    Unused vertices drop out here, as only corners of faces are gathered.
    """
    if raw.uv is None or raw.uv_faces is None or not (raw.uv_faces[keep] >= 0).any():
        if raw.images:
            warnings.append("A texture came with the scan but no texture coordinates, so it was left out.")
        return *_without_unused(faces, len(raw.vertices)), None, None
    uv_faces = raw.uv_faces[keep]
    check_indices(uv_faces, len(raw.uv), "texture coordinates", least=-1)
    image = np.full(len(faces), 0 if raw.images else -1)
    if raw.face_image is not None:
        image = raw.face_image[keep]
    image_of_corner = np.where(uv_faces >= 0, image[:, None], -1)
    bare = int((uv_faces < 0).any(axis=1).sum())
    if bare:
        warnings.append(f"{bare} of {len(faces)} faces have no texture coordinates.")

    if len(raw.images) <= 1 and not bare and (image == image[0]).all() and np.array_equal(uv_faces, faces):
        origin, faces = _without_unused(faces, len(raw.vertices))  # one uv a vertex already: no need to sort
        uv = np.nan_to_num(np.clip(raw.uv[origin], -MAX_TILES, MAX_TILES))
        return origin, faces, uv.astype(np.float32), raw.images[0] if image[0] >= 0 else None
    table = np.nan_to_num(
        np.clip(np.append(raw.uv, [[0.0, 0.0]], axis=0), -MAX_TILES, MAX_TILES)
    )  # last row: corners without
    table_size, images = len(table), len(raw.images) + 1
    key = (faces * images + image_of_corner + 1) * table_size + np.where(uv_faces < 0, table_size - 1, uv_faces)
    key, index = np.unique(key, return_inverse=True)
    uv = table[key % table_size]
    image_of_vertex = key // table_size % images - 1
    texture, uv = pack_atlas(raw.images, uv, image_of_vertex, warnings)
    return key // table_size // images, index.reshape(-1, 3), uv.astype(np.float32), texture


def _named(index: np.ndarray, count: int) -> np.ndarray:
    """(count,) bool: which numbers below `count` occur in `index`."""
    mask = np.zeros(count, bool)
    mask[index] = True
    return mask


def _without_unused(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(vertices that occur in faces, in order; faces counted among those)."""
    used = _named(faces, count)
    return np.flatnonzero(used), (np.cumsum(used) - 1)[faces]


def _unit(points: np.ndarray, declared: str | None, warnings: list[str]) -> tuple[str, float]:
    """Unit and millimetres in it, from the size of the box that holds the middle 99 % of the points on each axis."""
    if declared is not None:
        return declared, MILLIMETRES[declared]
    sample = points[:: max(1, len(points) // 100_000)]
    low, high = np.percentile(sample, (0.5, 99.5), axis=0)
    diagonal = float(np.linalg.norm(high - low))
    for unit, factor, least, most in UNITS:
        if least <= diagonal <= most:
            return unit, factor
    warnings.append(
        f"The scan measures {diagonal:.3g} units across, which is no head in mm, cm or m; its size is unknown."
    )
    return "unknown", 1.0
