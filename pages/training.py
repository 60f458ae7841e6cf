"""Training: a model of one's own, started, watched, compared with others and put to use."""

import streamlit as st

from affectvlm.ui import frame, training

frame.require()
st.title("Train a model of your own")
st.markdown("Choose faces and a length, start, and watch it learn. It goes on when you close this page.")
training.show()
