"""A synthetic micro-expression set, laid out as 4DME is: computer-generated people, for whoever has no licence.

    affectvlm-synth-micro/labels.csv              sub_ID, fold_name, Emotion, Onset, Apex, Offset, AUs
    affectvlm-synth-micro/sub01/clip_01/00101.ply ...

    index = index_fourdme(make_micro("benchmarks"))
    python -m affectvlm make-micro benchmarks
    python -m affectvlm evaluate 4dme benchmarks/affectvlm-synth-micro --partial      one subject out, UF1 and UAR

Clips are short and their movements small (`synthesis.micro`); the head sways a little and every point is noisy, so that
strength alone does not tell. Everything follows from the seed: equal versions give equal files.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.emotions import FOURDME
from affectvlm.scan import Scan
from affectvlm.synthesis.micro import PAIRS, micro_timeline, sample_micro

log = logging.getLogger(__name__)

NAME, CARD, SHEET = "affectvlm-synth-micro", "micro.json", "labels.csv"
VERSION = 1
SEED = 20_260_402
FPS = 60.0
NOISE_MM = 0.03
SWAY_DEG = 0.4
BOTH = 0.25
"""Share of clips that bear two classes."""

_PERSON, _CLIP, _NOISE = range(3)
_CENTRE_MM = np.array([0.0, -8.0, -25.0])
_RADIUS_MM = 98.0


def make_micro(folder: str | Path, subjects: int = 6, clips: int = 5, fps: float = FPS, seed: int = SEED) -> Path:
    """Write the set, or what is missing of it.

    Args:
        folder: it becomes a folder of its own name in there.
        subjects: people, 2 or more. clips: of each; classes come in turn, so that five give each once.
        fps: frames a second; a clip has 18 to 36 of them at 60, of about 0.6 MB each.

    Returns:
        Its folder.

    Raises:
        ValueError: too few people or clips, or a set with other settings lies there.
    """
    if subjects < 2 or clips < 1 or not fps > 0:
        raise ValueError(f"{subjects} subjects, {clips} clips, {fps} fps; 2, 1 and more than 0 at least are needed")
    place = Path(folder) / NAME
    card = {"name": NAME, "version": VERSION, "seed": seed, "subjects": subjects, "clips": clips, "fps": fps,
            "notes": "computer-generated faces; no person, no real scan"}  # fmt: skip
    _claim(place, card)
    model, rows = _model(), ["sub_ID,fold_name,Emotion,Onset,Apex,Offset,AUs"]
    for person in range(subjects):
        subject = f"sub{person + 1:02d}"
        identity = model.sample_identity(np.random.default_rng([seed, _PERSON, person]))
        # the same points in all frames: where a cut wavers, its edge would move more than the face
        near = np.linalg.norm(model.generate(identity, {}).vertices - _CENTRE_MM, axis=1) < _RADIUS_MM
        for clip in range(clips):
            rows.append(_clip(place, model, (identity, near), (person, clip), subject, fps, seed))
        log.info("%s: %d of %d people", NAME, person + 1, subjects)
    _write(place / SHEET, "".join(row + "\n" for row in rows).encode())
    return place


def labels_of(person: int, clip: int, rng: np.random.Generator) -> tuple[str, ...]:
    """The classes of a clip: in turn, another start for each person; sometimes with one that goes with it."""
    label = FOURDME[(person + clip) % len(FOURDME)]
    others = [pair for pair in PAIRS if label in pair]
    if others and rng.random() < BOTH:
        return others[rng.integers(len(others))]
    return (label,)


def _clip(
    place: Path, model: Any, person: tuple[Any, np.ndarray], number: tuple[int, int], subject: str, fps: float,
    seed: int,
) -> str:  # fmt: skip
    """Write the frames of one clip; returns its row of the sheet."""
    identity, near = person
    rng = np.random.default_rng([seed, _CLIP, *number])
    labels = labels_of(*number, rng)
    units, curve = sample_micro(labels, rng), micro_timeline(fps, rng)
    sway, phase = rng.normal(0, SWAY_DEG, 3), rng.uniform(0, 2 * np.pi, 3)
    name, first = f"clip_{number[1] + 1:02d}", 100 * (number[1] + 1) + 1
    for frame, strength in enumerate(curve):
        file = place / subject / name / f"{first + frame:05d}.ply"
        if file.is_file():
            continue
        scan = model.generate(identity, {unit: float(strength * value) for unit, value in units.items()})
        noise = np.random.default_rng([seed, _NOISE, *number, frame])
        _write(
            file, _mesh(_seen(scan.keep_vertices(near), sway * np.sin(2 * np.pi * frame / len(curve) + phase), noise))
        )
    # the sheet counts what is in the files, rest included, as the indexer expects of clips that are cut out
    apex = first + int(curve.argmax())
    marks = "+".join(sorted({f"{unit[-1]}{unit[2:-1]}" if unit[-1] in "LR" else unit[2:] for unit in units}))
    return f'{subject},{name},"{", ".join(labels)}",{first},{apex},{first + len(curve) - 1},"{marks}"'


def _seen(face: Scan, degrees: np.ndarray, rng: np.random.Generator) -> Scan:
    """The head turned a little, every point noisy."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("YXZ", degrees, degrees=True).as_matrix()
    turned = face.transformed(turn, _CENTRE_MM - turn @ _CENTRE_MM)
    noisy = turned.vertices + rng.normal(0, NOISE_MM, turned.vertices.shape)
    return Scan(noisy.astype(np.float32), turned.faces, source=NAME)


def _model() -> Any:
    from affectvlm.synthesis.procedural import ProceduralFace

    return ProceduralFace()


def _mesh(scan: Scan) -> bytes:
    from affectvlm.datasets.fixtures.writers import ply

    return ply(scan.vertices, scan.faces)


def _claim(place: Path, card: dict[str, Any]) -> None:
    file = place / CARD
    if place.exists():
        before = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        if before != card:
            raise ValueError(f"{place.name} is there with other settings; another folder is needed")
        return
    place.mkdir(parents=True)
    _write(file, (json.dumps(card, indent=2) + "\n").encode())


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(file)
