"""What a page is about: the current face, or the visit's sequence where the chosen model reads motion."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from affectvlm.ui import engine, inputs, sequence_state, state, words


def chosen(folder: Path | None) -> state.Face | None:
    """The current face; for a model that reads motion the sequence, once it is answered; None where there is none."""
    if not engine.reads_motion(folder):
        return state.current_face()
    clip, work = sequence_state.clip(), sequence_state.finished(folder)
    return None if work is None else state.Face.from_sequence(clip.title, work.key)


def ask(folder: Path | None, what: str = "one") -> None:
    """In place of what the page shows: how to come by a face, or by a sequence for a model that reads motion.

    Args:
        what: is to be brought, in the words of the page.
    """
    if engine.reads_motion(folder):
        needs_motion()
        return
    st.markdown(f"There is no face yet. Bring {what} on the first page, or take a sample here.")
    st.page_link("pages/classify.py", label="Bring a face", icon=":material/arrow_back:")
    inputs.show_samples()


def needs_motion() -> None:
    """That the chosen model takes sequences, and the way to their page."""
    st.info(words.NEEDS_MOTION, icon=":material/info:")
    clip = sequence_state.clip()
    label = "Bring a sequence" if clip is None else f"Go to the sequence: {words.plain(clip.title)}"
    st.page_link("pages/sequence.py", label=label, icon=":material/arrow_forward:")
