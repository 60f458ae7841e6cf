"""Object File Format: OFF, COFF, NOFF, STOFF and their mixtures; ASCII, with comments, counts on the header line or
not."""

from __future__ import annotations

import re

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.raw import RawScan, check_counts, fan, to_bytes, whole
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import Lines, columns, count_words, numbers, plain_text, strip_comments, table

MAX_STREAM_NUMBERS = 3_000_000
HEADER = re.compile(rb"\s*(ST)?(C)?(N)?(4)?(n)?(?:OFF|off)\b[ \t]*(BINARY)?")


def read(file: ScanFile) -> RawScan:
    text = strip_comments(plain_text(file.data, "the OFF file"))
    header = HEADER.match(text)
    has_uv = has_color = has_normal = False
    if header is not None:
        if header[4] or header[5] or header[6]:
            raise ScanError(f"{header[0].decode().strip()}; ASCII OFF of three dimensions is accepted")
        has_uv, has_color, has_normal = (header[i] is not None for i in (1, 2, 3))
        text = text[header.end() :]
    lines = Lines(text)
    if not len(lines):
        raise ScanError("an OFF file without counts")
    head = numbers(" ".join(lines.line(0).split()[:4]).encode("latin-1"), "the OFF counts")
    if len(head) < 2 or (head != np.floor(head)).any() or (np.abs(head) > 1e15).any():
        raise ScanError("an OFF file whose first numbers are not the counts of vertices, faces and edges")
    vertex_count, face_count = int(head[0]), int(head[1])
    check_counts(vertex_count, face_count)
    if vertex_count == 0:
        raise ScanError("an OFF file of 0 vertices")
    if len(head) > 3 or len(lines) < 1 + vertex_count + face_count:
        return _one_stream(text, vertex_count, face_count, 3 + 3 * has_normal + 4 * has_color + 2 * has_uv)
    rows = np.zeros(len(lines), bool)
    rows[1 : 1 + vertex_count] = True
    values, count = columns(lines, rows, "OFF vertex")
    raw = RawScan(table(values, count, 3, "OFF vertex"))
    _extras(values, count, has_uv, has_color, has_normal, raw)
    if face_count:
        rows = np.zeros(len(lines), bool)
        rows[1 + vertex_count : 1 + vertex_count + face_count] = True
        _faces(*columns(lines, rows, "OFF face"), raw)
    return raw


def _extras(values: np.ndarray, count: np.ndarray, uv: bool, color: bool, normal: bool, raw: RawScan) -> None:
    """Colour and texture coordinates behind x y z [normal]; colours also where the header does not announce them."""
    width = int(count.min())
    if width < 3 + 3 * normal or (count != width).any():
        return
    rest = values.reshape(-1, width)[:, 3 + 3 * normal :]
    if uv and rest.shape[1] >= 2:
        raw.uv, rest = rest[:, -2:], rest[:, :-2]
    if rest.shape[1] in (3, 4) and (color or (rest.min() >= 0 and rest.max() <= 255)):
        raw.colors = to_bytes(rest)


def _faces(values: np.ndarray, count: np.ndarray, raw: RawScan) -> None:
    start = np.cumsum(count) - count
    corners = values[start]
    if (corners != np.floor(corners)).any() or corners.min() < 1 or (corners > count - 1).any():
        bad = int(np.argmax((corners != np.floor(corners)) | (corners < 1) | (corners > count - 1)))
        raise ScanError(f"OFF face {bad} announces {corners[bad]:g} corners, but {count[bad] - 1} numbers follow")
    corners = corners.astype(np.int64)
    before = np.cumsum(corners) - corners
    flat = values[np.arange(int(corners.sum())) + np.repeat(start + 1 - before, corners)]
    _set_faces(flat, corners, raw)


def _set_faces(flat: np.ndarray, corners: np.ndarray, raw: RawScan) -> None:
    raw.faces = whole(flat, "the corners of OFF faces")[fan(corners)]
    if raw.uv is not None:
        raw.uv_faces = raw.faces


def _one_stream(text: bytes, vertices: int, faces: int, width: int) -> RawScan:
    """A file that does not keep one vertex or face a line: just the numbers in order, no colours on faces."""
    if count_words(text) > MAX_STREAM_NUMBERS:
        raise ScanError(
            f"a large OFF file (over {MAX_STREAM_NUMBERS:,} numbers) that has not one vertex or face a line"
        )
    values = numbers(text, "the OFF file")[3:]
    if len(values) < vertices * width + 4 * faces:
        raise ScanError(
            f"the OFF file declares {vertices:,} vertices and {faces:,} faces, but {len(values):,} numbers follow; "
            "it is cut off or damaged"
        )
    raw = RawScan(values[: vertices * width].reshape(-1, width)[:, :3])
    rest = values[vertices * width :].tolist()
    flat, corners, position = [], np.zeros(faces, np.int64), 0
    for face in range(faces):
        if position >= len(rest) or not 1 <= rest[position] <= len(rest) - position - 1:
            raise ScanError(f"OFF face {face} of {faces} is cut off or damaged")
        corners[face] = size = int(rest[position])
        flat += rest[position + 1 : position + 1 + size]
        position += 1 + size
    _set_faces(np.array(flat), corners, raw)
    return raw


READERS = {".off": read}
