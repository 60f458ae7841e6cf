"""A surface through the points of a cloud that is already in the canonical frame.

Seen from inside the head, a face is one layer: its points are unrolled onto a plane (azimuthal equidistant about the
view axis), triangulated there (Delaunay), and triangles that bridge gaps are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import Delaunay, cKDTree

from affectvlm.pose.sampling import even_subset
from affectvlm.scan import Scan, ScanError

CENTER = np.array([0.0, 0.0, -90.0])  # mm
MAX_POINTS = 30_000
MAX_EDGE = 5.0  # times the usual spacing
MIN_EDGE_MM = 3.0
LAYER_MM = 6.0


def mesh_cloud(scan: Scan, rng: np.random.Generator) -> Scan:
    """The outer layer of a point cloud in the canonical frame as a mesh, at most 30,000 vertices, colours kept.

    Raises:
        ScanError: too few points to make a surface.
    """
    chosen = even_subset(scan.vertices, MAX_POINTS, rng)
    mask = np.zeros(len(scan.vertices), bool)
    mask[chosen] = True
    scan = scan.keep_vertices(mask)
    plane, radius = _unroll(scan.vertices.astype(np.float64))
    outer = _outer_layer(plane, radius)
    scan, plane = scan.keep_vertices(outer), plane[outer]
    if len(plane) < 20:
        raise ScanError(f"{scan.source or 'point cloud'}: {len(plane)} points on the face; too few to make a surface")
    triangles = Delaunay(plane).simplices
    a, b, c = (plane[triangles[:, k]] for k in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    triangles[turn < 0] = triangles[turn < 0][:, [0, 2, 1]]
    corners = scan.vertices[triangles].astype(np.float64)
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    spacing = float(np.median(cKDTree(scan.vertices).query(scan.vertices, k=4)[0][:, 1:]))
    faces = triangles[longest < max(MAX_EDGE * spacing, MIN_EDGE_MM)]
    used = np.zeros(len(scan.vertices), bool)
    used[faces] = True
    if not used.any():
        raise ScanError(f"{scan.source or 'point cloud'}: the points lie too far apart to make a surface")
    return replace(scan, faces=faces.astype(np.int32)).keep_vertices(used)


def _unroll(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, 2) mm on the plane and (P,) mm distance from the centre of the head."""
    offset = points - CENTER
    radius = np.linalg.norm(offset, axis=1)
    angle = np.arccos(np.clip(offset[:, 2] / np.maximum(radius, 1e-9), -1, 1))
    lateral = np.maximum(np.linalg.norm(offset[:, :2], axis=1, keepdims=True), 1e-9)
    return 90.0 * angle[:, None] * offset[:, :2] / lateral, radius


def _outer_layer(plane: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """(P,) bool: points within `LAYER_MM` of the outermost of their neighbours, so that teeth do not mix with lips."""
    near = cKDTree(plane).query(plane, k=min(12, len(plane)))[1]
    return radius > np.sort(radius[near], axis=1)[:, -2] - LAYER_MM if len(plane) > 12 else np.ones(len(plane), bool)
