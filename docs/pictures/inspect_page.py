"""Make inspect_page.png: ``python docs/pictures/inspect_page.py``; needs selenium, chromium and smollm2-135m."""

from __future__ import annotations

import base64
import shutil
import tempfile
from pathlib import Path

from selenium import webdriver

from logitkit import models
from logitkit.inspection import compare, html_page

PICTURE = Path(__file__).with_suffix(".png")
WIDTH, HEIGHT = 1100, 700
SHOW = """
document.getElementById("by-entropy").click();
document.querySelector(".parts").parentElement.open = true;
"""
SETTLE = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
PLACE = "scrollTo(0, 0)"


def main() -> None:
    """Write the picture of a page of two chains, coloured by entropy, with the panel of one token."""
    model, tokenizer = models.load("smollm2-135m")
    comparison = compare(model, tokenizer, "The old lighthouse", "cfg(1.5)", max_new_tokens=40)
    page = Path(tempfile.mkdtemp()) / "page.html"
    page.write_text(html_page(comparison), encoding="utf-8")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.ChromeService(shutil.which("chromedriver"))  # named, so that selenium looks for none
    browser = webdriver.Chrome(options=options, service=driver)
    try:
        metrics = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(page.as_uri())
        browser.execute_script(SHOW)
        browser.execute_async_script(SETTLE)
        browser.execute_script(PLACE)
        browser.execute_async_script(SETTLE)
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        PICTURE.write_bytes(base64.b64decode(picture))
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
