"""Maps and painted meshes as files, in memory: NPZ, PLY, GLB."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from affectvlm.gradcam.maps import ViewMaps
from affectvlm.gradcam.pictures import vertex_paint
from affectvlm.scan import Scan


def maps_npz(evidence: ViewMaps, views: np.ndarray, view_names: Sequence[str]) -> bytes:
    """Everything about one map, readable with `numpy.load(..., allow_pickle=False)`.

    Arrays: maps (N, H, W) float32, views (N, H, W, 3) uint8, shares (N,) float64, score (), and as strings view_names
    (N,), target, method, layer.
    """
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        maps=evidence.maps,
        views=views,
        shares=evidence.shares,
        score=np.float64(evidence.score),
        view_names=np.array(list(view_names)),
        target=np.array(evidence.target),
        method=np.array(evidence.method),
        layer=np.array(evidence.layer),
    )
    return stream.getvalue()


def evidence_ply(scan: Scan, values: np.ndarray, comment: str = "") -> bytes:
    """The mesh as binary PLY with evidence as colours and, exactly, as the vertex property "evidence".

    Args:
        scan: a mesh; values: (V,) in [0, 1], NaN where unseen (written as it is).
        comment: a line for the header.

    Raises:
        ValueError: not one value a vertex.
    """
    _check(scan, values)
    fields = [(axis, "<f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.empty(len(scan.vertices), [*fields, ("evidence", "<f4")])
    for column, axis in enumerate("xyz"):
        vertices[axis] = scan.vertices[:, column]
    for column, name in enumerate(("red", "green", "blue")):
        vertices[name] = vertex_paint(values)[:, column]
    vertices["evidence"] = values
    faces = np.empty(len(scan.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, scan.faces
    line = " ".join(comment.split()).encode("ascii", "replace").decode()
    header = ["ply", "format binary_little_endian 1.0", *([f"comment {line}"] if line else [])]
    header += [f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz")]
    header += [*(f"property uchar {name}" for name in ("red", "green", "blue")), "property float evidence"]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def evidence_glb(scan: Scan, values: np.ndarray) -> bytes:
    """The mesh as binary glTF with evidence as vertex colours; in metres, as glTF wants it.

    Raises:
        ValueError: not one value a vertex.
    """
    import trimesh

    _check(scan, values)
    mesh = trimesh.Trimesh(scan.vertices / 1000.0, scan.faces, vertex_colors=vertex_paint(values), process=False)
    return mesh.export(file_type="glb")


def _check(scan: Scan, values: np.ndarray) -> None:
    if np.shape(values) != (len(scan.vertices),):
        raise ValueError(f"{np.shape(values)} values for {len(scan.vertices)} vertices; one each is needed")
