"""Trainings as processes of their own: started, gone on with, stopped and deleted from anywhere, the app included.

A training started here belongs to nobody: it has a session of its own, no input, and writes what it says into its run
folder (`log.txt`), so that it outlives the browser tab, the app and the shell it came from. The lock of its folder is
taken before the process begins and handed to it, so that there is no moment in which another could start the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from affectvlm.config import TrainConfig, load, to_dict
from affectvlm.planning import checked_name, written
from affectvlm.runs import (
    CONFIG,
    EVENTS,
    HANDED_LOCK,
    LOCK,
    LOG,
    STARTED,
    RunError,
    holder,
    is_cut,
    is_run,
    is_running,
    list_runs,
    request_stop,
    settings_of,
    sign_lock,
    status,
    take_lock,
)  # fmt: skip

HOME = Path(__file__).resolve().parents[1]
"""Where `train.py` lies, and what relative paths of settings start from."""

SCRIPT = "train.py"
MOST = 4
"""Trainings that may run at once: more of them only wait for each other."""

_GRACE_S = 10.0
"""How long a process is given to end before `end_now` says that it did not."""


def start(root: str | Path, name: str, overrides: Sequence[str]) -> Path:
    """Start a new training; returns its run folder.

    Args:
        root: the folder of all runs. overrides: settings as `train.py` takes them, without run.name and run.folder.

    Raises:
        ValueError: settings or a name that are refused.
        RunError: the name is taken, the same training is running under another name, too many run already, or the
            process cannot be started.
    """
    root, name = Path(root), checked_name(name)
    overrides = [text for text in overrides if not text.startswith(("run.name=", "run.folder="))]
    place = written("run.name", name), written("run.folder", str(root))
    settings = to_dict(load(TrainConfig, None, [*overrides, *place]))
    with _one_at_a_time(root):
        folder = root / name
        if folder.exists() and not _never_began(folder):
            raise RunError(f"there is a run {name} already; another name is needed")
        _check_room(root, settings)
        record = {"time": round(time.time(), 2), "overrides": overrides, "settings": settings}
        return _launch(folder, [*overrides, *_place(folder)], record)


def resume(folder: str | Path) -> Path:
    """Go on with a run that was stopped, failed or died; one that never got as far as its settings is started anew.

    Raises:
        RunError: it is running, is finished, or there is no run; too many run already.
    """
    folder = Path(folder)
    now = status(folder)
    if now.state in ("running", "finished"):
        raise RunError(f"{folder.name} is {now.state}; only a run that was stopped, failed or died can go on")
    with _one_at_a_time(folder.parent):
        _check_room(folder.parent, None)
        if (folder / CONFIG).is_file():
            return _launch(folder, ["--resume", *_place(folder)], None)
        overrides = json.loads((folder / STARTED).read_text("utf-8"))["overrides"]
        return _launch(folder, [*overrides, *_place(folder)], None)


def stop(folder: str | Path) -> None:
    """Ask a running training to save and end. One that has no step to save yet is ended at once; what it has rendered
    stays in the cache.

    Raises:
        RunError: it is not running, or its process is not one that may be ended from here.
    """
    now = status(folder)
    if now.state != "running":
        raise RunError(f"{Path(folder).name} is not running")
    request_stop(folder)
    if now.phase == "preparing":
        end_now(folder)


def end_now(folder: str | Path) -> None:
    """End a training that was asked to stop and did not: the process that the run's lock names, and those it started.

    What came after its last save is lost; the run can go on from there.

    Raises:
        RunError: it was not asked to stop before, or the lock names no living process of this machine.
    """
    folder = Path(folder)
    if not status(folder).stopping:
        raise RunError(f"{folder.name} was not asked to stop; ask first, it then saves what it has learned")
    process = holder(folder)
    if process is None:
        raise RunError(f"the process of {folder.name} is not known on this machine; end it where it was started")
    with suppress(ProcessLookupError):  # it has ended meanwhile
        if os.getpgid(process) == process != os.getpgrp():
            os.killpg(process, signal.SIGKILL)  # with its loaders and further ranks
        else:
            os.kill(process, signal.SIGKILL)
    _wait_until_free(folder)
    with suppress(RunError):
        lock = take_lock(folder)
        try:
            with (folder / EVENTS).open("a", encoding="utf-8") as file:
                event = {"kind": "end", "time": round(time.time(), 2), "state": "stopped", "message": "ended at once"}
                file.write("\n" * is_cut(folder / EVENTS) + json.dumps(event) + "\n")
        finally:
            os.close(lock)


def delete(folder: str | Path, root: str | Path) -> None:
    """Delete the folder of a run that is not running.

    Raises:
        RunError: it is running, is no run, is a link, or does not lie directly in `root`.
    """
    folder, root = Path(folder), Path(root)
    if folder.is_symlink() or folder.resolve().parent != root.resolve() or not is_run(folder):
        raise RunError(f"{folder.name} is not a run in {root.name}; only such are deleted")
    lock = take_lock(folder)
    try:
        gone = root / f".deleted-{folder.name}-{os.getpid()}-{time.monotonic_ns()}"
        folder.rename(gone)  # it is gone at once, however long the rest takes
        shutil.rmtree(gone)
    except OSError as error:
        raise RunError(f"{folder.name} cannot be deleted: {error.strerror}") from error
    finally:
        os.close(lock)


def running(root: str | Path) -> list[Path]:
    """Folders of the trainings that run now on this machine."""
    return [folder for folder in list_runs(root) if is_running(folder)]


def command_line(overrides: Sequence[str]) -> str:
    """What to type in the folder of `train.py` for the same."""
    return shlex.join(["python", SCRIPT, *overrides])


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    return command_line(["--resume", *_place(folder)])


def as_typed(path: Path) -> str:
    """A path as a command in the folder of `train.py` has it."""
    return str(path.relative_to(HOME)) if path.is_relative_to(HOME) else str(path)


def _place(folder: Path) -> list[str]:
    """The settings that say where the run is; the folder only where it is not the usual one."""
    usual = folder.parent.resolve() == HOME / "runs"
    return [written("run.name", folder.name), *([] if usual else [written("run.folder", str(folder.parent.resolve()))])]


def _never_began(folder: Path) -> bool:
    """What is left of a start that failed before there was anything to keep."""
    began = (folder / CONFIG).is_file() or not is_run(folder) or is_running(folder)
    return folder.is_dir() and not folder.is_symlink() and not began


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Starts in one folder of runs come one after another, so that each sees what the one before has begun."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / ".starting", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"the folder for runs, {root}, cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _check_room(root: Path, settings: dict[str, Any] | None) -> None:
    """Nobody starts what is running already, nor more than the machine can do."""
    now = running(root)
    if settings is not None:
        for folder in now:
            if _same(settings_of(folder), settings):
                raise RunError(
                    f"this very training is running already, as {folder.name}; watch that one, or change a setting "
                    "(run.seed, say)"
                )
    if len(now) >= MOST:
        raise RunError(f"{len(now)} trainings are running; at most {MOST} may, so wait for one or stop it")


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def bare(settings: dict[str, Any]) -> dict[str, Any]:
        run = {key: value for key, value in (settings.get("run") or {}).items() if key not in ("name", "folder")}
        return {**settings, "run": run}

    return bare(one) == bare(other)


def _launch(folder: Path, arguments: list[str], record: dict[str, Any] | None) -> Path:
    """Start `train.py` with the run's lock in its hands."""
    try:
        folder.mkdir(exist_ok=True)
        lock = take_lock(folder)
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be made: {error.strerror}") from error
    try:
        if record is not None:
            (folder / EVENTS).unlink(missing_ok=True)  # of a start under this name that failed
            (folder / LOG).unlink(missing_ok=True)
            (folder / STARTED).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-u", SCRIPT, *arguments],
                cwd=HOME,
                env={**os.environ, HANDED_LOCK: str(lock)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # no signal meant for the app reaches it
                pass_fds=(lock,),
            )
        sign_lock(lock, process.pid)
    except OSError as error:
        raise RunError(f"the training cannot be started: {error.strerror}") from error
    finally:
        os.close(lock)  # the process holds it on
    threading.Thread(target=process.wait, name=f"wait-{folder.name}", daemon=True).start()  # leaves no zombie
    return folder


def _wait_until_free(folder: Path) -> None:
    end = time.monotonic() + _GRACE_S
    while is_running(folder):
        if time.monotonic() > end:
            raise RunError(f"{folder.name} has not ended within {_GRACE_S:.0f} s; look at {folder / LOCK}")
        time.sleep(0.05)
