"""What the training page keeps of a visit, and what its buttons do: which view is open, which run is watched, what was
refused last."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from affectvlm.runs import RunError, Status
from affectvlm.starting import end_now, stop
from affectvlm.ui import engine
from affectvlm.ui.words import plain

NEW, WATCH, COMPARE = "New training", "Watch", "Compare"
VIEWS = (NEW, WATCH, COMPARE)


def settle(running: list[str], names: list[str]) -> None:
    """Before the widgets are made: puts the view and the run, one of `names`, where an earlier step asked for them."""
    session = st.session_state
    session.setdefault("training_view", WATCH if running else NEW)
    session["training_running"] = running
    for key in ("training_view", "training_watched"):
        if (wanted := session.pop(f"{key}_next", None)) is not None:
            session[key] = wanted
    if names and session.get("training_watched") not in names:
        session["training_watched"] = running[0] if running else names[0]


def redraw_if_changed(running: list[str]) -> None:
    """In a part that is drawn by itself: has the whole page drawn where a training began or ended since then."""
    if st.session_state.get("training_running") != running:
        st.session_state["training_running"] = running
        st.rerun()


def watch(name: str) -> None:
    """Open a run in the view that watches it, when the page is drawn next."""
    st.session_state["training_watched_next"] = name
    st.session_state["training_view_next"] = WATCH


def use_model(name: str) -> None:
    """Let the model of a run answer on every page."""
    st.session_state["model"] = engine.run_model(name)


def attempt(act: Callable[..., object], *arguments: object) -> bool:
    """Do something to a run; what is refused is told where the page shows it."""
    try:
        act(*arguments)
    except (RunError, ValueError) as error:
        st.session_state["training_problem"] = str(error)
        return False
    return True


def show_problem() -> None:
    """What was refused last, once."""
    if problem := st.session_state.pop("training_problem", None):
        st.error(sentence(problem), icon=":material/error:")


def stop_button(folder: Path, found: Status, place: str) -> None:
    """Ends a running training: the first time with its work saved, then, where it does not come to that, without."""
    if not found.stopping:
        nothing_yet = found.phase == "preparing"
        st.button(
            "Stop" if nothing_yet else "Stop and save",
            key=f"{place}_stop_{folder.name}",
            icon=":material/stop_circle:",
            help="Nothing is learned yet; faces that are made are kept." if nothing_yet else "It can go on later.",
            on_click=attempt,
            args=(stop, folder),
        )
        return
    st.button(
        "End now, without saving",
        key=f"{place}_end_{folder.name}",
        icon=":material/dangerous:",
        help="What came after the last save is lost.",
        on_click=attempt,
        args=(end_now, folder),
    )


def sentence(text: str) -> str:
    """A message with a capital and a full stop, free of marks."""
    text = plain(text.strip())
    if re.match(r"[a-z]+\b(?![.=])", text):  # names of settings and files stay as they are
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?", "”")) else ".")
