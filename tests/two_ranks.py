"""Functions run on several ranks, real processes over gloo, and training on ranks compared with training on one.

A loss is tested with a function that builds a module and a batch of it:

    def build():
        return MyModule(), {"views": (B, ...), "labels": (B,)}   # MyModule()(views=..., labels=...) gives the loss

    def test_ranks(tmp_path):
        check(build, out=tmp_path)

The module gathers by itself. Everything in float64, the same at each call, and without parameters whose gradient is
zero by nature, such as a bias in front of a batch normalisation.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).resolve().parents[1]
Build = Callable[[], tuple[nn.Module, dict[str, Tensor]]]


def check(*builds: Build, out: Path, world: int = 2, tolerance: float = 1e-10) -> None:
    """Assert that each build trains on `world` ranks as on one: losses, gradients, parameters, running statistics."""
    for build, ranks in zip(builds, run([(train, build) for build in builds], out, world), strict=True):
        assert_equal_to_one(ranks, build, tolerance)


def assert_equal_to_one(ranks: Sequence[dict], build: Build, tolerance: float = 1e-10) -> None:
    """The same for what `train` returned on each rank."""
    one = train(build)
    for name, value in one["steps"].items():
        assert value.isfinite().all() and value.abs().max() > 1e3 * tolerance, f"{name} is as good as zero: no test"
    for number, rank in enumerate(ranks):
        for part in ("steps", "state"):
            assert_near(rank[part], one[part], tolerance, f"rank {number}")


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, where: str = "") -> None:
    """The same names, and tensors of the same shape and dtype no further apart than that."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        place = f"{where} {name}: "
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=place.__add__)


def train(build: Build, steps: int = 2) -> dict[str, dict[str, Tensor]]:
    """Train under DDP on this rank's share of the rows, or on all without ranks.

    Returns:
        "steps": loss and gradients of each step; "state": parameters and buffers afterwards.
    """
    module, batch = build()
    wrapped = module
    if dist.is_initialized():
        batch = {name: rows.chunk(dist.get_world_size())[dist.get_rank()] for name, rows in batch.items()}
        wrapped = DistributedDataParallel(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    seen = {}
    for step in range(steps):
        optimizer.zero_grad()
        loss = wrapped(**batch)
        loss.backward()
        seen[f"{step}: loss"] = loss.detach()
        seen |= {f"{step}: gradient of {name}": p.grad.clone() for name, p in module.named_parameters()}
        optimizer.step()
    return {"steps": seen, "state": {name: value.clone() for name, value in module.state_dict().items()}}


def run(jobs: Sequence[tuple[Callable, ...]], out: Path, world: int = 2, seconds: float = 240) -> list[list[Any]]:
    """Run the jobs one after the other on `world` ranks, all in the same processes.

    Args:
        jobs: functions to call, each with the functions it takes; all at the top of a module. What they return is made
            of tensors, numbers, strings, lists and dicts.
        out: an empty folder.
        seconds: until all processes are ended and the test fails.

    Returns:
        For each job what it returned on each rank.
    """
    names = json.dumps([[f"{f.__module__}:{f.__qualname__}" for f in job] for job in jobs])
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    logs = [(out / f"{rank}.log").open("w+") for rank in range(world)]
    processes = [
        subprocess.Popen([sys.executable, "-m", "tests.two_ranks", out, str(rank), str(world), names],
                         cwd=ROOT, env=quiet, stdout=log, stderr=subprocess.STDOUT)
        for rank, log in enumerate(logs)
    ]  # fmt: skip
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and any(p.poll() is None for p in processes):
            if any(p.poll() for p in processes):
                break  # the others would wait for this one
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for log in logs:
            log.seek(0)
        said = "\n".join(f"rank {rank}: {log.read()}" for rank, log in enumerate(logs))
        for log in logs:
            log.close()
    codes = [process.returncode for process in processes]
    assert codes == [0] * world, f"the ranks ended with {codes} (-9: ended here)\n{said}"
    results = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(world)]
    return [[rank[job] for rank in results] for job in range(len(jobs))]


def _main(out: str, rank: str, world: str, names: str) -> None:
    # a file to meet at: no port that somebody else could have
    dist.init_process_group(
        "gloo", init_method=f"file://{Path(out).resolve()}/meeting", rank=int(rank), world_size=int(world),
        timeout=timedelta(seconds=120),
    )  # fmt: skip
    results = []
    for job in json.loads(names):
        function, *arguments = map(_find, job)
        results.append(function(*arguments))
    torch.save(results, Path(out) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _find(name: str) -> Callable:
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)


if __name__ == "__main__":
    _main(*sys.argv[1:])
