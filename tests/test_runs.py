"""Run folders: one writer, whole files, and a status that tells running from stopped from dead."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch

from affectvlm import runs
from affectvlm.runs import BEST, CONFIG, EVENTS, LAST, Run, RunError, events, free_name, is_running, list_runs, status


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "a")
    run.write(CONFIG, lambda path: path.write_text("x: 1\n"))
    yield run
    run.close()


def test_only_one_process_holds_a_run(run):
    assert is_running(run.folder)
    with pytest.raises(RunError, match="a training is running"):
        Run.open(run.folder, resume=True)
    run.close()
    assert not is_running(run.folder)
    Run.open(run.folder, resume=True).close()


def test_an_earlier_run_is_not_written_over(run):
    run.event("progress", step=7, steps=9)
    run.close()
    with pytest.raises(RunError, match="holds a run already; --resume"):
        Run.open(run.folder)
    again = Run.open(run.folder, resume=True)
    again.event("progress", step=8, steps=9)
    again.close()
    assert [event["step"] for event in events(run.folder)] == [7, 8]


def test_nothing_to_resume_and_no_place_are_said(tmp_path):
    with pytest.raises(RunError, match="nothing to resume"):
        Run.open(tmp_path / "none", resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be made"):
        Run.open(tmp_path / "file" / "run")


def test_the_lock_falls_with_a_killed_process(tmp_path):
    code = (
        "import sys, time; from affectvlm.runs import Run; run = Run.open(sys.argv[1]);"
        "run.write('config.yaml', lambda p: p.write_text('')); run.event('start', step=0, steps=5);"
        "run.event('progress', step=3, steps=5, eta_s=9.5); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        now = status(tmp_path / "r")
        assert (now.state, now.step, now.steps, now.eta_s) == ("running", 3, 5, 9.5)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    finally:
        process.kill()
        process.stdout.close()
    now = status(tmp_path / "r")
    assert (now.state, now.step, now.eta_s) == ("died", 3, None)
    Run.open(tmp_path / "r", resume=True).close()


def test_the_lock_stays_with_no_process_that_was_forked(tmp_path):
    code = (
        "import os, sys, time; from affectvlm.runs import Run; run = Run.open(sys.argv[1])\n"
        "if os.fork() == 0: print(os.getpid(), flush=True); time.sleep(60); os._exit(0)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r")], stdout=subprocess.PIPE, text=True) as main:
        forked = int(main.stdout.readline())
        try:
            assert is_running(tmp_path / "r")
            main.kill()
            main.wait(10)
            os.kill(forked, 0)  # it lives on, as a loader does for a while
            assert not is_running(tmp_path / "r")
        finally:
            os.kill(forked, signal.SIGKILL)


def test_status_follows_the_last_start_and_end(run):
    run.event("start", step=0, steps=4)
    run.event("validation", step=2, best=0.5)
    run.event("end", state="failed", message="no room")
    run.close()
    now = status(run.folder)
    assert (now.state, now.message, now.best) == ("failed", "no room", 0.5)
    again = Run.open(run.folder, resume=True)
    again.event("start", step=2, steps=4)
    again.event("end", state="finished")
    again.close()
    assert (status(run.folder).state, status(run.folder).message) == ("finished", "")
    with pytest.raises(RunError, match="no run in"):
        status(run.folder.parent)


def test_a_line_cut_by_a_kill_is_left_out(run):
    run.event("progress", step=1, steps=2)
    with (run.folder / EVENTS).open("a") as file:
        file.write('{"kind": "progress", "st')
    assert [event["step"] for event in events(run.folder)] == [1]


def test_a_write_that_fails_leaves_the_earlier_file(run):
    run.write(LAST, lambda path: path.write_text("first"))

    def half(path):
        path.write_text("sec")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="no room for last.ckpt: .*the earlier one is untouched"):
        run.write(LAST, half)
    assert (run.folder / LAST).read_text() == "first"
    assert not list(run.folder.glob(".*tmp"))


def test_what_the_system_refuses_is_said_whoever_writes(run):
    run.write(BEST, lambda path: path.write_text("first"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(RunError, match="best.safetensors cannot be written: File too large; the earlier one is un"):
            run.write(BEST, lambda path: safetensors.torch.save_file({"w": torch.zeros(9999)}, path))
        with pytest.raises(RunError, match="last.ckpt cannot be written: File too large"):
            run.write(LAST, lambda path: path.write_bytes(bytes(9999)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (run.folder / BEST).read_text() == "first" and not list(run.folder.glob(".*tmp"))
    with pytest.raises(KeyError):  # what is no matter of the disk stays what it is
        run.write(BEST, lambda path: {}["absent"])


def test_events_without_room_end_a_training_in_words_and_its_end_in_a_warning(run, caplog):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run.event("start", step=0, steps=4)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((run.folder / EVENTS).stat().st_size + 20, before[1]))
    try:
        with pytest.raises(RunError, match="no room for events.jsonl"):
            run.event("progress", step=1, steps=4)
        run.event("end", state="failed", message="no room")  # nothing hides the first error
        assert "events.jsonl cannot be written: File too large" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    run.close()
    assert [event["kind"] for event in events(run.folder)] == ["start"]
    again = Run.open(run.folder, resume=True)
    again.event("start", step=1, steps=4)  # not glued to the line that was cut
    again.close()
    assert [event["kind"] for event in events(run.folder)] == ["start", "start"]


def test_too_little_room_is_said_before_anything_is_written(run, monkeypatch):
    monkeypatch.setattr(runs.shutil, "disk_usage", lambda path: runs.shutil._ntuple_diskusage(10**9, 10**9, 5_000_000))
    with pytest.raises(RunError, match="5 MB are free where the run is kept, 80 MB are needed"):
        run.write(LAST, lambda path: pytest.fail("must not be called"), size=80_000_000)


def test_a_stop_is_asked_for_and_forgotten_by_the_next_start(run):
    assert not run.stop_requested
    runs.request_stop(run.folder)
    assert run.stop_requested
    run.close()
    again = Run.open(run.folder, resume=True)
    assert not again.stop_requested
    again.close()


def test_names_count_up_and_the_newest_run_comes_first(tmp_path):
    assert free_name(tmp_path, "m") == "m-001"
    for number, name in enumerate(("m-001", "m-002", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / CONFIG).write_text("")
        os.utime(tmp_path / name / CONFIG, (time.time() + number, time.time() + number))
    assert free_name(tmp_path, "m") == "m-003"
    assert [folder.name for folder in list_runs(tmp_path)] == ["other", "m-002", "m-001"]


def test_other_ranks_write_nothing(tmp_path):
    follower = Run.follow(tmp_path)
    follower.event("progress", step=1)
    follower.close()
    assert not list(tmp_path.iterdir())


def test_the_environment_holds_versions_and_no_path():
    found = runs.environment()
    assert found["packages"]["torch"] and found["devices"]
    assert os.path.expanduser("~") not in json.dumps(found) and "/" not in json.dumps(found["packages"])


def test_the_command_can_be_pasted():
    assert runs.command(["/some/where/train.py", "run.name=a b"]) == "python train.py 'run.name=a b'"


def test_a_lock_is_handed_to_the_process_that_is_started(tmp_path):
    """It is held without a gap, it is the started one's alone in the end, and the variable is gone."""
    folder = tmp_path / "a"
    folder.mkdir()
    lock = runs.take_lock(folder)
    code = (
        "import os, sys; from affectvlm.runs import HANDED_LOCK, Run; run = Run.open(sys.argv[1]);"
        "print(HANDED_LOCK in os.environ, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        pass_fds=(lock,), env={**os.environ, runs.HANDED_LOCK: str(lock)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "False\n"
        os.close(lock)
        assert is_running(folder) and runs.holder(folder) == process.pid
        with pytest.raises(RunError, match="a training is running"):
            runs.take_lock(folder)
    finally:
        process.communicate("")
    assert not is_running(folder) and runs.holder(folder) is None


def test_a_lock_of_another_run_is_not_taken_for_ones_own(tmp_path, monkeypatch, run):
    (tmp_path / "b").mkdir()
    other = runs.take_lock(tmp_path / "b")
    monkeypatch.setenv(runs.HANDED_LOCK, str(other))
    with pytest.raises(RunError, match="a training is running"):
        Run.open(run.folder, resume=True)
    os.close(other)


def test_a_run_that_only_just_began_is_listed_and_prepares(tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    (folder / runs.STARTED).write_text("{}")
    (folder / runs.LOG).write_text("first\nIt failed because.\n\n")
    assert list_runs(tmp_path) == [folder]
    assert (status(folder).state, status(folder).message) == ("died", "It failed because.")
    lock = runs.take_lock(folder)
    assert (status(folder).state, status(folder).phase) == ("running", "preparing")
    os.close(lock)


def test_phases_follow_the_events(run):
    phases = [status(run.folder).phase]
    for kind, step in (("start", 0), ("progress", 3), ("progress", 4), ("chosen", None)):
        run.event(kind, **({} if step is None else {"step": step, "steps": 4}))
        phases.append(status(run.folder).phase)
    assert phases == ["preparing", "training", "training", "finishing", "finishing"]
    runs.request_stop(run.folder)
    assert status(run.folder).stopping
