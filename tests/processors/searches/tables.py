"""A model of four tokens whose every text can be listed, and a search on many copies of one prompt at once."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tests.fakes import seeded
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from logitkit.processors.engine import Trace
from logitkit.processors.searches import BoundSearch, Search

VOCAB, END, PROMPT, LENGTH = 4, 3, (0, 1), 3
Text = tuple[int, ...]


@functools.cache
def four_token_model(seed: int = 0) -> Any:
    """Return a random Llama of four tokens; token 3 ends a text."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=END,
        pad_token_id=0,
    )
    return seeded(lambda: LlamaForCausalLM(config), seed)


def every_text(length: int = LENGTH) -> list[Text]:
    """Return every text of at most this many tokens that ends with the end token, or has all of them."""
    others = [token for token in range(VOCAB) if token != END]
    ended = [(*text, END) for count in range(length) for text in itertools.product(others, repeat=count)]
    return ended + list(itertools.product(others, repeat=length))


@functools.cache
def log_law(seed: int = 0, length: int = LENGTH) -> dict[Text, float]:
    """Return the log-probability of every text after the prompt, by a forward over each text without a cache."""
    texts = every_text(length)
    logp = {}
    for text in texts:
        with torch.no_grad():
            logits = four_token_model(seed)(torch.tensor([[*PROMPT, *text]])).logits[0]
        laws = logits.double().log_softmax(-1)[len(PROMPT) - 1 : -1]
        logp[text] = float(laws.gather(-1, torch.tensor(text)[:, None]).sum())
    return logp


def normalised(gamma: Mapping[Text, float]) -> tuple[dict[Text, float], float]:
    """Return the distribution of unnormalised probabilities, and their sum."""
    total = sum(gamma.values())
    return {text: value / total for text, value in gamma.items()}, total


class Runs:
    """Many independent runs of a search on one prompt, as the prompts of one `generate`.

    Attributes:
        texts: of each particle of each run.
        log_weights: normalised, ``[runs, particles]``.
        log_z: of each run.
    """

    def __init__(self, make: Callable[[], Search], *, runs: int, particles: int, seed: int, **settings: Any) -> None:
        trace = Trace()
        search = BoundSearch(make(), trace=trace)
        torch.manual_seed(seed)
        ids = four_token_model().generate(
            torch.tensor([PROMPT]).expand(runs, -1),
            attention_mask=torch.ones(runs, len(PROMPT), dtype=torch.long),
            custom_generate=search,
            **{"do_sample": True, "top_k": 0, "num_return_sequences": particles, "max_new_tokens": LENGTH, **settings},
        )
        self.ids: Tensor = ids
        self.texts = [ended(row) for row in ids[:, len(PROMPT) :].tolist()]
        assert search.log_weights is not None and trace.search is not None
        self.log_weights, self.report = search.log_weights, trace.search
        self.log_z = torch.tensor(trace.search.log_z, dtype=torch.float64)

    def shares(self, text: Text) -> Tensor:
        """Return the weight of a text in each run, ``[runs]``."""
        hits = torch.tensor([each == text for each in self.texts]).view_as(self.log_weights)
        return (self.log_weights.exp() * hits).sum(-1)


def ended(row: list[int]) -> Text:
    """Return the tokens of a row up to the end token."""
    return tuple(row[: row.index(END) + 1] if END in row else row)
