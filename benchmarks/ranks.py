"""Two CPU ranks against one: views per second of whole trainings, with the same batch and the same faces.

    python -m benchmarks.ranks --steps 60

Each training is a process of its own, as a user starts it, with the threads it takes by itself; the ranks share the
cores. The first third of the steps does not count: kernels are chosen and caches filled there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from affectvlm.runs import events

ROOT = Path(__file__).parents[1]


def views_per_second(folder: Path, ranks: int, steps: int, batch: int) -> float:
    """Of one training with so many ranks, whose run and rendered faces lie in `folder`."""
    name = f"ranks-{ranks}"
    words = [
        f"run.name={name}", f"run.devices={ranks}", f"run.folder={folder / 'runs'}", f"data.cache={folder / 'cache'}",
        f"optim.steps={steps}", f"optim.batch={batch}", "optim.warmup=5", "run.every=5", f"run.validate={10 * steps}",
        "data.train_faces=[512]", "data.validation_faces=16", "data.test_faces=16", "optim.word_steps=2",
    ]  # fmt: skip
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words], cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    progress = [event for event in events(folder / "runs" / name) if event["kind"] == "progress"]
    first, last = next(event for event in progress if event["step"] >= steps / 3), progress[-1]
    return 2 * batch * (last["step"] - first["step"]) / (last["time"] - first["time"])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--batch", type=int, default=64)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {ranks: views_per_second(Path(folder), ranks, given.steps, given.batch) for ranks in (1, 2)}
    result = {f"views_per_s_{ranks}": round(value, 1) for ranks, value in found.items()}
    print(json.dumps(result | {"ratio": round(found[2] / found[1], 2)}, indent=2))


if __name__ == "__main__":
    main()
