"""Where a training runs: how many processes, on what, how they find each other, and that none outlives the others.

Three ways to start one: `python train.py`, which starts its further processes itself; torchrun; SLURM's srun. The last
two have decided how many there are, and say so in the environment.

What ends the processes of a training when one of them dies: Lightning's first process looks after those it started
and ends everything within 5 s when one fails; torchrun and srun (--kill-on-bad-exit) do so, too. What they leave out
is the death of the first process itself, or of torchrun: see `watch_parent`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

LAUNCHER = "AFFECTVLM_LAUNCHER"
"""Environment variable: id of the process that starts the others of its machine."""

TIMEOUT = timedelta(minutes=30)
"""How long ranks wait for each other. Long, because rank 0 scores and saves alone; a dead rank ends all much sooner."""

_stores: list[Any] = []  # servers of the addresses handed out, open as long as this process lives


@dataclass(frozen=True)
class Placement:
    """Where a training runs.

    Attributes:
        accelerator: "cuda", "mps" or "cpu".
        devices: processes on each machine, one device each. nodes: machines.
        strategy: "auto" for one process, "ddp" for several.
        backend: "nccl" or "gloo", what the processes talk through; None for one process.
    """

    accelerator: str
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    backend: str | None = None


def place(devices: int = 0, nodes: int = 0) -> Placement:
    """As asked, as started and as found: every GPU of the machine, else one process without.

    Args:
        devices: processes on each machine; 0 = as many as were started or as there are GPUs. Two or more where there is
            no GPU share the CPU.
        nodes: machines; 0 = as many as were started, or one.

    Raises:
        ValueError: negative numbers; more GPUs than there are; other numbers than torchrun or SLURM started; several
            machines, or a rank, set by hand without all that takes; variables that are no numbers.
    """
    import torch

    if devices < 0 or nodes < 0:
        raise ValueError(f"devices is {devices}, nodes is {nodes}; 0 (as found) or more is needed")
    started = _started()
    if started:
        devices, nodes = started.agreed(devices, nodes)
    nodes = nodes or 1
    if not started:
        _check_by_hand(nodes)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and devices > gpus:
        raise ValueError(
            f"{devices} processes on a machine where {gpus} GPUs can be seen; at most as many are needed, or GPUs that "
            "all tasks can see (SLURM: --gpus-per-node), or the CPU alone (CUDA_VISIBLE_DEVICES='')"
        )
    devices = devices or gpus or 1
    several = devices * nodes > 1
    if gpus:
        accelerator = "cuda"
    else:
        accelerator = "mps" if torch.backends.mps.is_available() and not several else "cpu"
    if not several:
        return Placement(accelerator)
    nccl = accelerator == "cuda" and torch.distributed.is_nccl_available()
    return Placement(accelerator, devices, nodes, "ddp", "nccl" if nccl else "gloo")


def trainer_options(placement: Placement) -> dict[str, Any]:
    """What pl.Trainer takes of a placement: accelerator, devices, num_nodes, strategy.

    For several processes it also sets what they need to find each other in this process's environment, which those it
    starts inherit: MASTER_ADDR, MASTER_PORT, NODE_RANK and AFFECTVLM_LAUNCHER.
    """
    options = {
        "accelerator": placement.accelerator,
        "devices": placement.devices,
        "num_nodes": placement.nodes,
        "strategy": placement.strategy,
    }
    if placement.strategy == "ddp":
        options["strategy"] = _ddp(placement)
    return options


def threads_per_process(placement: Placement) -> int:
    """Threads that let the processes of a machine share its cores: OMP_NUM_THREADS where that is set, 1 at least."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if given.isdigit() and int(given):
        return int(given)
    started = _started()
    if started and started.by == "SLURM" and "SLURM_CPUS_PER_TASK" in os.environ:
        return max(1, _number("SLURM_CPUS_PER_TASK"))  # the cores a task sees may be its own alone, or all of the node
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // placement.devices)


def watch_parent(every: float = 1.0) -> None:
    """End this process, with a message and code 1, within `every` seconds once the process that started it is gone.

    Call it first of all. Without it a rank whose first process was killed waits in a collective until `TIMEOUT`: nobody
    is left to end it, and not every backend notices that the other side is gone. Does nothing in the process that
    starts the others, in one that stands alone, under SLURM (which ends its tasks) and on Windows.
    """
    parent = _parent()
    if parent is not None and sys.platform != "win32":
        threading.Thread(target=_watch, args=(parent, every), name="watch-parent", daemon=True).start()


@dataclass(frozen=True)
class _Started:
    """What a launcher says it has started: processes on each machine, and machines."""

    by: str
    devices: int
    nodes: int

    def agreed(self, devices: int, nodes: int) -> tuple[int, int]:
        """Both numbers, where none that was asked for (not 0) contradicts."""
        for name, asked, found in (("devices", devices, self.devices), ("nodes", nodes, self.nodes)):
            if asked not in (0, found):
                raise ValueError(f"{name} is {asked} but {self.by} started {found}; {found} or 0 (as found) is needed")
        return self.devices, self.nodes


def _started() -> _Started | None:
    """What torchrun or SLURM started; None where a person started one process, and in those that one starts."""
    environment = os.environ
    if LAUNCHER in environment:
        return None
    if environment.keys() >= {"RANK", "LOCAL_RANK", "WORLD_SIZE"}:  # before SLURM: inside a job, torchrun is the nearer
        world = _number("WORLD_SIZE")
        devices = _number("LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else world
        return _whole("torchrun", world, devices, world // max(devices, 1))
    interactive = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")  # a shell, where nothing is started yet
    if environment.keys() >= {"SLURM_JOB_ID", "SLURM_NTASKS"} and not interactive:
        world, nodes = _number("SLURM_NTASKS"), _number("SLURM_NNODES") if "SLURM_NNODES" in environment else 1
        if world > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
            raise ValueError(f"SLURM has {world} tasks but not how many on a node; --ntasks-per-node is needed")
        return _whole("SLURM", world, _number("SLURM_NTASKS_PER_NODE") if world > 1 else 1, nodes)
    return None


def _whole(by: str, world: int, devices: int, nodes: int) -> _Started:
    if not world == devices * nodes > 0:
        raise ValueError(f"{by} says {world} processes, {devices} on each machine; the same number on each is needed")
    return _Started(by, devices, nodes)


def _number(name: str) -> int:
    value = os.environ[name]
    if not value.strip().isdigit():
        raise ValueError(f"{name} is {value!r}; a number is needed")
    return int(value)


def _check_by_hand(nodes: int) -> None:
    """Refuse what would wait for ever: a rank or machines whose others cannot be found."""
    if LAUNCHER in os.environ:
        return
    if "LOCAL_RANK" in os.environ:
        raise ValueError("LOCAL_RANK is set but not RANK and WORLD_SIZE; torchrun sets all, unset it to start without")
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
    if nodes > 1 and missing:
        raise ValueError(f"nodes is {nodes} but {', '.join(missing)} not set; torchrun, SLURM or all three are needed")


def _ddp(placement: Placement) -> Any:
    from pytorch_lightning.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
    from pytorch_lightning.strategies import DDPStrategy

    started = _started()
    if started is None and LAUNCHER not in os.environ:
        _become_launcher(placement.nodes)
    if started and started.by == "SLURM":
        # Lightning's own choice looks at the job alone; two trainings may be two steps of one job
        job, step = (_number(name) if name in os.environ else 0 for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
        os.environ.setdefault("MASTER_PORT", str(10000 + (7 * job + step) % 20000))
    # said outright: what Lightning would guess also looks at other schedulers, and takes less for torchrun
    environments = {None: LightningEnvironment, "torchrun": TorchElasticEnvironment, "SLURM": SLURMEnvironment}
    return DDPStrategy(
        cluster_environment=environments[started and started.by](),
        process_group_backend=placement.backend,
        timeout=TIMEOUT,
        find_unused_parameters=False,  # every trained parameter takes part in every step
        gradient_as_bucket_view=True,  # saves a copy of all gradients
    )


def _become_launcher(nodes: int) -> None:
    """Set what the other processes of this machine need to find this one."""
    os.environ[LAUNCHER] = str(os.getpid())
    if nodes > 1:
        return  # set by hand: see _check_by_hand
    # Lightning takes MASTER_PORT from the shell it is in, where an old one makes two trainings collide; else it looks
    # for a free port and opens it some time later. Ours is given by the system and open from now on: when rank 0 joins
    # the group, its server on this port is this one ("multi-tenant").
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, multi_tenant=True)
    _stores.append(store)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(store.port), NODE_RANK="0")


def _parent() -> int | None:
    """The process without which this one has no business; None where there is none."""
    launcher = os.environ.get(LAUNCHER, "")
    if launcher.isdigit():
        return int(launcher) if int(launcher) != os.getpid() else None
    return os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None


def _watch(parent: int, every: float) -> None:
    # The parent's number changes the moment it dies, even where nobody has taken note of its death. A signal from the
    # kernel (PR_SET_PDEATHSIG) could say nothing, and SIGTERM, which Python would handle, waits for the collective.
    while os.getppid() == parent:
        time.sleep(every)
    try:
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "?"))
        sys.stderr.write(f"rank {rank}: process {parent}, which started this one, is gone; this one ends, too\n")
        sys.stderr.flush()
    finally:  # even where nobody listens any more
        os._exit(1)


def rank(placement: Placement) -> int:
    """This process's number among all of the training, 0 for the first or only one.

    A number that some earlier launcher left in the environment does not count, as it does not for `place`.
    """
    started = _started()
    if started:
        return _number("RANK" if started.by == "torchrun" else "SLURM_PROCID")
    node = _number("NODE_RANK") if placement.nodes > 1 else 0
    own = _number("LOCAL_RANK") if "LOCAL_RANK" in os.environ and LAUNCHER in os.environ else 0
    return node * placement.devices + own


def fast_precision() -> str:
    """The precision to train in: "bf16" where the hardware multiplies it faster than fp32 (GPUs since Ampere, CPUs with
    AVX-512 BF16 or AMX), else "fp32"."""
    import torch

    if torch.cuda.is_available():
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp32"
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return "fp32"
    return "bf16" if {"avx512_bf16", "amx_bf16", "bf16"} & set(flags) else "fp32"
