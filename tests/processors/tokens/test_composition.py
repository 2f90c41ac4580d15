"""NFC over token seams, and characters that no token can complete."""

from __future__ import annotations

import itertools
import unicodedata
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from logitkit.processors.byte_level import ByteTree
from logitkit.processors.byte_level.covers import Covers
from logitkit.processors.tokens import CanonicalRules, Vocabulary
from logitkit.processors.tokens.token_bytes import byte_alphabet
from reference.byte_covers import random_model

CHARACTER_OF = {byte: char for char, byte in byte_alphabet().items()}


def composing(merges: list[tuple[bytes, bytes]] | None = None, *, alphabet: bytes = bytes(range(256))) -> Any:
    """Return a byte-level tokenizer that normalizes to NFC and has the GPT-2 pretokenizer."""
    written = [tuple("".join(CHARACTER_OF[byte] for byte in part) for part in pair) for pair in merges or []]
    tokens = [*(CHARACTER_OF[byte] for byte in alphabet), *("".join(pair) for pair in written)]
    known = {token: number for number, token in enumerate(tokens)}
    inner = Tokenizer(models.BPE(vocab=known, merges=written))
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def rules_of(tokenizer: Any) -> CanonicalRules:
    """Return the rules of a tokenizer."""
    return CanonicalRules(tokenizer, Vocabulary.of(tokenizer))


def allowed(rules: CanonicalRules, tokens: list[int]) -> bool:
    """Return whether the rules allow a whole sequence."""
    context: tuple[int, ...] = ()
    for token in tokens:
        if not rules.allows(context, token):
            return False
        context = rules.extend(context, token)
    return True


@pytest.mark.parametrize("merged", [False, True])
def test_a_sequence_is_allowed_if_its_text_is_in_nfc(merged: bool) -> None:
    """Over letters, marks of several classes and Hangul, exactly the texts that NFC leaves unchanged are allowed."""
    marks = ["\u0301", "\u0323", "\u0329", "\u0338"]
    merges = [(mark.encode()[:1], mark.encode()[1:]) for mark in marks] if merged else []
    rules = rules_of(composing(merges))
    pieces = ["a", "x", "s", " ", *marks, "\u1100", "\u1161", "\u11a8", "한"]
    refused = 0
    for count, step in ((2, 1), (3, 7), (4, 101)):
        for chosen in itertools.islice(itertools.product(pieces, repeat=count), 0, None, step):
            text = "".join(chosen)
            tokens = [token for piece in chosen for token in rules.encode(piece)]
            refused += not unicodedata.is_normalized("NFC", text)
            assert allowed(rules, tokens) == unicodedata.is_normalized("NFC", text), ascii(text)
    assert refused > 50


def test_no_mass_for_text_that_is_composed() -> None:
    """Behind "a", the bytes of U+0301 have probability 0; those of U+0305, which composes with nothing, have some."""
    tokenizer = composing()
    tree = ByteTree(random_model(tokenizer, 2), tokenizer)
    after = tree.next_byte(b"a\xcc")
    assert float(after[0x81]) == -float("inf") and float(after[0x85]) > -float("inf")


@pytest.mark.parametrize("begun", ["", "x", "\u00e9 "])
def test_text_that_is_composed_has_probability_0(begun: str) -> None:
    """The log-probability of a text obeys the chain rule, also where the tokenizer composes it, and stays -inf."""
    tokenizer = composing()
    tree = ByteTree(random_model(tokenizer, 2), tokenizer)
    for text in (f"{begun}a\u0301", f"{begun}a\u0305", f"{begun}e\u0300"):
        before, last = text.encode()[:-1], text.encode()[-1]
        assert tree.logp(text.encode()) == pytest.approx(tree.logp(before) + float(tree.next_byte(before)[last]))
    assert tree.logp(f"{begun}a\u0305".encode()) > -float("inf")
    for tail in ("\u0301", "\u0301x", "\u0301" + "y" * 40):
        assert ByteTree(tree.model, tokenizer).logp(f"{begun}a{tail}".encode()) == -float("inf")
        assert tree.logp(f"{begun}a{tail}".encode()) == -float("inf")


def test_own_tokens_stop_where_the_tokenizer_changes_the_text() -> None:
    """The shared tokens of a text that is not in NFC spell its beginning, not the composed text."""
    tokenizer = composing()
    covers = Covers.of(tokenizer, Vocabulary.of(tokenizer))
    text = ("x" * 30 + "a\u0301" + "y" * 40).encode()
    shared, hypotheses = covers.of_text(text)
    assert text.startswith(covers.trie.join(shared)) and len(shared) > 20
    spelled = {covers.trie.join([*shared, *hypothesis.tokens]) for hypothesis in hypotheses}
    assert spelled and all(text.startswith(each) for each in spelled)


def test_a_token_whose_character_nothing_completes() -> None:
    """Where each character of a lead byte is one merged token, the lead byte alone is never written."""
    tokenizer = composing([(b"\xc3", b"\xa9")], alphabet=b"ab \xc3\xa9")
    rules = rules_of(tokenizer)
    (lead,) = rules.vocabulary.ids_of[b"\xc3"]
    assert not rules.allows((), lead) and rules.allows((), rules.vocabulary.ids_of[b"\xc3\xa9"][0])
    live = rules_of(composing([(b"\xc3", b"\xa9")], alphabet=b"ab \xc3\xa9\xa8"))
    assert live.allows((), live.vocabulary.ids_of[b"\xc3"][0])
