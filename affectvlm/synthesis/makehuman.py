"""MakeHuman faces: an adapter for the open head of the MakeHuman project (assets CC0).

`MakeHumanFace.load` takes what users have, a checkout of the project (`git clone` of makehumancommunity/makehuman; its
folder `makehuman/data/`), or the packed form: one .npz with the same numbers in half precision.

A face is base mesh + macro target (ethnic group, sex, age, weight) + face modifiers + expression units, all linear.
The units are its authors' own, not action units: SHAPES says which come near which, after looking at each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affectvlm.scan import Scan, ScanError
from affectvlm.synthesis.base import sided
from affectvlm.synthesis.colours import TEETH, TONGUE, gaze_angle, paint_eyes, sample_colours
from affectvlm.synthesis.packs import load_packed

SHAPES: dict[str, dict[str, float]] = {
    "AU1": {"eyebrows-*-inner-up": 1.4},
    "AU2": {"eyebrows-*-extern-up": 1.0, "eyebrows-*-up": 0.7},
    "AU4": {"eyebrows-*-down": 1.4},
    "AU5": {"eye-*-opened-up": 1.0},
    "AU6": {"eye-*-slit": 0.4, "l-cheek-trans-up": 0.4, "l-cheek-volume-incr": 0.3},
    "AU7": {"eye-*-slit": 0.65},
    "AU9": {"nose-*-elevation": 1.3, "nose-compression": 0.6},
    "AU10": {"mouth-elevation": 1.0},
    "AU12": {"mouth-corner-puller": 1.0},
    "AU14": {"mouth-compression": 0.6},
    "AU15": {"mouth-depression": 1.0},
    "AU16": {"mouth-depression-retraction": 0.7},
    "AU17": {"mouth-eversion": 0.9},
    "AU18": {"mouth-pursing": 1.0},
    "AU20": {"mouth-retraction": 0.9, "neck-platysma": 0.45},
    "AU22": {"mouth-protusion": 0.7},
    "AU23": {"mouth-pursing": 0.35, "mouth-upperlip-volume-decr": 0.8, "mouth-lowerlip-volume-decr": 0.8},
    "AU24": {"mouth-upperlip-volume-decr": 1.0, "mouth-lowerlip-volume-decr": 1.0, "mouth-upperlip-height-decr": 0.4},
    "AU25": {"mouth-parling": 0.8},
    "AU26": {"mouth-open": 0.3},
    "AU27": {"mouth-open": 0.65},
    "AU28": {"mouth-upperlip-volume-decr": 1.0, "mouth-lowerlip-volume-decr": 1.0, "mouth-compression": 0.3},
    "AU34": {"l-cheek-volume-incr": 1.0, "l-cheek-inner-incr": 0.6},
    "AU38": {"nose-*-dilatation": 1.0},
    "AU43": {"eye-*-closure": 1.0},
}
"""FACS action unit → expression units (or face modifiers) and their weight at full intensity. `*` stands for left and
right; a modifier named with l- is taken with its r- twin; what has no sides is split down the middle."""

TOGETHER: tuple[tuple[tuple[str, ...], str], ...] = (
    (("AU12", "AU25"), "mouth-upward-retraction"),
    (("AU10", "AU16", "AU25"), "mouth-part-later"),
)
"""Action units that this head has one shape for when they come together. How much of it a person shows is theirs
(`MakeHumanIdentity.together`); the single units give way to it."""

_PARTS = {
    "skin": (0, 13380),
    "eye_L": (14598, 14670),
    "eye_R": (14670, 14742),
    "upper_teeth": (15060, 15128),
    "lower_teeth": (14992, 15060),
    "tongue": (13380, 13606),
}
"""Vertex ranges of base mesh hm08 that a head consists of; of the skin, what lies above the shoulders."""
_NECK = 5.6
"""dm, in the base mesh."""
_FOLDERS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "nose")
_CM_TO_MM, _DM_TO_CM = 10.0, 10.0
_PITCH, _OFFSET = 7.0, np.array([0.0, -3.7, 0.4])
"""Degrees its people look up against the canonical frame, and mm their nose tips lie from its origin after turning:
means of `pose.find_pose` over 24 people (standard deviation 2.6 degrees and 1.7 mm)."""
_ETHNIC_GROUPS = ("african", "asian", "caucasian")
_AGES = {"young": 25, "old": 70}
_MODIFIERS = 14
_ALIKE = ("ear", "neck")


@dataclass(frozen=True)
class MakeHumanIdentity:
    """A person.

    offset: (V, 3) float32 mm from the base mesh; sex: "female" or "male"; age: years; skin, lips, brows, iris:
    (3,) uint8 RGB; together: (len(TOGETHER),) in [0, 1]; ways: (K,) factors on the shapes, about 1.
    """

    offset: np.ndarray
    sex: str
    age: float
    skin: np.ndarray
    lips: np.ndarray
    brows: np.ndarray
    iris: np.ndarray
    together: np.ndarray
    ways: np.ndarray


class MakeHumanFace:
    """Faces of the MakeHuman head, with the interface of `synthesis.base.FaceModel`."""

    name = "makehuman"
    action_units = tuple(SHAPES)

    def __init__(self, pack: Mapping[str, np.ndarray]) -> None:
        self._base = pack["vertices"].astype(np.float32) * _CM_TO_MM
        self._faces = np.asarray(pack["triangles"], np.int32)
        self._people = {str(n): i for i, n in enumerate(pack["identity_names"])}
        self._identity = pack["identity"].astype(np.float32) * _CM_TO_MM
        modifiers = dict(zip(map(str, pack["modifier_names"]), pack["modifiers"], strict=True))
        units = dict(zip(map(str, pack["unit_names"]), pack["units"], strict=True))
        self._modifiers = _symmetric(modifiers)
        left = 1 / (1 + np.exp(-self._base[:, :1] / 4.0))  # +x is the subject's left
        self._shapes = _sided_shapes(self._modifiers, units, left)
        self._moves = tuple(self._shapes.values())
        self._names = {name: i for i, name in enumerate(self._shapes)}
        names = [str(n) for n in pack["part_names"]]
        self._part = {name: np.asarray(pack["part"]) == i for i, name in enumerate(names)}
        middle = self._part["skin"] & (np.abs(self._base[:, 0]) < 5)
        self._tip = int(np.flatnonzero(middle)[np.argmax(self._base[middle, 2])])
        angle = np.deg2rad(_PITCH)
        self._turn = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
        self._lips = _mask(self._modifiers["mouth-upperlip-volume-incr"], 0.35)
        self._lips = np.maximum(self._lips, _mask(self._modifiers["mouth-lowerlip-volume-incr"], 0.35))
        self._brows = _mask(self._modifiers["eyebrows-trans-forward"], 0.6) * (np.abs(self._base[:, 0]) > 8)
        self._gaze = gaze_angle(self._base, (self._part["eye_L"], self._part["eye_R"]))

    @classmethod
    def load(cls, path: str | Path, cache: str | Path | None = None) -> MakeHumanFace:
        """From a packed .npz, or a checkout (the repository's folder, its makehuman/ or its data/).

        Args:
            path: the .npz file or the folder.
            cache: where a checkout's pack is kept and found again; default `makehuman_face.npz` in the user's cache
                folder.

        Raises:
            ScanError: neither form is found at `path`, or its content is not that of the head.
        """
        return load_packed(cls, path, cache, pack_checkout, "makehuman_face.npz", "MakeHuman head")

    def sample_identity(self, rng: np.random.Generator, spread: float = 1.0) -> MakeHumanIdentity:
        """A mixture of people of one sex and age group (any ethnic groups and weights), and a few face modifiers."""
        sex, age = ("female", "male")[rng.integers(2)], ("young", "old")[rng.integers(2)]
        people = [i for name, i in self._people.items() if f"-{sex}-{age}-" in name]
        offset = np.tensordot(rng.dirichlet(np.full(len(people), 0.35)), self._identity[people], 1)
        names = [n for n in self._modifiers if not any(part in n for part in _ALIKE)]
        for name in rng.choice(names, _MODIFIERS, replace=False):
            offset = offset + spread * rng.uniform(0, 0.4) * self._modifiers[name]
        colours = sample_colours(rng)
        years = float(np.clip(rng.normal(_AGES[age], 5), 18, 90))
        return MakeHumanIdentity(
            offset.astype(np.float32), sex, years, *colours, rng.uniform(0, 1, len(TOGETHER)),
            np.clip(rng.normal(1, 0.2, len(self._shapes)), 0.5, 1.5).astype(np.float32),
        )  # fmt: skip

    def generate(
        self, identity: MakeHumanIdentity, action_units: Mapping[str, float], without: Collection[str] = ()
    ) -> Scan:
        """The face in the canonical frame, about 4,900 coloured vertices; unknown action units are ignored.

        `without` names parts to leave out ("eye_L", "eye_R", "upper_teeth", "lower_teeth", "tongue"), as scans do.
        """
        rest = self._base + identity.offset
        weights = self.shape_weights(action_units, identity.together) * identity.ways
        vertices = rest.astype(np.float64)
        for index in np.flatnonzero(weights):
            vertices = vertices + weights[index] * self._moves[index]
        # The nose tip of the face at rest is the origin: an expression must not move the frame.
        vertices = (vertices - rest[self._tip]) @ self._turn.T + _OFFSET
        scan = Scan(vertices.astype(np.float32), self._faces, colors=self._paint(identity), source="MakeHuman")
        return scan.keep_vertices(~np.any([self._part[part] for part in without], axis=0)) if without else scan

    def shape_weights(self, action_units: Mapping[str, float], together: np.ndarray | None = None) -> np.ndarray:
        """(K,) float32: weights of the sided shapes of some action units (the strongest request wins a shared one)."""
        weights = np.zeros(len(self._shapes), np.float32)
        units = sided(action_units)
        shares = np.zeros(len(TOGETHER)) if together is None else together
        for (names, shape), share in zip(TOGETHER, shares, strict=True):
            if all(name in units for name in names):
                both = [share * min(units[name][side] for name in names) for side in (0, 1)]
                self._request(weights, shape, both)
                for name in names:
                    units[name] = tuple(value - taken for value, taken in zip(units[name], both, strict=True))
        for unit, values in units.items():
            for shape, full in SHAPES.get(unit, {}).items():
                self._request(weights, shape, [full * value for value in values])
        return weights

    def _request(self, weights: np.ndarray, shape: str, values: list[float]) -> None:
        for side, value in zip("LR", values, strict=True):
            index = self._names[f"{shape}:{side}"]
            weights[index] = max(weights[index], value)

    def _paint(self, identity: MakeHumanIdentity) -> np.ndarray:
        """(V, 3) uint8."""
        colors = np.tile(identity.skin.astype(np.float32), (len(self._base), 1))
        for share, colour in ((self._lips, identity.lips), (self._brows, identity.brows)):
            colors = colors * (1 - share[:, None]) + share[:, None] * colour
        colors[self._part["upper_teeth"] | self._part["lower_teeth"]] = TEETH
        colors[self._part["tongue"]] = TONGUE
        paint_eyes(colors, self._gaze, identity.iris, pupil_degrees=13)
        return np.clip(colors, 0, 255).astype(np.uint8)


def pack_checkout(folder: str | Path, output: str | Path) -> Path:
    """Read a checkout's base mesh and targets and write the head as one .npz (about 8 MB); returns its path.

    A person is the macro target of ethnic group, sex and age plus the universal one of sex, age and weight, at average
    muscle.

    Raises:
        ScanError: a file of the head is missing or does not have the vertex order of base mesh hm08.
    """
    folder, output = Path(folder), Path(output)
    root = next((r for r in (folder / "makehuman" / "data", folder / "data", folder) if (r / "3dobjs").is_dir()), None)
    if root is None:
        raise ScanError(f"no 3dobjs/ in {folder.name}/; makehuman/data/ of a checkout of MakeHuman has it")
    positions, polygons = _read_base(root / "3dobjs" / "base.obj")
    index = np.arange(len(positions))
    keep = np.zeros(len(positions), bool)
    part = np.zeros(len(positions), np.uint8)
    for number, (first, last) in enumerate(_PARTS.values()):
        inside = (index >= first) & (index < last)
        keep |= inside & (positions[:, 1] > _NECK) if number == 0 else inside
        part[inside] = number
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons if keep[p].all() for i in range(1, len(p) - 1)]
    if not triangles:
        raise ScanError("base.obj has no polygon of the head; base mesh hm08 of MakeHuman is needed")
    read = _Targets(root / "targets", keep)
    people = [
        f"{group}-{sex}-{age}-{weight}" for group in _ETHNIC_GROUPS for sex in ("female", "male") for age in _AGES
        for weight in ("minweight", "averageweight", "maxweight")
    ]  # fmt: skip
    units = sorted({f.stem for f in (root / "targets" / "expression" / "units" / "caucasian").glob("*.target")})
    modifiers = [f for name in _FOLDERS for f in sorted((root / "targets" / name).glob("*.target"))]
    if not units or not modifiers:
        raise ScanError("no .target files of expression units or face modifiers in targets/; a full checkout has them")
    packed = {
        "identity": np.stack([_person(read, name) for name in people]),
        "modifiers": np.stack([read(f"{f.parent.name}/{f.stem}") for f in modifiers]),
        "units": np.stack([read(f"expression/units/caucasian/{name}") for name in units]),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".tmp.npz")
    renumbered = np.cumsum(keep) - 1
    np.savez_compressed(
        temporary,
        vertices=positions[keep] * _DM_TO_CM,
        triangles=renumbered[np.array(triangles)].astype(np.uint16),
        part=part[keep],
        part_names=np.array(list(_PARTS)),
        identity_names=np.array(people),
        modifier_names=np.array([f.stem for f in modifiers]),
        unit_names=np.array(units),
        **packed,
    )
    temporary.replace(output)
    return output


class _Targets:
    """Reads .target files, lines of vertex number and offset, as (V, 3) float16 cm of the kept vertices."""

    def __init__(self, root: Path, keep: np.ndarray) -> None:
        self._root, self._keep = root, keep

    def __call__(self, name: str) -> np.ndarray:
        file = self._root / f"{name}.target"
        try:
            lines = file.read_text("utf-8", errors="replace").splitlines()
        except FileNotFoundError as error:
            raise ScanError(f"no {name}.target in targets/; a full checkout of MakeHuman has it") from error
        offset = np.zeros((len(self._keep), 3), np.float32)
        try:
            rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
            offset[[int(row[0]) for row in rows]] = np.array([row[1:] for row in rows], np.float32).reshape(-1, 3)
        except (ValueError, IndexError) as error:
            raise ScanError(f"{name}.target: lines of a vertex number and three numbers are needed: {error}") from error
        return (offset[self._keep] * _DM_TO_CM).astype(np.float16)


def _person(read: _Targets, name: str) -> np.ndarray:
    group, sex, age, weight = name.split("-")
    universal = read(f"macrodetails/universal-{sex}-{age}-averagemuscle-{weight}")
    return read(f"macrodetails/{group}-{sex}-{age}") + universal


def _read_base(file: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Vertices (V, 3) float32 dm in file order, and polygons as arrays of vertex numbers.

    Raises:
        ScanError: there is none, or it is another mesh or a damaged one.
    """
    if not file.is_file():
        raise ScanError("no base.obj in 3dobjs/; a checkout of MakeHuman has it")
    positions, polygons = [], []
    with file.open("r", encoding="utf-8", errors="replace") as lines:
        try:
            for line in lines:
                if line.startswith("v "):
                    positions.append([float(word) for word in line.split()[1:4]])
                elif line.startswith("f "):
                    polygons.append(np.array([int(corner.split("/")[0]) - 1 for corner in line.split()[1:]]))
            placed = np.array(positions, np.float32).reshape(-1, 3)
        except ValueError as error:
            raise ScanError(f"base.obj has a line that is not of numbers: {error}") from error
    if len(placed) < max(last for _, last in _PARTS.values()):
        raise ScanError(f"base.obj has {len(placed)} vertices; base mesh hm08 of MakeHuman has 19158")
    if not np.isfinite(placed).all() or any(p.size and not 0 <= p.min() <= p.max() < len(placed) for p in polygons):
        raise ScanError("base.obj has vertices without a place or polygons of vertices that are not there")
    return placed, polygons


def _symmetric(modifiers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Modifiers in mm, those of the left and right side added up under the left one's name."""
    return {
        name: (shape + modifiers.get(f"r-{name[2:]}", 0) if name.startswith("l-") else shape).astype(np.float32)
        * _CM_TO_MM
        for name, shape in modifiers.items()
        if not name.startswith("r-")
    }


def _sided_shapes(
    modifiers: Mapping[str, np.ndarray], units: Mapping[str, np.ndarray], left: np.ndarray
) -> dict[str, np.ndarray]:
    """What SHAPES and TOGETHER name, as "name:L" and "name:R" → (V, 3) float32 mm."""
    shapes: dict[str, np.ndarray] = {}
    for name in sorted({n for parts in SHAPES.values() for n in parts} | {n for _, n in TOGETHER}):
        if "*" in name:
            for side, word in (("L", "left"), ("R", "right")):
                shapes[f"{name}:{side}"] = units[name.replace("*", word)].astype(np.float32) * _CM_TO_MM
            continue
        whole = modifiers[name] if name in modifiers else units[name].astype(np.float32) * _CM_TO_MM
        shapes[f"{name}:L"], shapes[f"{name}:R"] = whole * left, whole * (1 - left)
    return shapes


def _mask(shape: np.ndarray, share: float) -> np.ndarray:
    """(V,) 0 to 1: where a modifier moves the surface by more than a share of its most."""
    length = np.linalg.norm(shape, axis=1)
    return np.clip((length / length.max() - share / 2) / (share / 2), 0, 1).astype(np.float32)
