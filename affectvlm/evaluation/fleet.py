"""Several trainings at a time, each a process of `train.py` with a run folder of its own.

A training that is finished is passed over, one that was stopped or died is resumed, and one that another process is
running already (of an evaluation that was killed, say) is waited for. When this process is asked to end, so are they:
each saves its step first.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from affectvlm.runs import RunError, duration, request_stop, status

log = logging.getLogger(__name__)

TRAIN = Path(__file__).parents[2] / "train.py"
LOG = "log.txt"

POLL_S = 0.5
SAY_EVERY_S = 60.0
PATIENCE_S = 180.0
"""How long trainings may take to save when they are asked to stop, before they are ended."""


@dataclass(frozen=True)
class Training:
    """One training: its run folder, and its settings (section.key=value) without those of the folder."""

    folder: Path
    settings: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> str:
        """As `runs.status` has it; "new" where nothing is there yet."""
        try:
            return status(self.folder).state
        except RunError:
            return "new"

    @property
    def share(self) -> float:
        """How much of it is done, 0 to 1."""
        try:
            now = status(self.folder)
        except RunError:
            return 0.0
        return 1.0 if now.state == "finished" else 0.95 * now.step / now.steps if now.steps else 0.0

    def command(self) -> list[str]:
        words = [sys.executable, str(TRAIN), *self.settings]
        words += [f"run.folder={self.folder.parent}", f"run.name={self.name}"]
        return words if self.state == "new" else [*words, "--resume"]


def train_all(
    trainings: Sequence[Training], jobs: int = 1, finished: Callable[[Training], None] = lambda _: None
) -> None:
    """Run all trainings to their end, `jobs` at a time.

    Args:
        finished: called in this process for each training that is done, also for those that were done before.

    Raises:
        RunError: some failed or were stopped by somebody; the others were done before this is raised, unless not one
            has ever been finished: then something is wrong with all of them, and no further one is started.
        KeyboardInterrupt: this process was asked to end, and all trainings have saved and ended.
    """
    _Fleet(trainings, jobs, finished).run()


class _Fleet:
    """The trainings of one call: waiting, running and lost."""

    def __init__(self, trainings: Sequence[Training], jobs: int, finished: Callable[[Training], None]) -> None:
        self.trainings, self.jobs, self.finished = tuple(trainings), max(1, jobs), finished
        self.waiting = deque(trainings)
        self.running: dict[int, tuple[Training, subprocess.Popen | None]] = {}  # slot → None is another's process
        self.lost: dict[str, str] = {}
        self.done = 0
        self.devices = _devices() if self.jobs > 1 else ()

    def run(self) -> None:
        with _asked_to_end():
            try:
                self._pass_over_finished()
                self._start_clock()
                while self.waiting or self.running:
                    self._fill()
                    time.sleep(POLL_S if self.running else 0)
                    self._look()
                    self._say_now_and_then()
            except BaseException:
                self._stop()
                raise
        if self.lost:
            what = "; ".join(f"{name}: {why}" for name, why in list(self.lost.items())[:3])
            raise RunError(
                f"{len(self.lost)} of {len(self.trainings)} trainings did not finish ({what}); the same command goes on"
            )

    def _pass_over_finished(self) -> None:
        finished = [training for training in self.trainings if training.state == "finished"]
        for training in finished:
            self.waiting.remove(training)
            self._count(training)
        if finished:
            log.info("%d of %d trainings are there already", len(finished), len(self.trainings))

    def _fill(self) -> None:
        """Start what there is room for."""
        for slot in range(self.jobs):
            if slot in self.running or not self.waiting or (self.lost and not self.done):
                continue
            training = self.waiting.popleft()
            if training.state == "running":
                log.info("%s is running already; waiting for it", training.name)
                self.running[slot] = (training, None)
            else:
                self.running[slot] = (training, self._start(training, slot))
        if not self.running:
            self.waiting.clear()  # the first ones failed: the others would too

    def _start(self, training: Training, slot: int) -> subprocess.Popen:
        environment = dict(os.environ)
        if self.jobs > 1:
            environment.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // self.jobs)))
        if len(self.devices) > 1:
            environment["CUDA_VISIBLE_DEVICES"] = self.devices[slot % len(self.devices)]
        command = training.command()
        training.folder.mkdir(parents=True, exist_ok=True)
        log.info("%s %s", training.name, "goes on" if "--resume" in command else "starts")
        with (training.folder / LOG).open("a", encoding="utf-8") as output:
            # a session of its own: Ctrl-C reaches it through us, once, and not twice
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def _look(self) -> None:
        """See who has ended, and how."""
        for slot, (training, process) in list(self.running.items()):
            if (process.poll() is None) if process else (training.state == "running"):
                continue
            del self.running[slot]
            state = training.state
            if state == "finished":
                self._count(training)
                log.info("%s is finished; %s", training.name, self._progress())
            elif process is None:
                self.waiting.appendleft(training)  # whoever ran it has left it: it is ours now
            else:
                self.lost[training.name] = last_words(training.folder) or f"it {state}"
                log.warning("%s did not finish (%s): %s", training.name, state, self.lost[training.name])

    def _count(self, training: Training) -> None:
        self.finished(training)
        self.done += 1

    def _start_clock(self) -> None:
        self.began = self.said = time.monotonic()
        self.before = self._work()

    def _work(self) -> float:
        """Trainings done, with the done shares of those that run or were stopped."""
        return self.done + sum(one.share for one in (*self.waiting, *(one for one, _ in self.running.values())))

    def _progress(self) -> str:
        total, work = len(self.trainings) - len(self.lost), self._work()
        text = f"{self.done} of {len(self.trainings)} done"
        passed, made = time.monotonic() - self.began, work - self.before
        if made > 0 and work < total:
            text += f", about {duration(passed * (total - work) / made)} left"
        return text

    def _say_now_and_then(self) -> None:
        if time.monotonic() - self.said >= SAY_EVERY_S and self.running:
            self.said = time.monotonic()
            log.info("%s", self._progress())

    def _stop(self) -> None:
        """Ask what we started to save and end, and wait for it; what has not begun to train is ended at once."""
        own = [(one, process) for one, process in self.running.values() if process and process.poll() is None]
        if own:
            log.info("asking %d trainings to save and stop", len(own))
        for training, process in own:
            if training.state == "running":
                request_stop(training.folder)
            else:
                process.terminate()
        until = time.monotonic() + PATIENCE_S
        for _, process in own:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def last_words(folder: Path) -> str:
    """The last line that a training wrote."""
    try:
        lines = (folder / LOG).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """SIGTERM ends us as Ctrl-C does, so that what we started can be told. Only the main thread can listen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> tuple[str, ...]:
    """GPUs that trainings may share out among them, as CUDA_VISIBLE_DEVICES calls them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name.strip() for name in given.split(",") if name.strip())
    import torch

    return tuple(str(number) for number in range(torch.cuda.device_count()))
