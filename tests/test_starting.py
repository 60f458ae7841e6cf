"""Trainings as processes of their own: one of each, stopped with their work saved, killed only if they are ours."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from affectvlm import starting
from affectvlm.runs import CONFIG, LOCK, LOG, STARTED, RunError, events, is_running, last_words, list_runs, status
from affectvlm.starting import delete, end_now, resume, start, stop

ROOT = Path(__file__).resolve().parents[1]

STAND_IN = '''
"""Stands in for train.py: holds the run as it does, does nothing, and stops when asked (unless it is deaf)."""
import json, os, sys, time
from pathlib import Path

import yaml

from affectvlm.runs import CONFIG, STARTED, Run

time.sleep(float(os.environ.get("SLOW", "0")))
if "LAME" in os.environ:
    sys.exit("stand-in: it cannot go on")
place = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
run = Run.open(Path(place["run.folder"]) / place["run.name"], resume="--resume" in sys.argv)
settings = json.loads((run.folder / STARTED).read_text())["settings"]
run.write(CONFIG, lambda path: path.write_text(yaml.safe_dump(settings)))
first = max([e.get("step", 0) for e in map(json.loads, (run.folder / "events.jsonl").read_text().splitlines())] or [0])
run.event("start", step=first, steps=10_000)
print("session", os.getsid(0) == os.getpid(), "input", repr(sys.stdin.read()), flush=True)
for step in range(first + 1, 10_000):
    run.event("progress", step=step, steps=10_000, eta_s=9.0)
    if run.stop_requested and "DEAF" not in os.environ:
        run.event("end", state="stopped")
        break
    time.sleep(0.02)
'''


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder for runs, and `train.py` replaced; at the end nothing is left running."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "train.py").write_text(STAND_IN)
    monkeypatch.setattr(starting, "HOME", home)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield tmp_path / "runs"
    for folder in starting.running(tmp_path / "runs"):
        starting.request_stop(folder)
        starting.end_now(folder)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def steps_of(folder):
    return status(folder).step


def test_a_training_is_held_from_its_first_moment_and_stands_alone(root, monkeypatch):
    monkeypatch.setenv("SLOW", "1")
    folder = start(root, "mine", ["optim.steps=700"])
    now = status(folder)
    assert (now.state, now.phase) == ("running", "preparing") and not (folder / CONFIG).is_file()
    assert list_runs(root) == [folder] and starting.running(root) == [folder]
    wait_for(lambda: steps_of(folder) > 2)
    assert status(folder).phase == "training" and status(folder).eta_s == 9.0
    assert "session True input ''" in (folder / LOG).read_text()
    assert starting.settings_of(folder)["optim"]["steps"] == 700
    stop(folder)
    wait_for(lambda: not is_running(folder))
    assert status(folder).state == "stopped"


def test_of_two_who_start_the_same_at_once_one_does(root):
    def begin(name):
        try:
            return start(root, name, ["run.seed=5"])
        except RunError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:  # the same name, and the same training under other names
        answers = list(pool.map(begin, ["a", "a", "b", "c"]))
    assert sum(isinstance(answer, Path) for answer in answers) == 1
    refused = " ".join(answer for answer in answers if isinstance(answer, str))
    assert "running already" in refused or "there is a run a already" in refused
    assert len(starting.running(root)) == 1


def test_another_seed_is_another_training_up_to_what_the_machine_can_do(root, monkeypatch):
    monkeypatch.setattr(starting, "MOST", 2)
    start(root, "a", ["run.seed=1"])
    start(root, "b", ["run.seed=2"])
    with pytest.raises(RunError, match="2 trainings are running; at most 2"):
        start(root, "c", ["run.seed=3"])


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", ".hidden", "a b", "x" * 81, "é"])
def test_odd_names_and_settings_are_refused_before_anything_is_made(root, name):
    with pytest.raises(ValueError, match="the name is"):
        start(root, name, [])
    for settings in (["optim.lrr=1"], ["optim.steps=[1"], ["nonsense"], ["optim=3"], ["optim.lr=1", "optim.lr.x=2"]):
        with pytest.raises(ValueError, match="mean|cannot be read|is not section|keys with values|given a value"):
            start(root, "fine", settings)
    assert not root.exists() or not list_runs(root)


def test_a_stopped_run_goes_on_where_it_was_and_a_running_or_finished_one_does_not(root):
    folder = start(root, "a", [])
    with pytest.raises(RunError, match="a is running"):
        resume(folder)
    wait_for(lambda: steps_of(folder) > 3)
    stop(folder)
    wait_for(lambda: not is_running(folder))
    before = steps_of(folder)
    with pytest.raises(RunError, match="there is a run a already"):
        start(root, "a", ["run.seed=9"])
    resume(folder)
    assert status(folder).phase == "preparing"  # what was said before is of the earlier start
    wait_for(lambda: steps_of(folder) > before)
    stop(folder)
    wait_for(lambda: not is_running(folder))
    assert [event["step"] for event in events(folder) if event["kind"] == "start"] == [0, before]
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"kind": "end", "state": "finished"}\n')
    with pytest.raises(RunError, match="a is finished"):
        resume(folder)


def test_what_does_not_stop_is_ended_only_after_it_was_asked_to(root, monkeypatch):
    monkeypatch.setenv("DEAF", "1")
    folder = start(root, "a", [])
    wait_for(lambda: steps_of(folder) > 1)
    with pytest.raises(RunError, match="was not asked to stop"):
        end_now(folder)
    stop(folder)
    time.sleep(0.2)
    assert status(folder).stopping and is_running(folder)
    end_now(folder)
    now = status(folder)
    assert (now.state, now.message) == ("stopped", "ended at once")
    with pytest.raises(RunError, match="not running"):
        stop(folder)


def test_a_stop_before_the_first_step_takes_effect_at_once(root, monkeypatch):
    monkeypatch.setenv("SLOW", "60")
    folder = start(root, "a", [])
    stop(folder)
    assert not is_running(folder) and status(folder).state == "stopped"
    monkeypatch.setenv("SLOW", "0")
    resume(folder)  # there are no settings of a run yet: from the start, with those it was started with
    wait_for(lambda: steps_of(folder) > 0)


def test_only_the_process_that_holds_the_run_is_killed(root, monkeypatch):
    """A lock that names another process: its number was given away again, or somebody wrote it."""
    monkeypatch.setenv("DEAF", "1")
    folder = start(root, "a", [])
    wait_for(lambda: steps_of(folder) > 0)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        signed = json.loads((folder / LOCK).read_text())
        starting.request_stop(folder)
        for named in ({"process": bystander.pid}, {"host": "elsewhere"}, {"process": 1}, {"process": "all"}):
            (folder / LOCK).write_text(json.dumps({**signed, **named}))
            with pytest.raises(RunError, match="not known on this machine"):
                end_now(folder)
        assert bystander.poll() is None and is_running(folder)
    finally:
        bystander.kill()
        bystander.wait()
    (folder / LOCK).write_text(json.dumps(signed))
    end_now(folder)
    assert not is_running(folder)


@pytest.mark.slow
def test_it_outlives_whoever_started_it(root):
    code = f"""
import affectvlm.starting as s; from pathlib import Path
s.HOME = Path({str(starting.HOME)!r}); s.start({str(root)!r}, "a", []); print("started", flush=True)
import time; time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert starter.stdout.readline() == b"started\n"
    os.killpg(starter.pid, signal.SIGKILL)
    starter.communicate()
    folder = root / "a"
    wait_for(lambda: steps_of(folder) > 0)
    before = steps_of(folder)
    wait_for(lambda: steps_of(folder) > before)


def test_a_start_that_fails_says_why_and_its_name_is_free_again(root, monkeypatch):
    monkeypatch.setenv("LAME", "1")
    folder = start(root, "a", [])
    wait_for(lambda: not is_running(folder))
    now = status(folder)
    assert (now.state, now.message) == ("died", "stand-in: it cannot go on")
    monkeypatch.delenv("LAME")
    start(root, "a", ["run.seed=3"])
    wait_for(lambda: steps_of(folder) > 0)
    assert "cannot go on" not in last_words(folder, 50)


def test_only_runs_that_rest_are_deleted_and_nothing_else(root, tmp_path):
    folder = start(root, "a", [])
    with pytest.raises(RunError, match="a training is running"):
        delete(folder, root)
    stop(folder)
    wait_for(lambda: not is_running(folder))
    other = tmp_path / "precious"
    other.mkdir()
    (other / CONFIG).write_text("")
    (root / "link").symlink_to(other)
    (root / "no-run").mkdir()
    for wrong in (other, root / "link", root / "no-run", root / ".." / "precious", root, root / "a" / "..", Path("/")):
        with pytest.raises(RunError, match="only such are deleted"):
            delete(wrong, root)
    assert (other / CONFIG).is_file() and (folder / STARTED).is_file()
    delete(folder, root)
    assert not folder.exists() and list_runs(root) == [root / "link"]


def test_the_command_is_what_is_run(root):
    assert starting.command_line(["run.name=a", "data.folder=/a b"]) == "python train.py run.name=a 'data.folder=/a b'"
    assert starting.resume_command(starting.HOME / "runs" / "a") == "python train.py --resume run.name=a"
    assert f"run.folder={root}" in starting.resume_command(root / "a")


@pytest.mark.slow
def test_a_real_training_is_started_stopped_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = [
        "data.train_faces=[16]", "data.validation_faces=8", "data.test_faces=8", f"data.cache={tmp_path}/cache",
        "optim.steps=400", "optim.batch=4", "optim.warmup=1", "optim.word_steps=1", "optim.precision=fp32",
        "run.every=1", "run.validate=400", "data.workers=1",
    ]  # fmt: skip
    folder = start(tmp_path / "runs", "real", settings)
    wait_for(lambda: status(folder).step >= 2 or not is_running(folder), 300)
    assert is_running(folder), last_words(folder, 20)
    stop(folder)
    wait_for(lambda: not is_running(folder), 60)
    assert status(folder).state == "stopped" and (folder / "last.ckpt").is_file()
    done = status(folder).step
    resume(folder)
    try:
        wait_for(lambda: status(folder).step > done or not is_running(folder), 300)
        assert is_running(folder), last_words(folder, 20)
        assert [event["step"] for event in events(folder) if event["kind"] == "start"] == [0, done]
    finally:
        starting.request_stop(folder)
        wait_for(lambda: not is_running(folder), 60)
