"""Grad-CAM: where in the three views the model found what speaks for its answer."""

import streamlit as st

from affectvlm.ui import engine, evidence_words, explaining, frame, inputs, sidebar, state, words

frame.require()
st.title("Where the model looks")
face, folder = state.current_face(), sidebar.chosen(engine.checkpoints())
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
elif face is None:
    st.markdown("There is no face yet. Bring one on the first page, or take a sample here.")
    st.page_link("pages/classify.py", label="Bring a face", icon=":material/arrow_back:")
    inputs.show_samples()
else:
    st.markdown(evidence_words.INTRODUCTION)
    explaining.show(face, folder)
if folder is not None:
    explaining.show_grid(folder)
