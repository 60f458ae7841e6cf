"""From a scan to a few hundred evenly spread surface points with normals: what the network and the fit look at.

Meshes are sampled by area and point clouds are thinned on a grid, so that neither the tessellation nor the scanner's
density matters. Normals are estimated from the points alone and turned outwards by convexity: the winding of a file's
triangles, which is often mixed or inside out, is never trusted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

SURFACE_POINTS = 4096  # dense enough for stable normals
SAMPLE_POINTS = 1024  # what the network sees
NORMAL_NEIGHBOURS = 20
ANCHORS = 256  # points that vote for the inside of the shape
INSIDE_SIGMA = 0.5  # reach of that vote, in root-mean-square radii


class Sample(NamedTuple):
    """Points of one surface, normalised: `position = points * radius + center`.

    points: (N, 3) float32, centred, root-mean-square radius 1; normals: (N, 3) float32, unit length, outwards.
    center: (3,) float64; radius: float; index: (N,) which of the given surface points they are.
    """

    points: np.ndarray
    normals: np.ndarray
    center: np.ndarray
    radius: float
    index: np.ndarray


def surface_points(vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` points (count, 3) float64 spread evenly over a mesh (V, 3), (F, 3), in random order; a cloud (F = 0)
    is thinned on a grid to at most `count` points."""
    vertices = np.asarray(vertices, np.float64)
    if len(faces) == 0:
        return vertices[even_subset(vertices, count, rng)]
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum() > 0:
        return vertices[even_subset(vertices, count, rng)]
    # Stratified along the list of triangles (less clumping than independent draws), then shuffled: any first part of
    # the points covers the whole surface too.
    ticks = (rng.permutation(count) + rng.random(count)) / count
    pick = np.minimum(np.searchsorted(np.cumsum(area) / area.sum(), ticks), len(area) - 1)
    u, v = rng.random((2, count, 1))
    fold = u + v > 1
    u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
    return a[pick] + u * (b[pick] - a[pick]) + v * (c[pick] - a[pick])


def even_subset(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of at most `count` of the points (V, 3), one to a cell of a grid fine enough to leave about that many."""
    if len(points) <= count:
        return rng.permutation(len(points))
    points = points - points.min(axis=0)
    low, high = 0.0, float(np.ptp(points, axis=0).max()) / 4
    order = rng.permutation(len(points))
    best = order[:count]
    for _ in range(12):  # bisection on the size of a cell
        cell = (low + high) / 2
        keys = (points[order] / max(cell, 1e-12)).astype(np.int64)
        keys = (keys[:, 0] * 1_000_003 + keys[:, 1]) * 1_000_003 + keys[:, 2]
        first = np.sort(np.unique(keys, return_index=True)[1])  # in the random order
        if len(first) > count:
            low = cell
        else:
            high, best = cell, order[first]
        if count * 0.9 < len(first) <= count:
            break
    return best


def estimate_normals(points: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Normals (N, 3) float64 at the points `at` (N, 3): the least direction of their neighbourhood in `points` (M, 3),
    turned away from where the shape has its mass."""
    normals = least_directions(points, at)
    anchors = points[rng.permutation(len(points))[:ANCHORS]]
    spread = np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())
    square = (at**2).sum(1)[:, None] + (anchors**2).sum(1) - 2 * at @ anchors.T
    weight = np.exp(-square / (2 * (INSIDE_SIGMA * max(spread, 1e-12)) ** 2)) + 1e-9
    inside = weight @ anchors / weight.sum(axis=1, keepdims=True)
    outward = np.einsum("ni,ni->n", normals, at - inside)
    return np.where(outward[:, None] < 0, -normals, normals)


def least_directions(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(N, 3) float64 of unit length: across the surface that `points` (M, 3) make, at the points `at` (N, 3)."""
    neighbours = min(NORMAL_NEIGHBOURS, len(points))
    _, near = cKDTree(points).query(at, k=neighbours)
    patch = points[near.reshape(len(at), -1)]
    patch = patch - patch.mean(axis=1, keepdims=True)
    return np.linalg.eigh(np.einsum("nki,nkj->nij", patch, patch))[1][:, :, 0]


def take_sample(surface: np.ndarray, rng: np.random.Generator) -> Sample:
    """The network's view of surface points (M, 3), M >= 8: `SAMPLE_POINTS` of them (repeated where M is smaller)."""
    center = surface.mean(axis=0)
    radius = float(np.sqrt(((surface - center) ** 2).sum(axis=1).mean())) or 1.0
    points = (surface - center) / radius
    index = rng.permutation(len(points))[:SAMPLE_POINTS]
    index = np.resize(index, SAMPLE_POINTS)
    normals = estimate_normals(points, points[index], rng)
    return Sample(points[index].astype(np.float32), normals.astype(np.float32), center, radius, index)
