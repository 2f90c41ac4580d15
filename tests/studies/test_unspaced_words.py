"""The study of prompts that end inside a token in languages without spaces: laws, cuts, a run, and tables by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nltk
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit import models
from logitkit.errors import FileFormatError, MissingPackageError
from logitkit.registry.laws.tiny_models import foreign_model, foreign_tokenizer
from studies import unspaced_words
from studies.cut_characters import CutCharacterMethods, along
from studies.cut_tables import ALIGNED, BOUNDARY, ROWS
from studies.records import read_records
from studies.unspaced_words import LANGUAGES, parser, phrase_ends, results

TEXTS = ["the oth", "an other th", "on the lo", "in the an", "caf\u00e9 on th"]


@pytest.fixture(scope="module")
def methods() -> CutCharacterMethods:
    """The methods on a tiny model whose tokens have up to four characters."""
    return CutCharacterMethods(foreign_model(), foreign_tokenizer())


@pytest.mark.parametrize("text", TEXTS)
def test_the_first_byte_is_that_of_the_other_study(methods: CutCharacterMethods, text: str) -> None:
    """Which has laws of one byte."""
    cut, ids = methods.cut, foreign_tokenizer()(text)["input_ids"]
    pairs = [
        (methods.after(ids)(b""), cut.plain(ids)),
        (methods.byte_boundary(text.encode())(b""), cut.byte_boundary(text.encode())),
        (methods.masked(text.encode())(b""), cut.hard_mask(text.encode())),
    ]
    for got, want in pairs:
        np.testing.assert_allclose(got, want, atol=1e-4)


def masses(methods: CutCharacterMethods, tokens: tuple[int, ...], text: bytes) -> np.ndarray[Any, Any]:
    """Return the mass of each byte after a text that follows these tokens, over all tokenizations; by enumeration."""
    spelled = methods.exact.vocabulary.token_bytes
    with torch.no_grad():
        logits = foreign_model()(torch.tensor([list(tokens)])).logits[0, -1]
    probabilities = logits.double().softmax(-1).numpy()
    found = np.zeros(257)
    for token, probability in enumerate(probabilities[: len(spelled)]):
        own = spelled[token]
        if not text and token in methods.exact.end_tokens:
            found[256] += probability
        elif own and len(own) > len(text) and own.startswith(text):
            found[own[len(text)]] += probability
        elif own and text.startswith(own):
            found += probability * masses(methods, (*tokens, token), text[len(own) :])
    return found


@settings(max_examples=15)
@given(st.sampled_from(TEXTS), st.sampled_from([b"t", b"th", b"\xc3", b" ", b"e", b"\xc3\xa9"]))
def test_bytes_after_tokens_equal_enumeration(text: str, written: bytes) -> None:
    """The law after the tokens of a prompt sums over every tokenization of the bytes."""
    methods = CutCharacterMethods(foreign_model(), foreign_tokenizer())
    ids = tuple(foreign_tokenizer()(text)["input_ids"])
    want = masses(methods, ids, written)
    np.testing.assert_allclose(methods.after(ids)(written), want / want.sum(), atol=1e-5)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("written", [b"e", b"\xc3", b"th"])
def test_the_mask_equals_enumeration(methods: CutCharacterMethods, text: str, written: bytes) -> None:
    """Every token that agrees with the removed bytes is followed, one after the other, by the rule itself."""
    spelled = methods.exact.vocabulary.token_bytes
    trunk, _ = methods.exact.covers.of_text(text.encode())
    removed = text.encode()[len(methods.exact.vocabulary.join(trunk)) :]

    def continued(tokens: tuple[int, ...], mass: float, pending: bytes) -> np.ndarray[Any, Any]:
        if not pending:
            after = methods.after(tokens)
            shares = [after(written[:place])[byte] for place, byte in enumerate(written)]
            return np.asarray(mass * np.prod(shares) * after(written))
        with torch.no_grad():
            logits = foreign_model()(torch.tensor([list(tokens)])).logits[0, -1].double()
        agree = [t for t, own in enumerate(spelled) if own and (own.startswith(pending) or pending.startswith(own))]
        total = np.zeros(257)
        for token, share in zip(agree, logits[agree].softmax(-1).tolist(), strict=True):
            beyond = spelled[token][len(pending) :]
            if len(beyond) > len(written) and beyond.startswith(written):
                total[beyond[len(written)]] += mass * share
            elif written.startswith(beyond) and (beyond or len(spelled[token]) == len(pending)):
                after, rest = methods.after((*tokens, token)), written[len(beyond) :]
                shares = [after(rest[:place])[byte] for place, byte in enumerate(rest)]
                total += mass * share * np.prod(shares) * after(rest)
            elif not beyond:
                total += continued((*tokens, token), mass * share, pending[len(spelled[token]) :])
        return total

    want = continued(tuple(trunk), 1.0, removed)
    np.testing.assert_allclose(methods.masked(text.encode())(written), want / want.sum(), atol=1e-3)


def test_the_loss_of_a_character_is_that_of_its_bytes(methods: CutCharacterMethods) -> None:
    """The exact law follows the chain rule, up to the mass of tokens that the tokenizer never writes."""
    text, character = b"on th", "\u00e9".encode()
    laws = [methods.byte_boundary(text)(character[:place]) for place in range(2)]
    _, bits = along(methods.byte_boundary(text), character)
    assert bits == pytest.approx(-sum(np.log2(law[byte]) for law, byte in zip(laws, character, strict=True)))
    tree = methods.exact
    exact = [float(tree.distribution(text + character[:n], conditioning=()).logp[character[n]]) for n in range(2)]
    assert bits <= -sum(exact) / np.log(2) + 1e-6


def test_the_last_token_boundary(methods: CutCharacterMethods) -> None:
    """The text is "on", " the"; the cut lies in the second token."""
    ids, following = methods.at_token_boundary("on th", "e")
    assert foreign_tokenizer().decode(ids) == "on" and following == " "


def test_ends_of_phrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a line and between letters alone, in the phrases that BudouX finds."""
    text = "\u4eca\u65e5\u306f\u826f\u3044\u5929\u6c17\u3067\u3059\u3002\n\n\u4eca\u65e5\u306f\u826f\u3044"
    assert list(phrase_ends("Japanese", text)) == [3, 5, 15]
    monkeypatch.setitem(sys.modules, "budoux", None)
    with pytest.raises(MissingPackageError, match=r"unspaced_words: budoux must be installed, .*logitkit\[test\]"):
        parser.__wrapped__("Thai")


def test_a_missing_corpus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that downloads it."""
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(FileFormatError, match=r"must have the corpus udhr2, got none; run: python -m nltk\.downloader"):
        unspaced_words.declaration("Thai")


def test_the_study_runs_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger run adds the cuts that are missing, and the ends of phrases are counted once."""
    monkeypatch.setattr(models, "load", lambda name: (foreign_model(), foreign_tokenizer()))
    monkeypatch.setattr(models, "load_tokenizer", lambda name: foreign_tokenizer())
    monkeypatch.setattr(unspaced_words, "declaration", lambda language: 9 * "on the other per " + "\n")
    parts = SimpleNamespace(parse=lambda line: line.replace("th", "th|").replace("er", "e|r").split("|"))
    monkeypatch.setattr(unspaced_words, "parser", lambda language: parts)
    monkeypatch.setattr(unspaced_words, "publish", lambda tables, page: None)
    for count in (2, 3):
        unspaced_words.main(model="tiny", count=count, out=tmp_path / "out.jsonl")
        records = read_records(tmp_path / "out.jsonl")
        assert [record["ends"] for record in records if "ends" in record] == [35, 35, 35]
        assert [record["distinct"] for record in records if "distinct" in record] == [3, 3, 3]
        cuts = [record["cut"] for record in records if "cut" in record]
        assert len(cuts) == len(set(cuts)) == count * len(LANGUAGES)


def test_the_tables_by_hand() -> None:
    """Every language has 4 cuts; byte_boundary is right at all, the mask at half, and 1 bit better than the mask."""
    methods = {**dict.fromkeys(ROWS.values(), (False, 9.0)), ROWS["mask"]: (None, 3.0), ALIGNED: (True, 1.0)}
    records: list[dict[str, Any]] = [
        {"kind": language, "ends": 50, "inside": 10, "distinct": 4} for language in LANGUAGES
    ]
    for language in LANGUAGES:
        for number in range(4):
            hits = {method: right if right is not None else number % 2 == 0 for method, (right, _) in methods.items()}
            losses = {method: loss for method, (_, loss) in methods.items() if method != ROWS["healing"]}
            records.append({"kind": language, "hits": {**hits, BOUNDARY: True}, "losses": {**losses, BOUNDARY: 2.0}})
    tables = results(records)
    assert "| Thai | 50 | 10 | 0.200 | 4 |" in tables["ends"]
    assert "| Thai | 4 | byte_boundary | 1.000 [" in tables["characters"]
    assert "| all | 12 | hard mask | 0.500 [" in tables["characters"]
    assert "| all: byte_boundary - hard mask | bits a character | 12 | -1.000 [" in tables["comparisons"]
    assert "| all | hard mask | 2.00 [2.00, 2.00] |" in tables["factors"]
    assert tables["comparisons"].count("\n") == 1 + 4 * 5
