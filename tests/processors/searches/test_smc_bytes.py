"""Targets of several models with unlike tokenizers, over bytes, against the enumeration of texts and covers.

Each test draws 400 runs; the false-alarm rate is that of `test_smc`: about once in 30,000 tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.processors.searches.tables import assert_unbiased
from torch import Tensor

import logitkit
from logitkit.errors import ModelError
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.registry.laws import foreign_tokenizer, tiny_model, tiny_tokenizer
from reference.byte_distributions import SlowBytes, tiny

RUNS, PARTICLES, LENGTH, PROMPT = 400, 6, 3, "ab"
MEANS: dict[str, Callable[[float, float], float]] = {
    "product": lambda p, q: (p * q) ** 0.5,
    "min": min,
    "power_mean": lambda p, q: 2 / (1 / p + 1 / q),
}


class ByteRuns:
    """Many independent runs on one prompt; the attributes are those of `Runs`, with bytes as texts."""

    def __init__(self, chain: str, main: Any, other: Any, tokenizers: Any = None) -> None:
        call = logitkit.chain(chain).bind(main, byte_tokenizer(), [PROMPT] * RUNS, b=other, tokenizers=tokenizers)
        torch.manual_seed(2)
        ids = call.generate(max_new_tokens=LENGTH, num_return_sequences=PARTICLES)
        tails = ids[:, len(PROMPT) :].tolist()
        self.texts = [_text(row) for row in tails]
        search, report = call.search, call.trace.search
        assert search is not None and search.log_weights is not None and report is not None
        self.log_weights = search.log_weights
        self.log_z, self.report = torch.tensor(report.log_z, dtype=torch.float64), report

    def shares(self, text: bytes) -> Tensor:
        """Return the weight of a text in each run, ``[runs]``."""
        hits = torch.tensor([each == text for each in self.texts]).view_as(self.log_weights)
        return (self.log_weights.exp() * hits).sum(-1)


def _text(row: list[int]) -> bytes:
    """Return the bytes of a row up to its end, which is 0xff."""
    ended = row[: row.index(256)] if 256 in row else row
    return bytes(ended) + (b"\xff" if 256 in row else b"")


@pytest.mark.parametrize("target", MEANS)
def test_the_target_is_the_mean_of_the_byte_probabilities(target: str) -> None:
    """Two models over letters with tokenizers of unlike tokens; a plain model is read over bytes, too."""
    ours, theirs = tiny(3), tiny(5)
    assert ours[1].get_vocab() != theirs[1].get_vocab()
    p, q = (SlowBytes(*pair).texts(PROMPT.encode(), LENGTH) for pair in (ours, theirs))
    gamma = {text: MEANS[target](p[text], q[text]) for text in p}
    chain = f"smc({PARTICLES}, target='{target}', models=['b'], ess=0.7)"
    runs = ByteRuns(chain, ByteModel(*ours), theirs[0], tokenizers={"b": theirs[1]})
    assert_unbiased(runs, gamma)


def test_all_particles_share_the_forwards_of_both_models() -> None:
    """Eight particles of two prompts: the other model runs one forward of bytes a step."""
    call = logitkit.chain("smc(8, target='product', models=['b'])").bind(
        ByteModel(*tiny(3)), byte_tokenizer(), ["ab", "b a"], b=ByteModel(*tiny(5))
    )
    call.generate(max_new_tokens=5, min_new_tokens=5)
    report = call.trace.plain().search
    assert report is not None and report.forwards == 5 and list(call.trace.forwards.values()) == [5]
    assert report.peak_cache_bytes > 0


def test_models_over_tokens_must_share_a_tokenizer() -> None:
    """The error names the way out; a tokenizer over tokens under a model over bytes is refused as well."""
    other = {"b": tiny_model(1), "tokenizers": {"b": foreign_tokenizer()}}
    chain = logitkit.chain("smc(4, target='min', models=['b'])")
    with pytest.raises(ModelError, match=r"smc: model 'b' must have the tokenizer .* use the ensemble or bytes"):
        chain.bind(tiny_model(), tiny_tokenizer(), "ab", **other)
    with pytest.raises(ModelError, match="smc: tokenizer must be the byte tokenizer"):
        chain.bind(ByteModel(*tiny(3)), tiny_tokenizer(), "ab", b=tiny_model(1))
