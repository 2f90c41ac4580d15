"""The acceptance law of byte probabilities: a text is at least as likely by bytes as by the tokenizer's own tokens.

The sum over covers keeps the law exactly if the tokenizer's own encoding is one of the covers. Thousands of texts are
checked by the rules alone; the law itself is checked under a random distribution of single tokens, which needs no
model, and for a few texts with a random model. `tests/processors/tokens/test_tokens_behind_text.py` checks the law on
six more tokenizers, trained with the patterns of other models.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path

import pytest
import torch

from logitkit.processors.byte_level import ByteTree
from logitkit.processors.tokens import CanonicalRules
from real_tokenizers import real_covers, real_rules, real_tokenizer
from reference.byte_covers import random_model
from reference.texts_of_all_kinds import text_of_all_kinds
from reference.unigram_covers import UnigramCovers

REAL = ("gpt2", "gpt-neox-20b", "mistral_nemo", "mistral_v1", "qwen2_5", "yi")
CASES = (  # texts whose own encoding was missing among the covers
    "Hello \u2003world",
    "_ \u2003\U00010100",
    "'s\x00  \u1680\u200b",
    "a \u1680b",
    "x\U00011047y",
)


@functools.cache
def law_of(path: Path) -> UnigramCovers:
    """Return the covers of a tokenizer under a random distribution of tokens."""
    return UnigramCovers(real_tokenizer(path), covers=real_covers(path))


def own_encoding_is_a_cover(rules: CanonicalRules, text: str) -> bool:
    """Return whether the rules allow the tokenizer's own encoding of a text; True where the tokens lose bytes."""
    tokens = rules.encode(text)
    context: tuple[int, ...] = ()
    if rules.vocabulary.join(tokens) != text.encode():
        return True
    for token in tokens:
        if not rules.allows(context, token):
            return False
        context = rules.extend(context, token)
    return rules.may_end(context)


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_the_own_encoding_is_a_cover(shared_tokenizers: Path, name: str) -> None:
    """The rules allow the tokenizer's own encoding of each of 340 texts and of the known cases."""
    rules = real_rules(shared_tokenizers / name)
    generator = random.Random(1)
    texts = [*CASES, *(text_of_all_kinds(generator) for _ in range(340))]
    assert [text for text in texts if not own_encoding_is_a_cover(rules, text)] == []


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(4 * 3600)  # up to 20 minutes of processor time (Qwen2.5)
@pytest.mark.parametrize("name", REAL)
def test_the_own_encoding_is_a_cover_of_many_texts(shared_tokenizers: Path, name: str) -> None:
    """The rules allow the tokenizer's own encoding of each of 3,000 more texts."""
    rules = real_rules(shared_tokenizers / name)
    generator = random.Random(2)
    texts = [text_of_all_kinds(generator) for _ in range(3_000)]
    assert [text for text in texts if not own_encoding_is_a_cover(rules, text)] == []


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_the_law_under_a_distribution_of_tokens(shared_tokenizers: Path, name: str) -> None:
    """The law holds for 60 texts and the known cases under a random distribution of single tokens."""
    law, generator = law_of(shared_tokenizers / name), random.Random(4)
    texts = [*CASES, *(text_of_all_kinds(generator) for _ in range(60))]
    assert [text for text in texts if not law.keeps_the_law(text)] == []
    assert sum(law.by_tokens(text) is not None for text in texts) > 50


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(4 * 3600)  # up to 20 minutes of processor time (Qwen2.5)
@pytest.mark.parametrize("name", REAL)
def test_the_law_on_many_texts(shared_tokenizers: Path, name: str) -> None:
    """The law holds for 3,000 more texts under a random distribution of single tokens."""
    law, generator = law_of(shared_tokenizers / name), random.Random(2)
    texts = [text_of_all_kinds(generator) for _ in range(3_000)]
    assert [text for text in texts if not law.keeps_the_law(text)] == []


@pytest.mark.data
def test_bytes_are_at_least_as_likely_as_tokens(shared_tokenizers: Path) -> None:
    """With a random model over GPT-2's tokens, the log-probability by bytes is at least the one by tokens."""
    tokenizer, rules = real_tokenizer(shared_tokenizers / "gpt2"), real_rules(shared_tokenizers / "gpt2")
    model = random_model(tokenizer, 5, vocab_size=len(tokenizer))  # the rules are kept for this size
    tree = ByteTree(model, tokenizer)
    generator = random.Random(3)
    for text in [*CASES, *(text_of_all_kinds(generator) for _ in range(15))]:
        tokens = rules.encode(text)
        rows = torch.tensor([[tokenizer.bos_token_id, *tokens]])
        with torch.no_grad():
            logp = model(rows).logits[0, :-1].log_softmax(-1)
        by_tokens = float(logp.gather(1, rows[0, 1:, None]).sum())
        assert tree.logp(text.encode()) >= by_tokens - 1e-3, text
