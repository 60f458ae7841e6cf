"""A `Scan` as a file, in memory: binary PLY and GLB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectvlm.scan import Scan

if TYPE_CHECKING:
    import trimesh

_TYPES = {"<f4": "float", "u1": "uchar"}


def scan_ply(scan: Scan) -> bytes:
    """Binary little-endian PLY in millimetres, with the vertex colours where there are any; a texture is left out."""
    fields = [(axis, "<f4") for axis in "xyz"]
    columns = list(scan.vertices.T)
    if scan.colors is not None:
        fields += [(channel, "u1") for channel in ("red", "green", "blue")]
        columns += list(scan.colors.T)
    vertices = np.empty(len(scan.vertices), fields)
    for (name, _), values in zip(fields, columns, strict=True):
        vertices[name] = values
    faces = np.empty(len(scan.faces), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, scan.faces
    header = ["ply", "format binary_little_endian 1.0", "comment unit mm", f"element vertex {len(vertices)}"]
    header += [f"property {_TYPES[kind]} {name}" for name, kind in fields]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def scan_glb(scan: Scan) -> bytes:
    """Binary glTF in metres, as glTF wants it, with texture or vertex colours where there are any.

    Raises:
        ValueError: a point cloud.
    """
    import trimesh

    if scan.is_point_cloud:
        raise ValueError("a point cloud has no triangles; a mesh is needed")
    visual = _textured(scan) if scan.texture is not None and scan.uv is not None else None
    colors = scan.colors if visual is None else None
    mesh = trimesh.Trimesh(
        scan.vertices / 1000.0, scan.faces, vertex_colors=colors, visual=visual, process=False, validate=False
    )
    return mesh.export(file_type="glb")


def _textured(scan: Scan) -> trimesh.visual.TextureVisuals:
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(baseColorTexture=Image.fromarray(scan.texture), metallicFactor=0.0, roughnessFactor=1.0)
    return TextureVisuals(uv=scan.uv, material=material)
