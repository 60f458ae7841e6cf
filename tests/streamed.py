"""Sequences streamed in a process of their own, whose memory is watched: `peaks` starts it.

    python -m tests.streamed answers|pictures SHORT LONG

prints, as JSON, the most memory that the short and the long sequence took, in bytes. Before the long one the address
space of the process is limited to what it has, and ROOM.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOM = 96 << 20
SIDE = 32
"""Pixels of the views: what grows with the number of frames does not depend on it, the time does."""


def peaks(kind: str, short: Path, long: Path) -> dict[str, int]:
    """{"short": bytes, "long": bytes, "frames": of the long one} from a fresh process."""
    command = [sys.executable, "-m", "tests.streamed", kind, str(short), str(long)]
    # How many heaps glibc opens for threads that wait for one another is chance, more so on a busy machine.
    calm = os.environ | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=calm)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def answers() -> Callable[[str], int]:
    """Path → the number of frames that a predictor, whose model was never trained, answered."""
    import torch

    from affectvlm import predictor
    from affectvlm.model import Card, from_config
    from affectvlm.prompts import PromptSet

    predictor.VIEW_SIZE = SIDE
    torch.manual_seed(0)
    tower = {"image_size": SIDE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 32, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = from_config("tiny", {"embed_dim": 16, "vision_cfg": tower, "text_cfg": text})
    made = predictor.Predictor(model, Card.of(model, PromptSet.load(), "tiny"))
    return lambda path: len(made.predict_sequence(path, frames=None).curve.frames)


def pictures() -> Callable[[str], int]:
    """Folder → the number of its frames, of which the dynamic images were made, as for training."""
    from affectvlm.datasets.views import sequence_views

    def run(path: str) -> int:
        files = sorted(Path(path).iterdir())
        sequence_views(files, range(len(files)), size=SIDE)
        return len(files)

    return run


def peak(run: Callable[[str], int], path: str) -> tuple[int, int]:
    """Most resident memory in bytes while it ran, and what it returned."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is there now
    result = run(path)
    return _status("VmHWM"), result


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def main() -> None:
    kind, short, long = sys.argv[1:]
    run = {"answers": answers, "pictures": pictures}[kind]()
    run(short)  # what is loaded once is no part of it
    least, _ = peak(run, short)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ROOM, resource.RLIM_INFINITY))
    most, frames = peak(run, long)
    print(json.dumps({"short": least, "long": most, "frames": frames}))  # noqa: T201


if __name__ == "__main__":
    main()
