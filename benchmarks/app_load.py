"""Many visitors at once: does anybody see another's face, how long do they wait, does memory stay flat?

    python -m benchmarks.app_load                            # starts a server, 20 visitors, 3 rounds
    python -m benchmarks.app_load --rounds 25 --pages mesh   # 500 faces, each turned: is memory flat?
    python -m benchmarks.app_load --pages gradcam            # the page with the longest work alone
    python -m benchmarks.app_load --url http://localhost:8501 --process PID

Each visitor speaks the websocket protocol of the real server, without a browser, so that the server alone is measured:
uploads a face of its own (made up, with its own name), reads the answer, opens the pages Mesh, Grad-CAM and Prompts and
comes back. In every round it brings another face. (A mesh is turned in the visitor's browser and costs the server
nothing after it was sent.) Checked: every answer equals the library's for that very file, it is still there after the
walk over the pages, and no byte of any message that a visitor is sent holds the name of another visitor's file.

Memory is that of the server and of the processes it started, told at ten points on the way. A session keeps its last
dozen answers, so memory grows until every visitor has brought that many faces, and should be flat from there on.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("mesh", "gradcam", "prompts")
POINTS = 10
"""How often memory is told on the way."""
PATIENCE_S = 600.0
FACES = 12
"""Different faces that are made; visitors share them under names of their own."""


@dataclass
class Seen:
    """What one run of the script sent: texts, ids of file inputs, page hashes by address."""

    texts: list[str] = field(default_factory=list)
    uploaders: list[str] = field(default_factory=list)

    def has(self, text: str) -> bool:
        return any(text in one for one in self.texts)


class Visitor:
    """One session on the server. `name` is part of the names of its files, and of nobody else's."""

    def __init__(self, url: str, number: int) -> None:
        self.url, self.name = url, f"visitor-{number:03d}-"
        self.waits: dict[str, list[float]] = {}
        self._pages: dict[str, str] = {}
        self._states: list = []
        self._session = ""
        self._brought = ""  # where the last file can be taken back

    async def __aenter__(self) -> Visitor:
        import websockets

        host = urlsplit(self.url).netloc
        request = urllib.request.Request(f"{self.url}/_stcore/health")
        with await asyncio.to_thread(urllib.request.urlopen, request, timeout=60) as answer:
            cookies = answer.headers.get_all("Set-Cookie") or []
        xsrf = next((one.split(";")[0] for one in cookies if one.startswith("_streamlit_xsrf=")), "")
        self._cookie, self._token = xsrf, xsrf.partition("=")[2]
        self._socket = await websockets.connect(
            f"ws://{host}/_stcore/stream",
            subprotocols=["streamlit", self._token] if self._token else ["streamlit"],
            additional_headers={"Cookie": xsrf, "Origin": self.url},
            max_size=None,
            open_timeout=PATIENCE_S,
            ping_timeout=None,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()

    async def turn_to(self, page: str = "") -> Seen:
        """Opens a page by its address."""
        return await self._run(f"page {page or 'classify'}", self._pages.get(page, ""))

    async def upload(self, uploader: str, name: str, data: bytes) -> Seen:
        """Gives a file to an input of the page that was opened last."""
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo
        from streamlit.proto.WidgetStates_pb2 import WidgetState

        started = time.perf_counter()
        ask = BackMsg()
        ask.file_urls_request.request_id = uuid.uuid4().hex
        ask.file_urls_request.file_names.append(name)
        ask.file_urls_request.session_id = self._session
        await self._socket.send(ask.SerializeToString())
        while not (message := await self._receive()).HasField("file_urls_response"):
            pass
        (urls,) = message.file_urls_response.file_urls
        if self._brought:  # a browser takes back the file that another takes the place of
            await asyncio.to_thread(self._ask, "DELETE", self._brought, b"", {})
        self._brought = urls.delete_url
        await asyncio.to_thread(self._put, urls.upload_url, name, data)
        info = UploadedFileInfo(file_id=urls.file_id, name=name, size=len(data), file_urls=urls)
        state = WidgetState(id=uploader, file_uploader_state_value=FileUploaderState(uploaded_file_info=[info]))
        self._states = [state]
        seen = await self._run("answer", self._pages.get("", ""), started)
        self._states = []
        return seen

    async def _run(self, what: str, page: str, started: float | None = None) -> Seen:
        from streamlit.proto.BackMsg_pb2 import BackMsg

        started = time.perf_counter() if started is None else started
        ask = BackMsg()
        ask.rerun_script.query_string = ""
        ask.rerun_script.page_script_hash = page
        ask.rerun_script.widget_states.widgets.extend(self._states)
        ask.rerun_script.context_info.timezone = "UTC"
        await self._socket.send(ask.SerializeToString())
        seen = Seen()
        while True:
            message = await self._receive()
            kind = message.WhichOneof("type")
            if kind == "new_session":
                seen = Seen()  # a rerun in between starts afresh
                self._session = message.new_session.initialize.session_id or self._session
            elif kind == "navigation":
                self._pages = {one.url_pathname: one.page_script_hash for one in message.navigation.app_pages}
                self._pages.setdefault("", next(one.page_script_hash for one in message.navigation.app_pages))
            elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                _note(message.delta.new_element, seen)
            elif kind == "script_finished":
                if message.script_finished != message.FINISHED_EARLY_FOR_RERUN:
                    break
        self.waits.setdefault(what, []).append(time.perf_counter() - started)
        return seen

    async def _receive(self):
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        data = await asyncio.wait_for(self._socket.recv(), PATIENCE_S)
        for piece in data.split(b"visitor-")[1:]:
            if not (b"visitor-" + piece).startswith(self.name.encode()):
                raise AssertionError(f"{self.name} was sent {b'visitor-' + piece[:24]!r}")
        message = ForwardMsg()
        message.ParseFromString(data)
        return message

    def _put(self, path: str, name: str, data: bytes) -> None:
        edge = uuid.uuid4().hex
        head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        body = head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data + f"\r\n--{edge}--\r\n".encode()
        self._ask("PUT", path, body, {"Content-Type": f"multipart/form-data; boundary={edge}"})

    def _ask(self, what: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)
        own = {"Cookie": self._cookie, "X-Xsrftoken": self._token, "Origin": self.url}
        connection.request(what, path, body, headers | own)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{what} {path} was answered with {answer.status}")


def _note(element, seen: Seen) -> None:
    kind = element.WhichOneof("type")
    if kind == "file_uploader":
        seen.uploaders.append(element.file_uploader.id)
    elif kind in ("heading", "markdown", "html", "alert"):
        seen.texts.append(getattr(element, kind).body)
    elif kind == "exception":
        raise AssertionError(f"the page failed: {element.exception.type} {element.exception.message}")


@dataclass(frozen=True)
class Expected:
    """A face as a file, and what the library says of it: headline, and certainty with number."""

    data: bytes
    headline: str
    said: str


def make_faces(count: int) -> list[Expected]:
    """Different people with different expressions, and the library's answers."""
    import numpy as np

    from affectvlm.emotions import EKMAN
    from affectvlm.mesh_files import scan_ply
    from affectvlm.predictor import Predictor
    from affectvlm.synthesis.expressions import prototype
    from affectvlm.synthesis.procedural import ProceduralFace
    from affectvlm.ui import words

    model, predictor = ProceduralFace(), Predictor.from_checkpoint()
    faces = []
    for number in range(count):
        person = model.sample_identity(np.random.default_rng(1000 + number))
        data = scan_ply(model.generate(person, prototype(EKMAN[number % len(EKMAN)], 0.9)))
        prediction = predictor.predict((data, "face.ply"))
        faces.append(Expected(data, words.headline(prediction), words.confidence(prediction)))
    return faces


@dataclass
class Memory:
    """Resident memory of a server by the number of faces that were answered and walked through; none without process.

    Attributes:
        every: faces between two points. points: (faces done, MB), the first before any.
    """

    process: int | None
    every: int
    done: int = 0
    points: list[tuple[int, float]] = field(default_factory=list)

    def note(self) -> None:
        if self.process is not None:
            self.points.append((self.done, resident_mb(self.process)))

    def count(self) -> None:
        """One face more."""
        self.done += 1
        if self.done % self.every == 0:
            self.note()


async def visit(
    visitor: Visitor, faces: list[Expected], start: int, rounds: int, pages: tuple[str, ...], memory: Memory
) -> None:
    """Rounds of one visitor; each begins with another face."""
    seen = await visitor.turn_to()
    for number in range(rounds):
        face, name = faces[(start + number) % len(faces)], f"{visitor.name}{number}.ply"
        if number:
            seen = await visitor.turn_to()
        seen = await visitor.upload(seen.uploaders[0], name, face.data)
        _check(visitor, seen, face, name)
        for page in pages:
            seen = await visitor.turn_to(page)
            if not seen.has(name):  # the sidebar names the current face on every page
                raise AssertionError(f"{visitor.name}: {name} is not the face on {page}")
        _check(visitor, await visitor.turn_to(), face, name)
        memory.count()


def _check(visitor: Visitor, seen: Seen, face: Expected, name: str) -> None:
    for text in (face.headline, _escaped(face.said), name):
        if not seen.has(text):
            raise AssertionError(f"{visitor.name} should read {text!r} and reads {seen.texts}")


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;") if "<" in text or ">" in text else text


async def run(url: str, process: int | None, visitors: int, rounds: int, pages: tuple[str, ...] = PAGES) -> Memory:
    """Prints a table, or fails; gives back the memory of `process` on the way."""
    faces = await asyncio.to_thread(make_faces, min(FACES, max(visitors, 2)))
    memory = Memory(process, max(visitors * rounds // POINTS, 1))
    memory.note()
    started, waits = time.perf_counter(), {}

    async def one(number: int) -> None:
        async with Visitor(url, number) as visitor:
            await visit(visitor, faces, number, rounds, pages, memory)
            for what, seconds in visitor.waits.items():
                waits.setdefault(what, []).extend(seconds)

    await asyncio.gather(*(one(number) for number in range(visitors)))
    seconds = time.perf_counter() - started
    print(f"{visitors} visitors at once, {rounds} faces each, {os.cpu_count()} cores: {seconds:.0f} s, no mixing")
    print(f"{'step':<16}{'count':>7}{'median s':>10}{'95 % s':>9}{'most s':>9}")
    for what, found in waits.items():
        high = sorted(found)[int(0.95 * (len(found) - 1))]
        print(f"{what:<16}{len(found):>7}{statistics.median(found):>10.2f}{high:>9.2f}{max(found):>9.2f}")
    if memory.points:
        print("faces done       " + "".join(f"{done:>7}" for done, _ in memory.points))
        print("memory, MB       " + "".join(f"{held:>7.0f}" for _, held in memory.points))
    return memory


def resident_mb(process: int) -> float:
    """Memory of a process and of those it started, read from /proc (Linux).

    Raises:
        RuntimeError: the process is gone.
    """
    try:
        own = _resident_mb(process)
    except OSError as error:
        raise RuntimeError(f"the process {process} is gone") from error
    children = Path(f"/proc/{process}/task").glob("*/children")
    for child in {int(number) for file in children for number in _text(file).split()}:
        try:
            own += resident_mb(child)
        except RuntimeError:  # ended just now
            continue
    return own


def _resident_mb(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0  # ended, and not yet taken leave of


def _text(file: Path) -> str:
    """Empty where the thread is gone meanwhile."""
    try:
        return file.read_text()
    except OSError:
        return ""


def start_server() -> tuple[str, subprocess.Popen]:
    """The app on a free port, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url, until = f"http://localhost:{port}", time.monotonic() + 180
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return url, process
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.2)
    process.kill()
    raise RuntimeError("the server did not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=20, help="at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="faces of each visitor (default: %(default)s)")
    parser.add_argument("--pages", nargs="*", default=PAGES, choices=PAGES, help="to walk over (default: all)")
    parser.add_argument("--url", help="of a running app (default: one is started)")
    parser.add_argument("--process", type=int, help="id of the running app's process, to measure its memory")
    options = parser.parse_args()
    chosen = options.visitors, options.rounds, tuple(options.pages)
    if options.url:
        asyncio.run(run(options.url.rstrip("/"), options.process, *chosen))
        return
    url, process = start_server()
    try:
        asyncio.run(run(url, process.pid, *chosen))
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
