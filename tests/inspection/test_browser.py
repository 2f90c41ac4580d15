"""The page of `logitkit inspect` in a real browser: keyboard, accessibility tree, light and dark colours."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from logitkit.inspection import compare, csv_table, html_page, inspect, json_data
from logitkit.registry.laws import tiny_model, tiny_tokenizer

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not BROWSER or not DRIVER, reason="no chromium with chromedriver on this machine")

# The contrast of every element that is shown and has text of its own, over the colours that lie below it.
CONTRAST = """
const lightness = colour => colour.map(c => c / 255).map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, place) => sum + c * [.2126, .7152, .0722][place], 0);
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const below = element => {
  if (!element) return [255, 255, 255];
  const [r, g, b, alpha = 1] = numbers(getComputedStyle(element).backgroundColor);
  if (alpha === 1) return [r, g, b];
  return below(element.parentElement).map((c, place) => alpha * [r, g, b][place] + (1 - alpha) * c);
};
const hasText = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
const elements = [...document.body.querySelectorAll(":not(script)")];
return elements.filter(element => element.checkVisibility() && hasText(element)).map(element => {
  const [low, high] = [below(element), numbers(getComputedStyle(element).color)].map(lightness).sort((a, b) => a - b);
  return (high + .05) / (low + .05);
});
"""
STATE = "return [document.activeElement.parentNode.id, [...document.querySelectorAll('.token[open]')].map(t => t.id)]"
BEFORE_THE_TOKENS = ["TAB"] * 2  # the link, then the first token
Pages = dict[str, str]


@pytest.fixture(scope="module")
def shown() -> dict[str, list[Any]]:
    """What each page shows: an inspection of twelve tokens, and two prompts under two chains."""
    chain, model, tokenizer = "temperature(0.3) | top_k(5)", tiny_model(), tiny_tokenizer()
    pair = compare(model, tokenizer, "Once", chain, "", max_new_tokens=12, do_sample=True, seed=3)
    long = compare(model, tokenizer, "twice " * 40, chain, "cfg(2.0)", max_new_tokens=12)
    return {"one": [inspect(model, tokenizer, "Once", chain, max_new_tokens=12)], "pairs": [pair, long]}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, shown: dict[str, list[Any]]) -> Pages:
    """Return the address of each page."""
    folder = tmp_path_factory.mktemp("pages")
    for name, parts in shown.items():
        (folder / f"{name}.html").write_text(html_page(*parts), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in shown}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,900"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def keys(browser: Any, pages: Pages) -> Any:
    """Return a function that types keys into a freshly loaded page and returns the focus and the open tokens."""
    from selenium.webdriver import ActionChains

    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(pages["one"])

    def press(*names: str) -> Any:
        from selenium.webdriver.common.keys import Keys

        ActionChains(browser).send_keys(*(getattr(Keys, name) for name in names)).perform()
        return browser.execute_script(STATE)

    return press


def as_phone(browser: Any, width: int = 390) -> None:
    """Give the page the size of a phone, as a phone lays it out."""
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def rectangle(browser: Any, css: str) -> dict[str, float]:
    """Return the place of an element in the window."""
    found: dict[str, float] = browser.execute_script(
        "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", css
    )
    return found


def test_tokens_open_and_close_by_keyboard(browser: Any, keys: Any) -> None:
    """Tab reaches the first token; arrows move; Enter opens one panel at a time; Escape closes and keeps the focus."""
    assert keys(*BEFORE_THE_TOKENS) == ["t0", []]
    assert keys("ARROW_RIGHT", "ARROW_RIGHT", "ENTER") == ["t2", ["t2"]]
    assert browser.find_element("css selector", "#t2 .panel").is_displayed()
    assert keys("ARROW_RIGHT") == ["t3", ["t3"]]
    assert not browser.find_element("css selector", "#t2 .panel").is_displayed()
    assert keys("END") == ["t11", ["t11"]] and keys("ARROW_RIGHT") == ["t11", ["t11"]]
    assert keys("ESCAPE") == ["t11", []]
    assert keys("HOME", "SPACE") == ["t0", ["t0"]]


def test_a_continuation_is_one_tab_stop(browser: Any, keys: Any) -> None:
    """Tab leaves the tokens, and Shift+Tab comes back to the token that had the focus."""
    from selenium.webdriver import ActionChains, Keys

    assert keys(*BEFORE_THE_TOKENS, "ARROW_RIGHT", "ARROW_RIGHT", "TAB")[0] == ""
    assert browser.execute_script("return document.activeElement.textContent") == "The prompt, as the model reads it"
    ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    assert browser.execute_script(STATE) == ["t2", []]


def test_the_page_begins_with_the_chain_and_the_text(browser: Any, pages: Pages) -> None:
    """On a phone the name of the chain is large, and it, the prompt and the continuation stand above what explains."""
    as_phone(browser)
    browser.get(pages["one"])
    top = "return [...document.querySelectorAll(%r)].map(e => e.getBoundingClientRect().top)"
    (chain,), (prompt,) = browser.execute_script(top % ".chain"), browser.execute_script(top % ".tokens .prompt")
    first, *_ = browser.execute_script(top % ".tokens summary")
    size = "return parseFloat(getComputedStyle(document.querySelector(%r)).fontSize)"
    assert chain < 120 and chain < min(prompt, first) and first < browser.execute_script(top % "fieldset")[0]
    assert browser.execute_script(size % ".chain") > browser.execute_script(size % ".tokens")
    assert browser.execute_script("return document.querySelector('.prompt').textContent").strip()


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


def names(browser: Any, role: str) -> list[str]:
    """Return what a screen reader hears of the elements of a role."""
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [node["name"]["value"] for node in nodes if node["role"]["value"].startswith(role)]


def test_a_screen_reader_hears_each_token(browser: Any, keys: Any) -> None:
    """In the accessibility tree every token is a disclosure triangle whose name contains what its colour shows."""
    assert sum(name.startswith("token ") and ", moved " in name for name in names(browser, "Disclosure")) == 12
    assert names(browser, "radio") == ["how far the chain moved the distribution", "entropy", "surprisal"]
    keys("TAB", "TAB", "TAB", "TAB", "ARROW_RIGHT")
    assert sum(", entropy " in name for name in names(browser, "Disclosure")) == 12


def test_the_switch_changes_colours_and_legend(browser: Any, keys: Any) -> None:
    """The arrow keys choose a quantity; each has its own colour and its own legend."""
    script = (
        "return [getComputedStyle(document.querySelector('#t1 > summary')).backgroundColor,"
        "[...document.querySelectorAll('.legend')].filter(l => l.checkVisibility()).map(l => l.classList[1])]"
    )
    seen = [browser.execute_script(script)]
    keys("TAB", "TAB", "TAB", "TAB")
    for _ in range(2):
        keys("ARROW_RIGHT")
        seen.append(browser.execute_script(script))
    assert [legend for _, legend in seen] == [["moved"], ["entropy"], ["surprisal"]]
    assert len({colour for colour, _ in seen}) == 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: Any, keys: Any, scheme: str) -> None:
    """The contrast is at least 4.5 to 1 (WCAG AA), at every depth of every colour and in the panel."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_script("document.querySelector('#t1').open = true")
    for quantity in ("moved", "entropy", "surprisal"):
        browser.execute_script(f"document.getElementById('by-{quantity}').click()")
        contrasts = browser.execute_script(CONTRAST)
        assert len(contrasts) > 40 and min(contrasts) >= 4.5


def test_two_chains_stand_side_by_side(browser: Any, keys: Any, pages: Pages) -> None:
    """On a wide screen the sides of a prompt are columns; the sentence above them leads to where they part."""
    browser.get(pages["pairs"])
    left, right = (rectangle(browser, f"article:nth-child({number})") for number in (1, 2))
    assert left["top"] == right["top"] and left["right"] < right["left"]
    token = browser.find_element("css selector", "section p a").get_attribute("href").split("#")[1]
    browser.find_element("css selector", "section p a").click()
    assert keys() == [token, [token]]
    assert "the continuations part here" in browser.find_element("css selector", f"#{token} > summary").accessible_name


@pytest.mark.parametrize("page", ["one", "pairs"])
def test_a_tap_on_a_phone_shows_the_panel(browser: Any, keys: Any, pages: Pages, page: str) -> None:
    """At 390 pixels nothing scrolls sideways; the panel is at the bottom of the window, and the token above it."""
    as_phone(browser)
    browser.get(pages[page])
    width = "return [innerWidth, document.documentElement.scrollWidth]"
    assert browser.execute_script(width) == [390, 390]
    for token in (browser.find_elements("css selector", ".token")[place] for place in (0, -1)):
        summary = token.find_element("css selector", "summary")
        browser.execute_script("arguments[0].scrollIntoView({block: 'end'})", summary)
        summary.click()
        browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        name = token.get_attribute("id")
        panel, place = (rectangle(browser, f"#{name} {css}") for css in (".panel", "summary"))
        assert place["top"] >= 0 and place["bottom"] <= panel["top"]
        assert panel["bottom"] == 844 and panel["left"] == 0 and panel["right"] == 390
        assert browser.execute_script(width) == [390, 390]
        for table in token.find_elements("css selector", "table"):
            assert table.rect["x"] + table.rect["width"] <= 390


def test_the_smallest_phone_scrolls_in_one_direction(browser: Any, keys: Any, pages: Pages) -> None:
    """At 320 pixels (WCAG, reflow) nothing scrolls sideways, with a panel open."""
    as_phone(browser, 320)
    for page in pages.values():
        browser.get(page)
        browser.find_element("css selector", ".token > summary").click()
        assert browser.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [320, 320]


def test_the_page_works_without_scripts(browser: Any, keys: Any, pages: Pages) -> None:
    """Tokens open, the switch changes the colours, and no button is shown that could do nothing."""
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(pages["one"])
        summary = browser.find_element("css selector", "#t1 > summary")
        summary.click()
        assert browser.find_element("css selector", "#t1 .panel").is_displayed()
        colour = summary.value_of_css_property("background-color")
        browser.find_element("css selector", "#by-entropy").click()
        assert summary.value_of_css_property("background-color") != colour
        assert not any(button.is_displayed() for button in browser.find_elements("css selector", "button"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_downloads_hold_what_the_functions_return(
    browser: Any, keys: Any, pages: Pages, shown: dict[str, list[Any]], tmp_path: Path
) -> None:
    """The buttons save the JSON and the CSV of the page, and request nothing."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get(pages["pairs"])
    for button in browser.find_elements("css selector", ".export button"):
        button.click()
        file, until = tmp_path / f"inspect.{button.get_attribute('value')}", time.monotonic() + 10
        while not file.exists() and time.monotonic() < until:
            time.sleep(0.05)
    assert json.loads((tmp_path / "inspect.json").read_text()) == json_data(*shown["pairs"])
    assert (tmp_path / "inspect.csv").read_bytes().decode() == csv_table(*shown["pairs"])
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []


def test_nothing_is_fetched_and_nothing_fails(browser: Any, keys: Any) -> None:
    """The page makes no request and writes no message to the console."""
    keys(*BEFORE_THE_TOKENS, "ENTER")
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []
