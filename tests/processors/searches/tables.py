"""A model of four tokens whose every text can be listed, and a search on many copies of one prompt at once."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tests.fakes import seeded
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from logitkit.processors.engine import Trace
from logitkit.processors.searches import BoundSearch, Search
from logitkit.registry.laws import tiny_model, tiny_tokenizer

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


class NoTwice:
    """No token follows itself."""

    def allowed(self, rows: Tensor) -> Tensor:
        allowed = torch.ones(len(rows), VOCAB, dtype=torch.bool)
        tails = rows[:, len(PROMPT) :]
        if tails.shape[1]:
            allowed.scatter_(1, tails[:, -1:], tails[:, -1:] == END)
        return allowed


def keeps(text: Text) -> bool:
    """Whether a text has ended and keeps `NoTwice`."""
    return text[-1] == END and all(one != other for one, other in itertools.pairwise(text))


ERRORS = 4.9  # standard errors of a mean that is taken for right


def assert_unbiased(runs: Runs, gamma: Mapping[Text, float]) -> None:
    """Compare the means of Z and of the weight of every text with an enumeration, by the standard error of the runs.

    For every text x, ``Z_hat`` times the weight of x is an unbiased estimate of ``gamma(x)``. Texts with less than a
    hundredth of Z are added up, since the mean of a rare event has no normal error.
    """
    z_hat, total = runs.log_z.exp(), sum(gamma.values())
    likely = [x for x, value in gamma.items() if value > 0.01 * total]
    estimates = {"Z": (z_hat, total)} | {str(x): (z_hat * runs.shares(x), gamma[x]) for x in likely}
    rest = z_hat * (1 - sum(runs.shares(x) for x in likely))
    estimates["rare texts"] = rest, total - sum(gamma[x] for x in likely)
    for what, (values, want) in estimates.items():
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - want) <= ERRORS * error + 1e-6, what


def assert_shares(call: Any, texts: list[str], particles: int) -> None:
    """Compare the weight of each text after the prompt "ab" with its share of the probability of all these texts."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    scores = []
    for text in texts:
        ids = torch.tensor([[*tokenizer("ab")["input_ids"], *tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logp = model(ids).logits[0, :-1].double().log_softmax(-1)
        scores.append(float(logp.gather(-1, ids[0, 1:, None])[1:].sum()))
    torch.manual_seed(0)
    got = call.texts(call.generate(max_new_tokens=12, num_return_sequences=particles))
    weights = call.search.log_weights[0].exp()
    for text, want in zip(texts, torch.tensor(scores).double().softmax(-1).tolist(), strict=True):
        share = sum(float(weight) for weight, each in zip(weights, got, strict=True) if each == text)
        assert abs(share - want) < 0.08, (text, share, want)
