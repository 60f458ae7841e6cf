"""The answer: three views and what each says by itself, the class in words, a bar a class, pose correction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from affectvlm.ui import engine, figures, look, results, state, words

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction


AXES = {"yaw": ("Turn left or right", 180), "pitch": ("Nod down or up", 90), "roll": ("Tilt sideways", 180)}
"""The three angles in the words of the page, and how far each goes, in degrees."""


def show(face: state.Face, folder: Path) -> None:
    """The answer to the current face, or why there is none."""
    try:
        prediction = engine.answer(face, state.correction(), folder)
    except ValueError as error:  # ScanError, CheckpointError: made to be read
        state.set_face(None, str(error))
        st.rerun()
    st.header(words.plain(words.headline(prediction)), anchor=False)
    views, said = st.columns([7, 3], gap="medium")
    with views:
        _views(prediction)
        if prediction.pose is not None:
            _pose(prediction, face.digest)
    with said:
        _verdict(prediction)
        results.show(face, folder)


def _views(prediction: Prediction) -> None:
    columns = st.container(key="views").columns(3)
    for column, name, view in zip(columns, prediction.view_names, prediction.views, strict=True):
        with column:
            st.image(view, width="stretch", alt=f"{words.VIEW_TITLES[name]} view")
            st.markdown(f"**{words.VIEW_TITLES[name]}**")
            if name in prediction.view_probabilities:
                st.html(figures.small_bars(prediction.view_probabilities[name]))


def _verdict(prediction: Prediction) -> None:
    st.markdown(words.plain(words.confidence(prediction)))
    st.plotly_chart(
        figures.probability_bars(prediction.probabilities),
        key="probabilities",
        config={"displayModeBar": False},
        alt="probability of each class",
    )
    look.remarks(prediction.warnings)
    st.caption(words.cost(dict(prediction.timings_ms)))


def _pose(prediction: Prediction, digest: str) -> None:
    """Three angles to add to the pose that was found."""
    keys = {axis: f"correct_{axis}_{digest}" for axis in AXES}  # each face has sliders of its own
    for key, angle in zip(keys.values(), state.correction(), strict=True):
        st.session_state.setdefault(key, angle)

    def changed() -> None:
        state.set_correction(tuple(st.session_state.get(key, 0) for key in keys.values()))

    def reset() -> None:
        for key in keys.values():
            st.session_state[key] = 0
        changed()

    pose = prediction.pose
    with st.expander("Not looking straight at you? Turn the face", expanded=pose.certainty < 0.45):
        for column, (axis, (label, limit)) in zip(st.columns(3), AXES.items(), strict=True):
            column.slider(label, -limit, limit, step=1, format="%d°", key=keys[axis], on_change=changed)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("Reset", on_click=reset, disabled=state.correction() == state.NO_CORRECTION)
            st.caption(words.pose_found(pose.yaw, pose.pitch, pose.roll, pose.certainty))
