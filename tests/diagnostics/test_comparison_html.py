"""The page of a comparison: self-contained, escaped, with distinct ids and the numbers of the comparison."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest

from logitkit.diagnostics import ModelComparison, compare, comparison_csv, comparison_data, comparison_page
from logitkit.diagnostics.comparison_summary import quadrant_sentence
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer

TEXTS = ["the cat <b>&amp;\nsat</script>", "né"]


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def found() -> ModelComparison:
    return compare(tiny_model(), tiny_tokenizer(), tiny_model(1), TEXTS, names=("<small>", "large"))


@pytest.fixture(scope="module")
def page(found: ModelComparison) -> str:
    return comparison_page(found)


def test_the_page_needs_nothing_else(page: str) -> None:
    """No address, no image, no style or script from elsewhere; a policy says so to the browser."""
    tags = Tags(page).tags
    assert not [tag for tag, attrs in tags if tag in ("link", "img", "iframe") or "src" in attrs]
    assert not re.search(r"https?://", page) and "default-src 'none'" in page
    assert all((attrs.get("href") or "#").startswith("#") for tag, attrs in tags if tag == "a")


def test_every_token_is_a_labelled_disclosure(page: str, found: ModelComparison) -> None:
    """Ids are distinct over all texts, links lead to them, and the colour of a token is its divergence."""
    tags = Tags(page).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and {f"t{number}" for number in range(len(found))} <= set(ids)
    assert {attrs["href"][1:] for tag, attrs in tags if tag == "a" and attrs["href"]} <= set(ids)
    depths = [float(depth) for depth in re.findall(r"--moved:([\d.]+)", page)]
    assert depths == pytest.approx(found.columns.js_bits.sqrt().tolist(), abs=6e-4)
    labels = [attrs["aria-label"] or "" for tag, attrs in tags if tag == "summary" and "aria-label" in attrs]
    assert len(labels) == len(found) and all("divergence" in label for label in labels)
    assert sum("sure and wrong" in label for label in labels) == found.quadrants.quadrants[1].tokens


def test_texts_and_names_are_escaped(page: str) -> None:
    assert "<b>" not in page and "<small>" not in page and page.count("</script>") == 2
    body = unescape(re.sub(r"<(details|div)\b.*?>|<summary[^>]*>|</summary>", "", page))
    assert "sure and wrong" in body and "⏎" in page


def test_the_page_holds_quadrants_and_downloads(page: str, found: ModelComparison) -> None:
    text = unescape(re.sub(r"<[^>]*>", "", page))
    assert quadrant_sentence(found) in text
    for part in found.quadrants.quadrants:
        assert f"{part.name}{part.tokens}{part.share.value:.1%}" in text
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data == {"json": json.loads(json.dumps(comparison_data(found))), "csv": comparison_csv(found)}
    assert '"compare.json"' in page and '"compare.csv"' in page


def test_bytes_say_so() -> None:
    found = compare(tiny_model(), tiny_tokenizer(), foreign_model(), "né", other_tokenizer=foreign_tokenizer())
    text = unescape(re.sub(r"<[^>]*>", "", comparison_page(found)))
    assert "3 bytes of 1 text" in text and "exact over the tokenizations that each tokenizer writes" in text
    assert "A character of several bytes stands at the last of them." in text


def test_long_texts_are_cut_on_the_page(found: ModelComparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says how many tokens it leaves out, and its tables link to none of them."""
    monkeypatch.setattr("logitkit.diagnostics.comparison_html.MOST_TOKENS", 10)
    page = comparison_page(found)
    assert page.count('class="token"') == 10 and f"The last {len(found) - 10} tokens are not shown here" in page
    ids = {attrs["id"] for _, attrs in Tags(page).tags if "id" in attrs}
    assert {attrs["href"] for tag, attrs in Tags(page).tags if tag == "a"} <= {f"#{name}" for name in ids}


def test_models_that_do_not_differ_have_no_tables(recwarn: pytest.WarningsRecorder) -> None:
    page = comparison_page(compare(tiny_model(), tiny_tokenizer(), tiny_model(), "a text"))
    assert "The models do not differ." in page and "Critical" not in page and len(recwarn) == 1
