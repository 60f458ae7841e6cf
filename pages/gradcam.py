"""Grad-CAM: where in the three views the model found what speaks for its answer."""

import streamlit as st

from affectvlm.ui import engine, evidence_words, explaining, frame, sidebar, subject, words

frame.require()
st.title("Where the model looks")
folder = sidebar.chosen(engine.checkpoints())
face = subject.chosen(folder)
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
elif face is None:
    subject.ask(folder)
else:
    st.markdown(evidence_words.INTRODUCTION)
    explaining.show(face, folder)
if folder is not None and not engine.reads_motion(folder):
    explaining.show_grid(folder)
