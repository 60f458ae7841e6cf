"""People: the numbers behind one head, and how they are drawn at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from affectvlm.synthesis.procedural.surface import SHAPE_NAMES

N_MODES = 28
"""Random smooth deformations of the head, on top of the named shape numbers."""
N_ASYMMETRIC = 12


@dataclass(frozen=True)
class Look:
    """Colours (RGB, 0 to 255) and hair (0 to 1) of a person."""

    skin: tuple[float, float, float]
    lips: tuple[float, float, float]
    brows: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    teeth: tuple[float, float, float]
    stubble: float
    hairiness: float


@dataclass(frozen=True)
class FaceIdentity:
    """One person of the procedural model.

    Attributes:
        sex: "female" or "male".
        age: years, 16 to 85.
        build: fat of face and neck, about N(0, 1).
        asymmetry: how much the two sides differ, 0 (mirror image) to about 2; 1 is usual.
        size: scale of the whole head, 1 for a mean adult.
        shape: one number per `SHAPE_NAMES`, about N(0, 1).
        modes: (28) amplitudes of the symmetric smooth deformations.
        asymmetric_modes: (12) amplitudes of the asymmetric ones; they count times `asymmetry`.
        furrows: how deep expressions fold the skin; 1 for a mean adult, grows with age.
        look: colours.
    """

    sex: str
    age: float
    build: float
    asymmetry: float
    size: float
    shape: tuple[float, ...]
    modes: tuple[float, ...]
    asymmetric_modes: tuple[float, ...]
    furrows: float
    look: Look


_BY_SEX = {  # what being a man adds, in standard deviations; a woman gets the opposite
    "jaw_width": 0.55, "brow_ridge": 0.9, "brow_height": -0.55, "nose_width": 0.4, "nose_length": 0.3,
    "chin_length": 0.4, "chin_width": 0.6, "lip_thickness": -0.35, "neck_width": 0.9, "cheekbone": -0.3,
    "forehead_slope": 0.4, "eye_opening": -0.3, "nose_tip_up": -0.4, "face_length": 0.2,
}  # fmt: skip
_ANCESTRY = (  # directions in which populations differ; a person is somewhere between them
    {"nose_width": 1.5, "nose_bridge": -1.3, "lip_thickness": 1.5, "mouth_forward": 1.1, "nose_tip_up": 0.3},
    {"nose_bridge": -1.1, "lid_fullness": 1.7, "eye_opening": -0.9, "eye_tilt": 0.9, "face_width": 0.9,
     "cheekbone": 0.8, "brow_ridge": -0.6, "eye_depth": -0.8},
    {"nose_bridge": 1.0, "nose_length": 0.7, "nose_width": -0.5, "eye_depth": 0.6, "lip_thickness": -0.5},
    {"nose_width": 0.5, "nose_forward": 0.6, "lip_thickness": 0.4, "lid_fullness": 0.4, "brow_ridge": 0.4},
)  # fmt: skip
_TONES = np.array([[96, 62, 46], [214, 168, 134], [232, 192, 170], [176, 124, 92]], float)


def sample_identity(
    rng: np.random.Generator,
    spread: float = 1.0,
    sex: str | None = None,
    age: float | None = None,
    build: float | None = None,
) -> FaceIdentity:
    """A new person. What is given is taken in place of what is drawn, and nothing else of the person changes with it.

    Raises:
        ValueError: a sex other than female and male, an age outside 16 to 85, or a build outside -3 to 3.
    """
    if sex not in (None, "female", "male"):
        raise ValueError(f"sex is {sex!r}; female or male is needed")
    if not (age is None or 16 <= age <= 85) or not (build is None or -3 <= build <= 3):
        raise ValueError(f"age is {age}, build is {build}; 16 to 85 years and -3 to 3 are needed")
    # all is drawn, whatever is given: the later draws stay the same
    drawn_male, drawn_age, drawn_build = rng.random() < 0.5, float(np.clip(rng.gamma(5.0, 8.0), 16, 85)), rng.normal()
    male = drawn_male if sex is None else sex == "male"
    age = drawn_age if age is None else float(age)
    build = float(drawn_build if build is None else build)
    shape = dict(zip(SHAPE_NAMES, 0.75 * spread * rng.normal(size=len(SHAPE_NAMES)), strict=True))
    for name, amount in _BY_SEX.items():
        shape[name] += amount if male else -amount
    ancestry = rng.dirichlet(np.full(len(_ANCESTRY), 0.45))
    for part, traits in zip(ancestry, _ANCESTRY, strict=True):
        for name, amount in traits.items():
            shape[name] += part * amount
    years = (age - 38) / 20
    shape["cheek_fat"] = 0.35 * shape["cheek_fat"] + build
    shape["neck_width"] += 0.5 * build
    shape["sag"] = 0.35 * shape["sag"] + 0.9 * max(years, -0.5) + 0.2 * build
    shape["folds"] = 0.45 * shape["folds"] + 0.9 * years
    shape["eye_bags"] = 0.6 * shape["eye_bags"] + 0.6 * years
    shape["lip_thickness"] -= 0.35 * max(years, 0)
    shape["nose_length"] += 0.25 * max(years, 0)
    limits = np.clip([shape[name] for name in SHAPE_NAMES], -2.4, 2.4)
    return FaceIdentity(
        sex="male" if male else "female",
        age=age,
        build=build,
        asymmetry=float(np.clip(rng.gamma(4.0, 0.25), 0, 2.2)),
        size=float((1.02 if male else 0.975) * np.exp(0.02 * rng.normal())),
        shape=tuple(float(value) for value in limits),
        modes=tuple(float(value) for value in np.clip(rng.normal(size=N_MODES), -2.2, 2.2)),
        asymmetric_modes=tuple(float(value) for value in np.clip(rng.normal(size=N_ASYMMETRIC), -2.2, 2.2)),
        furrows=float(np.clip(0.95 + 0.28 * years + 0.15 * rng.normal(), 0.5, 1.7)),
        look=_sample_look(rng, ancestry, male, age),
    )


def _sample_look(rng: np.random.Generator, ancestry: np.ndarray, male: bool, age: float) -> Look:
    skin = np.clip(ancestry @ _TONES * np.exp(0.08 * rng.normal()) + rng.normal(size=3) * 4, 40, 245)
    light = skin.mean() / 180
    lips = skin * [0.93, 0.66, 0.66] + rng.normal(size=3) * 5 + (0 if male else np.array([8, -8, -4]))
    dark = np.array([34, 26, 22.0])
    fair = np.array([[104, 74, 48], [150, 116, 72], [128, 62, 36], [60, 44, 34]], float)[rng.integers(4)]
    hair = dark + (fair - dark) * (rng.random() if ancestry[2] > 0.4 else 0.15 * rng.random())
    grey = np.clip((age - 45 + 12 * rng.normal()) / 30, 0, 1)
    hair = hair + grey * (np.array([176, 174, 172.0]) - hair)
    irises = np.array([[70, 44, 26], [52, 34, 24], [104, 132, 152], [96, 112, 76], [122, 86, 48]], float)
    iris = irises[rng.integers(5)] if ancestry[2] > 0.4 else irises[rng.integers(2)]
    return Look(
        skin=_colour(skin),
        lips=_colour(lips),
        brows=_colour(hair * 0.75 + 0.1 * skin),
        hair=_colour(hair),
        iris=_colour(iris * np.exp(0.1 * rng.normal())),
        teeth=_colour(np.array([236, 228, 212.0]) - rng.random() * np.array([10, 18, 40.0])),
        stubble=float(male * (rng.random() < 0.6) * rng.random() * 0.8 * min(light, 1)),
        hairiness=float(0.0 if rng.random() < 0.15 else 0.6 + 0.4 * rng.random()),
    )


def _colour(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in np.clip(values, 0, 255))
    return red, green, blue
