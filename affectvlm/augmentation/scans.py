"""Damage to clean scans, so that a model trained on them survives real ones.

Scanners leave holes, noise and spikes, see one side only, cut the face out of the head, lose teeth and eyes, and are
turned a little wrong. Each function takes a scan in the canonical frame and a generator, and returns a new scan.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from affectvlm.rendering import rasterise
from affectvlm.scan import Scan, vertex_normals

_FACE_CENTRE = np.array([0.0, -8.0, -25.0])
"""mm; the middle of the facial mask, about which crops are cut."""


def damage(scan: Scan, rng: np.random.Generator) -> Scan:
    """One random history of a scan: surface quality, what was captured, what was cut, and how it was turned."""
    quality = rng.random()
    if quality < 0.18:
        scan = decimate(scan, int(rng.uniform(2500, 9000)), rng)
    elif quality < 0.36:
        scan = smooth(scan, int(rng.integers(1, 12)))
    if rng.random() < 0.25:
        scan = range_scan(scan, rng.uniform(-20, 20), rng.uniform(-15, 15), spacing=rng.uniform(0.8, 2.0))
    if rng.random() < 0.35:
        scan = add_noise(scan, float(10 ** rng.uniform(-1.3, 0.0)), rng)
    if rng.random() < 0.20:
        scan = punch_holes(scan, rng)
    scan = crop(scan, rng)
    return pose_error(scan, rng)


def reshape(scan: Scan, rng: np.random.Generator, spread: float = 1.8) -> Scan:
    """Another bone structure: a smooth displacement of the whole surface, mostly the same on both sides.

    Face models span the people they were learned from; a few random waves of 50 to 200 mm length, together `spread` mm
    (standard deviation) along each axis, and 5 % more or less width, height and depth lead out of that span.
    """
    points = scan.vertices.astype(np.float64)
    folded = np.column_stack([np.abs(points[:, 0]), points[:, 1:]])
    moved = points * np.exp(rng.normal(0, 0.05, 3))
    for where, share in ((folded, 1.0), (points, 0.35)):
        length = np.exp(rng.uniform(np.log(50), np.log(200), 6))
        direction = rng.normal(size=(6, 3))
        waves = direction / np.linalg.norm(direction, axis=1, keepdims=True) * (2 * np.pi / length)[:, None]
        amplitude = rng.normal(0, share * spread * np.sqrt(2 / 6), (6, 3))
        offset = np.sin(where @ waves.T + rng.uniform(0, 2 * np.pi, 6)) @ amplitude
        if share == 1.0:
            offset[:, 0] *= np.tanh(points[:, 0] / 8.0)  # both halves move apart or together, and never across
        moved += offset
    shift = (moved - points)[np.linalg.norm(points - _FACE_CENTRE, axis=1) < 95]
    return replace(scan, vertices=(moved - (shift.mean(axis=0) if len(shift) else 0.0)).astype(np.float32))


def restyle(expressive: Scan, resting: Scan, rng: np.random.Generator) -> Scan:
    """Another person's way of moving: the displacement from the same face at rest, `resting`, is stronger here and
    weaker there (a smooth factor, 20 % standard deviation) and goes a little elsewhere (10 % of it along other axes).

    Face models move each muscle in one way; models of other makers move it in another.

    Raises:
        ValueError: the two scans do not have the same vertices.
    """
    if expressive.vertices.shape != resting.vertices.shape:
        raise ValueError(f"{len(expressive.vertices)} vertices, {len(resting.vertices)} at rest; the same are needed")
    points = resting.vertices.astype(np.float64)
    direction = rng.normal(size=(4, 3))
    length = np.exp(rng.uniform(np.log(60), np.log(200), (4, 1)))
    waves = direction / np.linalg.norm(direction, axis=1, keepdims=True) * (2 * np.pi / length)
    strength = np.exp(0.2 * np.sqrt(2 / 4) * np.sin(points @ waves.T + rng.uniform(0, 2 * np.pi, 4)).sum(axis=1))
    moved = (expressive.vertices - points) @ (np.eye(3) + rng.normal(0, 0.1, (3, 3))) * strength[:, None]
    return replace(expressive, vertices=(points + moved).astype(np.float32))


def crop(scan: Scan, rng: np.random.Generator) -> Scan:
    """A sphere about the face (always), and often a mask: an ellipse with an uneven edge, like a cut-out range scan."""
    relative = scan.vertices - _FACE_CENTRE
    keep = np.linalg.norm(relative, axis=1) < rng.uniform(88, 105)
    if rng.random() < 0.4:
        angle = np.arctan2(relative[:, 1], relative[:, 0])
        edge = 1 + sum(rng.normal(0, 0.03) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in (1, 2, 3, 5))
        radius = np.hypot(relative[:, 0] / rng.uniform(58, 80), (relative[:, 1] + 4) / rng.uniform(74, 98))
        keep &= (radius < edge) & (relative[:, 2] > rng.uniform(-75, -30))
    if rng.random() < 0.06:
        direction = rng.normal(size=3) * [1, 1, 0.2]
        keep &= relative @ (direction / np.linalg.norm(direction)) < rng.uniform(30, 70)
    return _keep(scan, keep)


def range_scan(scan: Scan, yaw: float, pitch: float, spacing: float, jump: float = 6.0) -> Scan:
    """What one depth camera sees from (yaw, pitch) in degrees: a grid of `spacing` mm, torn where depth jumps by
    `jump` mm."""
    turn = _rotation(yaw, pitch, 0.0)
    points = scan.vertices @ turn.T
    low = points.min(axis=0)
    size = np.ceil((points.max(axis=0) - low)[:2] / spacing).astype(int) + 2
    size = np.minimum(size, 400)
    pixels = np.empty_like(points, dtype=np.float32)
    pixels[:, 0] = (points[:, 0] - low[0]) / spacing
    pixels[:, 1] = (points[:, 1] - low[1]) / spacing
    pixels[:, 2] = points[:, 2]
    nearest, weights = rasterise(pixels, scan.faces, int(size[1]), int(size[0]))
    seen = nearest >= 0
    corners = scan.faces[nearest[seen]]
    share = np.column_stack([1 - weights[seen].sum(axis=1), weights[seen]])
    vertices = np.einsum("vcx,vc->vx", scan.vertices[corners], share)
    colors = None if scan.colors is None else np.einsum("vcx,vc->vx", scan.colors[corners].astype(np.float32), share)
    index = np.full(nearest.shape, -1, np.int32)
    index[seen] = np.arange(seen.sum())
    faces = grid_faces(index, (vertices @ turn.T)[:, 2], jump)
    if len(faces) < 100:
        return scan
    return Scan(vertices, faces, colors=None if colors is None else colors.astype(np.uint8), source=scan.source)


def grid_faces(index: np.ndarray, depth: np.ndarray, jump: float) -> np.ndarray:
    """Two triangles for each full cell of a grid.

    Args:
        index: (R, C) int32 vertex numbers, -1 where the grid has none.
        depth: (V,) distance of each vertex; a triangle that spans more than `jump` is left out.
    """
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, b, d), (a, d, c))])
    faces = faces[(faces >= 0).all(axis=1)]
    span = depth[faces].max(axis=1) - depth[faces].min(axis=1)
    return faces[span <= jump]


def add_noise(scan: Scan, sigma: float, rng: np.random.Generator) -> Scan:
    """Gaussian noise of `sigma` mm along the normals, half of it coarse (a few mm wide); now and then some spikes."""
    normals = vertex_normals(scan.vertices, scan.faces)
    waves = rng.normal(size=(4, 3)) * rng.uniform(0.2, 0.8, (4, 1))
    coarse = np.sin(scan.vertices @ waves.T + rng.uniform(0, 6.28, 4)).mean(axis=1)
    offset = sigma * (0.7 * rng.normal(size=len(normals)) + 0.7 * coarse)
    if rng.random() < 0.25:
        spikes = rng.random(len(normals)) < 0.001
        offset[spikes] += rng.normal(0, 6, spikes.sum())
    return replace(scan, vertices=scan.vertices + (offset[:, None] * normals).astype(np.float32))


def smooth(scan: Scan, iterations: int) -> Scan:
    """Laplacian smoothing, as scanners' software does it."""
    count = len(scan.vertices)
    edges = np.concatenate([scan.faces[:, [0, 1]], scan.faces[:, [1, 2]], scan.faces[:, [2, 0]]])
    weights = np.ones(2 * len(edges), np.float32)
    links = sparse.csr_matrix((weights, (edges.ravel("F"), edges[:, ::-1].ravel("F"))), (count, count))
    links.data[:] = 1
    degree = np.maximum(np.asarray(links.sum(axis=1)).ravel(), 1)
    vertices = scan.vertices.astype(np.float32)
    for _ in range(iterations):
        vertices = 0.5 * vertices + 0.5 * (links @ vertices) / degree[:, None]
    return replace(scan, vertices=vertices)


def decimate(scan: Scan, faces: int, rng: np.random.Generator) -> Scan:
    """At most `faces` triangles by quadric decimation; half of the time flat-shaded (each triangle its own corners)."""
    import fast_simplification

    share = min(0.97, 1 - faces / max(len(scan.faces), 1))
    if share <= 0.02:
        return scan
    vertices, triangles = fast_simplification.simplify(scan.vertices, scan.faces, share)
    colors = None if scan.colors is None else scan.colors[cKDTree(scan.vertices).query(vertices)[1]]
    if rng.random() < 0.4:
        corners = triangles.ravel()
        vertices, colors = vertices[corners], None if colors is None else colors[corners]
        triangles = np.arange(len(corners)).reshape(-1, 3)
    return Scan(vertices, triangles, colors=colors, source=scan.source)


def punch_holes(scan: Scan, rng: np.random.Generator) -> Scan:
    """One to five holes of 3 to 13 mm radius at random vertices."""
    keep = np.ones(len(scan.vertices), bool)
    for centre in scan.vertices[rng.integers(len(scan.vertices), size=rng.integers(1, 6))]:
        keep &= np.linalg.norm(scan.vertices - centre, axis=1) > rng.uniform(3, 13)
    return _keep(scan, keep)


def pose_error(scan: Scan, rng: np.random.Generator) -> Scan:
    """Turn, shift and scale the way an imperfect pose estimate leaves a scan: a few degrees, mm and percent."""
    spread = 3.5 if rng.random() < 0.85 else 9.0
    turn = _rotation(*rng.normal(0, spread, 3) * [1, 1, 0.8])
    return scan.transformed(turn, rng.normal(0, 2.5, 3) * [1, 1.3, 1], float(rng.normal(1, 0.03)))


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("YXZ", [yaw, pitch, roll], degrees=True).as_matrix()


def _keep(scan: Scan, keep: np.ndarray) -> Scan:
    """Cut, unless so little would remain that there is no face left."""
    left = int(keep[scan.faces].all(axis=1).sum())
    return scan.keep_vertices(keep) if left >= 200 else scan
