"""glTF 2.0 and its binary form GLB: buffers embedded, as data: URIs, or plain files beside the scan; Draco and
quantized meshes; node transforms; base colour textures and vertex colours.

Every triangle or point primitive the scene shows is merged into one scan, in the pose the file gives at rest: skins
and morph targets are left alone. Accessors are held against their buffers before anything is allocated. glTF measures
v from the top of the image and length in metres; v is turned, lengths are guessed like everywhere, as many exporters
ignore the metre.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.draco import decode_draco
from affectvlm.scan_io.images import decode_image, keep_image
from affectvlm.scan_io.limits import (
    MAX_FILE_BYTES,
    MAX_IMAGE_BYTES,
    MAX_JSON_ITEMS,
    MAX_SCENE_NODES,
    MAX_TEXTURES,
)
from affectvlm.scan_io.raw import RawScan, check_counts, check_indices, to_bytes
from affectvlm.scan_io.source import ScanFile

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
UNDERSTOOD = {
    "KHR_draco_mesh_compression", "KHR_mesh_quantization", "KHR_texture_transform", "KHR_materials_unlit",
    "KHR_materials_pbrSpecularGlossiness", "EXT_texture_webp",
}  # fmt: skip
"""Extensions a file may require; the KHR_materials ones and the lights only change how it looks."""


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
        if _whole(entry, "byteLength") > len(data):
            raise ScanError(f"buffer {index} of the glTF declares {entry['byteLength']:,} bytes and has {len(data):,}")
        return data

    def view(self, index: Any) -> tuple[bytes, int, int, int]:
        """(buffer, offset, length, stride or 0) of a buffer view, inside its buffer."""
        entry = self.item("bufferViews", index)
        data = self.buffer(_whole(entry, "buffer"))
        offset, length = _whole(entry, "byteOffset", 0), _whole(entry, "byteLength")
        stride = _whole(entry, "byteStride", 0)
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
        count, width = _whole(entry, "count"), WIDTHS.get(str(entry.get("type")), 0)
        dtype = COMPONENTS.get(entry.get("componentType")) if isinstance(entry.get("componentType"), int) else None
        if width not in widths or dtype is None:
            raise ScanError(
                f"accessor {index} holds {str(entry.get('type'))[:20]} of {str(entry.get('componentType'))[:20]}"
            )
        check_counts(count // 30)  # indices: three a triangle; the caller knows the tighter bound
        if "bufferView" in entry:
            values = self._rows(entry["bufferView"], _whole(entry, "byteOffset", 0), count, width, np.dtype(dtype))
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
            count, where, what = _whole(sparse, "count"), sparse["indices"], sparse["values"]
            index_type = np.dtype(COMPONENTS[where["componentType"]])
            rows = self._rows(where["bufferView"], _whole(where, "byteOffset", 0), count, 1, index_type)[:, 0]
            new = self._rows(what["bufferView"], _whole(what, "byteOffset", 0), count, values.shape[1], dtype)
        except (KeyError, TypeError):
            raise ScanError("a sparse glTF accessor without indices or values") from None
        check_indices(rows, len(values), "rows")
        values = values.copy()
        values[rows.astype(np.int64)] = new
        return values


def _whole(entry: Any, key: str, default: int | None = None) -> int:
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


def read(file: ScanFile) -> RawScan:
    text, binary = _chunks(file.data) if file.data[:4] == b"glTF" else (file.data, None)
    document = Document(file, _parse(text), binary)
    required = document.json.get("extensionsRequired", [])
    unknown = {str(name)[:60] for name in required if name not in UNDERSTOOD} if isinstance(required, list) else set()
    if unknown:
        raise ScanError(
            f"the glTF needs {', '.join(sorted(unknown)[:5])}; {', '.join(sorted(UNDERSTOOD))} are understood"
        )
    parts: list[Part] = []
    vertices = faces = 0
    for primitive, matrix in _drawn(document):
        part = _primitive(document, primitive, matrix) if isinstance(primitive, dict) else None
        if part is not None:
            vertices, faces = vertices + len(part.vertices), faces + len(part.faces)
            check_counts(vertices, faces)  # at every step: one mesh may be drawn by thousands of nodes
            parts.append(part)
    if not parts:
        raise ScanError("a glTF scene without triangles or points")
    if any(len(part.faces) for part in parts):
        parts = [part for part in parts if len(part.faces)]
    return _merged(document, parts)


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


def _drawn(document: Document) -> list[tuple[Any, np.ndarray]]:
    """(primitive, matrix (4, 4)) of everything the default scene shows; all meshes as they are where there is no
    scene."""
    nodes = document.json.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        meshes = document.json.get("meshes")
        meshes = meshes if isinstance(meshes, list) else []
        return [(p, np.eye(4)) for i in range(len(meshes)) for p in _list(document.item("meshes", i), "primitives")]
    found, seen = [], set()
    todo = [(root, np.eye(4)) for root in _roots(document)]
    while todo:
        index, matrix = todo.pop()
        if index in seen:
            raise ScanError("a glTF node with two parents; a tree is needed")
        seen.add(index)
        node = document.item("nodes", index)
        matrix = matrix @ _local_matrix(node)
        if "mesh" in node:
            found += [(p, matrix) for p in _list(document.item("meshes", node["mesh"]), "primitives")]
            if len(found) > MAX_SCENE_NODES:
                raise ScanError(f"more than {MAX_SCENE_NODES:,} parts; at most so many are accepted")
        todo += [(child, matrix) for child in reversed(_list(node, "children")) if isinstance(child, int)]
    return found


def _list(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry.get(key, [])
    return value if isinstance(value, list) else []


def _roots(document: Document) -> list[int]:
    scenes = document.json.get("scenes")
    if isinstance(scenes, list) and scenes:
        roots = _list(document.item("scenes", document.json.get("scene", 0)), "nodes")
        roots = [root for root in roots if isinstance(root, int)]
        return list(dict.fromkeys(reversed(roots)))
    nodes = document.json["nodes"]
    children = {c for node in nodes if isinstance(node, dict) for c in _list(node, "children") if isinstance(c, int)}
    return [index for index in range(len(nodes)) if index not in children]


def _floats(node: dict[str, Any], key: str, count: int, default: list[float]) -> np.ndarray:
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


def _local_matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return _floats(node, "matrix", 16, []).reshape(4, 4).T
    x, y, z, w = _floats(node, "rotation", 4, [0, 0, 0, 1])
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    x, y, z, w = (v / norm for v in (x, y, z, w)) if norm > 0 else (0.0, 0.0, 0.0, 1.0)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= _floats(node, "scale", 3, [1, 1, 1])
    matrix[:3, 3] = _floats(node, "translation", 3, [0, 0, 0])
    return matrix


@dataclass
class Part:
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None
    colors: np.ndarray | None
    material: Any


def _primitive(document: Document, primitive: dict[str, Any], matrix: np.ndarray) -> Part | None:
    mode = primitive.get("mode", TRIANGLES)
    if mode not in (POINTS, TRIANGLES, STRIP, FAN):
        return None  # lines
    attributes = primitive.get("attributes")
    if not isinstance(attributes, dict) or "POSITION" not in attributes:
        return None
    if primitive.get("targets"):
        document.warnings.append("The scan has morph targets; its shape at rest was read.")
    texture = _base_texture(document, primitive.get("material"))
    uv_set = texture.get("texCoord", 0) if texture else 0
    wanted = {"position": "POSITION", "uv": f"TEXCOORD_{uv_set}", "colors": "COLOR_0"}
    extensions = primitive.get("extensions")
    draco = extensions.get("KHR_draco_mesh_compression") if isinstance(extensions, dict) else None
    if draco is not None:
        found, corners = _draco_arrays(document, draco, wanted)
    else:
        found, corners = _plain_arrays(document, primitive, attributes, wanted)
    position = np.asarray(found["position"], np.float64)
    vertices = position @ matrix[:3, :3].T + matrix[:3, 3]
    faces = np.zeros((0, 3), np.int64) if mode == POINTS else _triangles(corners, mode)
    check_indices(faces, len(vertices), "vertices")
    if np.linalg.det(matrix[:3, :3]) < 0:
        faces = faces[:, ::-1]
    uv, colors = found.get("uv"), found.get("colors")
    for values in (uv, colors):
        if values is not None and len(values) != len(vertices):
            raise ScanError(f"{len(values)} texture coordinates or colours for {len(vertices)} vertices in the glTF")
    if uv is not None:
        uv = _transformed_uv(np.asarray(uv, np.float64), texture)
        uv = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1)  # glTF counts v from the top
    return Part(vertices, faces, uv, None if colors is None else _color_bytes(colors), primitive.get("material"))


def _plain_arrays(
    document: Document, primitive: dict[str, Any], attributes: dict[str, Any], wanted: dict[str, str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    widths = {"position": (3,), "uv": (2,), "colors": (3, 4)}
    for name in wanted.values():
        if name in attributes:
            check_counts(_whole(document.item("accessors", attributes[name]), "count"))
    found = {k: document.accessor(attributes[n], widths[k]) for k, n in wanted.items() if n in attributes}
    if "indices" in primitive:
        corners = document.accessor(primitive["indices"], (1,))[:, 0]
        if corners.dtype.kind not in "ui":
            raise ScanError("glTF indices that are not whole numbers")
        return found, corners.astype(np.int64)
    return found, np.arange(len(found["position"]))


def _draco_arrays(document: Document, draco: Any, wanted: dict[str, str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    if not isinstance(draco, dict) or not isinstance(draco.get("attributes"), dict):
        raise ScanError("a Draco mesh in the glTF without its attributes")
    ids = {k: _whole(draco["attributes"], n) for k, n in wanted.items() if n in draco["attributes"]}
    if "position" not in ids:
        raise ScanError("a Draco mesh in the glTF without positions")
    found, faces = decode_draco(document.view_bytes(draco.get("bufferView")), ids)
    return found, faces.ravel()


def _triangles(corners: np.ndarray, mode: int) -> np.ndarray:
    if mode == TRIANGLES:
        check_counts(0, len(corners) // 3)
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    check_counts(0, max(len(corners) - 2, 0))
    if len(corners) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.broadcast_to(corners[0], len(corners) - 2), corners[1:-1], corners[2:]], axis=1)
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    faces[1::2] = faces[1::2, ::-1]  # every other triangle of a strip winds the other way
    return faces


def _color_bytes(colors: np.ndarray) -> np.ndarray:
    if colors.dtype.kind == "f":
        return np.clip(np.rint(np.nan_to_num(colors[:, :3].astype(np.float64)) * 255), 0, 255).astype(np.uint8)
    return to_bytes(colors) if colors.dtype.itemsize == 1 else (colors[:, :3].astype(np.int64) >> 8).astype(np.uint8)


def _base_texture(document: Document, material: Any) -> dict[str, Any] | None:
    """The texture reference (`index`, `texCoord`, `extensions`) of a material's colour, or None."""
    if material is None:
        return None
    entry = document.item("materials", material)
    extensions = entry.get("extensions")
    glossy = extensions.get("KHR_materials_pbrSpecularGlossiness") if isinstance(extensions, dict) else None
    for holder, key in ((entry.get("pbrMetallicRoughness"), "baseColorTexture"), (glossy, "diffuseTexture")):
        if isinstance(holder, dict) and isinstance(holder.get(key), dict):
            return holder[key]
    return None


def _transformed_uv(uv: np.ndarray, texture: dict[str, Any] | None) -> np.ndarray:
    """KHR_texture_transform, in glTF's own v direction."""
    extensions = texture.get("extensions") if texture else None
    change = extensions.get("KHR_texture_transform") if isinstance(extensions, dict) else None
    if not isinstance(change, dict):
        return uv
    scale, offset = _floats(change, "scale", 2, [1, 1]), _floats(change, "offset", 2, [0, 0])
    angle = change.get("rotation", 0.0)
    angle = float(angle) if isinstance(angle, (int, float)) and abs(angle) < 1e6 else 0.0
    c, s = math.cos(angle), math.sin(angle)
    u, v = (uv * scale).T
    return np.stack([c * u + s * v, c * v - s * u], axis=1) + offset


def _image(document: Document, texture: dict[str, Any]) -> np.ndarray | None:
    entry = document.item("textures", texture.get("index"))
    extensions = entry.get("extensions")
    webp = extensions.get("EXT_texture_webp") if isinstance(extensions, dict) else None
    source = webp.get("source") if isinstance(webp, dict) else entry.get("source")
    if source is None:
        document.warnings.append("A texture of the glTF has no image that is understood and was left out.")
        return None
    image = document.item("images", source)
    uri, what = image.get("uri"), f"number {source}"
    if isinstance(uri, str) and not uri.startswith("data:"):
        what = repr(uri[:80])
        data = document.file.siblings.find(uri, MAX_IMAGE_BYTES)
        if data is None:
            document.warnings.append(f"The texture {what} did not come with the scan.")
            return None
    else:
        data = data_uri(uri) if isinstance(uri, str) else document.view_bytes(image.get("bufferView"))
    return decode_image(data, what, document.warnings)


def _merged(document: Document, parts: list[Part]) -> RawScan:
    """All parts in one `RawScan`; each distinct texture is decoded once."""
    counts = [len(part.vertices) for part in parts]
    starts = np.cumsum(counts) - counts
    raw = RawScan(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
    )
    if any(part.colors is not None for part in parts):
        white = [
            np.full((n, 3), 255, np.uint8) if p.colors is None else p.colors for p, n in zip(parts, counts, strict=True)
        ]
        raw.colors = np.concatenate(white)
    if any(part.uv is not None for part in parts) and len(raw.faces):
        raw.uv = np.concatenate(
            [np.zeros((n, 2)) if p.uv is None else p.uv for p, n in zip(parts, counts, strict=True)]
        )
        bare = np.concatenate([np.full(len(p.faces), p.uv is None) for p in parts])
        raw.uv_faces = np.where(bare[:, None], -1, raw.faces)
        raw.face_image = np.concatenate(_part_images(document, parts, raw.images))
        if not raw.images:
            raw.face_image = None
    raw.warnings = list(dict.fromkeys(document.warnings))
    return raw


def _part_images(document: Document, parts: list[Part], images: list[np.ndarray]) -> list[np.ndarray]:
    """Image index of every face, part by part; decoded textures are appended to `images`."""
    known: dict[str, int] = {}
    result = []
    for part in parts:
        texture = _base_texture(document, part.material) if part.uv is not None else None
        index = -1
        if texture is not None:
            key = str(texture.get("index"))
            if key not in known:
                if len(known) >= MAX_TEXTURES:
                    raise ScanError(f"more than {MAX_TEXTURES} textures; at most so many are accepted")
                known[key] = keep_image(images, _image(document, texture))
            index = known[key]
        result.append(np.full(len(part.faces), index))
    return result


READERS = {".glb": read, ".gltf": read}
