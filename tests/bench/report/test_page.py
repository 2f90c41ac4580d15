"""The page of a report: self-contained, searchable, folded, and small."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench_runs import tiny_run, write_records, write_rows
from logitkit.bench.config import ChainEntry, Run, TaskEntry
from logitkit.bench.execution import Store
from logitkit.bench.report import Summary, page, summarise
from logitkit.bench.report.answers import answers
from logitkit.bench.report.plots import plots
from logitkit.bench.report.tables import sheets

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
CHAINS = {"plain": ChainEntry(), "cfg": ChainEntry(chain="cfg(1.5)"), "<b>top</b>": ChainEntry(chain="top_p(0.5)")}
SAMPLES = 45


class Outside(HTMLParser):
    """Collects the tags of a page, and the attributes by which it would fetch something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.found += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.found += [f"{tag} {name}" for name, value in attrs if name.startswith("on") or "url(" in (value or "")]


def written(chain: str, number: int) -> str:
    """Return the text of an answer: cfg changes every third, and the last strategy writes HTML."""
    if chain.startswith("<b>"):
        return f"</script><script>document.title='taken'</script>{number}"
    return f"the ship {number} sails" if chain == "plain" or number % 3 else f"the ship {number} sinks İ Harbour"


def measured(chain: str, task: str, number: int) -> dict[str, float | None]:
    """Return the metrics of an answer: cfg has a lower share of different trigrams in every third, by its number."""
    share = 0.9 - (0.01 * number if chain == "cfg" and number % 3 == 0 else 0)
    return {"distinct_3": share, "perplexity": None if chain != "plain" and number == 1 else 1.0}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Store, Summary]:
    """Return a run of free texts that no model wrote."""
    place = tmp_path_factory.mktemp("texts")
    write_rows(place / "rows.jsonl", [{"text": f"prompt{number} & <i>item</i> end"} for number in range(SAMPLES)])
    tasks = {"text": TaskEntry(task="free_text", data="rows.jsonl", parameters={"words": 3}, batch=5)}
    run = tiny_run(place, chains=CHAINS, tasks=tasks, seeds=[0])
    with Store(place / "results") as store:
        write_records(run, store, measured, written)
    return run, store, summarise(run, store)


def test_the_page_is_self_contained(finished: tuple[Run, Store, Summary]) -> None:
    """The page fetches nothing, has one script and its data, names are escaped, and each plot has a label."""
    run, store, summary = finished
    html = page(summary, json.loads(store.manifest(run).read_text()), store.sessions(run), "", answers(summary, store))
    outside = Outside(html)
    assert outside.found == [] and not set(outside.tags) & {"link", "img", "iframe", "object", "base", "b"}
    assert outside.tags.count("script") == 2 and "default-src 'none'" in html and "script-src 'sha256-" in html
    assert "@import" not in html and "url(" not in html and "fetch(" not in html and "XMLHttpRequest" not in html
    drawn = plots(summary)
    assert html.count('role="img" aria-label=') == len(drawn) > 5
    titles = [plot.title for plot in drawn]
    assert "lambada, tiny: loss against cost" in titles and any("against scale of cfg" in t for t in titles)
    assert any("against cascade deferral" in t for t in titles)
    assert '"revision"' in html.replace("&#34;", '"') and run.hash in html


def test_the_page_without_answers_has_no_script(finished: tuple[Run, Store, Summary]) -> None:
    """A page that is made without the answers has tables and plots, and no list of samples."""
    outside = Outside(page(finished[2], {}, []))
    assert "script" not in outside.tags and "input" not in outside.tags


def test_the_answers_hold_every_text_and_metric(texts: tuple[Run, Store, Summary]) -> None:
    """A sample has its item, and for each strategy its metrics and its text, once if it equals the first one's."""
    _, store, summary = texts
    (table,) = answers(summary, store)
    assert table["strategies"] == list(CHAINS) and table["total"] == SAMPLES == len(table["samples"])
    sample = table["samples"][1]
    assert "prompt1 & <i>item" in sample["item"]
    plain, cfg, top = sample["answers"]
    assert plain["texts"] == ["the ship 1 sails"] and cfg["texts"] is None and top["texts"][0].startswith("</script>")
    assert plain["values"][-1] == 1.0 and cfg["values"][-1] is None


@pytest.mark.parametrize("limit", [30_000, 16_000, 3_000, 10])
def test_the_answers_keep_their_limit(texts: tuple[Run, Store, Summary], limit: int) -> None:
    """Texts are cut first, then the last samples are left out; the number of samples remains known."""
    _, store, summary = texts
    tables = answers(summary, store, limit=limit)
    (table,) = tables
    assert len(json.dumps(table["samples"])) <= 2 * limit and table["total"] == SAMPLES
    assert [sample["id"] for sample in table["samples"]] == [str(n) for n in range(len(table["samples"]))]


@pytest.fixture(scope="module")
def browser(texts: tuple[Run, Store, Summary], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless browser on a phone's screen, without a network, with the page of the free texts."""
    if not BROWSER or not DRIVER:
        pytest.skip("no chromium with chromedriver on this machine")
    from selenium import webdriver

    run, store, summary = texts
    path = tmp_path_factory.mktemp("page") / "report.html"
    manifest = {"hash": run.hash, "a long name " * 20: "x" * 500}
    path.write_text(page(summary, manifest, store.sessions(run), "", answers(summary, store)), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.address = path.as_uri()  # another test shows another page
    driver.get(driver.address)
    yield driver
    driver.quit()


@pytest.fixture
def listed(browser: Any) -> Any:
    """Return a function that sets the controls of a fresh page and returns the count and the numbers of the samples."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    browser.get(browser.address)
    browser.find_element(By.CSS_SELECTOR, "#samples-fold > summary").click()

    def choose(search: str = "", strategy: str = "all strategies", show: str = "all samples") -> tuple[str, list[int]]:
        Select(browser.find_element(By.ID, "answers-strategy")).select_by_visible_text(strategy)
        Select(browser.find_element(By.ID, "answers-show")).select_by_visible_text(show)
        browser.find_element(By.ID, "answers-search").clear()
        browser.find_element(By.ID, "answers-search").send_keys(search)
        found = [title.text for title in browser.find_elements(By.CSS_SELECTOR, ".sample h3")]
        count = browser.find_element(By.ID, "answers-count").text
        return count, [int(title.removeprefix("sample ")) for title in found]

    return choose


def test_details_are_folded(browser: Any) -> None:
    """The manifest, the detail and the samples are folded; nothing of the samples is built before they are opened."""
    browser.get(browser.address)
    states = browser.execute_script("return [...document.querySelectorAll('details')].map(fold => fold.open)")
    assert len(states) == 3 and not any(states)
    assert browser.execute_script("return document.querySelector('#manifest').closest('details').open") is False
    assert browser.execute_script("return document.querySelectorAll('.sample').length") == 0


def test_the_search_finds_items_and_texts(listed: Any, browser: Any) -> None:
    """The search ignores case, looks into items and into the texts of the strategies that are shown, and marks hits."""
    assert listed() == (f"{SAMPLES} of {SAMPLES} samples.", list(range(20)))
    assert listed("PROMPT44") == (f"1 of {SAMPLES} samples.", [44])
    assert listed("ship 12 si") == (f"1 of {SAMPLES} samples.", [12])
    assert "sinks İ Harbour" in browser.find_element("css selector", ".sample").text
    assert listed(" SHIP 13 ")[1] == [13]
    marked = browser.execute_script("return [...document.querySelectorAll('mark')].map(mark => mark.textContent)")
    assert marked == ["ship 13"]
    assert listed("sinks", strategy="<b>top</b>") == (f"0 of {SAMPLES} samples.", [])


def test_filters_show_differences(listed: Any) -> None:
    """Filters keep the samples that differ from the baseline; the worst one comes first."""
    changed = [number for number in range(SAMPLES) if number % 3 == 0]
    assert listed(strategy="cfg", show="another text than plain")[1] == changed
    assert listed(strategy="cfg", show="worse than plain")[1] == [number for number in reversed(changed) if number]
    assert listed(strategy="cfg", show="better than plain")[1] == []
    assert listed(strategy="<b>top</b>", show="another metric than plain")[1] == [1]


def test_more_samples_are_built_on_request(listed: Any, browser: Any) -> None:
    """The button shows twenty samples more, and is hidden after the last."""
    listed()
    button = browser.find_element("id", "answers-more")
    for want in (40, SAMPLES):
        button.click()
        assert len(browser.find_elements("css selector", ".sample")) == want
    assert not button.is_displayed()


def test_texts_are_text(listed: Any, browser: Any) -> None:
    """HTML in an answer is shown and not carried out, and the browser reports no error."""
    listed(strategy="<b>top</b>")
    assert "</script><script>" in browser.find_element("css selector", ".sample").text
    assert browser.title != "taken" and browser.find_elements("css selector", "main b b, main i") == []
    assert browser.get_log("browser") == []


def test_the_page_fits_a_phone(listed: Any, browser: Any) -> None:
    """At 390 pixels nothing is wider than the screen, also with all details open; controls are 40 pixels high."""
    listed()
    browser.execute_script("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    heights = browser.execute_script(
        "return [...document.querySelectorAll('input, select, button')].map(each => each.offsetHeight)"
    )
    assert min(heights) >= 40


def test_a_phone_shows_conclusions_without_scrolling(
    finished: tuple[Run, Store, Summary], browser: Any, tmp_path: Path
) -> None:
    """At 390 pixels each row is a list with its headings, the conclusion below the name; no table scrolls sideways."""
    _, store, summary = finished
    (tmp_path / "report.html").write_text(page(summary, {}, [], "", answers(summary, store)), encoding="utf-8")
    browser.get((tmp_path / "report.html").as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    wide = "return [...document.querySelectorAll('.wide')].filter(each => each.scrollWidth > each.clientWidth).length"
    assert browser.execute_script(wide) == 0
    cells = [each for each in browser.find_elements("css selector", ".wide td.conclusion") if each.text]
    assert cells
    for cell in cells:
        name = cell.find_element("xpath", "..").find_element("css selector", "th").rect
        assert (
            name["y"] < cell.rect["y"] < name["y"] + 40
            and 0 <= cell.rect["x"] < cell.rect["x"] + cell.rect["width"] <= 390
        )
    said = "return getComputedStyle(arguments[0], '::before').content"
    assert browser.execute_script(said, cells[0]) == '"conclusion"'


def test_every_table_and_plot_is_laid_out(finished: tuple[Run, Store, Summary], browser: Any, tmp_path: Path) -> None:
    """A browser lays out every table and plot of a run with costs, and colours that are light in the dark."""
    _, store, summary = finished
    (tmp_path / "report.html").write_text(page(summary, {}, [], "", answers(summary, store)), encoding="utf-8")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    browser.get((tmp_path / "report.html").as_uri())
    assert len(browser.find_elements("css selector", "table")) == len(sheets(summary))
    assert len(browser.find_elements("css selector", "svg")) == len(plots(summary))
    paper, ink = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    assert max(map(int, re.findall(r"\d+", paper))) < 60 and min(map(int, re.findall(r"\d+", ink))) > 200
