"""The answer: three views and what each says by itself, the emotion in words, the six bars, pose correction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from affectvlm.ui import engine, figures, state, words

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction


def show(face: state.Face, folder: Path) -> None:
    """The answer to the current face, or why there is none."""
    try:
        prediction = engine.answer(face, state.correction(), folder)
    except ValueError as error:  # ScanError, CheckpointError: made to be read
        state.set_face(None, str(error))
        st.rerun()
    st.header(words.headline(prediction), anchor=False)
    views, said = st.columns([7, 3], gap="medium")
    with views:
        _views(prediction)
        if prediction.pose is not None:
            _pose(prediction)
    with said:
        _verdict(prediction)


def _views(prediction: Prediction) -> None:
    for column, name, view in zip(st.columns(3), prediction.view_names, prediction.views, strict=True):
        with column:
            st.image(view, width="stretch", alt=f"{words.VIEW_TITLES[name]} view")
            st.markdown(f"**{words.VIEW_TITLES[name]}**")
            if name in prediction.view_probabilities:
                st.html(figures.small_bars(prediction.view_probabilities[name]))


def _verdict(prediction: Prediction) -> None:
    st.markdown(words.confidence(prediction))
    st.plotly_chart(
        figures.probability_bars(prediction.probabilities),
        key="probabilities",
        config={"displayModeBar": False},
        alt="probability of each of the six emotions",
    )
    for warning in prediction.warnings:
        st.warning(warning[:1].upper() + warning[1:], icon=":material/warning:")
    st.caption(words.cost(dict(prediction.timings_ms)))


def _pose(prediction: Prediction) -> None:
    """Three angles to add to the pose that was found."""

    def changed() -> None:
        state.set_correction(tuple(st.session_state[f"correct_{axis}"] for axis in ("yaw", "pitch", "roll")))

    def reset() -> None:
        for axis in ("yaw", "pitch", "roll"):
            st.session_state[f"correct_{axis}"] = 0
        changed()

    pose = prediction.pose
    with st.expander("Not looking straight at you? Turn the face", expanded=pose.certainty < 0.45):
        limits = {"yaw": 180, "pitch": 90, "roll": 180}
        for column, (axis, limit), angle in zip(st.columns(3), limits.items(), state.correction(), strict=True):
            column.slider(AXES[axis], -limit, limit, angle, 1, format="%d°", key=f"correct_{axis}", on_change=changed)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("Reset", on_click=reset, disabled=state.correction() == state.NO_CORRECTION)
            st.caption(words.pose_found(pose.yaw, pose.pitch, pose.roll, pose.certainty))


AXES = {"yaw": "Turn left or right", "pitch": "Nod down or up", "roll": "Tilt sideways"}
