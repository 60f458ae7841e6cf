"""A surface through the points of a cloud that is already in the canonical frame.

Points that no viewer in front of the face could see (mouth, eye sockets, the far side) are dropped by the hidden
point operator of Katz et al. (SIGGRAPH 2007). Seen from inside the head, what remains is one layer: it is unrolled
onto a plane (azimuthal equidistant about the view axis), triangulated there (Delaunay), and triangles that bridge
gaps are left out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import ConvexHull, Delaunay, cKDTree

from affectvlm.pose.sampling import even_subset
from affectvlm.scan import Scan, ScanError

CENTER = np.array([0.0, 0.0, -90.0])  # mm
MAX_POINTS = 20_000
GAP = 4.0  # an edge this many times longer than the spacing of the points at its ends bridges a gap
MAX_EDGE_MM = 25.0
VIEWER_MM = 400.0
VIEWER_YAWS = (0.0, -50.0, 50.0)
FLIP_MM = 450.0  # over the spacing: the operator's radius; larger keeps more of the hollows, but sees through gaps


def mesh_cloud(scan: Scan, rng: np.random.Generator) -> Scan:
    """The outer layer of a point cloud in the canonical frame as a mesh, at most 20,000 vertices, colours kept.

    Raises:
        ScanError: too few points to make a surface.
    """
    chosen = even_subset(scan.vertices, MAX_POINTS, rng)
    mask = np.zeros(len(scan.vertices), bool)
    mask[chosen] = True
    scan = scan.keep_vertices(mask)
    scan = scan.keep_vertices(_seen_from_front(scan.vertices.astype(np.float64)))
    plane = _unroll(scan.vertices.astype(np.float64))
    if len(plane) < 20:
        raise ScanError(f"{scan.source or 'point cloud'}: {len(plane)} points on the face; too few to make a surface")
    triangles = Delaunay(plane).simplices
    a, b, c = (plane[triangles[:, k]] for k in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    triangles[turn < 0] = triangles[turn < 0][:, [0, 2, 1]]
    spacing = _spacing(scan.vertices)
    corners = scan.vertices[triangles].astype(np.float64)
    length = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2)  # (F, 3) of edges 01, 12, 20
    ends = spacing[triangles]
    usual = np.maximum(ends, np.roll(ends, -1, axis=1))
    faces = triangles[(length < np.minimum(GAP * usual, MAX_EDGE_MM)).all(axis=1)]
    used = np.zeros(len(scan.vertices), bool)
    used[faces] = True
    if not used.any():
        raise ScanError(f"{scan.source or 'point cloud'}: the points lie too far apart to make a surface")
    return replace(scan, faces=faces.astype(np.int32)).keep_vertices(used)


def _unroll(points: np.ndarray) -> np.ndarray:
    """(P, 3) → (P, 2) mm on the plane."""
    offset = points - CENTER
    radius = np.linalg.norm(offset, axis=1)
    angle = np.arccos(np.clip(offset[:, 2] / np.maximum(radius, 1e-9), -1, 1))
    lateral = np.maximum(np.linalg.norm(offset[:, :2], axis=1, keepdims=True), 1e-9)
    return 90.0 * angle[:, None] * offset[:, :2] / lateral


def _spacing(points: np.ndarray) -> np.ndarray:
    """(P,) mean distance to the six nearest points, averaged over those: uneven clouds have their own measure
    everywhere."""
    distance, near = cKDTree(points).query(points, k=min(7, len(points)))
    return distance[:, 1:].mean(axis=1)[near].mean(axis=1)


def _seen_from_front(points: np.ndarray) -> np.ndarray:
    """(P,) bool: not hidden by other points from all of three places in front of the face."""
    spacing = float(np.percentile(_spacing(points), 90))
    flip = np.clip(FLIP_MM / max(spacing, 1e-6), 50.0, 300.0)
    seen = np.zeros(len(points), bool)
    for yaw in np.radians(VIEWER_YAWS):
        ray = points - CENTER - VIEWER_MM * np.array([np.sin(yaw), 0.0, np.cos(yaw)])
        distance = np.linalg.norm(ray, axis=1, keepdims=True)
        flipped = ray * (2 * flip * distance.max() / distance - 1)
        hull = ConvexHull(np.concatenate([flipped, np.zeros((1, 3))])).vertices
        seen[hull[hull < len(points)]] = True
    return seen
