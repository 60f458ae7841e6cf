"""Cleaning a scan: what readers and scanners leave behind, put right and said in plain words.

`tidy` works on any scan, before its pose is known; `clean_face` on a scan in the canonical frame, where sizes in
millimetres mean something.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from affectvlm.scan import Scan, ScanError

MIN_POINTS = 100
SMALL_COMPONENT = 0.002  # of the surface points; smaller crumbs are dropped before the pose is known
CRUMB_MM = 12.0  # a loose piece of the face region smaller than this is dropped, unless it touches the face
NEAR_MM = 18.0  # eyes and teeth lie within this of the face's main piece
SPIKE_EDGE = 4.0  # a spike's edges are this much longer than the usual edge ...
SPIKE_MM = 4.0  # ... and longer than this
HOLE_PERIMETER_MM = 40.0  # larger openings are eyes, mouths, or real gaps
OUTLIER_SPACING = 5.0  # a cloud's point is lost when its neighbours are this much farther than theirs are
HEAD_CENTER = np.array([0.0, 0.0, -90.0])  # inside every head, mm


def tidy(scan: Scan) -> Scan:
    """Drops vertices no face uses, degenerate faces, repeated points of a cloud, lost points and crumbs of a mesh.

    Raises:
        ScanError: fewer than 100 points remain, or they have no extent in two directions.
    """
    scan = _tidy_cloud(scan) if scan.is_point_cloud else _tidy_mesh(scan)
    label = scan.source or "scan"
    if len(scan.vertices) < MIN_POINTS:
        raise ScanError(f"{label}: {len(scan.vertices)} usable points; a face needs at least {MIN_POINTS}")
    extent = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(scan.vertices.astype(np.float64).T)), 0))
    if not extent[1] > 1e-6 * extent[2] > 0:
        raise ScanError(f"{label}: all points lie on one line or in one spot; a surface is needed")
    if extent[0] < 1e-3 * extent[2]:
        raise ScanError(f"{label}: all points lie in one plane; a face has depth")
    return scan


def _tidy_cloud(scan: Scan) -> Scan:
    vertices = scan.vertices
    _, first = np.unique(vertices, axis=0, return_index=True)
    keep = np.zeros(len(vertices), bool)
    keep[first] = True
    messages = []
    if len(first) < len(vertices):
        messages.append(f"{len(vertices) - len(first)} repeated points were dropped")
    if len(first) > 20:
        distance, near = cKDTree(vertices[first]).query(vertices[first], k=7)
        spacing = distance[:, 1:].mean(axis=1)
        # Against its neighbours' own spacing, so that the sparse parts of an uneven cloud are not lost.
        lost = spacing > OUTLIER_SPACING * np.median(spacing[near[:, 1:]], axis=1)
        if 0 < lost.sum() < 0.1 * len(first):
            keep[first[lost]] = False
            messages.append(f"{int(lost.sum())} points far from all others were dropped")
    return scan.keep_vertices(keep).with_warnings(*messages) if messages else scan


def _tidy_mesh(scan: Scan) -> Scan:
    area = _areas(scan.vertices, scan.faces)
    faces = scan.faces[area > 0]
    if len(faces) == 0:
        return replace(scan, faces=np.zeros((0, 3), np.int32)).with_warnings(
            "no face has an area: used as a point cloud"
        )
    messages = []
    piece = components(scan.vertices, faces)
    face_piece = piece[faces[:, 0]]
    share = np.bincount(face_piece, weights=area[area > 0]) / area.sum()
    small = share < SMALL_COMPONENT
    # Many small pieces together can be the surface itself (a triangle soup): then none is a crumb.
    if share[small].sum() > 0.2:
        small[:] = False
    if small[face_piece].any():
        faces = faces[~small[face_piece]]
        messages.append(f"{int(np.isin(np.unique(face_piece), np.flatnonzero(small)).sum())} loose crumbs were dropped")
    used = np.zeros(len(scan.vertices), bool)
    used[faces] = True
    if len(faces) == len(scan.faces) and used.all():
        return scan
    return replace(scan, faces=faces).keep_vertices(used).with_warnings(*messages)


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F,) float64 twice the area of each face; coordinate by coordinate, which is several times as fast."""
    corners = vertices.T.astype(np.float64)
    first = corners.take(faces[:, 0], axis=1)
    ux, uy, uz = corners.take(faces[:, 1], axis=1) - first
    vx, vy, vz = corners.take(faces[:, 2], axis=1) - first
    x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    return np.sqrt(x * x + y * y + z * z)


def components(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) the number of the connected piece of each vertex; vertices at one place (texture seams) count as one."""
    place = _places(vertices)
    a, b, c = place[faces].T
    count = int(place.max()) + 1
    ones = np.ones(2 * len(faces), bool)
    graph = sparse.coo_matrix((ones, (np.concatenate([a, b]), np.concatenate([b, c]))), (count, count))
    return connected_components(graph, directed=False)[1][place]


def _places(vertices: np.ndarray) -> np.ndarray:
    """(V,) int64 the number of the place each vertex is at, the same for vertices with equal coordinates."""
    x, y, z = _rising(vertices)
    return _ranks(_ranks(z << np.uint64(32) | y).astype(np.uint64) << np.uint64(32) | x)


def _rising(vertices: np.ndarray) -> np.ndarray:
    """(3, V) uint64 under 2^32 in the order of the coordinates: integers are sorted several times as fast."""
    bits = (np.asarray(vertices, np.float32).T + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)


def _ranks(keys: np.ndarray) -> np.ndarray:
    """(K,) int64 the number of each key among the different ones, from 0."""
    order = np.argsort(keys)
    ordered = keys[order]
    ranks = np.zeros(len(keys), np.int64)
    ranks[order[1:]] = np.cumsum(ordered[1:] != ordered[:-1])
    return ranks


def clean_face(scan: Scan) -> Scan:
    """A mesh in the canonical frame without spikes, crumbs, pin holes and with its faces turned outwards."""
    scan = _flatten_spikes(scan)
    scan, piece = _drop_crumbs(scan, components(scan.vertices, scan.faces))
    return _fill_pin_holes(_turn_outwards(scan, piece))


def _flatten_spikes(scan: Scan) -> Scan:
    """Vertices that stick out on long edges are put back between their neighbours."""
    vertices = scan.vertices.astype(np.float64)
    shortest = _shortest(vertices, scan.faces)
    spikes = np.isfinite(shortest) & (shortest > SPIKE_MM)
    if not spikes.any():
        return scan
    edges = _edges(scan.faces)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    spikes &= shortest > SPIKE_EDGE * float(np.median(length))
    count = len(vertices)
    both = np.concatenate([edges, edges[:, ::-1]])
    adjacency = sparse.csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), (count, count))
    degree = np.maximum(np.asarray(adjacency.sum(axis=1)).ravel(), 1)
    away = np.linalg.norm(vertices - (adjacency @ vertices) / degree[:, None], axis=1)
    spikes &= away > 0.8 * shortest
    if not spikes.any() or spikes.mean() > 0.05:
        return scan
    calm = sparse.diags((~spikes).astype(float))
    sums = adjacency[spikes] @ calm
    weight = np.asarray(sums.sum(axis=1)).ravel()
    back = (sums @ vertices) / np.maximum(weight, 1)[:, None]
    vertices[np.flatnonzero(spikes)[weight > 0]] = back[weight > 0]
    count = int(spikes.sum())
    said = "one spike was flattened" if count == 1 else f"{count} spikes were flattened"
    return replace(scan, vertices=vertices).with_warnings(said)


def _shortest(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V,) length of the shortest edge at each vertex, inf where there is none."""
    start, end = _sides(faces)
    corners = np.ascontiguousarray(vertices.T)
    x, y, z = corners.take(start, axis=1) - corners.take(end, axis=1)
    square = x * x + y * y + z * z
    shortest = np.full(len(vertices), np.inf)
    np.minimum.at(shortest, start, square)
    np.minimum.at(shortest, end, square)
    return np.sqrt(shortest)


def _edges(faces: np.ndarray) -> np.ndarray:
    """(E, 2) undirected edges, each once."""
    start, end = _sides(faces)
    key = np.sort(np.minimum(start, end) << 32 | np.maximum(start, end))
    key = key[np.concatenate([[True], key[1:] != key[:-1]])]
    return np.column_stack([key >> 32, key & 0xFFFFFFFF])


def _sides(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each side of each face starts and ends, both (3 F,) int64."""
    a, b, c = faces.T.astype(np.int64)
    return np.concatenate([a, b, c]), np.concatenate([b, c, a])


def _drop_crumbs(scan: Scan, piece: np.ndarray) -> tuple[Scan, np.ndarray]:
    """Loose pieces far from the main one go; eyes, teeth and lashes, which lie close to it, stay. With the `piece` of
    each vertex that is left."""
    size = np.bincount(piece)
    if len(size) == 1:
        return scan, piece
    loose = piece != size.argmax()
    main = cKDTree(scan.vertices[~loose], balanced_tree=False, compact_nodes=False)  # made at once, asked little
    distance, _ = main.query(scan.vertices[loose], distance_upper_bound=NEAR_MM)
    nearest = np.full(len(size), np.inf)
    np.minimum.at(nearest, piece[loose], distance)
    low, high = np.full((len(size), 3), np.inf), np.full((len(size), 3), -np.inf)
    np.minimum.at(low, piece[loose], scan.vertices[loose])
    np.maximum.at(high, piece[loose], scan.vertices[loose])
    tiny = np.linalg.norm(high - low, axis=1) < CRUMB_MM
    drop = ~np.isfinite(nearest) | (tiny & (nearest > 2.0))
    drop[size.argmax()] = False
    keep = ~drop[piece]
    if keep.all():
        return scan, piece
    said = f"{int(drop.sum())} loose pieces around the face were dropped"
    return scan.keep_vertices(keep).with_warnings(said), piece[keep]


def _turn_outwards(scan: Scan, piece: np.ndarray) -> Scan:
    """Each piece's faces wound so that it looks away from the middle of the head (the flux of a closed piece is its
    volume wherever the middle lies, so eyeballs come out right too)."""
    faces, patch = scan.faces, piece[scan.faces[:, 0]]
    mixed = _wound_unlike(scan.vertices, faces)
    if mixed is not None:
        faces, patch = mixed
    corners = scan.vertices[faces].astype(np.float64) - HEAD_CENTER
    flux = np.einsum("fi,fi->f", np.cross(corners[:, 0], corners[:, 1]), corners[:, 2])
    inward = np.bincount(patch, weights=flux)[patch] < 0
    if mixed is None and not inward.any():
        return scan
    faces = faces.copy()
    faces[inward] = faces[inward][:, [0, 2, 1]]
    return replace(scan, faces=faces)


def _wound_unlike(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Of a mesh in which neighbours are wound against each other: (faces wound alike within each patch, (F,) number of
    each face's patch); None where there are none such. Patches are joined by edges of exactly two faces; one that
    cannot be wound alike (a Möbius strip) stays as it is."""
    place, count = _places(vertices)[faces], len(faces)
    start, end = _sides(place)
    same = np.sort(start << 32 | end)
    if not (same[1:] == same[:-1]).any():
        return None
    edge = np.minimum(start, end) << 32 | np.maximum(start, end)
    order = np.argsort(edge, kind="stable")
    first = np.flatnonzero(np.diff(edge[order], prepend=-1))
    first = first[np.diff(first, append=len(order)) == 2]
    one, other = order[first], order[first + 1]
    against = (start[one] == start[other]).astype(np.int64)
    one, other = one % count, other % count
    # Each face twice, as it is and turned over (+ count); two of them are joined where they go on into each other.
    ends = np.concatenate([one, one + count]), np.concatenate([other + against * count, other + (1 - against) * count])
    graph = sparse.coo_matrix((np.ones(2 * len(one), bool), ends), (2 * count, 2 * count))
    side = connected_components(graph, directed=False)[1]
    as_is, turned = side[:count], side[count:]
    over = as_is > turned
    faces = np.where(over[:, None], faces[:, [0, 2, 1]], faces)
    return faces, np.unique(np.minimum(as_is, turned), return_inverse=True)[1].ravel()


def _fill_pin_holes(scan: Scan) -> Scan:
    """Openings with a rim shorter than 40 mm are closed by a fan of triangles about a new point in their middle."""
    rims = [rim for rim in _rims(scan) if 3 <= len(rim) <= 60]
    vertices = scan.vertices.astype(np.float64)
    short = [rim for rim in rims if _perimeter(vertices[rim]) < HOLE_PERIMETER_MM and _one_patch(scan, rim)]
    if not short:
        return scan
    count = len(vertices)
    fans = [
        np.column_stack([np.roll(rim, -1), rim, np.full(len(rim), count + number)]) for number, rim in enumerate(short)
    ]
    extend = lambda values: np.concatenate([values, np.stack([values[rim].mean(axis=0) for rim in short])])  # noqa: E731
    filled = replace(
        scan,
        vertices=extend(vertices),
        faces=np.concatenate([scan.faces, *fans]),
        uv=None if scan.uv is None else extend(scan.uv),
        colors=None if scan.colors is None else extend(scan.colors.astype(np.float64)).round().astype(np.uint8),
    )
    return filled.with_warnings(f"{len(short)} pin holes were closed")


def _perimeter(points: np.ndarray) -> float:
    return float(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum())


def _one_patch(scan: Scan, rim: np.ndarray) -> bool:
    """False where the rim's texture coordinates are torn apart: a mean of them would show another part of the image."""
    return scan.uv is None or float(np.ptp(scan.uv[rim], axis=0).max()) < 0.1


def _rims(scan: Scan) -> list[np.ndarray]:
    """Closed loops of border edges (each used by one face), as vertex numbers in the faces' sense of rotation. Texture
    seams, where two vertices share a place, are no border."""
    place = _places(scan.vertices)
    vertex_at = np.empty(place.max() + 1, np.int64)
    vertex_at[place] = np.arange(len(place))
    border = _border(place[scan.faces])
    starts, times = np.unique(border[:, 0], return_counts=True)
    knots = set(starts[times > 1].tolist())  # rims that touch in a vertex are left alone
    following = dict(zip(*border.T.tolist(), strict=True))  # not of pairs: the garbage collector would look at each
    rims = []
    while following:
        start, here = following.popitem()
        rim = [start]
        while here != start and here in following:
            rim.append(here)
            here = following.pop(here)
        if here == start and not knots.intersection(rim):
            rims.append(vertex_at[rim])
    return rims


def _border(faces: np.ndarray) -> np.ndarray:
    """(B, 2) the sides that only one face has, in its sense of rotation, sorted by their ends."""
    start, end = _sides(faces)
    low, high = np.minimum(start, end), np.maximum(start, end)
    # an edge's two ends, and in the last bit which of them comes first
    key = np.sort((low << 31 | high) << 1 | (start > end))
    edge = key >> 1
    other = edge[1:] != edge[:-1]
    alone = np.concatenate([[True], other]) & np.concatenate([other, [True]])
    low, high = edge[alone] >> 31, edge[alone] & 0x7FFFFFFF
    back = (key[alone] & 1).astype(bool)
    return np.column_stack([np.where(back, high, low), np.where(back, low, high)])
