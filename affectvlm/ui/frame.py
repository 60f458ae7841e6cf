"""The pages in order, and the way into them.

Streamlit runs the files of a folder named `pages` bare, without the entry script, until that has declared its
navigation once: a new server asked first for a page's address (by a tab left open) would show it without its frame.
"""

from __future__ import annotations

import threading

import streamlit as st

_declared = threading.Event()


def navigation():
    """Declares the pages and returns the one to run."""
    pages = [
        st.Page("pages/classify.py", title="Classify", default=True),
        st.Page("pages/mesh.py", title="Mesh"),
        st.Page("pages/gradcam.py", title="Grad-CAM"),
        st.Page("pages/prompts.py", title="Prompts"),
        st.Page("pages/explorer.py", title="Explorer"),
        st.Page("pages/sequence.py", title="Sequence"),
        st.Page("pages/training.py", title="Training"),
        st.Page("pages/about.py", title="About"),
    ]
    page = st.navigation(pages, position="top")
    _declared.set()
    return page


def require() -> None:
    """For the first line of a page: where it was started bare, starts over with the frame around it."""
    if not _declared.is_set():
        navigation()
        st.rerun()
