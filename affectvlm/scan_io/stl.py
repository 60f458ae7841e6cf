"""STL, ASCII and binary. Its triangles share no vertices; equal corners are made one."""

from __future__ import annotations

import struct

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.raw import RawScan, check_counts, merge_equal
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import Lines, numbers, plain_text

HEADER_BYTES = 84
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def read(file: ScanFile) -> RawScan:
    data, warnings = file.data, []
    if _is_binary(data):
        corners = _binary(data, warnings)
    else:
        corners = _ascii(data)
    if len(corners) == 0:
        raise ScanError("an STL file without triangles")
    vertices, index = merge_equal(corners.reshape(-1, 3))
    return RawScan(vertices.astype(np.float64), index.reshape(-1, 3), warnings=warnings)


def _is_binary(data: bytes) -> bool:
    """Binary files may start with "solid" too, so the size decides first."""
    if len(data) >= HEADER_BYTES:
        count = struct.unpack_from("<I", data, 80)[0]
        if len(data) == HEADER_BYTES + count * TRIANGLE.itemsize:
            return True
    return not data[:512].lstrip()[:5].lower() == b"solid" or b"\0" in data[:1024]


def _binary(data: bytes, warnings: list[str]) -> np.ndarray:
    if len(data) < HEADER_BYTES:
        raise ScanError(f"{len(data)} bytes are neither an ASCII STL nor a binary one (at least {HEADER_BYTES})")
    count = struct.unpack_from("<I", data, 80)[0]
    need = HEADER_BYTES + count * TRIANGLE.itemsize
    if need > len(data):
        raise ScanError(
            f"a binary STL that declares {count:,} triangles ({need:,} bytes) but has {len(data):,} bytes; "
            "it is cut off, or no STL"
        )
    check_counts(0, count)
    if need < len(data):
        warnings.append(f"{len(data) - need} bytes after the last triangle were passed over.")
    return np.frombuffer(data, TRIANGLE, count, HEADER_BYTES)["corners"].astype(np.float32)


def _ascii(data: bytes) -> np.ndarray:
    text = plain_text(data, "the STL file").lower()
    if b"endsolid" not in text[-100_000:]:
        raise ScanError("an ASCII STL without 'endsolid'; it is cut off or damaged")
    lines = Lines(text)
    is_vertex = np.ones(len(lines), bool)
    for offset, code in enumerate(b"ve"):  # no other line of an STL starts so
        is_vertex &= lines.codes[lines.first + offset] == code
    count = int(is_vertex.sum())
    if count % 3 or (count and (lines.words[is_vertex] != 4).any()):
        raise ScanError(f"an ASCII STL with {count} corners, or corners that are not three numbers; damaged")
    check_counts(0, count // 3)
    values = numbers(lines.text(is_vertex, len("vertex")), "an STL corner")
    if len(values) != 3 * count:
        raise ScanError(f"an ASCII STL with {len(values)} numbers for {count} corners; damaged")
    return values.reshape(-1, 3, 3).astype(np.float32)


READERS = {".stl": read}
