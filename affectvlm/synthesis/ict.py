"""ICT-FaceKit faces: an adapter for the open morphable model of USC's Institute for Creative Technologies (MIT
licence).

`ICTFace.load` takes what users have, a checkout of the model (`git clone` of ICT-FaceKit; its folder `FaceXModel/`),
or the packed form: one .npz with the same numbers in half precision. Reading 160 text files takes a while, so a
checkout is packed once (`pack_checkout`) and the pack is what later runs read.

A face is neutral + identity modes + expression shapes, all linear (Li et al., "Learning Formation of Physically-Based
Face Attributes", CVPR 2020). Action units drive the ARKit-named expression shapes through SHAPES below.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affectvlm.scan import Scan, ScanError
from affectvlm.synthesis.base import sided
from affectvlm.synthesis.colours import TEETH, TONGUE, gaze_angle, paint_eyes, sample_colours
from affectvlm.synthesis.packs import load_packed

SHAPES: dict[str, dict[str, float]] = {
    "AU1": {"browInnerUp": 1.0},
    "AU2": {"browOuterUp": 1.0},
    "AU4": {"browDown": 1.0},
    "AU5": {"eyeWide": 1.0},
    "AU6": {"cheekSquint": 1.0, "cheekRaiser": 0.8},
    "AU7": {"eyeSquint": 1.0},
    "AU9": {"noseSneer": 1.0},
    "AU10": {"mouthUpperUp": 1.0, "mouthShrugUpper": 0.25},
    "AU12": {"mouthSmile": 1.0},
    "AU14": {"mouthDimple": 1.0},
    "AU15": {"mouthFrown": 1.0},
    "AU16": {"mouthLowerDown": 1.0},
    "AU17": {"mouthShrugLower": 1.0, "mouthShrugUpper": 0.35},
    "AU18": {"mouthPucker": 1.0},
    "AU20": {"mouthStretch": 1.0},
    "AU22": {"mouthFunnel": 1.0},
    "AU23": {"mouthPress": 0.7, "mouthRollUpper": 0.35, "mouthRollLower": 0.35},
    "AU24": {"mouthPress": 1.0},
    "AU25": {"jawOpen": 0.10, "mouthLowerDown": 0.35, "mouthUpperUp": 0.2},
    "AU26": {"jawOpen": 0.5},
    "AU27": {"jawOpen": 0.9},
    "AU28": {"mouthRollUpper": 1.0, "mouthRollLower": 1.0},
    "AU29": {"jawForward": 1.0},
    "AU34": {"cheekPuff": 1.0},
    "AU43": {"eyeBlink": 1.0},
}
"""FACS action unit → expression shapes and their weight at full intensity (left and right shapes share a stem)."""

_PARTS = {
    "face": (0, 9409),
    "head_neck": (9409, 11248),
    "mouth_socket": (11248, 13294),
    "eye_socket_L": (13294, 13678),
    "eye_socket_R": (13678, 14062),
    "gums_tongue": (14062, 17039),
    "teeth": (17039, 21451),
    "sclera_L": (21451, 22221),
    "iris_L": (22221, 23021),
    "sclera_R": (23021, 23791),
    "iris_R": (23791, 24591),
}
_VERTICES = 24591
"""Of 26,719: the meshes after the eyeballs (tear fluid, lashes, blends) carry nothing that a relief shows."""
_CM_TO_MM = 10.0


@dataclass(frozen=True)
class ICTIdentity:
    """A person: 100 mode coefficients (standard deviations), colours (uint8 RGB each), and how hair and skin are
    painted.

    `hairline` in mm (higher = less hair, infinite = bald), `beard` 0 to 1, `blotches` (6, 4) waves of uneven skin.
    """

    coefficients: np.ndarray
    skin: np.ndarray
    lips: np.ndarray
    brows: np.ndarray
    iris: np.ndarray
    hairline: float
    beard: float
    blotches: np.ndarray


class ICTFace:
    """Faces of the ICT-FaceKit model, with the interface of `synthesis.base.FaceModel`."""

    name = "ict"
    action_units = tuple(SHAPES)

    def __init__(self, pack: Mapping[str, np.ndarray]) -> None:
        self._landmarks = np.asarray(pack["landmarks68"])
        neutral = pack["vertices"].astype(np.float32) * _CM_TO_MM
        self._neutral = neutral - neutral[self._landmarks[30]]
        self._modes = pack["identity"].reshape(len(pack["identity"]), -1).astype(np.float32) * _CM_TO_MM
        self._shapes = pack["expression"].reshape(len(pack["expression"]), -1).astype(np.float32) * _CM_TO_MM
        self._shape_index = {str(name): i for i, name in enumerate(pack["expression_names"])}
        part = np.asarray(pack["part"])
        names = [str(name) for name in pack["part_names"]]
        self._part = {name: part == i for i, name in enumerate(names)}
        # The eyeball's outer mesh hides the iris mesh, so the iris is painted on it and the inner mesh left out.
        hidden = self._part["iris_L"] | self._part["iris_R"]
        triangles = np.asarray(pack["triangles"], np.int32)
        self._faces = triangles[~hidden[triangles].any(axis=1)]
        self._masks = _masks(pack, self._neutral, self._landmarks)
        self._iris_angle = gaze_angle(self._neutral, (self._part["sclera_L"], self._part["sclera_R"]))

    @classmethod
    def load(cls, path: str | Path, cache: str | Path | None = None) -> ICTFace:
        """From a packed .npz, or a checkout (the repository's folder or its FaceXModel/).

        Args:
            path: the .npz file or the folder.
            cache: where a checkout's pack is kept and found again; default `ict_face.npz` in the user's cache folder.

        Raises:
            ScanError: neither form is found at `path`, or its content is not that of the model.
        """
        return load_packed(cls, path, cache, pack_checkout, "ict_face.npz", "ICT-FaceKit model")

    def sample_identity(self, rng: np.random.Generator, spread: float = 1.0) -> ICTIdentity:
        """A person drawn from the model's normal distribution, cut where faces stop looking human."""
        coefficients = np.clip(rng.normal(0, spread, len(self._modes)), -2.0, 2.0).astype(np.float32)
        colours = sample_colours(rng)
        hairline = np.inf if rng.random() < 0.2 else float(rng.normal(68, 7))
        beard = float(rng.uniform(0.2, 0.8)) if rng.random() < 0.15 else 0.0
        blotches = np.column_stack([rng.normal(0, 0.12, (6, 3)), rng.uniform(0, 6.28, 6)]).astype(np.float32)
        return ICTIdentity(coefficients, *colours, hairline, beard, blotches)

    def generate(self, identity: ICTIdentity, action_units: Mapping[str, float], without: Collection[str] = ()) -> Scan:
        """The face in the canonical frame, about 23,000 coloured vertices; unknown action units are ignored.

        `without` names parts to leave out ("teeth", "gums_tongue", "mouth_socket", "sclera_L", "head_neck", ...), as
        scans do.
        """
        weights = self.shape_weights(action_units)
        offset = identity.coefficients @ self._modes
        active = np.flatnonzero(weights)
        if len(active):
            offset = offset + weights[active] @ self._shapes[active]
        vertices = self._neutral + offset.reshape(-1, 3)
        # The nose tip of the neutral face is the origin: an expression must not move the frame.
        tip = self._landmarks[30]
        shift = self._neutral[tip] + (identity.coefficients @ self._modes[:, 3 * tip : 3 * tip + 3])
        landmarks = {f"68-{i}": (vertices[v] - shift) for i, v in enumerate(self._landmarks)}
        scan = Scan(
            vertices - shift, self._faces, colors=self._paint(identity), landmarks=landmarks, source="ICT-FaceKit"
        )
        used = np.zeros(len(vertices), bool)
        used[self._faces] = True
        for part in without:
            used &= ~self._part[part]
        return scan.keep_vertices(used)

    def shape_weights(self, action_units: Mapping[str, float]) -> np.ndarray:
        """(55,) float32 in [0, 1]: expression shape weights of some action units (the strongest request wins a shared
        shape)."""
        weights = np.zeros(len(self._shape_index), np.float32)
        for unit, (left, right) in sided(action_units).items():
            for stem, full in SHAPES.get(unit, {}).items():
                for name, value in ((stem, max(left, right)), (f"{stem}_L", left), (f"{stem}_R", right)):
                    if name in self._shape_index:
                        index = self._shape_index[name]
                        weights[index] = max(weights[index], full * value)
        return weights

    def _paint(self, identity: ICTIdentity) -> np.ndarray:
        """(V, 3) uint8."""
        points = self._neutral
        blotch = np.sin(points @ identity.blotches[:, :3].T + identity.blotches[:, 3]).mean(axis=1)
        colors = identity.skin.astype(np.float32) * (1 + 0.10 * blotch[:, None])
        hair = 0.9 * points[:, 1] + 0.9 * np.maximum(0, -points[:, 2] - 50) - identity.hairline
        jaw = np.clip((-18 - points[:, 1]) / 14, 0, 1) * np.clip((points[:, 2] + 95) / 20, 0, 1) * (points[:, 1] > -95)
        for share, colour in (
            (identity.beard * jaw, identity.brows),
            (self._masks["lip"], identity.lips),
            (self._masks["brow"], identity.brows),
            (np.clip(0.5 + 0.25 * hair, 0, 1), identity.brows),
        ):
            colors = colors * (1 - share[:, None]) + share[:, None] * colour
        colors[self._part["mouth_socket"]] = (70, 25, 25)
        colors[self._part["gums_tongue"]] = TONGUE
        colors[self._part["teeth"]] = TEETH
        paint_eyes(colors, self._iris_angle, identity.iris)
        return np.clip(colors, 0, 255).astype(np.uint8)


def pack_checkout(folder: str | Path, output: str | Path) -> Path:
    """Read a checkout's OBJ files and write them as one .npz (about 16 MB); returns its path.

    Raises:
        ScanError: a file of the model is missing or does not have the model's vertex order.
    """
    folder, output = Path(folder), Path(output)
    root = folder / "FaceXModel" if (folder / "FaceXModel").is_dir() else folder
    try:
        index = json.loads((root / "vertex_indices.json").read_text("utf-8"))
        neutral, triangles = _read_obj(root / "generic_neutral_mesh.obj", with_faces=True)
    except FileNotFoundError as error:
        raise ScanError(f"no {Path(error.filename).name} in {root.name}/; a checkout of ICT-FaceKit has it") from error
    names = [str(name) for name in index["expressions"]]
    names += [
        stem for stem in ("cheekRaiser_L", "cheekRaiser_R") if stem not in names and (root / f"{stem}.obj").is_file()
    ]
    modes = sorted(root.glob("identity[0-9][0-9][0-9].obj"))
    if not modes:
        raise ScanError(f"no identity000.obj in {root.name}/; a checkout of ICT-FaceKit has one hundred")
    part = np.zeros(_VERTICES, np.uint8)
    for number, (first, last) in enumerate(_PARTS.values()):
        part[first:last] = number
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp.npz")
    np.savez_compressed(
        temporary,
        vertices=neutral[:_VERTICES],
        triangles=triangles[(triangles < _VERTICES).all(axis=1)].astype(np.uint16),
        identity=np.stack([_difference(file, neutral) for file in modes]),
        expression=np.stack([_difference(root / f"{name}.obj", neutral) for name in names]),
        expression_names=np.array(names),
        part=part,
        part_names=np.array(list(_PARTS)),
        landmarks68=np.array(index["idx_to_landmark_verts"], np.int32),
    )
    temporary.replace(output)
    return output


def _difference(file: Path, neutral: np.ndarray) -> np.ndarray:
    if not file.is_file():
        raise ScanError(f"no {file.name} in {file.parent.name}/; a checkout of ICT-FaceKit has it")
    vertices, _ = _read_obj(file)
    if vertices.shape != neutral.shape:
        raise ScanError(f"{file.name} has {len(vertices)} vertices; {len(neutral)} as in the neutral mesh are needed")
    return (vertices - neutral)[:_VERTICES].astype(np.float16)


def _read_obj(file: Path, with_faces: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float32 and, on request, fan triangles (T, 3) int32. Unlike `scan_io` it keeps the vertex
    order."""
    positions: list[str] = []
    corners: list[list[int]] = []
    with file.open("r", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("v "):
                positions.append(line[2:])
            elif with_faces and line.startswith("f "):
                corners.append([int(corner.split("/")[0]) - 1 for corner in line.split()[1:]])
    vertices = np.array(" ".join(positions).split(), np.float32).reshape(-1, 3)
    triangles = [(c[0], c[i], c[i + 1]) for c in corners for i in range(1, len(c) - 1)]
    return vertices, np.array(triangles, np.int32).reshape(-1, 3)


def _masks(pack: Mapping[str, np.ndarray], neutral: np.ndarray, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Soft (V,) masks of brows and lips: from the pack where it brings them, else drawn about the landmarks."""
    if "masks" in pack:
        names = [str(name) for name in pack["mask_names"]]
        return {name: pack["masks"][names.index(name)].astype(np.float32) for name in ("brow", "lip")}
    points = neutral[landmarks]
    skin = np.arange(len(neutral)) < _PARTS["face"][1]
    brow = np.minimum(_distance(neutral, points[17:22]), _distance(neutral, points[22:27]))
    upper = (points[48:55] + points[[60, 61, 61, 62, 63, 63, 64]]) / 2
    lower = (points[[48, 59, 58, 57, 56, 55, 54]] + points[[60, 67, 67, 66, 65, 65, 64]]) / 2
    lip = np.minimum(_distance(neutral, upper), _distance(neutral, lower))
    return {
        "brow": np.where(skin, np.clip((6.0 - brow) / 2.5, 0, 1), 0).astype(np.float32),
        "lip": np.where(skin, np.clip((5.5 - lip) / 1.5, 0, 1), 0).astype(np.float32),
    }


def _distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """(V,) distance in mm from points (V, 3) to an open polyline (n, 3)."""
    best = np.full(len(points), np.inf)
    for a, b in zip(line[:-1], line[1:], strict=True):
        t = np.clip((points - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-9), 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return best
