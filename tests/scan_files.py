"""Writes small scan files of every format from arrays known in closed form, with NumPy and Pillow only."""

from __future__ import annotations

import base64
import gzip
import io
import json
import struct
import zipfile

import numpy as np
from PIL import Image

ROWS, COLS = 9, 7


def mask(scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bulging grid like a face mask, 140 x 180 mm: (V, 3) vertices, (Q, 4) quads, (V, 2) uv with v upwards."""
    t, s = np.meshgrid(np.linspace(-1, 1, ROWS), np.linspace(-1, 1, COLS), indexing="ij")
    z = 60 * (1 - 0.5 * s**2 - 0.5 * t**2)
    vertices = np.stack([70 * s, 90 * t, z], axis=-1).reshape(-1, 3) * scale
    at = np.arange(ROWS * COLS).reshape(ROWS, COLS)
    quads = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]], axis=-1).reshape(-1, 4)
    return vertices, quads, np.stack([(s + 1) / 2, (t + 1) / 2], axis=-1).reshape(-1, 2)


def triangles(quads: np.ndarray) -> np.ndarray:
    """The fan a reader has to make of each quad, in order."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3)


def two_colours(width: int = 8, height: int = 16) -> np.ndarray:
    """An image red on top and blue below."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, :, 0] = 250
    image[height // 2 :, :, 2] = 250
    return image


def image_bytes(image: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind)
    return out.getvalue()


def _rows(values: np.ndarray, lead: str = "", separator: str = " ") -> str:
    return "".join(lead + separator.join(f"{v:.9g}" for v in row) + "\n" for row in values)


def obj(vertices, polygons, uv=None, head: str = "", colors=None) -> bytes:
    """`polygons`: lists of vertex indices; with `uv` the same index is used for both."""
    lines = [head, _rows(vertices if colors is None else np.hstack([vertices, colors]), "v ")]
    lines += [_rows(uv, "vt ")] if uv is not None else []
    form = "{0}/{0}" if uv is not None else "{0}"
    lines += ["f " + " ".join(form.format(i + 1) for i in polygon) + "\n" for polygon in polygons]
    return "".join(lines).encode()


def ply(vertices, polygons, order="ascii", colors=None, uv=None, comment="", stride=None) -> bytes:
    """`order`: ascii, binary_little_endian or binary_big_endian."""
    head = f"ply\nformat {order} 1.0\n{comment}element vertex {len(vertices)}\n"
    head += "".join(f"property float {axis}\n" for axis in "xyz")
    head += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue")) if colors is not None else ""
    head += "property float s\nproperty float t\n" if uv is not None else ""
    head += (
        f"element face {len(polygons)}\nproperty list uchar int vertex_indices\nend_header\n" if len(polygons) else ""
    )
    head += "" if len(polygons) else "end_header\n"
    end = ">" if "big" in order else "<"
    body = bytearray() if order != "ascii" else []
    for i, point in enumerate(vertices):
        color = [] if colors is None else [int(c) for c in colors[i]]
        place = [] if uv is None else list(uv[i])
        if order == "ascii":
            body.append(" ".join(f"{v:.9g}" for v in [*point, *color, *place]) + "\n")
        else:
            body += struct.pack(f"{end}3f{len(color)}B{len(place)}f", *point, *color, *place)
    for polygon in polygons:
        if order == "ascii":
            body.append(" ".join(str(v) for v in [len(polygon), *polygon]) + "\n")
        else:
            body += struct.pack(f"{end}B{len(polygon)}i", len(polygon), *polygon)
    return head.encode() + ("".join(body).encode() if order == "ascii" else bytes(body))


def stl_binary(vertices, faces, header: bytes = b"made for a test") -> bytes:
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *vertices[list(f)].ravel(), 0) for f in faces)
    return header.ljust(80, b"\0") + struct.pack("<I", len(faces)) + body


def stl_ascii(vertices, faces) -> bytes:
    loops = [
        "facet normal 0 0 0\n outer loop\n" + _rows(vertices[list(f)], "  vertex ") + " endloop\nendfacet\n"
        for f in faces
    ]
    return ("solid mask\n" + "".join(loops) + "endsolid mask\n").encode()


def off(vertices, polygons, colors=None, header="OFF\n", newline="\n") -> bytes:
    rows = vertices if colors is None else np.hstack([vertices, colors, np.full((len(vertices), 1), 255)])
    text = f"{header}{len(vertices)} {len(polygons)} 0\n# a comment\n" + _rows(rows)
    text += "".join(f"{len(p)} " + " ".join(str(i) for i in p) + "\n" for p in polygons)
    return text.replace("\n", newline).encode()


def gltf_json(vertices, faces, uv=None, colors=None, image: bytes | None = None, node=None) -> tuple[dict, bytes]:
    """(JSON without the uri of buffer 0, buffer 0); `uv` upwards is written downwards as glTF has it."""
    blobs = [(vertices.astype("<f4"), 5126, "VEC3"), (np.asarray(faces).astype("<u4").ravel(), 5125, "SCALAR")]
    attributes = {"POSITION": 0}
    if uv is not None:
        attributes["TEXCOORD_0"] = len(blobs)
        blobs.append((np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype("<f4"), 5126, "VEC2"))
    if colors is not None:
        attributes["COLOR_0"] = len(blobs)
        blobs.append((np.hstack([colors, np.full((len(colors), 1), 255)]).astype("<u1"), 5121, "VEC4"))
    buffer, views, accessors = b"", [], []
    for values, component, kind in blobs:
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": values.nbytes})
        accessors.append({"bufferView": len(views) - 1, "componentType": component, "count": len(values), "type": kind})
        accessors[-1] |= {"normalized": True} if component == 5121 else {}
        buffer += values.tobytes() + b"\0" * (-values.nbytes % 4)
    primitive = {"attributes": attributes, "indices": 1}
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **(node or {})}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
    }
    if image is not None:
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(image)})
        buffer += image + b"\0" * (-len(image) % 4)
        primitive["material"] = 0
        document["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]
        document["textures"] = [{"source": 0}]
        document["images"] = [{"bufferView": len(views) - 1, "mimeType": "image/png"}]
    document["buffers"] = [{"byteLength": len(buffer)}]
    return document, buffer


def glb_of(document: dict, buffer: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(buffer), 0x004E4942) + buffer
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def glb(*args, **kwargs) -> bytes:
    return glb_of(*gltf_json(*args, **kwargs))


def gltf(*args, **kwargs) -> bytes:
    document, buffer = gltf_json(*args, **kwargs)
    document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(buffer).decode()
    return json.dumps(document).encode()


def vrml_list(rows, same_first=False, separator=" ", same_last=False, last_comma=False, form="{:.9g}") -> str:
    """The inside of a VRML list with its brackets, in the spellings that real files mix."""
    text = [separator.join(form.format(v) for v in row) for row in rows]
    body = ",\n ".join(text) + ("," if last_comma else "")
    return "[" + ("" if same_first else "\n ") + body + ("]" if same_last else "\n ]")


def vrml2(vertices, polygons, uv=None, uv_polygons=None, url="face.bmp", newline="\n", extra="", **style) -> bytes:
    """One textured Shape as in BU-3DFE; `style` goes to `vrml_list`."""

    def faces(items):
        return vrml_list([[*p, -1] for p in items], form="{:d}", **style)

    parts = [f"coord Coordinate {{ point {vrml_list(vertices, **style)} }}", f"coordIndex {faces(polygons)}"]
    if uv is not None:
        parts.append(f"texCoord TextureCoordinate {{ point {vrml_list(uv, **style)} }}")
        parts.append(f"texCoordIndex {faces(polygons if uv_polygons is None else uv_polygons)}")
    text = '#VRML V2.0 utf8\n# made for a test [ { " \n' + extra + "Shape {\n appearance Appearance {\n"
    text += (
        f'  texture ImageTexture {{ url "{url}" }}\n }}\n geometry IndexedFaceSet {{\n  '
        + "\n  ".join(parts)
        + "\n }\n}\n"
    )
    return text.replace("\n", newline).encode()


def vrml1(vertices, polygons, uv=None, translation=(0, 0, 0)) -> bytes:
    text = '#VRML V1.0 ascii\nSeparator {\n Texture2 { filename "face.png" }\n'
    text += "Transform { translation " + " ".join(str(v) for v in translation) + " }\n"
    text += f"Coordinate3 {{ point {vrml_list(vertices)} }}\n"
    text += f"TextureCoordinate2 {{ point {vrml_list(uv)} }}\n" if uv is not None else ""
    faces = vrml_list([[*p, -1] for p in polygons], form="{:d}")
    text += (
        f"IndexedFaceSet {{ coordIndex {faces} " + (f"textureCoordIndex {faces}" if uv is not None else "") + "}\n}\n"
    )
    return text.encode()


def bnt(planes: np.ndarray, rows: int, cols: int, no_data=-1e9, name: bytes = b"x.png", count=None) -> bytes:
    """`planes` (5, n): x, y, z, u, v (v downwards), row 0 the bottom."""
    head = struct.pack("<HHdH", rows, cols, no_data, len(name)) + name
    return head + struct.pack("<I", planes.size if count is None else count) + planes.astype("<f8").tobytes()


def mask_planes() -> np.ndarray:
    """The mask as a range grid: (5, V)."""
    vertices, _, uv = mask()
    return np.concatenate([vertices.T, uv[:, :1].T, 1 - uv[:, 1:].T])


def lm3(points: dict[str, tuple[float, float, float]], count: int | None = None) -> bytes:
    """Bosphorus landmarks: comments, a starred block, CRLF, labels with trailing blanks."""
    lines = [
        "# 3D landmarks",
        "#",
        "",
        "*** written for a test",
        "* by hand",
        "",
        f"{count or len(points)} Landmarks:",
        "",
    ]
    for label, place in points.items():
        lines += [label + "  ", " ".join(str(v) for v in place)]
    return "\r\n".join(lines).encode() + b"\r\n"


def bnd(points: np.ndarray, blank_row: bool = False) -> bytes:
    """BU landmarks: index, two tabs, x y z."""
    rows = "".join(f"{i}\t\t{x:.6f} {y:.6f} {z:.6f}\n" for i, (x, y, z) in enumerate(points))
    return (rows + ("\n" if blank_row else "")).encode()


def xyz(rows: np.ndarray, separator: str = " ", head: str = "") -> bytes:
    return (head + _rows(rows, separator=separator)).encode()


def zipped(members: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def textured_zip() -> bytes:
    """OBJ, MTL and texture together."""
    vertices, quads, uv = mask()
    return zipped(
        {
            "face/face.obj": obj(vertices, quads, uv, "mtllib face.mtl\nusemtl skin\n"),
            "face/face.mtl": b"newmtl skin\nKd 1 1 1\nmap_Kd skin.png\n",
            "face/skin.png": image_bytes(two_colours()),
        }
    )


def samples() -> dict[str, bytes]:
    """One or more whole files of every format, by name."""
    vertices, quads, uv = mask()
    faces = triangles(quads)
    colors = np.arange(len(vertices) * 3).reshape(-1, 3) % 256
    picture = image_bytes(two_colours())
    return {
        "quads.obj": obj(vertices, quads, uv),
        "bundle.zip": textured_zip(),
        "ascii.ply": ply(vertices, quads, colors=colors),
        "little.ply": ply(vertices, faces, "binary_little_endian", colors, uv),
        "big.ply": ply(vertices, quads, "binary_big_endian"),
        "mixed.ply": ply(vertices, [*quads[:20].tolist(), *triangles(quads[20:]).tolist()], "binary_little_endian"),
        "binary.stl": stl_binary(vertices, faces),
        "ascii.stl": stl_ascii(vertices, faces),
        "binary.glb": glb(vertices, faces, uv, colors, picture),
        "text.gltf": gltf(vertices, faces, uv, image=picture),
        "plain.off": off(vertices, quads),
        "color.off": off(vertices, quads, colors, "COFF\n"),
        "two.wrl": vrml2(vertices, quads, uv),
        "one.wrl": vrml1(vertices, quads, uv),
        "packed.wrz": gzip.compress(vrml2(vertices, quads, uv)),
        "grid.bnt": bnt(mask_planes(), ROWS, COLS),
        "cloud.xyz": xyz(vertices),
        "cloud.pts": xyz(np.hstack([vertices, colors]), head=f"{len(vertices)}\n"),
    }
