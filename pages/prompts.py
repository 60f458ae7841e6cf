"""Prompts: how well every sentence fits the current face, and the sentences to change."""

import streamlit as st

from affectvlm.ui import engine, frame, inputs, prompt_lab, sidebar, state, words

frame.require()
st.title("Which words fit this face?")
face, folder = state.current_face(), sidebar.chosen(engine.checkpoints())
st.markdown("The model compares the face with sentences. Change the sentences, and its answer changes at once.")
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
elif face is None:
    st.markdown("There is no face yet. Bring one on the first page, or take a sample here.")
    st.page_link("pages/classify.py", label="Bring a face", icon=":material/arrow_back:")
    inputs.show_samples()
else:
    prompt_lab.show(face, folder)
