"""The container of glTF 2.0: JSON, buffers and accessors, everything in it checked before it is used."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.limits import MAX_FILE_BYTES, MAX_JSON_ITEMS
from affectvlm.scan_io.raw import check_counts, check_indices
from affectvlm.scan_io.source import ScanFile

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
UNDERSTOOD = {
    "KHR_draco_mesh_compression", "KHR_mesh_quantization", "KHR_texture_transform", "KHR_lights_punctual",
    "EXT_texture_webp",
}  # fmt: skip
ONLY_LOOKS = "KHR_materials_"
"""Extensions a file may require; lights, and all whose names begin so, only change how it looks."""


@dataclass
class Document:
    """The parsed JSON with typed access: whatever is missing or of the wrong type is a ScanError."""

    file: ScanFile
    json: dict[str, Any]
    binary: bytes | None
    warnings: list[str] = field(default_factory=list)
    buffers: dict[int, bytes] = field(default_factory=dict)

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        items = self.json.get(kind)
        if not isinstance(index, int) or not isinstance(items, list) or not 0 <= index < len(items):
            raise ScanError(f"the glTF names {kind} {str(index)[:20]}, which is not there")
        if not isinstance(items[index], dict):
            raise ScanError(f"{kind} {index} of the glTF is no object")
        return items[index]

    def buffer(self, index: int) -> bytes:
        if index not in self.buffers:
            self.buffers[index] = self._load_buffer(index)
        return self.buffers[index]

    def _load_buffer(self, index: int) -> bytes:
        entry = self.item("buffers", index)
        uri = entry.get("uri")
        if uri is None:
            if self.binary is None or index != 0:
                raise ScanError(f"buffer {index} of the glTF is nowhere")
            data = self.binary
        elif isinstance(uri, str):
            data = data_uri(uri) if uri.startswith("data:") else self.file.siblings.find(uri, MAX_FILE_BYTES)
            if data is None:
                raise ScanError(
                    f"the glTF keeps its mesh in another file, {uri[:80]!r}, which did not come with it; "
                    "a .glb, or a .zip with all files, is needed"
                )
        else:
            raise ScanError("a glTF buffer whose uri is no text")
        if whole_number(entry, "byteLength") > len(data):
            raise ScanError(f"buffer {index} of the glTF declares {entry['byteLength']:,} bytes and has {len(data):,}")
        return data

    def view(self, index: Any) -> tuple[bytes, int, int, int]:
        """(buffer, offset, length, stride or 0) of a buffer view, inside its buffer."""
        entry = self.item("bufferViews", index)
        data = self.buffer(whole_number(entry, "buffer"))
        offset, length = whole_number(entry, "byteOffset", 0), whole_number(entry, "byteLength")
        stride = whole_number(entry, "byteStride", 0)
        if offset + length > len(data):
            raise ScanError(
                f"buffer view {index} ends at byte {offset + length:,} of {len(data):,}; the glTF is damaged"
            )
        return data, offset, length, stride

    def view_bytes(self, index: Any) -> bytes:
        data, offset, length, _ = self.view(index)
        return data[offset : offset + length]

    def accessor(self, index: Any, widths: tuple[int, ...]) -> np.ndarray:
        """An accessor as (n, width); integers that are shares ("normalized") as float64 in [-1, 1]."""
        entry = self.item("accessors", index)
        count, width = whole_number(entry, "count"), WIDTHS.get(str(entry.get("type")), 0)
        dtype = COMPONENTS.get(entry.get("componentType")) if isinstance(entry.get("componentType"), int) else None
        if width not in widths or dtype is None:
            raise ScanError(
                f"accessor {index} holds {str(entry.get('type'))[:20]} of {str(entry.get('componentType'))[:20]}"
            )
        check_counts(count // 30)  # indices: three a triangle; the caller knows the tighter bound
        if "bufferView" in entry:
            values = self._rows(
                entry["bufferView"], whole_number(entry, "byteOffset", 0), count, width, np.dtype(dtype)
            )
        else:
            check_counts(count)
            values = np.zeros((count, width), dtype)
        if "sparse" in entry:
            values = self._sparse(values, entry["sparse"], np.dtype(dtype))
        if entry.get("normalized") and values.dtype.kind in "iu":
            values = np.maximum(values / np.iinfo(values.dtype).max, -1.0)
        return values

    def _rows(self, view: Any, start: int, count: int, width: int, dtype: np.dtype) -> np.ndarray:
        data, offset, length, stride = self.view(view)
        row = width * dtype.itemsize
        stride = stride or row
        if count == 0:
            return np.zeros((0, width), dtype)
        if stride < row or start + stride * (count - 1) + row > length:
            raise ScanError(
                f"{count:,} rows of {stride} bytes do not fit in a buffer view of {length:,}; the glTF is damaged"
            )
        strides = (stride, dtype.itemsize)
        return np.ndarray((count, width), dtype, data, offset + start, strides)

    def _sparse(self, values: np.ndarray, sparse: Any, dtype: np.dtype) -> np.ndarray:
        """Some rows replaced by others."""
        try:
            count, where, what = whole_number(sparse, "count"), sparse["indices"], sparse["values"]
            index_type = np.dtype(COMPONENTS[where["componentType"]])
            rows = self._rows(where["bufferView"], whole_number(where, "byteOffset", 0), count, 1, index_type)[:, 0]
            new = self._rows(what["bufferView"], whole_number(what, "byteOffset", 0), count, values.shape[1], dtype)
        except (KeyError, TypeError):
            raise ScanError("a sparse glTF accessor without indices or values") from None
        check_indices(rows, len(values), "rows")
        values = values.copy()
        values[rows.astype(np.int64)] = new
        return values


def whole_number(entry: Any, key: str, default: int | None = None) -> int:
    """A non-negative whole number out of the JSON."""
    value = entry.get(key, default) if isinstance(entry, dict) else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ScanError(f"the glTF gives {str(value)[:30]} as {key!r}; a whole number is needed")
    return value


def data_uri(uri: str) -> bytes:
    """The bytes in a `data:` URI, base64 only."""
    head, comma, body = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ScanError("a data: URI in the glTF that is not base64")
    try:
        return base64.b64decode(body)
    except (binascii.Error, ValueError):
        raise ScanError("a data: URI in the glTF whose base64 is damaged") from None


def open_document(file: ScanFile) -> Document:
    """The document in a `.gltf` or `.glb` file; ScanError where it is damaged or needs what is not understood."""
    text, binary = _chunks(file.data) if file.data[:4] == b"glTF" else (file.data, None)
    document = Document(file, _parse(text), binary)
    required = document.json.get("extensionsRequired", [])
    names = [str(name)[:60] for name in required] if isinstance(required, list) else []
    unknown = {name for name in names if name not in UNDERSTOOD and not name.startswith(ONLY_LOOKS)}
    if unknown:
        understood = ", ".join([*sorted(UNDERSTOOD), ONLY_LOOKS + "..."])
        raise ScanError(f"the glTF needs {', '.join(sorted(unknown)[:5])}; {understood} are understood")
    return document


def items(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key, [])
    return value if isinstance(value, list) else []


def floats(node: dict[str, Any], key: str, count: int, default: list[float]) -> np.ndarray:
    value = node.get(key, default)
    if not isinstance(value, list) or len(value) != count or not all(isinstance(v, (int, float)) for v in value):
        raise ScanError(f"the glTF's {key!r} is not {count} numbers")
    try:
        array = np.array([float(v) for v in value])
    except OverflowError:
        array = np.full(count, np.inf)
    if not np.isfinite(array).all():
        raise ScanError(f"the glTF's {key!r} is not finite")
    return array


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB."""
    if len(data) < 20:
        raise ScanError(f"a GLB of {len(data)} bytes; it is cut off")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise ScanError(f"GLB version {version}; version 2 is accepted")
    if length > len(data):
        raise ScanError(f"the GLB declares {length:,} bytes and has {len(data):,}; it is cut off")
    text = binary = None
    position = 12
    while position + 8 <= length:
        size, kind = struct.unpack_from("<II", data, position)
        position += 8
        if position + size > length:
            raise ScanError("a GLB chunk reaches beyond the file; it is cut off or damaged")
        if kind == JSON_CHUNK and text is None:
            text = data[position : position + size]
        elif kind == BINARY_CHUNK and binary is None:
            binary = data[position : position + size]
        position += size
    if text is None:
        raise ScanError("a GLB without its JSON chunk")
    return text, binary


def _parse(text: bytes) -> dict[str, Any]:
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_ITEMS:
        raise ScanError(f"a glTF of more than {MAX_JSON_ITEMS:,} JSON values; at most so many are accepted")
    try:
        document = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ScanError(f"the glTF's JSON is damaged or cut off ({str(error)[:80]})") from None
    if not isinstance(document, dict):
        raise ScanError("a glTF is one JSON object; this is not")
    asset = document.get("asset")
    version = str(asset.get("version", "")) if isinstance(asset, dict) else ""
    if not version.startswith("2"):
        raise ScanError(f"glTF version {version[:20] or 'unknown'}; version 2 is accepted")
    return document
