"""Run folders: what a training leaves behind, who is writing to it, and how it is asked to stop.

    runs/NAME/
        config.yaml        settings, resolved          command.txt    repeats the run
        environment.json   versions, device, code      data.json      faces, subjects and sources of each split
        events.jsonl       one JSON object a line: progress, validation, end
        last.ckpt          all that is needed to go on
        best.safetensors   the weights that scored best on validation
        metrics.json       test scores                 model/         the exported checkpoint
        predictions.json   of each test face
        tensorboard/       the same curves             log.txt        what the shell said
        lock               held by the writing process; stop    a request to stop
        started.json       how it was started, where the app did (`affectvlm.starting`)

Files are written whole or not at all, so a kill at any time leaves a folder that can be read and gone on with. The
lock is the operating system's: it falls with the process that holds it, whatever ends it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

EVENTS, CONFIG, METRICS, PREDICTIONS, LAST, BEST, MODEL = (
    "events.jsonl", "config.yaml", "metrics.json", "predictions.json", "last.ckpt", "best.safetensors", "model",
)  # fmt: skip
STARTED, LOG, LOCK, STOP = "started.json", "log.txt", "lock", "stop"
HANDED_LOCK = "AFFECTVLM_RUN_LOCK"
"""Environment variable: number of the open file by which whoever started this process already holds the run's lock."""

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "open_clip_torch", "pytorch-lightning", "numpy", "numba", "safetensors")
_ATTEMPTS = 5
_SPARE_BYTES = 32 << 20
"""Kept free beside a checkpoint, for events and exported files."""


class RunError(RuntimeError):
    """A run folder cannot be used as asked; the message says what was found and what can be done."""


class Run:
    """The folder of one training, opened for writing. Only one process can hold it; use `Run.open`."""

    def __init__(self, folder: Path, lock: int | None) -> None:
        self.folder, self._lock = folder, lock
        _held.update(() if lock is None else (lock,))
        self._torn = lock is not None and is_cut(folder / EVENTS)
        self._events = None if lock is None else (folder / EVENTS).open("ab", buffering=0)

    @classmethod
    def open(cls, folder: str | Path, resume: bool = False) -> Run:
        """Take a run folder; what an earlier run left is only touched with `resume`.

        Raises:
            RunError: another process is writing there, a run is there already and `resume` is False, there is nothing
                to resume, or the folder cannot be made.
        """
        folder = Path(folder)
        has_run = (folder / CONFIG).is_file()
        if resume and not has_run:
            raise RunError(f"there is no run in {folder}: nothing to resume")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = _handed_lock(folder)
        except OSError as error:
            raise RunError(f"the run folder {folder} cannot be made: {error.strerror}") from error
        lock = take_lock(folder) if lock is None else lock
        if has_run and not resume:
            os.close(lock)
            raise RunError(f"{folder} holds a run already; --resume goes on with it, another run.name starts anew")
        sign_lock(lock, os.getpid())
        (folder / STOP).unlink(missing_ok=True)
        return cls(folder, lock)

    @classmethod
    def follow(cls, folder: str | Path) -> Run:
        """The folder as the other ranks of a training see it: events they write are dropped."""
        return cls(Path(folder), None)

    def event(self, kind: str, **values: Any) -> None:
        """Append {"kind": ..., "time": seconds since 1970, ...} to events.jsonl.

        Raises:
            RunError: it cannot be written. Of an "end" that is only logged: whatever ended the run is what is to be
                said.
        """
        if self._events is None:
            return
        text = json.dumps({"kind": kind, "time": round(time.time(), 2), **values}) + "\n"
        line = ("\n" * self._torn + text).encode()
        try:
            number = 0 if self._events.write(line) == len(line) else errno.ENOSPC  # the last room took a part of it
        except OSError as error:
            number = error.errno
        self._torn = number != 0
        if number and kind != "end":
            raise RunError(self._unwritten(EVENTS, number))
        if number:
            log.warning("%s", self._unwritten(EVENTS, number))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        self.write(name, lambda path: path.write_text(json.dumps(content, indent=2) + "\n", "utf-8"))

    def write(self, name: str, save: Callable[[Path], Any], size: int = 0) -> None:
        """Have `save(path)` write a file beside its place, then move it there in one step.

        Args:
            size: bytes it will take, where known: too little room is then said before anything is written.

        Raises:
            RunError: no room on the disk, or the system refuses; what stood there before still stands.
        """
        place, temporary = self.folder / name, self.folder / f".{name}.{os.getpid()}.tmp"
        free = shutil.disk_usage(self.folder).free
        if free < size + (_SPARE_BYTES if size else 0):
            raise RunError(self._unwritten(name, errno.ENOSPC, size))
        try:
            save(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(place)
        except Exception as error:
            number = _refused(error)
            if number is None:
                raise
            raise RunError(self._unwritten(name, number, size)) from error
        finally:
            temporary.unlink(missing_ok=True)

    def _unwritten(self, name: str, number: int, size: int = 0) -> str:
        """Why a file is not written, in words; `number` is the system's, `size` the bytes it takes, where known."""
        kept = "; the earlier one is untouched" if name != EVENTS and (self.folder / name).exists() else ""
        if number not in (errno.ENOSPC, errno.EDQUOT):
            return f"{name} cannot be written: {os.strerror(number)}{kept}"
        free = shutil.disk_usage(self.folder).free
        wanted = f"{size / 1e6:.0f} MB are needed" if size else "more is needed"
        return f"no room for {name}: {free / 1e6:.0f} MB are free where the run is kept, {wanted}{kept}"

    @property
    def stop_requested(self) -> bool:
        return (self.folder / STOP).exists()

    def close(self) -> None:
        """Let go of the folder; a second call does nothing."""
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._lock is not None:
            os.close(self._lock)
            _held.discard(self._lock)
            self._lock = None


def take_lock(folder: Path) -> int:
    """The run's lock, held by this process until the number returned is closed.

    Raises:
        RunError: another process holds it, or it cannot be made.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be made: {error.strerror}") from error
    for _ in range(_ATTEMPTS):
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        time.sleep(0.02)  # `is_running` may have held it for a moment
    os.close(lock)
    raise RunError(f"a training is running in {folder}; stop it first, or choose another run.name")


_held: set[int] = set()
"""Numbers of the open files by which runs that are open in this process are locked."""


def _let_go() -> None:
    """In a process that was forked from this one (loaders, renderers): the lock is its parent's alone. Else it would
    stay with whatever outlives a kill."""
    for lock in _held:
        with suppress(OSError):
            os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def sign_lock(lock: int, process: int) -> None:
    """Write into a held lock which process it stands for."""
    os.ftruncate(lock, 0)
    started = process_start(process)
    os.pwrite(lock, json.dumps({"process": process, "host": platform.node(), "started": started}).encode(), 0)


def holder(folder: str | Path) -> int | None:
    """The process that the lock of a running run names, if it is one of this machine and still the same; else None.

    A number alone would not do: the system gives it to another process once the first has ended.
    """
    if not is_running(folder):
        return None
    try:
        named = json.loads((Path(folder) / LOCK).read_text("utf-8"))
        process, host, started = int(named["process"]), named["host"], named.get("started")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return process if process > 1 and host == platform.node() and started == process_start(process) else None


def process_start(process: int) -> int | None:
    """When a process began, in clock ticks since the machine did; None where there is no such process, or no /proc."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _handed_lock(folder: Path) -> int | None:
    """The lock that the starting process took for this one; None where it did not, or for another run."""
    number = os.environ.pop(HANDED_LOCK, "")
    if not number.isdigit():
        return None
    try:
        same = os.path.samestat(os.fstat(int(number)), (folder / LOCK).stat())
    except OSError:
        return None
    if not same:
        return None
    os.set_inheritable(int(number), False)  # processes started from here must not keep the run locked
    return int(number)


@dataclass(frozen=True)
class Status:
    """How a run stands.

    Attributes:
        state: "running", "finished", "stopped" (asked to, or early), "failed" (it said why) or "died" (it did not).
        step, steps: done and planned. eta_s: seconds left while it runs, else None.
        best: validation UAR of the best weights so far, or None. message: of a failure; of a run that died without a
            word, the last line of its log.
        phase: of a running one: "preparing" (imports, faces), "training", or "finishing" (all steps done; scores).
        stopping: it was asked to stop.
    """

    state: str
    step: int
    steps: int
    eta_s: float | None
    best: float | None
    message: str
    phase: str = ""
    stopping: bool = False


def status(folder: str | Path) -> Status:
    """Read how a run stands, from its lock and its events; nothing is written.

    Raises:
        RunError: there is no run in the folder.
    """
    folder = Path(folder)
    if not is_run(folder):
        raise RunError(f"there is no run in {folder}")
    step = steps = 0
    eta = best = None
    ended: Mapping[str, Any] = {}
    kind, said = "end", 0.0
    for event in events(folder):
        kind, said = event["kind"], event.get("time", said)
        step, steps = event.get("step", step), event.get("steps", steps)
        eta = event.get("eta_s", eta)
        best = event.get("best", best)
        ended = event if kind == "end" else {} if kind == "start" else ended
    if is_running(folder):
        with suppress(OSError):  # what was said before the lock was taken is of an earlier start
            kind = kind if said >= (folder / LOCK).stat().st_mtime - 0.1 else "end"
        phase = "preparing" if kind == "end" else "finishing" if steps and step >= steps else "training"
        stopping = (folder / STOP).exists()
        return Status("running", step, steps, eta if phase == "training" else None, best, "", phase, stopping)
    if not ended:
        return Status("died", step, steps, None, best, last_words(folder))
    return Status(ended["state"], step, steps, None, best, ended.get("message", ""))


def is_run(folder: str | Path) -> bool:
    """Whether a training was, or was to be, kept in the folder."""
    return any((Path(folder) / name).is_file() for name in (CONFIG, STARTED))


def last_words(folder: str | Path, lines: int = 1) -> str:
    """The last lines of what the shell said, without empty ones; "" where it said nothing."""
    try:
        with (Path(folder) / LOG).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 300 * lines))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([line.rstrip() for line in text.splitlines() if line.strip()][-lines:])


def events(folder: str | Path) -> Iterator[dict[str, Any]]:
    """The events of a run in order; a line cut by a kill, or that says not what it is, is left out."""
    try:
        lines = (Path(folder) / EVENTS).read_text("utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(event, dict) and "kind" in event:
            yield event


def is_running(folder: str | Path) -> bool:
    """Whether some process on this machine holds the run."""
    try:
        lock = os.open(Path(folder) / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def request_stop(folder: str | Path) -> None:
    """Ask a run to save and end after its present step."""
    (Path(folder) / STOP).touch()


def settings_of(folder: str | Path) -> dict[str, Any]:
    """The settings of a run, by section; empty where they cannot be read."""
    import yaml

    folder = Path(folder)
    try:
        if (folder / CONFIG).is_file():
            found = yaml.safe_load((folder / CONFIG).read_text("utf-8"))
        else:
            found = json.loads((folder / STARTED).read_text("utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def list_runs(root: str | Path) -> list[Path]:
    """Folders of runs, the newest first; also of those that have only just been started."""
    times: dict[Path, float] = {}
    for name in (CONFIG, STARTED):
        for file in Path(root).glob(f"*/{name}"):
            try:
                changed = file.stat().st_mtime
            except FileNotFoundError:  # deleted while we look
                continue
            if not file.parent.name.startswith("."):
                times[file.parent] = max(changed, times.get(file.parent, 0.0))
    return sorted(times, key=lambda folder: -times[folder])


def models(root: str | Path) -> dict[str, Path]:
    """Name of a run → folder of the model it exported, the newest first."""
    cards = [card for card in Path(root).glob(f"*/{MODEL}/card.json") if not card.parts[-3].startswith(".")]
    folders = sorted((card.parent for card in cards), key=lambda folder: -folder.stat().st_mtime)
    return {folder.parent.name: folder for folder in folders}


def free_name(root: str | Path, stem: str) -> str:
    """`stem`-001, or the next number that no folder under `root` has."""
    taken = {folder.name for folder in Path(root).glob(f"{stem}-*")}
    return next(name for number in range(1, 10_000) if (name := f"{stem}-{number:03d}") not in taken)


def duration(seconds: float) -> str:
    """90 → "2 min": as a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def environment() -> dict[str, Any]:
    """Versions, device and state of the code: what is needed to understand a run later. No path, no user name."""
    import torch

    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"],
        "packages": versions,
        "code": code_version(),
    }


def code_version() -> str:
    """The commit of the code, with "+changes" where files differ from it; "unknown" outside a git checkout."""
    root = Path(__file__).parents[1]
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True).stdout
            for words in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.strip() + ("+changes" if changes.strip() else "")


def command(arguments: Sequence[str] | None = None) -> str:
    """The command line that repeats this process, from the folder of its script."""
    script, *rest = sys.argv if arguments is None else arguments
    return shlex.join(["python", Path(script).name, *rest])


def is_cut(file: str | Path) -> bool:
    """Whether the last line of a file lacks its end, as a kill or a full disk may leave it."""
    try:
        with Path(file).open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1) != b"\n"
    except OSError:  # none, or an empty one
        return False


def _refused(error: Exception) -> int | None:
    """The number by which the system says why it did not write; None for any other error."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors writes by itself, and only says so
    return int(found[1]) if found else None
