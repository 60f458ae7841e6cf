"""Where a training runs: what is decided from what is asked, started and found; and that its processes end together."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torch._dynamo  # here, not later by others: it looks into torch's functions, of which tests replace some

from affectvlm import launching
from affectvlm.launching import LAUNCHER, Placement, place, rank, threads_per_process, trainer_options, watch_parent

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = (
    LAUNCHER, "LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "MASTER_ADDR",
    "MASTER_PORT", "TORCHELASTIC_RUN_ID", "OMP_NUM_THREADS",
)  # fmt: skip
TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
SLURM = {
    "SLURM_JOB_ID": "123456", "SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_JOB_NAME": "train",
}  # fmt: skip
HALF = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """An environment that says nothing, and whatever a test puts there is gone afterwards."""
    for name in (*VARIABLES, *(name for name in os.environ if name.startswith("SLURM_"))):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


@pytest.fixture
def machine(monkeypatch):
    """Pretends: so many GPUs, these variables."""

    def pretend(gpus=0, variables=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        for name, value in (variables or {}).items():
            monkeypatch.setenv(name, value)

    return pretend


CPU = Placement("cpu")
BY_HAND = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "NODE_RANK": "0"}


@pytest.mark.parametrize(
    ("gpus", "variables", "asked", "expected"),
    [
        (0, {}, (), CPU),
        (1, {}, (), Placement("cuda")),
        (4, {}, (), Placement("cuda", 4, 1, "ddp", "nccl")),
        (4, {}, (1,), Placement("cuda")),
        (4, {}, (2,), Placement("cuda", 2, 1, "ddp", "nccl")),
        (0, {}, (2,), Placement("cpu", 2, 1, "ddp", "gloo")),
        (1, BY_HAND, (0, 2), Placement("cuda", 1, 2, "ddp", "nccl")),
        (2, TORCHRUN, (), Placement("cuda", 2, 1, "ddp", "nccl")),
        (4, TORCHRUN, (2, 1), Placement("cuda", 2, 1, "ddp", "nccl")),
        (0, TORCHRUN, (), Placement("cpu", 2, 1, "ddp", "gloo")),
        (2, TORCHRUN | {"WORLD_SIZE": "6"}, (), Placement("cuda", 2, 3, "ddp", "nccl")),
        (2, TORCHRUN | SLURM, (), Placement("cuda", 2, 1, "ddp", "nccl")),
        (4, SLURM, (), Placement("cuda", 4, 2, "ddp", "nccl")),
        (4, SLURM | {"SLURM_JOB_NAME": "bash"}, (1,), Placement("cuda")),
        (4, {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "1"}, (), Placement("cuda")),
        # what other programs leave behind is not a start
        (0, {"WORLD_SIZE": "7", "RANK": "3", "MASTER_PORT": "1"}, (), CPU),
        # a process that Lightning started for us: nothing but the same decision again
        (0, {LAUNCHER: "1", "LOCAL_RANK": "1", "RANK": "5", "WORLD_SIZE": "2"}, (2,),
         Placement("cpu", 2, 1, "ddp", "gloo")),
    ],
)  # fmt: skip
def test_place(machine, gpus, variables, asked, expected):
    machine(gpus, variables)
    assert place(*asked) == expected


@pytest.mark.parametrize(
    ("gpus", "variables", "asked", "words"),
    [
        (0, {}, (-1,), "devices is -1"),
        (2, {}, (4,), "4 processes on a machine where 2 GPUs can be seen"),
        (4, TORCHRUN, (4,), "devices is 4 but torchrun started 2"),
        (2, TORCHRUN, (2, 2), "nodes is 2 but torchrun started 1"),
        (1, TORCHRUN, (), "2 processes on a machine where 1 GPUs"),
        (0, HALF, (), "torchrun says 3 processes, 2 on each machine"),
        (0, TORCHRUN | {"WORLD_SIZE": "two"}, (), "WORLD_SIZE is 'two'"),
        (4, SLURM, (2,), "devices is 2 but SLURM started 4"),
        (4, SLURM | {"SLURM_NTASKS": "7"}, (), "SLURM says 7 processes, 4 on each machine"),
        (4, {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, (), "--ntasks-per-node"),
        (0, {"LOCAL_RANK": "1"}, (2,), "LOCAL_RANK is set but not RANK"),
        (0, {"MASTER_ADDR": "a"}, (2, 2), "MASTER_PORT, NODE_RANK not set"),
    ],
)
def test_contradictions_are_refused_in_words(machine, gpus, variables, asked, words):
    machine(gpus, variables)
    with pytest.raises(ValueError, match=words):
        place(*asked)


@pytest.mark.parametrize(
    ("variables", "placement", "expected"),
    [
        ({}, Placement("cpu"), 0),
        ({"RANK": "3"}, Placement("cpu"), 0),  # left over from some earlier launcher
        ({"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"},
         Placement("cpu", 4, 2, "ddp"), 5),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "2",
          "SLURM_PROCID": "2"}, Placement("cpu", 2, 2, "ddp"), 2),
        ({LAUNCHER: "1", "LOCAL_RANK": "1"}, Placement("cpu", 2, 1, "ddp"), 1),
        ({"NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, Placement("cpu", 4, 2, "ddp"), 4),
    ],
)  # fmt: skip
def test_rank(machine, variables, placement, expected):
    machine(variables=variables)
    assert rank(placement) == expected


def test_a_mac_uses_its_gpu_for_one_process(machine, monkeypatch):
    machine()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert (place().accelerator, place(2).accelerator) == ("mps", "cpu")


def test_threads(machine, monkeypatch):
    monkeypatch.setattr(launching.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    counts = [threads_per_process(Placement("cpu", devices)) for devices in (1, 3, 16)]
    assert counts == [8, 2, 1]
    machine(0, SLURM | {"SLURM_CPUS_PER_TASK": "6"})
    assert threads_per_process(Placement("cpu", 4, 2, "ddp", "gloo")) == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert threads_per_process(Placement("cpu", 4, 2, "ddp", "gloo")) == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert threads_per_process(Placement("cpu", 4, 2, "ddp", "gloo")) == 6


def test_one_process_needs_no_strategy_and_changes_nothing():
    before = dict(os.environ)
    assert trainer_options(CPU) == {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    assert dict(os.environ) == before


def test_the_first_process_opens_an_address_of_its_own(monkeypatch):
    """What an old shell says of addresses and ranks must not count."""
    for name, value in {"MASTER_ADDR": "203.0.113.1", "MASTER_PORT": "29500", "NODE_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    options = trainer_options(Placement("cpu", 2, 1, "ddp", "gloo"))
    strategy, port = options["strategy"], int(os.environ["MASTER_PORT"])
    assert (options["devices"], strategy.process_group_backend) == (2, "gloo")
    environment = strategy.cluster_environment
    assert (environment.main_address, environment.main_port, environment.node_rank()) == ("127.0.0.1", port, 0)
    assert not environment.creates_processes_externally
    with socket.socket() as other, pytest.raises(OSError):
        other.bind(("", port))  # nobody else can have it
    trainer_options(Placement("cpu", 2, 1, "ddp", "gloo"))
    assert int(os.environ["MASTER_PORT"]) == port, "a second trainer of this process belongs to the same others"
    monkeypatch.delenv(LAUNCHER)  # as in another process
    trainer_options(Placement("cpu", 2, 1, "ddp", "gloo"))
    assert int(os.environ["MASTER_PORT"]) != port


def test_a_process_that_was_started_keeps_the_address_it_got(monkeypatch):
    given = {LAUNCHER: str(os.getppid()), "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    environment = trainer_options(Placement("cpu", 2, 1, "ddp", "gloo"))["strategy"].cluster_environment
    assert (environment.main_port, environment.local_rank()) == (1234, 1)
    assert environment.creates_processes_externally


def test_torchrun_and_slurm_keep_their_ranks(machine):
    machine(0, TORCHRUN | SLURM | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1234"})
    environment = trainer_options(place())["strategy"].cluster_environment
    assert (environment.global_rank(), environment.world_size(), environment.main_port) == (1, 2, 1234)
    assert LAUNCHER not in os.environ


def test_two_steps_of_a_slurm_job_meet_at_different_ports(machine, monkeypatch):
    machine(0, SLURM | {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NODELIST": "host[3-4]"})
    ports = []
    for step in ("0", "1"):
        monkeypatch.delenv("MASTER_PORT", raising=False)
        monkeypatch.setenv("SLURM_STEP_ID", step)
        environment = trainer_options(place())["strategy"].cluster_environment
        ports.append(environment.main_port)
    assert (environment.global_rank(), environment.world_size(), environment.main_address) == (5, 8, "host3")
    assert len(set(ports)) == 2 and all(1024 < port < 32768 for port in ports)


@pytest.mark.parametrize("variables", [{}, {LAUNCHER: str(os.getpid())}, SLURM])
def test_nobody_watches_where_there_is_no_parent(machine, variables):
    machine(0, variables)
    before = threading.active_count()
    watch_parent()
    assert threading.active_count() == before


@pytest.fixture
def orphans():
    """Lets this process wait for those whose own parent died, so that it learns how they ended."""
    if sys.platform != "linux":
        pytest.skip("only Linux hands orphans to a process of choice")
    adopt = ctypes.CDLL(None).prctl
    assert adopt(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    yield
    adopt(36, 0, 0, 0, 0)


def ended(process: int, seconds: float) -> int:
    """The exit code of a child or adopted process; -9 for one that was killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        number, status = os.waitpid(process, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"process {process} still ran after {seconds} s")


def start(folder: Path, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
    """The script as a process of its own that writes to folder/out."""
    (folder / "script.py").write_text(script, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | variables
    with (folder / "out").open("w") as out:
        return subprocess.Popen(
            [sys.executable, "-u", "script.py", *arguments], cwd=folder, env=environment, stdout=out, stderr=out
        )


def said(folder: Path, what: str, seconds: float, times: int = 1) -> list[str]:
    """Waits until that was said so many times; what follows on each line."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = re.findall(f"{what}(.*)\n", (folder / "out").read_text())
        if len(found) >= times:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not {times} times {what!r} in {seconds} s: {(folder / 'out').read_text()}")


DEAF = """
import os, subprocess, sys, time
from affectvlm.launching import LAUNCHER, watch_parent

if LAUNCHER not in os.environ:
    subprocess.Popen([sys.executable, "-u", __file__], env=os.environ | {LAUNCHER: str(os.getpid()), "LOCAL_RANK": "1"})
else:
    watch_parent(0.1)
    print(f"CHILD {os.getpid()}")
time.sleep(120)  # deaf to everything, as a collective whose other side is gone may be
"""


def test_a_child_ends_with_its_parent(tmp_path, orphans):
    parent = start(tmp_path, DEAF)
    child = int(said(tmp_path, "CHILD ", 60)[0])
    parent.kill()
    assert parent.wait() == -9
    assert ended(child, 20) == 1
    assert f"rank 1: process {parent.pid}, which started this one, is gone" in (tmp_path / "out").read_text()


def test_a_child_that_comes_too_late_ends_at_once(tmp_path):
    """Its parent died while it was still importing: somebody else is its parent now."""
    child = start(tmp_path, DEAF, **{LAUNCHER: "1" if os.getpid() != 1 else "2"})
    assert ended(child.pid, 60) == 1
    child.returncode = 1


TRAINING = """
import os, signal, sys, time
import pytorch_lightning as pl
import torch
from affectvlm.launching import place, trainer_options, watch_parent

watch_parent()
tag, victim, how = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # at once: two processes write to one file

class Tiny(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        if number == 1:
            everyone = self.all_gather(torch.tensor([tag, self.global_rank])).tolist()
            say("MET", everyone)
            say("PID", self.global_rank, os.getpid())
        if number == 2 and self.global_rank == victim:
            time.sleep(1)  # the other is in the collective by now
            say("DYING")
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 2 and how == "deaf" and victim >= 0:
            time.sleep(120)
        return self.layer(batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

trainer = pl.Trainer(**trainer_options(place(2)), max_steps=4, max_epochs=-1, logger=False, enable_checkpointing=False,
                     enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Tiny(), torch.utils.data.DataLoader(torch.ones(64, 1), batch_size=2))
say("FINISHED", trainer.global_rank, trainer.global_step)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "how"), [(0, "collective"), (1, "collective"), (0, "deaf"), (1, "deaf")])
def test_a_killed_rank_ends_the_other(tmp_path, orphans, victim, how):
    """`how` the other waits: in a collective that fails when the connection closes, or where it notices nothing."""
    main = start(tmp_path, TRAINING, "7", str(victim), how)
    processes = dict(line.split() for line in said(tmp_path, "PID ", 500, times=2))
    assert int(processes["0"]) == main.pid
    said(tmp_path, "DYING", 100)
    code = main.wait(timeout=30)
    if victim == 0:
        assert code == -9
        code = ended(int(processes["1"]), 30)
    text = (tmp_path / "out").read_text()
    assert code != 0 and "FINISHED" not in text
    words = [f"process {main.pid}, which started this one, is gone"] if victim == 0 else ["terminated with code -9"]
    words += [] if how == "deaf" else ["Connection closed by peer", "Connection reset by peer"]
    assert any(word in text for word in words), text


@pytest.mark.slow
def test_two_trainings_at_once_never_meet(tmp_path):
    """Started together from one shell that still has the address of an old training."""
    old = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517", "NODE_RANK": "1", "WORLD_SIZE": "9", "RANK": "4"}
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    trainings = [start(folder, TRAINING, str(tag), "-1", "", **old) for tag, folder in enumerate(folders)]
    for tag, (training, folder) in enumerate(zip(trainings, folders, strict=True)):
        assert training.wait(timeout=400) == 0, (folder / "out").read_text()
        assert said(folder, "MET ", 60, times=2) == [f"[[{tag}, 0], [{tag}, 1]]"] * 2
        assert sorted(said(folder, "FINISHED ", 60, times=2)) == ["0 4", "1 4"]
