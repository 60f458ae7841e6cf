"""Pictures of every page of the app, taken from the app with one of its own samples, so that they can be taken again.

The shipped model answers. They are best taken on an idle machine: the small print tells how long an answer took.

python -m tests.browser.screenshots docs/images                        # those of the README
python -m tests.browser.screenshots looks --dark --width 400           # to look at another appearance
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path

from PIL import Image

from tests.browser.conftest import start_server
from tests.browser.find_browser import FLAGS, MISSING, find_browser

SAMPLE = "surprise"
PAGES = {
    "Mesh": "The face in three dimensions",
    "Grad-CAM": "Where the model looks",
    "Prompts": "Which words fit this face?",
    "Explorer": "Make a face",
    "Sequence": "How does the face move?",
    "Training": "Train a model of your own",
    "About": "About",
}
"""Name in the navigation → title of the page."""


def save(page, path: Path, whole: bool) -> None:
    image = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    image.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def settle(page, seconds: float) -> None:
    """Until the page has nothing more to work out, and its pictures are drawn."""
    time.sleep(1.5)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=180_000)
    time.sleep(seconds)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--dark", action="store_true")
    arguments.add_argument("--width", type=int, default=1400)
    arguments.add_argument("--whole", action="store_true", help="the whole length of each page")
    arguments.add_argument("--pages", nargs="+", default=list(PAGES), choices=list(PAGES))
    given = arguments.parse_args()
    browser_path = find_browser()
    if browser_path is None:
        sys.exit(MISSING)
    from playwright.sync_api import sync_playwright

    given.folder.mkdir(parents=True, exist_ok=True)
    server = start_server(Path("checkpoints"))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=list(FLAGS))
            size, wide = {"width": given.width, "height": 900}, {"width": 1400, "height": 900}
            page = browser.new_page(viewport=wide, color_scheme="dark" if given.dark else "light")
            page.set_default_timeout(180_000)
            page.goto(server.url)
            page.get_by_role("button", name=SAMPLE, exact=True).click()
            page.get_by_text("Answered in").wait_for()
            page.locator(".js-plotly-plot .bartext").first.wait_for()
            page.set_viewport_size(size)
            page.mouse.move(given.width - 5, 895)
            settle(page, 2)
            save(page, given.folder / "classify.png", given.whole)
            for name in given.pages:
                page.set_viewport_size(wide)  # a narrow window keeps its links behind a button
                page.get_by_role("link", name=name, exact=True).click()
                page.get_by_role("heading", level=1, name=PAGES[name], exact=True).wait_for()
                if name == "Sequence":
                    settle(page, 0)
                    page.get_by_role("button", name=SAMPLE, exact=True).click()
                    page.get_by_text("All frames together").wait_for()
                if name == "Mesh":
                    page.frame_locator("iframe").locator("canvas").first.wait_for()
                page.set_viewport_size(size)
                page.mouse.move(given.width - 5, 895)
                settle(page, 8 if name == "Mesh" else 3)  # software drawing on a busy machine
                save(page, given.folder / f"{name.lower().replace('-', '')}.png", given.whole)
            browser.close()
    finally:
        server.stop()


if __name__ == "__main__":
    main()
