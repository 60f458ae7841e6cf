"""Where the head's vertices lie in the flat chart of the skin, and how they are joined.

The chart is the head unrolled like a label off a bottle: u runs round the head (0 on the midline of the face, ±U at the
back), v runs up it, both roughly in millimetres. Only the subject's left half is triangulated, then mirrored, so the
mesh is exactly symmetric and every vertex has a known twin. Eyes and mouth are holes in the chart, ringed by rows of
vertices that follow their outline, so that lids and lips bend cleanly. Spacing is 1.35 mm in the mobile face and grows
to 9 mm at the back of the head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import Delaunay, cKDTree

U = 75.0 * np.pi
"""Half the way round the head in the chart."""
V_RANGE = (-180.0, 194.0)

EYE = np.array([31.5, 30.2])
EYE_HALF_WIDTH = 13.1
MOUTH = np.array([0.0, -38.0])
MOUTH_HALF_WIDTH = 25.0
MOUTH_HALF_HEIGHT = 5.0
"""The mouth is an open ellipse in the chart; the surface closes it to a line."""

_LEVELS = ((1.35, 0, 47, -76, 66), (1.9, 0, 60, -86, 76), (2.9, 0, 78, -100, 92), (5.0, 0, 125, -140, 120))
_COARSE = 9.0
_EYE_RINGS = (0.0, 0.8, 1.6, 2.5, 3.5, 4.6, 5.8, 7.1)
_MOUTH_RINGS = (0.0, 0.9, 1.8, 2.7, 3.7, 4.8, 6.0, 7.3, 8.6)


@dataclass(frozen=True)
class SkinMesh:
    """The skin in the chart.

    Attributes:
        chart: (S, 2) float64, u and v.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        twin: (S,) int64, index of the mirrored vertex (itself on the midline).
        eye_left, eye_right: vertex indices round the lid opening, in order, starting at the inner corner.
        mouth: vertex indices round the mouth opening, in order, starting at the subject's left corner, upper lip first.
    """

    chart: np.ndarray
    faces: np.ndarray
    twin: np.ndarray
    eye_left: np.ndarray
    eye_right: np.ndarray
    mouth: np.ndarray


def lid_outline(s: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Height of the lid margin over the eye's middle, mm, at s = -1 (inner corner) to 1 (outer corner)."""
    canthus = -1.7 + 0.9 * (s + 1)
    top = 6.1 * np.clip(1 - np.abs(s + 0.12 * (1 - s**2)) ** 2.2, 0, None) ** 0.9
    bottom = 3.4 * np.clip(1 - (s - 0.12 * (1 - s**2)) ** 2, 0, None) ** 0.85
    return canthus + np.where(upper, top, -bottom)


def build_skin() -> SkinMesh:
    points, eye_count, mouth_count = _half_points()
    triangles = Delaunay(points).simplices
    hole = (triangles < eye_count).all(1) | ((triangles >= eye_count) & (triangles < eye_count + mouth_count)).all(1)
    triangles = triangles[~hole]
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    triangles = np.where((area < 0)[:, None], triangles[:, [0, 2, 1]], triangles)[np.abs(area) > 1e-6]
    return _mirror(points, triangles, eye_count, mouth_count)


def _mirror(points: np.ndarray, triangles: np.ndarray, eye_count: int, mouth_count: int) -> SkinMesh:
    half = len(points)
    seam = (np.abs(points[:, 0]) < 1e-9) | (np.abs(points[:, 0] - U) < 1e-9)
    other = np.arange(half)
    other[~seam] = half + np.arange((~seam).sum())
    chart = np.concatenate([points, points[~seam] * [-1, 1]])
    twin = np.concatenate([other, np.flatnonzero(~seam)])
    faces = np.concatenate([triangles, other[triangles][:, [0, 2, 1]]])
    eye = np.arange(eye_count)
    arc = eye_count + np.arange(mouth_count)  # from the top of the mouth over the left corner to the bottom
    corner = mouth_count // 2
    ring = np.concatenate([arc[corner::-1], other[arc[1:]], arc[:corner:-1][1:]])
    return SkinMesh(chart, faces, twin, eye, other[eye], ring)


def _half_points() -> tuple[np.ndarray, int, int]:
    eye, eye_rings = _eye_points()
    mouth, mouth_rings = _mouth_points()
    fixed = np.concatenate([eye, mouth, eye_rings, mouth_rings])
    border = _border_points()
    border = border[_far(border, fixed, 0.6) & ~_in_mouth(border)]
    fixed = np.concatenate([fixed, border])
    fill = _fill_points()
    fill = fill[~_in_eye(fill) & ~_in_mouth(fill)]
    fill = fill[_far(fill, fixed, 0.62)]
    return np.concatenate([fixed, fill]), len(eye), len(mouth)


def _eye_points() -> tuple[np.ndarray, np.ndarray]:
    turn = np.linspace(0, 2 * np.pi, 56, endpoint=False)
    s = -np.cos(turn)
    upper = turn < np.pi
    outline = EYE + np.stack([s * EYE_HALF_WIDTH, lid_outline(s, upper)], 1)
    return outline, np.concatenate([_offset(outline, d) for d in _EYE_RINGS[1:]])


def _mouth_points() -> tuple[np.ndarray, np.ndarray]:
    """The left half of the opening, from the top over the corner to the bottom, and the rows round it."""

    def ellipse(turn: np.ndarray) -> np.ndarray:
        return MOUTH + np.stack([MOUTH_HALF_WIDTH * np.sin(turn), MOUTH_HALF_HEIGHT * np.cos(turn)], 1)

    outline = ellipse(np.linspace(0, np.pi, 61))
    outline[[0, -1], 0] = 0.0
    whole = ellipse(np.linspace(0, 2 * np.pi, 120, endpoint=False))
    rings = np.concatenate([_offset(whole, d) for d in _MOUTH_RINGS[1:]])
    rings[np.abs(rings[:, 0]) < 1e-6, 0] = 0.0
    left = rings[rings[:, 0] >= 0.0]
    return outline, left[_thin(left)]


def _thin(points: np.ndarray) -> np.ndarray:
    """Which points to keep so that none lies within 0.45 mm of an earlier one."""
    keep = np.ones(len(points), bool)
    for first, second in sorted(cKDTree(points).query_pairs(0.45)):
        if keep[first]:
            keep[second] = False
    return keep


def _offset(outline: np.ndarray, distance: float) -> np.ndarray:
    """A closed outline moved outward along its own normals."""
    along = np.roll(outline, -1, 0) - np.roll(outline, 1, 0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    outward = outline - outline.mean(0)
    normal *= np.sign((normal * outward).sum(1))[:, None]
    return outline + distance * normal


def spacing(points: np.ndarray) -> np.ndarray:
    """Wanted distance between neighbours, mm, at (n, 2) chart points."""
    result = np.full(len(points), _COARSE)
    for size, u0, u1, v0, v1 in reversed(_LEVELS):
        inside = (points[:, 0] >= u0) & (points[:, 0] < u1) & (points[:, 1] >= v0) & (points[:, 1] < v1)
        result[inside] = size
    return result


def _fill_points() -> np.ndarray:
    layers = []
    for size in [level[0] for level in _LEVELS] + [_COARSE]:
        rows = np.arange(V_RANGE[0] + size / 2, V_RANGE[1], size * np.sqrt(0.75))
        columns = np.arange(size * 0.75, U - size * 0.4, size)
        grid = np.stack(np.meshgrid(columns, rows), -1)
        grid[1::2, :, 0] += size / 2
        grid = grid.reshape(-1, 2)
        layers.append(grid[(spacing(grid) == size) & (grid[:, 0] < U - 0.4 * size)])
    points = np.concatenate(layers)
    keep = np.ones(len(points), bool)
    want = spacing(points)
    for first, second in sorted(cKDTree(points).query_pairs(2.0)):  # only where two lattices meet
        if keep[first] and np.linalg.norm(points[first] - points[second]) < 0.6 * want[first]:
            keep[second] = False
    return points[keep]


def _border_points() -> np.ndarray:
    middle = [V_RANGE[0]]
    while middle[-1] < V_RANGE[1] - 4:
        middle.append(middle[-1] + spacing(np.array([[0.0, middle[-1]]]))[0])
    middle = np.interp(middle, [middle[0], middle[-1]], V_RANGE)
    back = np.linspace(*V_RANGE, 42)
    across = np.linspace(0, U, 27)[1:-1]
    return np.concatenate(
        [
            np.stack([np.zeros(len(middle)), middle], 1),
            np.stack([np.full(42, U), back], 1),
            np.stack([across, np.full(25, V_RANGE[0])], 1),
            np.stack([across, np.full(25, V_RANGE[1])], 1),
        ]
    )


def _far(points: np.ndarray, others: np.ndarray, part: float) -> np.ndarray:
    distance, _ = cKDTree(others).query(points)
    return distance > part * spacing(points)


def _in_eye(points: np.ndarray) -> np.ndarray:
    s = (points[:, 0] - EYE[0]) / EYE_HALF_WIDTH
    height = points[:, 1] - EYE[1]
    clipped = np.clip(s, -1, 1)
    high, low = lid_outline(clipped, np.ones(len(s), bool)), lid_outline(clipped, np.zeros(len(s), bool))
    return (np.abs(s) < 1) & (height < high) & (height > low)


def _in_mouth(points: np.ndarray) -> np.ndarray:
    offset = (points - MOUTH) / [MOUTH_HALF_WIDTH, MOUTH_HALF_HEIGHT]
    return (offset**2).sum(1) < 1
