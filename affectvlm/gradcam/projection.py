"""Maps of the views, put back onto the vertices of the scan they were drawn from.

A vertex v that view n sees at pixel (c, r), under an angle a between its normal and the line of sight, takes

    e(v) = sum_n w_n map_n(c, r) / sum_n w_n,     w_n = visible_n cos(a)^2,

so that the view that looks at a place most squarely says most about it. Seen is what lies no deeper than the
rasteriser's own depth buffer at its pixel, with a tolerance of TOLERANCE_MM and as much as the surface drops within a
pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from affectvlm.rendering import DEFAULT_YAWS, HALF_WIDTH_MM, PIVOT_MM, Buffers, render_buffers, rotation_y
from affectvlm.scan import Scan, vertex_normals

TOLERANCE_MM = 1.0
_STEEPEST = 0.1  # cosine below which a surface is seen too much from the side to take a colour from
_DEPTH_SIZE = 224  # pixels of the depth buffers made here


def project(
    scan: Scan,
    maps: np.ndarray,
    yaws: Sequence[float] = DEFAULT_YAWS,
    half_width: float = HALF_WIDTH_MM,
    present: np.ndarray | None = None,
    buffers: Buffers | None = None,
) -> np.ndarray:
    """(V,) float32 in [0, 1], NaN where no view sees the vertex.

    Args:
        scan: a mesh in the canonical frame; may be a thinned copy of the one the views were drawn from.
        maps: (N, H, W) float in [0, 1], of views drawn from `yaws` with `half_width` (mm).
        present: (N,) bool, views to take into account; None = all.
        buffers: of the same scan, yaws and half-width, of any size, where they are at hand; else they are made.

    Raises:
        ValueError: shapes that do not fit, or a scan without faces.
    """
    maps = np.asarray(maps, np.float32)
    there = np.ones(len(yaws), bool) if present is None else np.asarray(present, bool)
    if maps.ndim != 3 or len(maps) != len(yaws) or there.shape != (len(yaws),):
        raise ValueError(f"maps are {maps.shape} for {len(yaws)} yaws, {there.shape} of them told to be there; "
                         "(N, H, W) maps and N truth values are needed")  # fmt: skip
    if buffers is None:
        buffers = render_buffers(scan, yaws, _DEPTH_SIZE, half_width, supersample=1)
    normals = vertex_normals(scan.vertices, scan.faces)
    total, weight = np.zeros(len(scan.vertices), np.float32), np.zeros(len(scan.vertices), np.float32)
    for n in np.flatnonzero(there):
        seen, share = _seen(scan.vertices, normals, buffers.depth[n], buffers.coverage[n], yaws[n], half_width)
        weight += share
        total += share * _bilinear(maps[n], seen)
    with np.errstate(invalid="ignore"):
        return np.where(weight > 0, np.clip(total / weight, 0.0, 1.0), np.nan).astype(np.float32)


def _seen(
    vertices: np.ndarray, normals: np.ndarray, depth: np.ndarray, coverage: np.ndarray, yaw: float, half_width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Places in the view (V, 2) as fractions of its width and height, and weights (V,), 0 where it is not seen."""
    turn = rotation_y(yaw).T
    points = (vertices - np.asarray(PIVOT_MM)) @ turn
    places = np.stack([0.5 + points[:, 0] / (2 * half_width), 0.5 - points[:, 1] / (2 * half_width)], axis=1)
    # the winding of scans is not to be relied on: what the depth buffer shows is taken to face the viewer
    facing = np.abs(normals @ turn[:, 2])
    size = depth.shape[0]
    column, row = (np.clip((places * size).astype(int), 0, size - 1)).T
    drop = (2 * half_width / size) * np.sqrt(1 - facing**2) / np.maximum(facing, _STEEPEST)
    front = points[:, 2] + PIVOT_MM[2] >= depth[row, column] - TOLERANCE_MM - drop
    inside = ((places >= 0) & (places < 1)).all(axis=1)
    # at the face's outline a pixel's centre may lie beside it, where nothing is in the way
    seen = (front | (coverage[row, column] == 0)) & inside & (facing > _STEEPEST)
    return places, np.where(seen, facing**2, 0.0).astype(np.float32)


def _bilinear(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Values (V,) of an image (H, W) at fractions (V, 2) of its width and height; the edge goes on outside."""
    size = np.array(image.shape[::-1])
    spots = np.clip(places * size - 0.5, 0, size - 1)
    low = np.minimum(spots.astype(int), np.maximum(size - 2, 0))
    (x, y), (fx, fy) = low.T, (spots - low).T.astype(np.float32)
    right, below = np.minimum(x + 1, size[0] - 1), np.minimum(y + 1, size[1] - 1)
    upper = image[y, x] * (1 - fx) + image[y, right] * fx
    lower = image[below, x] * (1 - fx) + image[below, right] * fx
    return upper * (1 - fy) + lower * fy
