"""Bosphorus range scans (`.bnt`): a grid of points seen from the front, bottom row first, made a mesh.

Little endian: rows u16, columns u16, the "no data" value f64, name length u16, name, count u32, then `count` f64 in
five planes x, y, z, u, v; millimetres; v runs from the top of the image. The image and the landmarks lie beside the
file.
"""

from __future__ import annotations

import struct

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.images import IMAGE_EXTENSIONS, decode_image
from affectvlm.scan_io.limits import MAX_COORDINATE, MAX_IMAGE_BYTES
from affectvlm.scan_io.raw import RawScan
from affectvlm.scan_io.source import ScanFile

PLANES = 5
MAX_CELLS = 4_000_000
JUMP_EDGES = 5.0
"""Triangles with an edge this many times the median edge bridge a gap in depth and are dropped."""
JUMP_MM = 10.0
"""Largest difference in z along an edge, in millimetres ..."""
JUMP_STEPS = 2.0
"""... or in median edges, for coarse grids."""


def read(file: ScanFile) -> RawScan:
    rows, cols, values, warnings = _grid(file.data)
    x, y, z, u, v = values
    no_data = struct.unpack_from("<d", file.data, 4)[0]
    points = np.stack([x, y, z], axis=1)
    valid = (np.abs(points) < MAX_COORDINATE).all(axis=1) & (points != no_data).all(axis=1)
    if valid.sum() < 3:
        raise ScanError(f"{int(valid.sum())} of {len(points)} grid points hold data; at least 3 are needed")
    raw = RawScan(points[valid], unit="mm", warnings=warnings)
    if rows * cols != len(points):
        raw.warnings.append(
            f"The grid is declared as {rows} x {cols} but has {len(points)} points; they were read as a point cloud."
        )
        return raw
    index = np.where(valid, np.cumsum(valid) - 1, -1).reshape(rows, cols)
    raw.faces = _mesh(index, raw.vertices, raw.warnings)
    if len(raw.faces):
        raw.uv, raw.uv_faces = np.stack([u, 1.0 - v], axis=1)[valid], raw.faces
        beside = file.siblings.with_stem(file.stem, (".png", *IMAGE_EXTENSIONS), MAX_IMAGE_BYTES)
        image = None if beside is None else decode_image(beside[1], beside[0], raw.warnings)
        raw.images = [] if image is None else [image]
    return raw


def _grid(data: bytes) -> tuple[int, int, np.ndarray, list[str]]:
    """(rows, columns, (5, n) float64, warnings) with every declared size held against the file's."""
    if len(data) < 18:
        raise ScanError(f"a .bnt file of {len(data)} bytes; its header alone has 18")
    rows, cols, _, name_length = struct.unpack_from("<HHdH", data)
    if 18 + name_length > len(data):
        raise ScanError("a .bnt file whose image name reaches beyond its end; it is cut off or no .bnt")
    count = struct.unpack_from("<I", data, 14 + name_length)[0]
    have = len(data) - 18 - name_length
    if count % PLANES or count == 0:
        raise ScanError(f"a .bnt file of {count:,} values; a multiple of {PLANES} is needed")
    if 8 * count > have:
        raise ScanError(f"a .bnt file that declares {8 * count:,} bytes of data and has {have:,}; it is cut off")
    if rows * cols > MAX_CELLS or count > PLANES * MAX_CELLS:
        raise ScanError(f"a .bnt grid of {rows} x {cols}, {count:,} values; at most {MAX_CELLS:,} points are accepted")
    warnings = []
    if 8 * count < have:
        warnings.append(f"{have - 8 * count} bytes after the grid were passed over.")
    return rows, cols, np.frombuffer(data, "<f8", count, 18 + name_length).reshape(PLANES, -1), warnings


def _mesh(index: np.ndarray, points: np.ndarray, warnings: list[str]) -> np.ndarray:
    """Up to two triangles a grid cell whose corners hold data, seen from +z counter-clockwise, jumps in depth
    dropped.

    `index` (rows, cols): vertex of each cell corner, -1 for none; row 0 is the bottom.
    """
    if min(index.shape) < 2:
        return np.zeros((0, 3), np.int64)
    low_left, low_right, up_left, up_right = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    diagonal = (low_left >= 0) & (up_right >= 0)  # cut each cell along a diagonal both ends of which are there
    corners = [
        np.where(diagonal[..., None], np.stack(along, -1), np.stack(across, -1)).reshape(-1, 3)
        for along, across in (
            ((low_left, low_right, up_right), (low_left, low_right, up_left)),
            ((low_left, up_right, up_left), (low_right, up_right, up_left)),
        )
    ]
    faces = np.concatenate(corners)
    faces = faces[(faces >= 0).all(axis=1)]
    if not len(faces):
        return faces
    edges = points[faces] - points[np.roll(faces, -1, axis=1)]
    length = np.linalg.norm(edges, axis=2)
    median = float(np.median(length))
    jump = (length > JUMP_EDGES * median) | (np.abs(edges[..., 2]) > max(JUMP_MM, JUMP_STEPS * median))
    jump = jump.any(axis=1)
    if jump.any():
        warnings.append(f"{int(jump.sum())} of {len(faces)} faces bridged gaps in depth and were left out.")
    return faces[~jump]


READERS = {".bnt": read}
