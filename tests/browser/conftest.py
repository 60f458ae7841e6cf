"""A real server and a real browser for the tests in this folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.find_browser import FLAGS, MISSING, find_browser, in_ci

ROOT = Path(__file__).resolve().parents[2]
WATCH = Path(__file__).with_name("watch")
LOCAL = {"localhost", "127.0.0.1", ""}


@dataclass
class Server:
    """The app as `make app` starts it."""

    url: str
    process: subprocess.Popen
    started: float
    asked: Path

    def stop(self) -> None:
        """Ends it; neither it nor any process that it started may have asked anything of the web until then."""
        self.process.terminate()
        self.process.wait(20)
        assert not self.asked.exists(), self.asked.read_text("utf-8")
        self.asked.parent.rmdir()


def start_server(folder: Path) -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asked = Path(tempfile.mkdtemp()) / "asked of the web"
    environment = {
        **os.environ,
        "AFFECTVLM_CHECKPOINTS": str(folder),
        "AFFECTVLM_TEST_WATCH": str(asked),
        "PYTHONPATH": str(WATCH),
    }
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
    url = f"http://localhost:{port}"
    while time.perf_counter() - started < 120:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2):
                return Server(url, process, started, asked)
        except OSError:
            assert process.poll() is None, f"the server ended with code {process.returncode}"
            time.sleep(0.1)
    process.kill()
    raise TimeoutError("the server did not answer within two minutes")


@pytest.fixture
def fresh_server(chromium, checkpoint_folder) -> Iterator[Server]:
    """A server of its own, just started, when the browser is already there.

    Ask for it before `page`: a page that outlives its server logs what it could not load any more.
    """
    server = start_server(checkpoint_folder.parent)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def server(checkpoint_folder) -> Iterator[Server]:
    """One server for a module's tests; each has a session of its own."""
    server = start_server(checkpoint_folder.parent)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def chromium():
    path = find_browser()
    if path is None:
        (pytest.fail if in_ci() else pytest.skip)(MISSING)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # a page fills in its own time: what is expected of it is waited for
    camera = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS, *camera])
        yield browser
        browser.close()


@dataclass
class Seen:
    """What a page asked of the outside world, and what went wrong in it."""

    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def page(chromium):
    """A page that reaches nothing beyond this computer; at the end it must not have tried to, nor logged an error."""
    seen = Seen()
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})

    def judge(route) -> None:
        url = urlsplit(route.request.url)
        if url.scheme in ("data", "blob") or (url.hostname or "") in LOCAL:
            route.continue_()
        else:
            seen.outside.append(route.request.url)
            route.abort()

    def note(message) -> None:
        url = message.location["url"]
        looks_for_server = "/_stcore/" in url  # streamlit tries the addresses below a page's first
        too_late = "/media/" in url and "404" in message.text  # a picture that a rerun replaced before it was fetched
        if message.type == "error" and not looks_for_server and not too_late:
            seen.errors.append(f"{message.text} {url}")

    context.route("**/*", judge)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("console", note)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    yield page
    context.close()
    assert seen.outside == []
    assert seen.errors == []
