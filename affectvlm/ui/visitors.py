"""Who may name places on the server's machine: whoever sits at it, or whom its owner trusts."""

from __future__ import annotations

import os

import streamlit as st

ALLOW = "AFFECTVLM_ALLOW_PATHS"
"""Environment variable: 1 lets every visitor name folders of the server's machine."""

LOCAL = ("localhost", "127.0.0.1", "::1", "[::1]")
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-Ip")

CLOSED = (
    "Folders of the server's machine can only be named where the app serves this machine alone. Whoever runs it can "
    f"allow it to everybody with the environment variable {ALLOW}=1."
)


def may_name_paths() -> bool:
    """Whether this visitor may have folders of the machine read, and runs on it deleted.

    True where the server listens on this machine alone and the request did not come through a proxy, which would bring
    strangers; or where the owner allows it.
    """
    if os.environ.get(ALLOW) == "1":
        return True
    if st.get_option("server.address") not in LOCAL:
        return False
    headers = st.context.headers
    host = (headers.get("Host") or "localhost").rpartition("@")[2]
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in LOCAL and not any(headers.get(name) for name in _FORWARDED)
