"""Draco-compressed meshes, decoded by DracoPy once their declared size is known to be acceptable."""

from __future__ import annotations

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.raw import check_counts

HEADER_BYTES = 11
METADATA_FLAG = 0x8000
SEQUENTIAL, EDGEBREAKER = 0, 1


def decode_draco(data: bytes, ids: dict[str, int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Attributes by name (n, width) for the wanted unique `ids`, and triangles (F, 3) int64.

    Raises ScanError where the mesh is damaged, larger than accepted, or DracoPy is missing.
    """
    try:
        import DracoPy
    except ImportError:
        raise ScanError("a Draco-compressed glTF; reading it needs the package DracoPy (pip install DracoPy)") from None
    _check_declared(data)
    try:
        mesh = DracoPy.decode(data)
        found = {}
        for name, unique_id in ids.items():
            attribute = mesh.get_attribute_by_unique_id(unique_id)
            if attribute is not None and attribute.get("data") is not None:
                found[name] = np.asarray(attribute["data"])
        faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3))), np.int64).reshape(-1, 3)
    except (DracoPy.FileTypeException, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ScanError(f"a damaged Draco mesh ({str(error)[:80]})") from None
    widths = {"position": (3,), "uv": (2,), "colors": (3, 4)}
    for name, values in found.items():
        if values.ndim != 2 or values.shape[1] not in widths[name]:
            raise ScanError(f"a Draco mesh whose {name} has shape {values.shape}")
    if "position" not in found:
        raise ScanError("a Draco mesh without the positions the glTF names")
    return found, faces


def _check_declared(data: bytes) -> None:
    """Bounds the counts in the header: run-length coding lets a few bytes declare a mesh of any size.

    Layout: "DRACO", version (2 bytes), 0 points or 1 mesh, method, flags (2 bytes); then, for meshes of bitstream
        2.2, with edgebreaker one byte for the traversal, vertices and faces as varints; sequential: faces and points
        as varints.
    """
    if len(data) < HEADER_BYTES + 2 or data[:5] != b"DRACO":
        raise ScanError("a damaged Draco mesh (no header)")
    version, kind, method = (data[5], data[6]), data[7], data[8]
    if kind != 1 or version != (2, 2):
        raise ScanError(f"Draco bitstream {version[0]}.{version[1]} of kind {kind}; meshes of 2.2 are accepted")
    if int.from_bytes(data[9:11], "little") & METADATA_FLAG:
        raise ScanError("a Draco mesh with metadata; one without is accepted")
    first, position = _varint(data, HEADER_BYTES + (method == EDGEBREAKER))
    second, _ = _varint(data, position)
    vertices, faces = (second, first) if method == SEQUENTIAL else (first, second)
    check_counts(vertices, faces)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """(value, next position) of an unsigned number in groups of 7 bits, lowest first."""
    value = shift = 0
    while position < len(data) and shift < 64:
        value |= (data[position] & 0x7F) << shift
        shift, position = shift + 7, position + 1
        if data[position - 1] < 0x80:
            return value, position
    raise ScanError("a damaged Draco mesh (a number that does not end)")
