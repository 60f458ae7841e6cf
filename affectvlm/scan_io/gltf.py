"""glTF 2.0 and its binary form GLB: buffers embedded, as data: URIs, or plain files beside the scan; Draco and
quantized meshes; node transforms; base colour textures and vertex colours.

Every triangle or point primitive the scene shows is merged into one scan, in the pose the file gives at rest: skins
and morph targets are left alone. Accessors are held against their buffers before anything is allocated. glTF measures
v from the top of the image and length in metres; v is turned, lengths are guessed like everywhere, as many exporters
ignore the metre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.draco import decode_draco
from affectvlm.scan_io.gltf_document import Document, data_uri, floats, items, open_document, whole_number
from affectvlm.scan_io.images import decode_image, keep_image
from affectvlm.scan_io.limits import MAX_IMAGE_BYTES, MAX_SCENE_NODES, MAX_TEXTURES
from affectvlm.scan_io.raw import RawScan, check_counts, check_indices, to_bytes
from affectvlm.scan_io.source import ScanFile

POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6


def read(file: ScanFile) -> RawScan:
    document = open_document(file)
    parts: list[Part] = []
    vertices = faces = 0
    for primitive, matrix in _drawn(document):
        part = read_primitive(document, primitive, matrix) if isinstance(primitive, dict) else None
        if part is not None:
            vertices, faces = vertices + len(part.vertices), faces + len(part.faces)
            check_counts(vertices, faces)  # at every step: one mesh may be drawn by thousands of nodes
            parts.append(part)
    if not parts:
        raise ScanError("a glTF scene without triangles or points")
    if any(len(part.faces) for part in parts):
        parts = [part for part in parts if len(part.faces)]
    return merged(document, parts)


def _drawn(document: Document) -> list[tuple[Any, np.ndarray]]:
    """(primitive, matrix (4, 4)) of everything the default scene shows; all meshes as they are where there is no
    scene."""
    nodes = document.json.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        meshes = document.json.get("meshes")
        meshes = meshes if isinstance(meshes, list) else []
        return [(p, np.eye(4)) for i in range(len(meshes)) for p in items(document.item("meshes", i), "primitives")]
    found, seen = [], set()
    todo = [(root, np.eye(4)) for root in scene_roots(document)]
    while todo:
        index, matrix = todo.pop()
        if index in seen:
            raise ScanError("a glTF node with two parents; a tree is needed")
        seen.add(index)
        node = document.item("nodes", index)
        matrix = matrix @ local_matrix(node)
        if "mesh" in node:
            found += [(p, matrix) for p in items(document.item("meshes", node["mesh"]), "primitives")]
            if len(found) > MAX_SCENE_NODES:
                raise ScanError(f"more than {MAX_SCENE_NODES:,} parts; at most so many are accepted")
        todo += [(child, matrix) for child in reversed(items(node, "children")) if isinstance(child, int)]
    return found


def scene_roots(document: Document) -> list[int]:
    scenes = document.json.get("scenes")
    if isinstance(scenes, list) and scenes:
        roots = items(document.item("scenes", document.json.get("scene", 0)), "nodes")
        roots = [root for root in roots if isinstance(root, int)]
        return list(dict.fromkeys(reversed(roots)))
    nodes = document.json["nodes"]
    children = {c for node in nodes if isinstance(node, dict) for c in items(node, "children") if isinstance(c, int)}
    return [index for index in range(len(nodes)) if index not in children]


def local_matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return floats(node, "matrix", 16, []).reshape(4, 4).T
    x, y, z, w = floats(node, "rotation", 4, [0, 0, 0, 1])
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    x, y, z, w = (v / norm for v in (x, y, z, w)) if norm > 0 else (0.0, 0.0, 0.0, 1.0)
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= floats(node, "scale", 3, [1, 1, 1])
    matrix[:3, 3] = floats(node, "translation", 3, [0, 0, 0])
    return matrix


@dataclass
class Part:
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None
    colors: np.ndarray | None
    material: Any


def read_primitive(document: Document, primitive: dict[str, Any], matrix: np.ndarray) -> Part | None:
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
            check_counts(whole_number(document.item("accessors", attributes[name]), "count"))
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
    ids = {k: whole_number(draco["attributes"], n) for k, n in wanted.items() if n in draco["attributes"]}
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
    scale, offset = floats(change, "scale", 2, [1, 1]), floats(change, "offset", 2, [0, 0])
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


def merged(document: Document, parts: list[Part]) -> RawScan:
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
