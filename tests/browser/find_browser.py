"""The Chromium the browser tests drive: found, or installed where that is possible.

`python -m tests.browser.find_browser --install` is what `make test` calls first; it says what it found. Without a
browser it fails where `CI` is set and otherwise only says so (the browser tests then skip).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
    "--use-angle=swiftshader",  # WebGL in software: the same on every machine
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
MISSING = (
    "No Chromium or Chrome was found for the browser tests. Install one (Debian, Ubuntu: apt-get install chromium; "
    "elsewhere: python -m playwright install chromium), or name it in the environment variable CHROMIUM."
)


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def find_browser() -> str | None:
    """Path of a Chromium or Chrome: `$CHROMIUM`, then the PATH, then the one playwright installed; None without one."""
    named = os.environ.get("CHROMIUM")
    if named:
        return shutil.which(named)
    for name in NAMES:
        if path := shutil.which(name):
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return str(path) if path.exists() else None


def install_browser() -> None:
    """Tries the system's packages (as root), then playwright's own; leaves the outcome to `find_browser`."""
    attempts = []
    if os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get"):
        attempts += [["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", "chromium"]]
    attempts += [[sys.executable, "-m", "playwright", "install", "chromium"]]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in attempts:
        if find_browser():
            return
        print("no browser yet, trying:", " ".join(command), flush=True)
        try:
            subprocess.run(command, env=environment, timeout=900, check=False)
        except subprocess.TimeoutExpired:
            print("gave up after 15 minutes", flush=True)


def main(arguments: list[str]) -> int:
    if "--install" in arguments and not find_browser():
        install_browser()
    path = find_browser()
    print(f"browser tests: {path}" if path else MISSING, flush=True)
    return 1 if path is None and in_ci() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
