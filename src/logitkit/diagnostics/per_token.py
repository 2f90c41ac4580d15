"""The log-probability of each token of a text under a model, beside mean and deviation over the vocabulary."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
from torch import Tensor

from logitkit.errors import ModelError, PromptError
from logitkit.processors.model_facts import context_length

POSITIONS = 64  # whose distributions are held in double precision at the same time


class TokenStatistics(NamedTuple):
    """Statistics of the tokens of a text that have a probability: all but the first.

    Attributes:
        ids: the tokens, ``[tokens]``.
        logp: log-probability of each token given those before it, nats, float64 ``[tokens]``.
        mean: expected log-probability of a token drawn there (minus the entropy), nats, float64 ``[tokens]``.
        deviation: standard deviation of that log-probability, nats, float64 ``[tokens]``.

    Example:
        >>> import torch
        >>> TokenStatistics(*torch.tensor([[7.0], [-1.0], [-2.0], [0.5]])).logp
        tensor([-1.])
    """

    ids: Tensor
    logp: Tensor
    mean: Tensor
    deviation: Tensor


@torch.no_grad()
def token_statistics(model: Any, tokenizer: Any, text: str, *, max_tokens: int = 1024) -> TokenStatistics:
    """Return the statistics of the tokens of a text, read in one forward.

    The text is encoded as the tokenizer does by itself, so a begin token that it adds counts as the first token. The
    first token has no probability.

    Args:
        model: a causal model.
        tokenizer: its tokenizer.
        text: the text.
        max_tokens: at most this many tokens are read, from the first; never more than the context of the model.

    Raises:
        ModelError: a model with an encoder.
        PromptError: the text has fewer than two tokens.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> found = token_statistics(tiny_model(), tiny_tokenizer(), "a text")
        >>> len(found.ids) == len(found.logp) == len(tiny_tokenizer()("a text")["input_ids"]) - 1
        True
        >>> bool((found.logp < 0).all() and (found.deviation > 0).all())
        True
    """
    if model.config.is_encoder_decoder:
        raise ModelError("token_statistics: model must be decoder-only, got one with an encoder; choose a causal model")
    most = min(max_tokens, context_length(model) or max_tokens)
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"][:most], dtype=torch.long)
    if len(ids) < 2:
        raise PromptError(f"token_statistics: text must have at least two tokens, got {text[:40]!r}; give a longer one")
    layout = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    logits = model(input_ids=ids[None].to(model.device), **layout).logits[0, :-1]
    targets = ids[1:].to(logits.device)
    numbers = [
        _of_positions(rows, wanted)
        for rows, wanted in zip(logits.split(POSITIONS), targets.split(POSITIONS), strict=True)
    ]
    logp, mean, deviation = (torch.cat(columns).cpu() for columns in zip(*numbers, strict=True))
    return TokenStatistics(ids[1:], logp, mean, deviation)


def _of_positions(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probability, mean and deviation at some positions.

    Args:
        logits: ``[positions, vocab]``.
        targets: the tokens that follow, ``[positions]``.
    """
    logp = logits.double().log_softmax(-1)
    p, finite = logp.exp(), logp.masked_fill(logp == -torch.inf, 0)  # an impossible token has no share in the mean
    mean = (p * finite).sum(-1)
    deviation = (p * (finite - mean[:, None]).square()).sum(-1).sqrt()
    return logp.gather(-1, targets[:, None])[:, 0], mean, deviation
