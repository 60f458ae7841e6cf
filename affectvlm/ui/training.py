"""The training page: what runs now, and three views: a new training, one run watched, several compared."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from affectvlm.histories import in_words
from affectvlm.runs import RunError, duration, list_runs, status
from affectvlm.starting import running
from affectvlm.ui import engine, training_compare, training_form, training_state, training_watch
from affectvlm.ui.training_state import COMPARE, NEW, VIEWS, WATCH

EVERY_S = 2.0
"""Between two looks at what runs; only the part of the page that shows it is drawn again."""


def show() -> None:
    """The whole page below its title."""
    root = engine.RUNS
    now = running(root)
    names = [folder.name for folder in list_runs(root)]
    training_state.settle([folder.name for folder in now], names)
    view = st.segmented_control(
        "View", VIEWS, key="training_view", required=True, label_visibility="collapsed", persist_state="session"
    )
    st.fragment(_running_now, run_every=EVERY_S if now else None)(root, view == WATCH)
    if view == NEW:
        training_form.show(root)
    elif view == WATCH:
        training_watch.show(root, names, EVERY_S)
    elif view == COMPARE:
        training_compare.show(root)


def _running_now(root: Path, watching: bool) -> None:
    """A line for each running training, so that nothing runs unseen; the one that is watched is shown below."""
    now = running(root)
    training_state.redraw_if_changed([folder.name for folder in now])
    training_state.show_problem()
    for folder in now:
        if not (watching and folder.name == st.session_state.get("training_watched")):
            _line(folder)


def _line(folder: Path) -> None:
    try:
        found = status(folder)
    except RunError:  # deleted while we look
        return
    left = f" · {duration(found.eta_s)} left" if found.eta_s is not None else ""
    step = f" · step {found.step:,} of {found.steps:,}" if found.phase == "training" else ""
    with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{training_state.plain(folder.name)}** · {in_words(found)}{step}{left}", width="content")
        with st.container(horizontal=True, width="content"):
            training_state.stop_button(folder, found, "line")
            if st.button("Watch", key=f"line_watch_{folder.name}"):
                training_state.watch(folder.name)
                st.rerun()
