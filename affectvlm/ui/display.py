"""A scan made ready for the screen: few enough triangles to turn smoothly, normals, colours.

No streamlit and no OpenGL in here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import fast_simplification
import numpy as np
from scipy.spatial import cKDTree

from affectvlm.scan import Scan, vertex_normals

MAX_TRIANGLES = 60_000
MAX_TEXTURE = 1024  # pixels a side; beyond it the page gets heavy and nobody sees the difference


@dataclass(frozen=True)
class DisplayMesh:
    """A mesh for the viewers.

    Attributes:
        vertices: (V, 3) float32, mm; faces: (F, 3) int32.
        normals: (V, 3) float32, unit length, smooth across texture seams.
        colors: (V, 3) uint8 RGB, or None where the scan brings no appearance of its own.
        uv: (V, 2) float32 and texture: (H, W, 3) uint8, or both None; drawn instead of `colors` where the viewer can.
        total: number of triangles of the scan it was made from.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    colors: np.ndarray | None
    uv: np.ndarray | None
    texture: np.ndarray | None
    total: int

    def arrays(self, appearance: bool) -> dict[str, np.ndarray]:
        """What a viewer draws, by name: the geometry, and the scan's own appearance if wanted and there."""
        arrays = {"vertices": self.vertices, "faces": self.faces, "normals": self.normals}
        if appearance and self.texture is not None:
            return arrays | {"uv": self.uv, "texture": self.texture}
        if appearance and self.colors is not None:
            return arrays | {"colors": self.colors}
        return arrays

    def painted(self, colors: np.ndarray) -> DisplayMesh:
        """The same mesh in other colours, (V, 3) uint8, instead of its own appearance."""
        return replace(self, colors=colors, uv=None, texture=None)


def display_mesh(scan: Scan, max_triangles: int = MAX_TRIANGLES) -> DisplayMesh:
    """The scan with at most about `max_triangles` triangles; larger ones are thinned and keep a colour per vertex.

    Raises:
        ValueError: the scan is a point cloud.
    """
    if scan.is_point_cloud:
        raise ValueError("a mesh with triangles is needed to show; this scan is a cloud of points")
    colors = vertex_colors(scan)
    total = len(scan.faces)
    if total <= max_triangles:
        textured = scan.texture is not None and scan.uv is not None
        return DisplayMesh(
            scan.vertices,
            scan.faces,
            _seamless_normals(scan.vertices, scan.faces),
            colors,
            scan.uv if textured else None,
            _small_enough(scan.texture) if textured else None,
            total,
        )
    points, faces = _welded(scan.vertices, scan.faces)
    vertices, faces = fast_simplification.simplify(points, faces, target_count=max_triangles)
    vertices, faces = vertices.astype(np.float32), faces.astype(np.int32)
    if colors is not None:
        colors = colors[cKDTree(scan.vertices).query(vertices)[1]]
    return DisplayMesh(vertices, faces, vertex_normals(vertices, faces), colors, None, None, total)


def vertex_colors(scan: Scan) -> np.ndarray | None:
    """(V, 3) uint8: the scan's own colours, or its texture read at each vertex, or None without either."""
    if scan.texture is None or scan.uv is None:
        return scan.colors
    height, width = scan.texture.shape[:2]
    u, v = (scan.uv % 1.0).T
    columns = np.minimum((u * width).astype(int), width - 1)
    rows = np.minimum(((1.0 - v) * height).astype(int), height - 1)
    return scan.texture[rows, columns]


def _small_enough(texture: np.ndarray) -> np.ndarray:
    step = -(-max(texture.shape[:2]) // MAX_TEXTURE)
    if step == 1:
        return texture
    height, width = (side // step * step for side in texture.shape[:2])
    blocks = texture[:height, :width].reshape(height // step, step, width // step, step, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)


def _welded(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of equal position made one (texture seams double them), degenerate triangles dropped."""
    points, index = np.unique(vertices, axis=0, return_inverse=True)
    faces = index.reshape(-1)[faces].astype(np.int32)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 0] != faces[:, 2])
    return points, faces[whole]


def _seamless_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    points, index = np.unique(vertices, axis=0, return_inverse=True)
    index = index.reshape(-1)
    return vertex_normals(points, index[faces])[index]
