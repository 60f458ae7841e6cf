"""Sequence: a face in motion (4D), played, answered as a whole, and its emotions over time."""

import streamlit as st

from affectvlm.ui import engine, frame, sequence, sequence_state, sidebar, words

frame.require()
st.title("How does the face move?")
folder = sidebar.chosen(engine.checkpoints())
st.markdown(sequence.introduction(folder))
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
if sequence_state.problem():
    st.error(sequence_state.problem(), icon=":material/error:")
sequence.bring()
if sequence_state.clip() is not None and folder is not None:
    sequence.show(folder)
st.space("small")
st.caption(f"{words.INTENDED_USE}  \n{words.PRIVACY}")
