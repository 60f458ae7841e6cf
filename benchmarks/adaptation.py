"""What learning without labels gains on a face family that the checkpoint never saw: MakeHuman, by whole heads.

    python -m benchmarks.adaptation optim.steps=100 --makehuman makehuman_face.npz --seeds 0 1 2

Writes the heads as scans (class/subject/file, the subjects adapted to and those tested mixed from different people),
a division into adaptation, validation and test subjects, and calls `affectvlm.adaptation.compare`: the same command as
`python -m affectvlm adaptation`. Scans go the whole way of a user's folder, the pose found by us.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np

from affectvlm.adaptation import compare, markdown
from affectvlm.datasets.fixtures.writers import ply
from affectvlm.emotions import EKMAN
from benchmarks.makehuman import MakeHumanFace, sample_units

EMOTIONS = (*EKMAN, "neutral")
INTENSITIES = (1.0, 0.75, 0.5)
PEOPLE = 24
"""Of MakeHuman's 36 people, how many the subjects adapted to are mixed from; the others are for validation and test."""


def write_faces(folder: Path, pack: str, counts: dict[str, int], seed: int) -> Path:
    """Every subject with each emotion once, at intensities in turn; returns the file with the division."""
    rng = np.random.default_rng(seed)
    model = MakeHumanFace(pack)
    people = model._identity
    division: dict[str, list[str]] = {}
    for split, count in counts.items():
        model._identity = people[:PEOPLE] if split == "train" else people[PEOPLE:]
        for person in range(count):
            subject, identity = f"{split}{person:03d}", model.sample_identity(rng)
            for number, emotion in enumerate(EMOTIONS):
                level = INTENSITIES[(person + number) % 3]
                scan = model.express(identity, sample_units(emotion, level, rng))
                file = folder / emotion / subject / f"{emotion}.ply"
                file.parent.mkdir(parents=True, exist_ok=True)
                if not file.is_file():
                    file.write_bytes(ply(scan.vertices, scan.faces))
                division.setdefault(split, []).append(file.relative_to(folder).as_posix())
    listing = folder / "split.json"
    listing.write_text(json.dumps(division, indent=1), "utf-8")
    return listing


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--makehuman", required=True)
    arguments.add_argument("--start", default="checkpoints/affectvlm-compact")
    arguments.add_argument("--adapt", type=int, default=24, help="subjects adapted to")
    arguments.add_argument("--validation", type=int, default=4)
    arguments.add_argument("--test", type=int, default=20)
    arguments.add_argument("--methods", nargs="+", default=["multiviewvlm", "affectvlm"])
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments.add_argument("--output", type=Path, default=Path("runs/adaptation-makehuman"))
    arguments.add_argument("settings", nargs="*")
    given = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    folder = given.output / "faces"
    split = write_faces(
        folder, given.makehuman, {"train": given.adapt, "validation": given.validation, "test": given.test}, seed=0
    )
    steps = 150
    settings = [
        "data.sources=[folder]", "data.train_faces=[0]", f"data.folder={folder}", f"data.split={split}",
        f"pseudo.classes=[{', '.join(EMOTIONS)}]", "optim.batch=48", "optim.views=3", f"optim.steps={steps}",
        f"optim.warmup={steps // 10}", "data.scans_first=0", "run.validate=50", *given.settings,
    ]  # fmt: skip
    report = compare(given.output, given.start, settings, given.seeds, given.methods)
    print(markdown(report))


if __name__ == "__main__":
    main()
