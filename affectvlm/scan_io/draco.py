"""Draco-compressed meshes, decoded by DracoPy in a process of its own, with bounded size, time and memory."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.limits import DRACO_MEMORY_BYTES, DRACO_SECONDS
from affectvlm.scan_io.raw import check_counts

WORKER = Path(__file__).with_name("draco_worker.py")
WIDTHS = {"position": (3,), "uv": (2,), "colors": (3, 4)}
HEADER_BYTES = 11
METADATA_FLAG = 0x8000
SEQUENTIAL, EDGEBREAKER = 0, 1


def decode_draco(data: bytes, ids: dict[str, int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Attributes by name (n, width) for the wanted unique `ids`, and triangles (F, 3) int64.

    Raises ScanError where the mesh is damaged, larger than accepted, or DracoPy is missing.
    """
    if importlib.util.find_spec("DracoPy") is None:
        raise ScanError("a Draco-compressed glTF; reading it needs the package DracoPy (pip install DracoPy)")
    _check_declared(data)
    faces, *arrays = _decode_apart(data, list(ids.values()))
    found = {name: values for name, values in zip(ids, arrays, strict=True) if values.size}
    for name, values in found.items():
        if values.ndim != 2 or values.shape[1] not in WIDTHS[name]:
            raise ScanError(f"a Draco mesh whose {name} has shape {values.shape}")
    if "position" not in found:
        raise ScanError("a Draco mesh without the positions the glTF names")
    return found, faces


def _decode_apart(data: bytes, ids: list[int]) -> list[np.ndarray]:
    """What the worker process answers: faces, then one array an id."""
    limits = [str(DRACO_MEMORY_BYTES), str(DRACO_SECONDS)]
    command = [sys.executable, "-I", str(WORKER), *limits, *(str(unique_id) for unique_id in ids)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        answer = subprocess.run(command, input=data, capture_output=True, timeout=3 * DRACO_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        raise ScanError("a Draco mesh that takes too long to decode; it is damaged") from None
    except OSError as error:
        raise ScanError(f"a Draco mesh; its decoder could not be started ({error.strerror})") from None
    if answer.returncode != 0:
        reason = answer.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] if answer.returncode == 1 else []
        raise ScanError(f"a damaged Draco mesh ({reason[0][:80] if reason else 'the decoder gave up'})")
    stream = io.BytesIO(answer.stdout)
    return [np.load(stream, allow_pickle=False) for _ in range(1 + len(ids))]


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
