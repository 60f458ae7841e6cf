"""`Scan`: one 3D face as arrays, and `ScanError`, what a bad file ends in.

A scan is immutable and knows nothing of files, rendering or pose: readers (`scan_io`) and face models (`synthesis`)
make scans, `pose` turns them to the canonical frame, `rendering` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np


class ScanError(ValueError):
    """A file or array that cannot be used as a 3D scan; the message says what was found and what is accepted."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A triangle mesh, or a point cloud where `faces` is empty.

    Attributes:
        vertices: (V, 3) float32, in millimetres as far as `unit` is known; right-handed axes.
        faces: (F, 3) int32 indices into `vertices`; F = 0 for a point cloud.
        uv: (V, 2) float32 texture coordinates, v measured from the bottom of the image, or None.
        texture: (H, W, 3) uint8 RGB, first row = top of the image, or None.
        colors: (V, 3) uint8 RGB per vertex, or None.
        landmarks: name → (3,) float position in the same frame; empty where the source brings none.
        unit: the unit guessed or declared for the file: "mm", "cm", "m" or "unknown".
        source: where it came from, for messages (a file name, never a path of the user's machine).
        warnings: what was repaired or dropped on the way in, in plain words.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None = None
    texture: np.ndarray | None = None
    colors: np.ndarray | None = None
    landmarks: Mapping[str, np.ndarray] = field(default_factory=dict)
    unit: str = "mm"
    source: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        set_ = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (frozen dataclass)
        set_("vertices", _array(self.vertices, np.float32, 3, "vertices"))
        set_("faces", _array(self.faces, np.int32, 3, "faces"))
        count = len(self.vertices)
        if count == 0:
            raise ScanError(f"{self.source or 'scan'}: no vertices; at least one is needed")
        if not np.isfinite(self.vertices).all():
            raise ScanError(
                f"{self.source or 'scan'}: vertices hold NaN or infinite coordinates; finite ones are needed"
            )
        if len(self.faces) and (self.faces.min() < 0 or self.faces.max() >= count):
            raise ScanError(
                f"{self.source or 'scan'}: faces name vertices {self.faces.min()} to {self.faces.max()}, "
                f"but there are {count} vertices"
            )
        for name, dtype, width in (("uv", np.float32, 2), ("colors", np.uint8, 3)):
            value = getattr(self, name)
            if value is not None:
                value = _array(value, dtype, width, name)
                if len(value) != count:
                    raise ScanError(
                        f"{self.source or 'scan'}: {len(value)} {name} for {count} vertices; one each is needed"
                    )
                set_(name, value)
        if self.texture is not None:
            texture = np.ascontiguousarray(self.texture)
            if texture.ndim != 3 or texture.shape[2] != 3 or texture.dtype != np.uint8 or texture.size == 0:
                raise ScanError(f"texture is {texture.shape} {texture.dtype}; (H, W, 3) uint8 is needed")
            set_("texture", texture)

    @property
    def is_point_cloud(self) -> bool:
        return len(self.faces) == 0

    @property
    def has_texture(self) -> bool:
        """True where the scan brings its own appearance: an image with uv, or a colour per vertex."""
        return (self.texture is not None and self.uv is not None) or self.colors is not None

    def transformed(self, rotation: np.ndarray, translation: np.ndarray, scale: float = 1.0) -> Scan:
        """The scan with every point p moved to `scale * rotation @ p + translation` (landmarks too)."""
        rotation = np.asarray(rotation, np.float64)
        translation = np.asarray(translation, np.float64)

        def move(points: np.ndarray) -> np.ndarray:
            return (scale * (np.asarray(points, np.float64) @ rotation.T) + translation).astype(np.float32)

        return replace(
            self,
            vertices=move(self.vertices),
            landmarks={name: move(point) for name, point in self.landmarks.items()},
        )

    def with_warnings(self, *messages: str) -> Scan:
        return replace(self, warnings=self.warnings + messages)

    def keep_vertices(self, mask: np.ndarray) -> Scan:
        """The scan with only the vertices where `mask` (V,) bool is True, and the faces all of whose corners stay."""
        mask = np.asarray(mask, bool)
        index = np.cumsum(mask) - 1
        faces = self.faces[mask[self.faces].all(axis=1)] if len(self.faces) else self.faces
        return replace(
            self,
            vertices=self.vertices[mask],
            faces=index[faces].astype(np.int32),
            uv=None if self.uv is None else self.uv[mask],
            colors=None if self.colors is None else self.colors[mask],
        )


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted vertex normals, (V, 3) float32 of unit length; (0, 0, 1) where a vertex belongs to no area."""
    corners = vertices[faces].astype(np.float64)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros((len(vertices), 3))
    for axis in range(3):
        normals[:, axis] = np.bincount(
            faces.ravel(), weights=np.repeat(face_normals[:, axis], 3), minlength=len(vertices)
        )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.where(length > 1e-12, normals / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    return normals.astype(np.float32)


def _array(value: np.ndarray, dtype: type, width: int, name: str) -> np.ndarray:
    array = np.ascontiguousarray(value, dtype=dtype)
    if array.size == 0:
        array = array.reshape(0, width)
    if array.ndim != 2 or array.shape[1] != width:
        raise ScanError(f"{name} has shape {array.shape}; (n, {width}) is needed")
    return array
