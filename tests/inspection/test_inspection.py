"""Inspection: what is told of a token is what a slow recomputation finds, and the page needs nothing else."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import logitkit
from fakes import encoder_decoder_model
from logitkit.cli import app
from logitkit.errors import ParameterError
from logitkit.inspection import Inspection, html_page, inspect, terminal_view
from logitkit.inspection.formatting import format_bits, spoken_text, visible_text
from logitkit.inspection.moves import GENERATING_MODEL
from logitkit.registry.laws import tiny_model, tiny_tokenizer

HOSTILE = "</pre><script src='https://elsewhere/x.js'></script> & <b>"


def look(chain: str, prompt: Any = "Once", **settings: Any) -> Inspection:
    """Inspect eight tokens of the tiny model."""
    return inspect(tiny_model(), tiny_tokenizer(), prompt, chain, **({"max_new_tokens": 8} | settings))


def recomputed(ids: list[int]) -> torch.Tensor:
    """The next-token probabilities of the tiny model, from scratch in float64."""
    with torch.no_grad():
        return tiny_model()(torch.tensor([ids])).logits[0, -1].double().softmax(-1)


def divergence(p: list[float], q: list[float]) -> float:
    """Jensen-Shannon divergence in bits, by its definition."""
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    halves = [sum(a * math.log2(a / m) for a, m in zip(x, middle, strict=True) if a > 0) for x in (p, q)]
    return sum(halves) / 2


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "seed": 3}])
def test_every_move_equals_recomputation(settings: dict[str, Any]) -> None:
    """Temperature one half squares the probabilities; its best token before is banned at the end of the chain."""
    banned = int(recomputed(tiny_tokenizer()("Once")["input_ids"]).argmax())
    found = look(f"temperature(0.5) | suppress_tokens([{banned}])", **settings)
    row, width = found.completion.row, found.completion.call.prompts.width
    assert len(found.moves) == len(row) - width > 0 and found.moves[0].changed
    for place, move in enumerate(found.moves):
        before = recomputed(row[: width + place])
        after = before**2
        after[banned] = 0
        after /= after.sum()
        assert move.token == row[width + place]
        assert move.js_bits == pytest.approx(divergence(before.tolist(), after.tolist()), abs=1e-5)
        assert move.probability == pytest.approx((before[move.token].item(), after[move.token].item()), abs=1e-5)
        assert move.before[0] == (int(before.argmax()), pytest.approx(before.max().item(), abs=1e-5))
        assert move.after[0] == (int(after.argmax()), pytest.approx(after.max().item(), abs=1e-5))
        assert move.changed == (before.argmax() != after.argmax())
        assert move.rank[0] == 1 + int((before > before[move.token]).sum())
        assert [step.processor for step in move.steps] == ["temperature", "suppress_tokens"]
        if not settings:
            assert move.rank[1] == 1


def test_looking_on_changes_nothing() -> None:
    """The same ids as without an observer, and a plain chain moves nothing."""
    call = logitkit.chain("cfg(2.0)").bind(tiny_model(), tiny_tokenizer(), "Once")
    want = call.generate(max_new_tokens=8, do_sample=False)
    assert look("cfg(2.0)").completion.row == want[0].tolist()
    assert all(move.js_bits == 0 and not move.changed for move in look("").moves)


def test_forwards_add_up_to_the_trace() -> None:
    """A lazy second stream costs a forward at the tokens whose gate fired, and nothing at the others."""
    found = look("uscd(gate=0.3, lame=['another'])", streams="lazy", max_new_tokens=24)
    asked = [sum(count for name, count in move.forwards.items() if name != GENERATING_MODEL) for move in found.moves]
    assert asked == [int(move.steps[0].notes["fired"]) for move in found.moves]
    assert 0 < sum(asked) == sum(found.completion.trace.forwards.values()) < 24


def test_gates_and_weights_are_told() -> None:
    """What a processor noted at a step stands with its token, on the page too."""
    found = look("uscd(gate=1.0, lame=['another'])")
    assert all(set(move.steps[0].notes) == {"gate", "fired"} for move in found.moves)
    assert "fired yes" in html_page(found)


def test_an_encoder_decoder_and_a_cut_prompt_are_followed_too() -> None:
    """The token of a step is the one behind its rows, wherever the prompt is read."""
    found = inspect(encoder_decoder_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=5)
    assert [move.token for move in found.moves] == found.completion.row[1:]
    cut = look("byte_boundary()", "Onc")
    assert [move.token for move in cut.moves] == cut.completion.row[cut.completion.call.prompts.width :]


def test_tokens_are_spelled_so_that_nothing_hides() -> None:
    """Spaces, ends of line, half characters and special tokens can be told apart."""
    found = look("")
    byte, end = tiny_tokenizer().convert_tokens_to_ids(["Ã", "</s>"])  # byte-level spelling of the byte 0xC3
    assert [found.token_text(number) for number in (byte, end)] == ["\\xc3", "</s>"]
    assert visible_text(" a\n\t\x00") == "␣a⏎⇥\\x00"
    assert [spoken_text(text) for text in (" a", "\n", " \t", "")] == ["a", "line break", "space, tab", "nothing"]
    assert [format_bits(value) for value in (0.0, 0.0004, 0.25)] == ["0", "<0.001", "0.250"]


class Outline(HTMLParser):
    """The tags of a page, having checked that they nest."""

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
    """A page with a hostile prompt, two processors, and sampling."""
    return html_page(look("ngram_context(0.9) | top_k(3)", HOSTILE, do_sample=True, seed=1))


def test_the_page_holds_everything_it_needs(text: str) -> None:
    """No address but its own anchors; the browser is told to fetch nothing."""
    outline = Outline(text)
    assert not {tag for tag, _ in outline.tags} & {"link", "img", "iframe", "object", "base", "form"}
    assert all(set(attributes) & {"src", "srcset", "action"} == set() for _, attributes in outline.tags)
    assert all(str(link["href"]).startswith("#") for link in outline.all("a"))
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(meta for meta in outline.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'")


def test_what_the_prompt_says_stays_text(text: str) -> None:
    """A prompt cannot bring a script or close a tag."""
    assert len(Outline(text).all("script")) == 1
    assert "&lt;/pre&gt;&lt;script" in text and HOSTILE not in text


def test_each_token_is_a_labelled_disclosure(text: str) -> None:
    """Native details: keyboard and screen readers work without the script."""
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
    """top_k(3) leaves three: the other places stay empty."""
    panel = text[text.index('id="t0"') : text.index('id="t1"')]
    assert panel.count("<td></td><td></td>") == 5


def test_the_terminal_shows_text_and_moves() -> None:
    """Coloured text, and the tokens that moved most with both distributions."""
    console = Console(width=160, record=True, file=StringIO(), force_terminal=True)
    found = look("temperature(0.3)")
    for part in terminal_view(found):
        console.print(part)
    said = console.export_text(styles=True)
    assert (
        "Where the chain moved the distribution most" in said
        and "\x1b[" in said
        and format_bits(found.most_moved(1)[0][1].js_bits) in said
    )
    plain = [str(part) for part in terminal_view(look(""))]
    assert plain[-1] == "The chain left the distribution unchanged at every token."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of the tiny model."""
    path = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


def test_the_command_writes_a_page_and_writes_it_again(folder: str, tmp_path: Path) -> None:
    """--text alone writes none."""
    out = tmp_path / "page.html"
    given = ["inspect", "Once", "--model", folder, "--chain", "temperature(0.5)", "--max-new-tokens", "4"]
    for _ in range(2):
        done = CliRunner().invoke(app, [*given, "-o", str(out)])
        assert done.exit_code == 0, done.output
    assert len([t for t in Outline(out.read_text()).all("details") if t.get("class") == "token"]) == 4
    done = CliRunner().invoke(app, [*given, "--text"])
    assert (
        done.exit_code == 0
        and "Where the chain moved the distribution most" in done.stdout
        and not Path("inspect.html").exists()
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "-o", "page.txt"], "inspect: --out must be a file *.html in a folder that exists, got 'page.txt'"),
        (["a", "-o", "/no/such/folder/a.html"], "in a folder that exists"),
        (["a", "-o", "FOREIGN"], "inspect: --out must be a new file, or a page that inspect wrote"),
        (["a", "--chain", "cfg(scale=-1)"], "cfg: scale must be a finite number >= 0, got -1"),
        (["a", "--file", "b"], "inspect: the prompt must be given once"),
        ([""], "inspect: the prompt must be text"),
    ],
)
def test_bad_input_is_refused_before_a_model_loads(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line, exit status 2."""
    monkeypatch.setattr("logitkit.cli.inspect.load_model", lambda name: pytest.fail("a model was loaded"))
    (tmp_path / "foreign.html").write_text("<p>somebody's page</p>")
    done = CliRunner().invoke(app, ["inspect", *(a.replace("FOREIGN", f"{tmp_path}/foreign.html") for a in arguments)])
    assert done.exit_code == 2 and says in done.output.replace("\n", ""), done.output


@pytest.mark.parametrize("setting", [{"num_beams": 2}, {"num_return_sequences": 2}, {"prompt_lookup_num_tokens": 3}])
def test_only_one_row_is_followed(setting: dict[str, Any]) -> None:
    """Several rows, or rows that are rewound, are refused; so are several prompts."""
    with pytest.raises(ParameterError, match="follows one row"):
        look("", **setting)
    with pytest.raises(ParameterError, match="one prompt"):
        look("", ["a", "b"])
