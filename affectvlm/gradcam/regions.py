"""Regions of the face in the views: brows, eyes, nose, mouth, and the rest.

They are boxes in millimetres of the canonical frame (nose tip at the origin, +x to the subject's left, +y up), seen
from the front. A scan's pixels are put into them by their own position in space; photos, which are framed like rendered
views, by that of an average face in their place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from affectvlm.rendering import (
    DEFAULT_YAWS,
    HALF_WIDTH_MM,
    PIVOT_MM,
    render_buffers,
    rotation_y,
)
from affectvlm.scan import Scan

REGIONS = ("brows", "eyes", "nose", "mouth", "rest")

BOXES_MM: tuple[tuple[str, float, float, float, float], ...] = (
    ("brows", 0.0, 56.0, 43.0, 68.0),
    ("brows", 0.0, 11.0, 31.0, 43.0),  # the frown between the eyes
    ("eyes", 11.0, 56.0, 16.0, 43.0),
    ("nose", 0.0, 11.0, -20.0, 31.0),
    ("nose", 11.0, 22.0, -20.0, 16.0),
    ("mouth", 0.0, 38.0, -66.0, -20.0),
)
"""Region, |x| from and to, y from and to; what no box holds is the rest."""

DEEPEST_MM = -90.0
"""Behind it nothing belongs to a region: hair, ears, neck."""


def region_of(points: np.ndarray) -> np.ndarray:
    """(..., 3) mm in the canonical frame → (...) int8 index into REGIONS."""
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    region = np.full(points.shape[:-1], REGIONS.index("rest"), np.int8)
    for name, x0, x1, y0, y1 in BOXES_MM:
        region[(x >= x0) & (x < x1) & (y >= y0) & (y < y1) & (z > DEEPEST_MM)] = REGIONS.index(name)
    return region


def scan_regions(
    scan: Scan, yaws: Sequence[float] = DEFAULT_YAWS, half_width: float = HALF_WIDTH_MM, size: int = 112
) -> np.ndarray:
    """(N, size, size) int8: index into REGIONS of each pixel of a canonical scan's views, -1 beside the face.

    Raises:
        ValueError: as `render_buffers`.
    """
    buffers = render_buffers(scan, yaws, size, half_width, supersample=1)
    regions = np.full(buffers.depth.shape, -1, np.int8)
    for n, yaw in enumerate(yaws):
        seen = buffers.coverage[n] > 0
        regions[n][seen] = region_of(pixel_positions(buffers.depth[n], yaw, half_width)[seen])
    return regions


def pixel_positions(depth: np.ndarray, yaw: float, half_width: float = HALF_WIDTH_MM) -> np.ndarray:
    """Where the surface at each pixel lies: depth (H, W) mm of `Buffers` → (H, W, 3) mm in the canonical frame."""
    height, width = depth.shape
    step = 2 * half_width / width
    x = (np.arange(width) + 0.5 - width / 2) * step
    y = (height / 2 - np.arange(height) - 0.5) * step
    turned = np.stack([*np.meshgrid(x, y), depth - PIVOT_MM[2]], axis=-1)
    return turned @ rotation_y(yaw) + PIVOT_MM


def photo_regions(size: int = 112) -> np.ndarray:
    """(3, size, size) int8 for photos: an average face stands for the one that is there, and all beside it is rest."""
    regions = scan_regions(_average_face(), size=size)
    return np.where(regions < 0, np.int8(REGIONS.index("rest")), regions)


@functools.cache
def _average_face() -> Scan:
    from affectvlm.synthesis.procedural import ProceduralFace

    model = ProceduralFace()
    return model.generate(model.sample_identity(np.random.default_rng(0), spread=0.0), {})
