"""The sidebar: what this is, the current face with its answer, which model answers, and two ways out."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from affectvlm.emotions import class_colors
from affectvlm.ui import engine, state, words


def show(models: dict[str, Path]) -> DeltaGenerator:
    """Draws all but the current face and returns the place for it, for `show_face` to fill when the page is done."""
    st.markdown("### AffectVLM")
    st.caption(words.TAGLINE)
    place = st.container()
    if models:
        _model(models)
    st.button("New face", on_click=state.new_face, type="tertiary", icon=":material/add:")
    st.button("Forget everything", on_click=_forget, type="tertiary", icon=":material/delete:")
    return place


def show_face(models: dict[str, Path]) -> None:
    """The current face as three small views and its answer."""
    face = state.current_face()
    if face is not None:
        _strip(face, chosen(models))


def chosen(models: dict[str, Path]) -> Path | None:
    """Folder of the model that answers: the visitor's choice, else the first; None without any."""
    name = st.session_state.get("model")
    return models.get(name) or next(iter(models.values()), None)


def _strip(face: state.Face, folder: Path | None) -> None:
    st.markdown("**Current face**", help=None)
    if folder is None or engine.reads_motion(folder):
        st.caption(face.title)
        return
    try:
        prediction = engine.answer(face, state.correction(), folder)
    except ValueError:  # said on the page itself
        return
    strip = np.concatenate(list(prediction.views[:, ::2, ::2]), axis=1)
    color = class_colors(prediction.probabilities)[prediction.emotion]
    st.image(strip, width="stretch", alt="front, left and right view")
    st.html(
        f'<div class="strip-answer"><span class="dot" style="background:{color}"></span>'
        f'{escape(words.confidence(prediction))}<div class="fine">{escape(face.title)}</div></div>'
    )


def _model(models: dict[str, Path]) -> None:
    st.space("small")
    # kept by itself it would be lost where the script changes the page (st.switch_page)
    st.selectbox("Model", list(models), key="model", disabled=len(models) == 1, persist_state="session")
    with st.popover("About this model", type="tertiary"):
        try:
            _card(engine.read_card(chosen(models)))
        except ValueError:
            st.markdown("Its card cannot be read.")


def _card(card: dict) -> None:
    for title, lines in words.model_card(card).items():
        st.markdown(f"**{title}**  \n" + "  \n".join(lines))


def _forget() -> None:
    engine.forget_results()
    state.forget()
