"""`ByteTree` against the enumeration of all covers on random tokenizers, and on a real model."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from fakes import absolute_model, encoder_decoder_model, sliding_model
from logitkit.errors import ModelError, ParameterError
from logitkit.processors.byte_level import ByteTree
from logitkit.processors.byte_level.tree import STATES_KEPT
from logitkit.processors.engine.kv_tree import ROOM, SLACK
from logitkit.processors.engine.tree_forward import TreeForward
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from real_tokenizers import real_tokenizer
from reference.byte_covers import Enumeration, random_model, random_tokenizer

LETTERS = b"ab "
TEXTS = st.text("ab ", min_size=0, max_size=6).map(str.encode)


def close(got: float, want: float, atol: float = 1e-5) -> bool:
    """Return whether two values are equal within 1e-5 nats, or both -inf."""
    return got == want or abs(got - want) <= atol


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), text=TEXTS, split=st.booleans())
def test_equals_enumeration(seed: int, text: bytes, split: bool) -> None:
    """P(text), the next-byte distribution and the end are those of the enumeration of canonical covers."""
    tokenizer = random_tokenizer(seed, split=split)
    model = random_model(tokenizer, seed).double()  # fp32 differs by more than 1e-5 at some seeds
    slow, tree = Enumeration(model, tokenizer), ByteTree(model, tokenizer)
    assert close(tree.logp(text), slow.logp(text))
    distribution = tree.distribution(text)
    for letter, want in slow.distribution(text, LETTERS).items():
        assert close(float(distribution.logp[letter]), want), letter
    assert float(distribution.logp.exp().sum()) + distribution.leak == pytest.approx(1, abs=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", max_size=5).map(str.encode))
def test_all_covers_equal_enumeration(seed: int, text: bytes) -> None:
    """With covers of kind ``all``, the distribution is that of the enumeration of every tokenization."""
    tokenizer = random_tokenizer(seed)
    model = random_model(tokenizer, seed)
    slow, tree = Enumeration(model, tokenizer, canonical=False), ByteTree(model, tokenizer, covers="all")
    assert close(tree.logp(text), slow.logp(text))
    distribution = tree.distribution(text)
    for letter, want in slow.distribution(text, LETTERS).items():
        assert close(float(distribution.logp[letter]), want), letter


def test_by_hand() -> None:
    """P("a") is the probability of all tokens that begin with "a" and may begin a text."""
    tokenizer = random_tokenizer(4, merges=10)
    model = random_model(tokenizer, 4)
    tree = ByteTree(model, tokenizer)
    with torch.no_grad():
        p = model(torch.tensor([[tokenizer.bos_token_id]])).logits[0, -1].softmax(-1)
    allowed = tree.covers.rule.successors(())
    mass = sum(
        float(p[i]) for i, text in enumerate(tree.vocabulary.token_bytes) if text and text[:1] == b"a" and allowed[i]
    )
    assert tree.logp(b"a") == pytest.approx(math.log(mass), abs=1e-6)
    assert tree.logp(b"") == 0.0 and tree.logp(b"z") == -math.inf


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), text=st.text("ab ", min_size=1, max_size=12).map(str.encode))
def test_the_chain_rule(seed: int, text: bytes) -> None:
    """Next-byte probabilities multiply to P(text), also as a fresh tree computes it."""
    tokenizer = random_tokenizer(seed % 50)
    model = random_model(tokenizer, seed % 50)
    tree = ByteTree(model, tokenizer)
    total = sum(float(tree.next_byte(text[:place])[text[place]]) for place in range(len(text)))
    fresh = ByteTree(model, tokenizer).logp(text)
    assert close(total, fresh, 1e-4) and close(tree.logp(text), fresh, 1e-4)


def test_texts_are_answered_in_any_order() -> None:
    """Rewound, forked and repeated texts have the distributions that a fresh tree gives to each alone."""
    tokenizer = random_tokenizer(11)
    model = random_model(tokenizer, 11)
    tree = ByteTree(model, tokenizer)
    texts = [b"ab a", b"ab ab", b"a", b"", b"ab ab b", b"bb", b"ab a", b"ab aab a b"]
    together = ByteTree(model, tokenizer).distributions(texts)
    for text, distribution in zip(texts, together, strict=True):
        alone = ByteTree(model, tokenizer).distribution(text)
        for got in (tree.distribution(text), distribution):
            torch.testing.assert_close(got.logp.exp(), alone.logp.exp(), rtol=0, atol=1e-5)


def test_the_bound_holds() -> None:
    """With a tolerance, the exact log-probability lies between the computed one and the computed one plus the bound."""
    left_out = 0
    for seed in range(12):
        tokenizer = random_tokenizer(seed, merges=10)
        model = random_model(tokenizer, seed)
        rough, exact = ByteTree(model, tokenizer, tolerance=0.2), ByteTree(model, tokenizer)
        text = b"abab aab bab "
        for place in range(1, len(text) + 1):
            distribution = rough.distribution(text[:place])
            miss = exact.logp(text[:place]) - rough.logp(text[:place])
            assert -1e-5 <= miss <= distribution.bound + 1e-5
            left_out += miss > 1e-4
    assert left_out


def test_a_tolerance_with_all_covers_ends_and_keeps_the_bound() -> None:
    """A text that only pruned hypotheses reach is followed again without pruning."""
    tokenizer = random_tokenizer(3, merges=10)
    model = random_model(tokenizer, 3)
    rough, exact = (ByteTree(model, tokenizer, covers="all", tolerance=tolerance) for tolerance in (0.1, 0.0))
    for text in (b"ab", b"ab a", b"ab ab b", b"b\xff", b"zz"):
        want, got = exact.logp(text), rough.logp(text)
        assert got == want or -1e-5 <= want - got <= rough.distribution(text).bound + 1e-5


def test_fewer_forwards_with_a_tolerance() -> None:
    """A byte costs at most one forward without a tolerance, and fewer with one."""
    tokenizer = random_tokenizer(4, merges=10)
    model = random_model(tokenizer, 4)
    text = b"abab aab bab aab ab"
    counts = []
    for tolerance in (0.0, 0.2):
        tree = ByteTree(model, tokenizer, tolerance=tolerance)
        for place in range(len(text)):
            tree.distribution(text[:place])
        counts.append(tree.forwards)
    assert counts[1] < counts[0] <= len(text) + 1


def test_without_a_begin_token_the_first_shared_token_is_known() -> None:
    """The first shared token has probability 1; a text whose covers share no token is refused."""
    tokenizer = random_tokenizer(11)
    model = random_model(tokenizer, 11)
    tree = ByteTree(model, tokenizer, bos=None)
    text = b"ab a b ab b"
    distribution = tree.distribution(text)
    assert float(distribution.logp.exp().sum()) + distribution.leak == pytest.approx(1, abs=1e-5)
    first = tree.covers.of_text(text)[0][0]
    with_bos = ByteTree(model, tokenizer, bos=first)
    rest = text[len(tree.vocabulary.token_bytes[first] or b"") :]
    assert tree.logp(text) == pytest.approx(with_bos.logp(rest), abs=1e-4)
    with pytest.raises(ModelError, match="must come after a token"):
        tree.distribution(b"")


def test_bytes_that_are_not_utf8() -> None:
    """Any tokenization of bytes that are not UTF-8 counts, so a distribution follows them."""
    tree = ByteTree(tiny_model(), tiny_tokenizer())
    for text in (b"ab\xff", b"\xe4\xb8", b"\xc3(", b"a\x80b"):
        distribution = tree.distribution(text)
        assert math.isfinite(tree.logp(text)) and float(
            distribution.logp.exp().sum()
        ) + distribution.leak == pytest.approx(1, abs=1e-5)


def test_long_texts_stay_finite_and_bounded() -> None:
    """After 10,000 bytes, values are finite, and the caches hold no more than what is needed."""
    tokenizer = random_tokenizer(4, merges=10)
    model = random_model(tokenizer, 4, max_position_embeddings=20_000)
    tree = ByteTree(model, tokenizer)
    text = b"ab aab b " * 1200
    assert len(text) > 10_000 and math.isfinite(tree.logp(text[:10_000]))
    for place in range(10_000, 10_400):
        assert math.isfinite(tree.logp(text[:place]))
    assert len(tree.kv_tree) < len(tokenizer(text[:10_400].decode())["input_ids"]) + 2 * SLACK
    assert tree.cached_texts <= STATES_KEPT + 1


def test_earlier_texts_leave_the_cache() -> None:
    """Unrelated texts do not accumulate in the KV cache, and dropped texts are read again correctly."""
    tokenizer = random_tokenizer(4, merges=10)
    model = random_model(tokenizer, 4, max_position_embeddings=20_000)
    tree, generator = ByteTree(model, tokenizer), random.Random(0)
    texts = ["".join(generator.choices("ab ", k=1500)).encode() for _ in range(12)]
    for text in texts:
        tree.distribution(text)
        assert len(tree.kv_tree) <= 1.5 * ROOM + SLACK
    forwards = tree.forwards
    tree.distribution(texts[-1]), tree.distribution(texts[-2])
    assert tree.forwards == forwards  # the last texts are still cached
    for text in (texts[0], texts[-1]):
        fresh = ByteTree(model, tokenizer).distribution(text)
        torch.testing.assert_close(tree.distribution(text).logp.exp(), fresh.logp.exp(), rtol=0, atol=1e-5)


def test_bad_input() -> None:
    """Each invalid argument has one named error."""
    tokenizer = random_tokenizer(0)
    model = random_model(tokenizer)
    with pytest.raises(ParameterError, match=r"tolerance must be a share >= 0 and < 1, got 1\.5"):
        ByteTree(model, tokenizer, tolerance=1.5)
    with pytest.raises(ParameterError, match="covers must be 'canonical' or 'all', got 'some'"):
        ByteTree(model, tokenizer, covers="some")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="must have at most 512 tokens"):
        ByteTree(model, tokenizer).logp(b"a b " * 600)
    with pytest.raises(ModelError, match="must be causal with attention in all layers"):
        ByteTree(encoder_decoder_model(), tiny_tokenizer())
    inner = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    inner.normalizer = normalizers.Lowercase()
    lossy = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>")
    with pytest.raises(ModelError, match="its normalizer Lowercase changes text; pass lossy=True"):
        ByteTree(model, lossy)
    assert math.isfinite(ByteTree(model, lossy, lossy=True).logp(b"ab"))


@pytest.mark.parametrize("kind", [sliding_model, absolute_model])
def test_other_architectures(kind: Any) -> None:
    """With a sliding window and absolute positions, P(text) is that of one reading of single-byte tokens."""
    model, tokenizer = kind(), tiny_tokenizer()
    text = b"some text, longer than the window"
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text.decode())["input_ids"]]])
    with torch.no_grad():
        logp = model(ids).logits[0].log_softmax(-1)
    want = float(logp[:-1].gather(1, ids[0, 1:, None]).double().sum())
    tree = ByteTree(model, tokenizer)
    assert tree.logp(text) == pytest.approx(want, abs=1e-3)
    total = tree.logp(text[:5]) + sum(float(tree.next_byte(text[:n])[text[n]]) for n in range(5, len(text)))
    assert total == pytest.approx(want, abs=1e-3)


def test_an_interrupted_forward_leaves_no_wrong_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interrupted forward, the next text is read from scratch."""
    tokenizer = random_tokenizer(11)
    model = random_model(tokenizer, 11)
    tree, want = ByteTree(model, tokenizer), ByteTree(model, tokenizer).logp(b"ab ab b")
    tree.logp(b"ab ab")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TreeForward, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tree.logp(b"ab ab b")
    monkeypatch.undo()
    assert tree.logp(b"ab ab b") == pytest.approx(want, abs=1e-5)


REAL = [
    "In a village of La Mancha there lived, not long since, one of those gentlemen",
    'def add(a, b):\n    """Add 12 and 345."""\n\n    return a + b\n',
    "naïve 🎉👩‍👩‍👧 日本語のテキスト",
    "a  b \n\n\t c   \r\n 3.14159, 2,000",
]


def token_logp(model: Any, tokenizer: Any, text: str, begin: int) -> float:
    """Return the log-probability of the tokenizer's own encoding after the begin token."""
    ids = torch.tensor([[begin, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        logp = model(ids).logits[0].log_softmax(-1)
    return float(logp[:-1].gather(1, ids[0, 1:, None]).double().sum())


def test_a_real_model_gives_bytes_at_least_what_it_gives_tokens(smollm2: tuple[Any, Any]) -> None:
    """P(text) over bytes is at least the probability of the tokenizer's encoding, on texts of six kinds."""
    tree = ByteTree(*smollm2)
    for text in REAL:
        spelled = text.encode()
        bytes_, tokens = tree.logp(spelled), token_logp(*smollm2, text, smollm2[1].bos_token_id)
        assert tokens - 1e-3 <= bytes_ < tokens + 12
        distribution = tree.distribution(spelled)
        assert float(distribution.logp.exp().sum()) + distribution.leak == pytest.approx(1, abs=1e-4)


@pytest.mark.data
@pytest.mark.parametrize("name", ["qwen2_5", "mistral_v1"])
def test_other_real_tokenizers(shared_tokenizers: Path, name: str) -> None:
    """With a random model, P(text) is at least the probability of the encoding of real tokenizers."""
    tokenizer = real_tokenizer(shared_tokenizers / name)
    begin = tokenizer.convert_tokens_to_ids({"qwen2_5": "<|endoftext|>", "mistral_v1": "<s>"}[name])
    model = random_model(tokenizer, vocab_size=len(tokenizer))  # the rules are kept for this size
    tree = ByteTree(model, tokenizer, bos=begin)
    for text in REAL:
        assert tree.logp(text.encode()) >= token_logp(model, tokenizer, text, begin) - 1e-2
