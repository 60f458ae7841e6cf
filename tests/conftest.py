"""Shared by all tests: one seeded face of our own, so that no test needs a file from anywhere."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before open_clip is imported: no test may reach for the network
