"""The README's pictures of the app, taken from the app: python -m tests.browser.screenshots docs/images"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

from PIL import Image

from tests.browser.conftest import start_server
from tests.browser.find_browser import FLAGS, MISSING, find_browser

SAMPLE = "surprise"
WIDTH, HEIGHT = 1400, 900


def save(page, path: Path) -> None:
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main(folder: Path, checkpoints: Path = Path("checkpoints")) -> None:
    from playwright.sync_api import sync_playwright

    browser_path = find_browser()
    if browser_path is None:
        sys.exit(MISSING)
    folder.mkdir(parents=True, exist_ok=True)
    server = start_server(checkpoints)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=browser_path, args=list(FLAGS))
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.set_default_timeout(180_000)
            page.goto(server.url)
            page.get_by_role("button", name=SAMPLE, exact=True).click()
            page.get_by_text("Answered in").wait_for()
            page.locator(".js-plotly-plot .bartext").first.wait_for()
            page.locator(".strip-answer").wait_for()
            page.mouse.move(WIDTH - 5, HEIGHT - 5)
            time.sleep(2)
            save(page, folder / "classify.png")
            page.get_by_role("link", name="Mesh", exact=True).click()
            page.locator("iframe").wait_for()
            time.sleep(10)  # software drawing on a busy machine
            save(page, folder / "mesh.png")
            browser.close()
    finally:
        server.process.terminate()
        server.process.wait(20)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
