"""Classify: one face in, as a scan, three photos, three camera shots or a sample; its emotion out. Or many files."""

import streamlit as st

from affectvlm.ui import answers, batch, engine, frame, inputs, sidebar, state, subject, words

frame.require()
st.title("Which emotion does this face show?")

face, folder = state.current_face(), sidebar.chosen(engine.checkpoints())
reads_motion = engine.reads_motion(folder)
st.markdown(words.introduction(engine.classes(folder), reads_motion))
if folder is None:
    st.info(words.NO_MODEL, icon=":material/info:")
if state.problem():
    st.error(state.problem(), icon=":material/error:")

many = folder is not None and not reads_motion and inputs.many()
if not many:
    with st.expander("Bring another face" if face else "Bring a face", expanded=face is None and not reads_motion):
        inputs.show()

if many:
    batch.show(folder)
elif reads_motion:
    subject.needs_motion()
elif face is None:
    inputs.show_samples()
elif folder is not None:
    answers.show(face, folder)

st.space("small")
st.caption(f"{words.INTENDED_USE}  \n{words.PRIVACY}")
