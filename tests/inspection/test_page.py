"""The HTML page of an inspection: self-contained, escaped, accessible."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from inspections import inspect_foreign_model, inspect_tiny_model
from logitkit.errors import ParameterError
from logitkit.inspection import Comparison, csv_table, html_page, json_data

HOSTILE = "</pre><script src='https://elsewhere/x.js'></script> & <b>"


class Outline(HTMLParser):
    """The tags of a page; construction fails when the tags do not nest."""

    void = ("meta", "br", "link", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text() -> str:
    """The page of a chain of two processors with sampling, and a prompt that contains HTML tags."""
    return html_page(inspect_tiny_model("ngram_context(0.9) | top_k(3)", HOSTILE, do_sample=True, seed=1))


def test_the_page_holds_everything_it_needs(text: str) -> None:
    """Links lead to anchors of the page only, and the content security policy forbids every request."""
    outline = Outline(text)
    assert not {tag for tag, _ in outline.tags} & {"link", "img", "iframe", "object", "base", "form"}
    assert all(set(attributes) & {"src", "srcset", "action"} == set() for _, attributes in outline.tags)
    assert all(str(link["href"]).startswith("#") for link in outline.all("a"))
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(meta for meta in outline.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'")


def test_the_prompt_is_escaped(text: str) -> None:
    """A prompt can neither add a script nor close a tag."""
    assert [script.get("type") for script in Outline(text).all("script")] == ["application/json", None]
    assert "&lt;/pre&gt;&lt;script" in text and HOSTILE not in text


def test_each_token_is_a_labelled_disclosure(text: str) -> None:
    """Every token is a native details element with a label, so keyboards and screen readers need no script."""
    outline = Outline(text)
    tokens = [item for item in outline.all("details") if item.get("class") == "token"]
    labels = [str(item["aria-label"]) for item in outline.all("summary") if "aria-label" in item]
    assert len(tokens) == len(labels) == 8
    assert all(re.fullmatch(r"(?s)token \d+: .+, moved .+ bits.*", label) for label in labels)
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and {f"t{number}" for number in range(8)} <= set(ids)
    assert {str(link["href"])[1:] for link in outline.all("a")} <= set(ids)
    assert all("scope" in head for head in outline.all("th")) and outline.all("html")[0]["lang"] == "en"


def test_impossible_tokens_are_not_listed_after(text: str) -> None:
    """After top_k(3) the panel lists three tokens and leaves the other five places empty."""
    panel = text[text.index('id="t0"') : text.index('id="t1"')]
    assert panel.count("<td></td>") == 5


def test_the_page_holds_its_data(text: str) -> None:
    """The script element with the data is JSON without a tag, whatever the prompt holds."""
    inspection = inspect_tiny_model("top_k(3)", f"<!--<script>{HOSTILE}")
    (data,) = re.findall(r'<script type="application/json" id="data">([^<]*)</script>', html_page(inspection))
    assert json.loads(data) == {"json": json_data(inspection), "csv": csv_table(inspection)}


def comparison(first: str, second: str, **settings: object) -> Comparison:
    """Return two inspections of the tiny model."""
    left, right = (inspect_tiny_model(chain, **settings) for chain in (first, second))
    return Comparison(first=left, second=right)


def test_two_chains_and_several_prompts_have_distinct_ids() -> None:
    """Every token of a page has its own id, and every link leads to one of them."""
    pair = comparison("temperature(0.5) | top_k(3)", "", do_sample=True, seed=1)
    outline = Outline(html_page(pair, inspect_tiny_model("top_k(2)", "Twice"), pair))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and {"p1a-t0", "p1b-t7", "p2a-t0", "p3b-t0"} <= set(ids)
    assert {str(link["href"])[1:] for link in outline.all("a")} <= set(ids)


@pytest.mark.parametrize(
    ("second", "prompt", "said"),
    [
        ("temperature(0.5)", "Onc", "Both chains wrote the same tokens."),
        ("suppress_tokens([BANNED])", "Onc", "The continuations differ from the first token:"),
        ("", "Once", "The chains read different tokens of the prompt"),
    ],
)
def test_the_page_says_where_two_chains_part(second: str, prompt: str, said: str) -> None:
    """In a sentence above the two sides."""
    first = inspect_tiny_model("", "Onc")
    other = inspect_tiny_model(second.replace("BANNED", str(first.moves[0].token)), prompt)
    assert said in html_page(Comparison(first=first, second=other))


def test_a_page_of_nothing_is_refused() -> None:
    """A page shows at least one inspection."""
    with pytest.raises(ParameterError, match="at least one inspection"):
        html_page()


def test_tokens_that_the_tokenizer_would_not_write_are_marked() -> None:
    """Each has a mark, a label and a sentence in its panel, and a line counts them; under canonical() there is none."""
    inspection = inspect_foreign_model("temperature(2.0)")
    marks = inspection.non_canonical
    assert marks is not None and 0 < sum(marks) < 12
    page = html_page(inspection)
    labels = [str(item["aria-label"]) for item in Outline(page).all("summary") if "aria-label" in item]
    assert [label.endswith(", not a token that the tokenizer would write here") for label in labels] == list(marks)
    classes = [str(item.get("class")).split() for item in Outline(page).all("summary") if "aria-label" in item]
    assert ["foreign" in each for each in classes] == list(marks)
    assert page.count("The tokenizer would not write this token here: the same text") == sum(marks)
    assert f"<dt>Not canonical</dt><dd>{sum(marks)} of 12 tokens</dd>" in page
    clean = inspect_foreign_model("canonical() | temperature(2.0)")
    assert clean.non_canonical == (False,) * 12 and "<dd>0 of 12 tokens</dd>" in html_page(clean)
