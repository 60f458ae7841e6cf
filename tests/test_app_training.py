"""The training page without a browser: choices, refusals, one run watched, several compared, a model put to use."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from affectvlm.config import METHODS, TrainConfig, load, to_dict
from affectvlm.planning import PRESETS
from affectvlm.preflight import STOP, WARNING, Check, Finding
from affectvlm.runs import Run, is_running
from affectvlm.ui import engine, training_form, visitors
from affectvlm.ui.training_form import ICT, MAKEHUMAN, OWN, RANDOM
from affectvlm.ui.training_state import COMPARE, NEW, WATCH

ROOT = Path(__file__).resolve().parents[1]


class DeclaredPages(PagesManager):
    """As in a server where the entry script ran before."""

    def __init__(self, *arguments, **settings) -> None:
        super().__init__(*arguments, **settings)
        PagesManager.uses_pages_directory = False


@pytest.fixture
def root(tmp_path, monkeypatch, checkpoint_folder):
    monkeypatch.setattr(engine, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(engine, "CHECKPOINTS", checkpoint_folder.parent)
    monkeypatch.setattr(engine, "warm_up", lambda: None)
    monkeypatch.setattr("streamlit.testing.v1.app_test.PagesManager", DeclaredPages)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def opened(root):
    """The page as somebody comes to it, after the test has put runs in place."""

    def open_page() -> AppTest:
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
        return whole(app.switch_page("pages/training.py").run())

    return open_page


@pytest.fixture
def started(monkeypatch):
    """Starts are noted, not carried out: `test_starting` carries them out."""
    calls: list[tuple] = []

    def start(root, name, overrides):
        calls.append((name, overrides))
        write_run(root / name, None)
        return root / name

    monkeypatch.setattr(training_form, "start", start)
    monkeypatch.setattr(training_form, "check_data", lambda *_: Check(()))
    return calls


def write_run(folder: Path, state: str | None, best=0.5, lr=2e-3, model: Path | None = None) -> Path:
    """A run as `train.py` leaves it."""
    run = Run.open(folder)
    run.write(
        "config.yaml",
        lambda path: path.write_text(yaml.safe_dump(to_dict(load(TrainConfig, None, [f"optim.lr={lr}"])))),
    )
    run.write("command.txt", lambda path: path.write_text(f"python train.py run.name={folder.name}\n"))
    run.event("start", step=0, steps=40)
    run.event("progress", step=20, steps=40, eta_s=75.0, views_per_s=123.4, loader_wait=0.03, **{"train/loss": 1.5})
    run.event("validation", step=20, uar={"current": best, "averaged": best - 0.1}, best=best)
    if state == "finished":
        table = [[5 if i == j else 1 for j in range(6)] for i in range(6)]
        by_class = dict.fromkeys(("happy", "angry", "disgust", "fear", "sad", "surprise"), 0.5)
        emotions = {"n": 60, "accuracy": best, "uar": best, "ece": 0.1}
        run.write_json(
            "metrics.json", {"three views, normals": {"emotions": emotions, "confusion": table, "by_class": by_class}}
        )
        if model is not None:
            shutil.copytree(model, folder / "model")
    (folder / "log.txt").write_text("12:00:00 step 20/40  loss 1.5\n")
    if state:
        run.event("end", state=state, **({"message": "no room for last.ckpt"} if state == "failed" else {}))
    run.close()
    return folder


def whole(app: AppTest) -> AppTest:
    assert not app.exception, [(error.value, error.stack_trace) for error in app.exception]
    return app


def view(app: AppTest, name: str) -> AppTest:
    return pick(app, name)


def pick(app: AppTest, option: str) -> AppTest:
    (group,) = [group for group in app.get("button_group") if option in group.options]
    return whole(group.set_value(option).run())


def click(app: AppTest, label: str) -> AppTest:
    (button,) = [button for button in app.button if button.label == label]
    return whole(button.click().run())


def labels(app: AppTest) -> set[str]:
    return {button.label for button in app.button}


def texts(app: AppTest) -> str:
    elements = [*app.title, *app.markdown, *app.caption, *app.error, *app.warning, *app.info, *app.text, *app.code]
    return "\n".join(str(element.value) for element in [*elements, *app.get("html")] if hasattr(element, "value"))


def fill(app: AppTest, label: str, text: str) -> AppTest:
    (field,) = [field for field in [*app.text_input, *app.text_area] if label in field.label]
    return whole(field.set_value(text).run())


def command(app: AppTest) -> str:
    return next(code.value for code in app.code if code.value.startswith("python train.py"))


# a new training


def test_the_page_opens_on_a_new_training_with_its_command(opened):
    app = opened()
    assert labels(app) >= {"Start training", "Check the data"}
    assert "run.name=affectvlm-001" in command(app) and "model.start=" in command(app)
    options = next(group.options for group in app.get("button_group") if "AffectVLM" in group.options)
    assert len(options) == len(METHODS)
    (preset,) = app.radio
    assert [option for option in preset.options] == [preset.title for preset in PRESETS.values()]


def test_choices_change_the_command_and_are_kept_over_views_and_pages(opened):
    app = opened()
    app = whole(app.radio[0].set_value("long").run())
    (begin,) = [box for box in app.selectbox if box.label == "Begin from"]
    app = whole(begin.set_value(RANDOM).run())
    app = fill(app, "Name", "mine")
    assert "optim.steps=3000" in command(app) and "run.name=mine" in command(app) and "model.start" not in command(app)
    before = command(app)
    app = view(view(app, COMPARE), NEW)
    assert command(app) == before
    whole(app.switch_page("pages/classify.py").run())
    assert command(whole(app.switch_page("pages/training.py").run())) == before


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("Name", "a/b", "The name is 'a/b'"),
        ("Name", "..", "The name is '..'"),
        ("section.key", "optim.lrr=1", r"Unknown setting optim.lrr; did you mean optim.lr?"),
        ("section.key", "hello", "'hello' is not section.key=value"),
        ("section.key", "optim.steps=[1", "cannot be read"),
        ("section.key", "run.folder=/tmp", "run.folder is not a setting for here"),
    ],
)
def test_bad_input_ends_in_a_sentence_and_nothing_can_be_started(opened, label, text, said):
    app = fill(opened(), label, text)
    assert said in app.error[0].value and "Start training" not in labels(app)


def test_own_faces_want_a_path_and_are_checked_before_a_start(opened, root, tmp_path):
    app = pick(opened(), OWN)
    assert "path of your folder or table is empty" in app.error[0].value
    app = fill(app, "Folder or CSV file", str(tmp_path / "nowhere"))
    assert f"data.folder={tmp_path}/nowhere" in command(app) and "'data.train_faces=[0]'" in command(app)
    app = click(app, "Start training")
    assert "There is no folder and no table 'nowhere'" in texts(app) and "Not started" in texts(app)
    assert list(root.iterdir()) == []
    app = click(app, "Check the data")
    assert "Training cannot work like this." in texts(app) and "Not started" not in texts(app)


def test_own_faces_may_have_other_classes_and_synthetic_ones_are_not_added_then(opened, tmp_path):
    app = fill(pick(opened(), OWN), "Folder or CSV file", str(tmp_path / "faces"))
    assert "Happy, angry, disgust, fear, sad, surprise." in texts(app)
    (classes,) = [box for box in app.selectbox if box.label == "Classes"]
    app = whole(app.toggle[0].set_value(True).run())
    assert "procedural" in command(app)
    app = whole(classes.set_value("4dme").run())
    assert "prompts.file=4dme" in command(app) and "procedural" not in command(app)
    assert "repression" in texts(app) and not app.toggle and "Start training" in labels(app)


def test_findings_are_shown_with_advice_and_a_warning_does_not_stop(opened, started, monkeypatch):
    found = Check(
        (Finding(WARNING, "no face shows *fear*", "Add some."),), {"train": {"sad": 3}}, {"train": 2}, "all of it"
    )
    monkeypatch.setattr(training_form, "check_data", lambda *_: found)
    app = click(opened(), "Check the data")
    assert r"No face shows \*fear\*. Add some." in texts(app) and "1 point to look at" in texts(app)
    assert app.dataframe[0].value.to_dict("records") == [{"": "train", "people": 2, "faces": 3, "sad": 3}]
    click(app, "Start training")
    assert len(started) == 1


def test_a_stop_of_the_check_stops_the_start(opened, started, monkeypatch):
    monkeypatch.setattr(
        training_form, "check_data", lambda *_: Check((Finding(STOP, "the disk is full", "Clear it."),))
    )
    app = click(opened(), "Start training")
    assert "The disk is full. Clear it." in app.error[0].value and not started


def test_a_start_leads_to_watching_and_the_next_one_has_another_name(opened, started):
    app = fill(opened(), "section.key", "optim.steps=7 optim.warmup=1")
    app = click(app, "Start training")
    ((name, overrides),) = started
    assert name == "affectvlm-001" and overrides[-2:] == ["optim.steps=7", "optim.warmup=1"]
    (chosen,) = [box for box in app.selectbox if box.label == "Training"]
    assert chosen.value == "affectvlm-001" and "Start training" not in labels(app)
    assert "run.name=affectvlm-002" in command(view(app, NEW))


def test_a_name_that_is_taken_is_told(opened, root, monkeypatch):
    write_run(root / "mine", "finished")
    monkeypatch.setattr(training_form, "check_data", lambda *_: Check(()))
    app = click(fill(opened(), "Name", "mine"), "Start training")
    assert "There is a run mine already; another name is needed." in app.error[0].value


@pytest.mark.parametrize("data", [ICT, MAKEHUMAN, OWN])
def test_strangers_name_no_place_on_the_machine(opened, root, monkeypatch, data):
    write_run(root / "old", "finished")
    app = opened()
    monkeypatch.setattr(visitors, "may_name_paths", lambda: False)
    app = pick(app, data)
    assert app.info[0].value == visitors.CLOSED and "Start training" not in labels(app)
    assert not [field for field in app.text_input if "machine" in field.label]
    app = pick(app, training_form.SYNTHETIC)
    assert "Start training" in labels(app)
    app = fill(app, "section.key", "data.cache=/etc")
    assert "names a place on the server's machine" in app.error[0].value and "Start training" not in labels(app)
    assert "Delete it for good" not in labels(view(app, WATCH))


@pytest.mark.parametrize(
    ("address", "headers", "allowed", "may"),
    [
        ("127.0.0.1", {}, None, True),
        ("localhost", {"Host": "localhost:8501"}, None, True),
        ("::1", {"Host": "[::1]:8501"}, None, True),
        (None, {"Host": "localhost:8501"}, None, False),
        ("0.0.0.0", {}, None, False),
        ("127.0.0.1", {"Host": "faces.example.org"}, None, False),
        ("127.0.0.1", {"Host": "localhost", "X-Forwarded-For": "203.0.113.9"}, None, False),
        ("0.0.0.0", {"X-Forwarded-For": "203.0.113.9"}, "1", True),
        ("0.0.0.0", {}, "0", False),
    ],
)
def test_who_may_name_places(monkeypatch, address, headers, allowed, may):
    class Context:
        pass

    Context.headers = headers
    monkeypatch.setattr(visitors.st, "get_option", {"server.address": address}.get)
    monkeypatch.setattr(visitors.st, "context", Context)
    monkeypatch.delenv(visitors.ALLOW, raising=False)
    if allowed is not None:
        monkeypatch.setenv(visitors.ALLOW, allowed)
    assert visitors.may_name_paths() is may


# watching


def test_without_a_training_the_page_says_what_to_do(opened):
    for name in (WATCH, COMPARE):
        assert "Start one under “New training”" in view(opened(), name).info[0].value


@pytest.fixture
def running(root):
    """A run that this process holds, as a training would."""
    write_run(root / "busy", None)
    run = Run.open(root / "busy", resume=True)
    time.sleep(0.15)
    run.event("start", step=20, steps=40)
    run.event("progress", step=22, steps=40, eta_s=75.0, views_per_s=123.4, loader_wait=0.03, **{"train/loss": 1.4})
    yield run
    run.close()


def test_a_running_training_is_shown_on_every_view_with_a_way_to_stop_it(opened, running):
    app = opened()  # opens on what runs
    told = texts(app)
    assert "Training." in told and "75 s" in told and "123" in told and "3 %" in told and "50 %" in told
    assert len(app.get("plotly_chart")) == 2 and "step 20/40" in told
    assert "Delete it for good" not in labels(app) and "Go on" not in labels(app)
    for name in (NEW, COMPARE):
        app = view(app, name)
        assert "**busy** · training · step 22 of 40 · 75 s left" in texts(app)
        assert "Stop and save" in labels(app)
    app = click(app, "Watch")
    assert [box.value for box in app.selectbox if box.label == "Training"] == ["busy"]


def test_a_stop_is_asked_for_first_and_forced_only_then(opened, running):
    app = opened()
    assert "End now, without saving" not in labels(app)
    app = click(app, "Stop and save")
    assert running.stop_requested
    assert "it saves after its present step" in texts(app) and "Stop and save" not in labels(app)
    assert "End now, without saving" in labels(app)


def test_when_it_ends_the_page_shows_the_result(opened, running, root):
    app = opened()
    running.event("end", state="failed", message="no room for last.ckpt: 5 MB are free")
    running.close()
    app = whole(app.run())
    assert "Failed." in texts(app) and "No room for last.ckpt: 5 MB are free." in app.error[0].value
    assert {"Go on", "Delete it for good"} <= labels(app) and "Stop and save" not in labels(app)
    assert "python train.py --resume run.name=busy" in texts(app)


def test_going_on_is_asked_of_the_library_and_what_it_refuses_is_told(opened, root, monkeypatch):
    from affectvlm import starting

    write_run(root / "half", "stopped")
    monkeypatch.setattr(starting, "MOST", 0)
    app = click(view(opened(), WATCH), "Go on")
    assert "0 trainings are running; at most 0 may" in app.error[0].value
    assert not app.run().error  # said once


def test_a_run_is_deleted_for_good_only_here(opened, root):
    write_run(root / "old", "finished")
    write_run(root / "new", "finished")
    app = view(opened(), WATCH)
    (chosen,) = [box for box in app.selectbox if box.label == "Training"]
    app = click(whole(chosen.set_value("old").run()), "Delete it for good")
    assert not (root / "old").exists() and (root / "new").exists()
    assert [box.value for box in app.selectbox if box.label == "Training"] == ["new"]


# results and use


def test_a_finished_run_shows_its_scores_and_its_model_answers_on_every_page(opened, root, checkpoint_folder):
    write_run(root / "mine", "finished", best=0.7, model=checkpoint_folder)
    app = view(opened(), WATCH)
    assert app.dataframe[0].value.to_dict("records") == [
        {"test": "three views, normals", "right": 70, "UAR": 70, "ECE": 0.1}
    ]
    assert len(app.get("plotly_chart")) == 3 and len(app.get("download_button")) == 1
    app = click(app, "Use this model")
    assert "This model answers now" in labels(app)
    for page in ("pages/mesh.py", "pages/classify.py"):
        app = whole(app.switch_page(page).run())
        assert next(box.value for box in app.selectbox if box.label == "Model") == "run mine"
    click(app, "happy")
    assert app.header[0].value  # the copy of the shipped model answers


def test_models_of_runs_stand_after_the_shipped_one(root, checkpoint_folder):
    write_run(root / "mine", "finished", model=checkpoint_folder)
    write_run(root / "bare", "finished")
    other = write_run(root / "other", "finished", model=checkpoint_folder)
    card = json.loads((other / "model" / "card.json").read_text())
    (other / "model" / "card.json").write_text(json.dumps(card | {"classes": ["calm", "bored"]}))
    broken = write_run(root / "broken", "finished", model=checkpoint_folder)
    (broken / "model" / "card.json").write_text("{}")
    found = engine.checkpoints()
    assert set(list(found)[-2:]) == {"run mine", "run other"} and not {"run bare", "run broken"} & set(found)
    assert found["run mine"] == root / "mine" / "model"


def test_a_model_that_is_deleted_while_it_is_chosen_gives_way_to_the_first(opened, root, checkpoint_folder):
    write_run(root / "mine", "finished", model=checkpoint_folder)
    app = click(view(opened(), WATCH), "Use this model")
    app = click(app, "Delete it for good")
    (model,) = [box for box in app.selectbox if box.label == "Model"]
    assert model.value == next(iter(engine.checkpoints())) and "run mine" not in model.options


# comparing


def test_runs_stand_side_by_side(opened, root):
    write_run(root / "one", "finished", best=0.6, lr=1e-3)
    write_run(root / "two", "stopped", best=0.4, lr=5e-4)
    app = view(opened(), COMPARE)
    rows = {row["name"]: row for row in app.dataframe[0].value.to_dict("records")}
    assert set(rows) == {"one", "two"}
    assert (rows["one"]["state"], rows["one"]["best"], rows["one"]["accuracy"]) == ("finished", 60, 60)
    assert (rows["two"]["state"], rows["two"]["steps"]) == ("stopped", "20 / 40")
    assert app.dataframe[1].value.to_dict("records") == [{"setting": "optim.lr", "two": "0.0005", "one": "0.001"}]
    overlay, *others = app.get("plotly_chart")
    assert len(others) == 2  # losses; the confusion of the one that has been tested
    assert {trace["name"] for trace in json.loads(overlay.proto.spec)["data"]} == {"one", "two"}
    app = whole(app.multiselect[0].set_value(["one"]).run())
    assert len(app.dataframe) == 1


def test_runs_of_any_age_and_state_are_listed(opened, root):
    (root / "ancient").mkdir()
    (root / "ancient" / "config.yaml").write_text("model: {}\n")
    (root / "ancient" / "events.jsonl").write_text('{"step": 20, "train/loss": 2.0}\n')
    (root / "broken").mkdir()
    (root / "broken" / "config.yaml").write_text("[")
    (root / "broken" / "metrics.json").write_text("{")
    app = view(opened(), COMPARE)
    assert set(app.dataframe[0].value["name"]) == {"ancient", "broken"}
    view(app, WATCH)
    assert not is_running(root / "ancient")
