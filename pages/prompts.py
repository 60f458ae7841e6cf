"""Prompts: how well every sentence fits the current face, and the sentences to change."""

import streamlit as st

from affectvlm.ui import engine, frame, prompt_lab, sidebar, subject, words

frame.require()
st.title("Which words fit this face?")
folder = sidebar.chosen(engine.checkpoints())
face = subject.chosen(folder)
st.markdown("The model compares the face with sentences. Change the sentences, and its answer changes at once.")
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
elif face is None:
    subject.ask(folder)
else:
    prompt_lab.show(face, folder)
