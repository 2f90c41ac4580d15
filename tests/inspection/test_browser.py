"""The page of `logitkit inspect` in a real browser: keyboard, accessibility tree, light and dark colours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logitkit.inspection import html_page, inspect
from logitkit.registry.laws import tiny_model, tiny_tokenizer

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not BROWSER or not DRIVER, reason="no chromium with chromedriver on this machine")

CONTRAST = """
const lightness = colour => colour.map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, place) => sum + c * [.2126, .7152, .0722][place], 0);
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const paper = numbers(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll(".token > summary, .legend .swatch")].map(token => {
  const style = getComputedStyle(token), [r, g, b, alpha = 1] = numbers(style.backgroundColor);
  const below = [r, g, b].map((c, place) => alpha * c + (1 - alpha) * paper[place]);
  const [low, high] = [lightness(below), lightness(numbers(style.color))].sort((a, b) => a - b);
  return (high + .05) / (low + .05);
});
"""
STATE = "return [document.activeElement.parentNode.id, [...document.querySelectorAll('.token[open]')].map(t => t.id)]"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless browser with the page of an inspection of twelve tokens."""
    from selenium import webdriver

    path = tmp_path_factory.mktemp("page") / "inspect.html"
    inspection = inspect(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.3) | top_k(5)", max_new_tokens=12)
    path.write_text(html_page(inspection), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,900"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.get(path.as_uri())
    yield driver
    driver.quit()


@pytest.fixture
def keys(browser: Any) -> Any:
    """Return a function that types keys into a freshly loaded page and returns the focus and the open tokens."""
    from selenium.webdriver import ActionChains

    browser.get(browser.current_url.split("#")[0])

    def press(*names: str) -> Any:
        from selenium.webdriver.common.keys import Keys

        ActionChains(browser).send_keys(*(getattr(Keys, name) for name in names)).perform()
        return browser.execute_script(STATE)

    return press


def test_tokens_open_and_close_by_keyboard(browser: Any, keys: Any) -> None:
    """Tab reaches the first token; arrows move; Enter opens one panel at a time; Escape closes and keeps the focus."""
    assert keys(*["TAB"] * 4) == ["t0", []]  # past the link, the prompt and the plain text
    assert keys("ARROW_RIGHT", "ARROW_RIGHT", "ENTER") == ["t2", ["t2"]]
    assert browser.find_element("css selector", "#t2 .panel").is_displayed()
    assert keys("ARROW_RIGHT") == ["t3", ["t3"]]
    assert not browser.find_element("css selector", "#t2 .panel").is_displayed()
    assert keys("END") == ["t11", ["t11"]] and keys("ARROW_RIGHT") == ["t11", ["t11"]]
    assert keys("ESCAPE") == ["t11", []]
    assert keys("HOME", "SPACE") == ["t0", ["t0"]]


def test_links_and_the_close_button_work(browser: Any, keys: Any) -> None:
    """A link in the table of largest moves opens its token, and the button closes the panel."""
    link = browser.find_element("css selector", "table a")
    browser.execute_script("arguments[0].focus()", link)
    token = link.get_attribute("href").split("#")[1]
    assert keys("ENTER") == [token, [token]]
    browser.find_element("css selector", f"#{token} .close").click()
    assert browser.execute_script(STATE) == [token, []]


def test_the_tokens_can_be_skipped(browser: Any, keys: Any) -> None:
    """The first Tab stop is a link that skips the tokens."""
    keys("TAB", "ENTER")
    assert browser.execute_script("return document.activeElement.id") == "most"


def test_a_screen_reader_hears_each_token(browser: Any, keys: Any) -> None:
    """In the accessibility tree every token is a disclosure triangle whose name contains its move."""
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [node["name"]["value"] for node in nodes if node["role"]["value"].startswith("DisclosureTriangle")]
    assert sum(name.startswith("token ") and " bits" in name for name in named) == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_token_can_be_read(browser: Any, keys: Any, scheme: str) -> None:
    """The contrast is at least 4.5 to 1 (WCAG AA) at every depth of colour."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert min(browser.execute_script(CONTRAST)) >= 4.5


def test_nothing_is_fetched_and_nothing_fails(browser: Any, keys: Any, tmp_path: Path) -> None:
    """The page makes no request and writes no message to the console."""
    keys("TAB", "TAB", "TAB", "TAB", "ENTER")
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
