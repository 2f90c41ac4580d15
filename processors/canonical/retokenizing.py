"""Retokenization: the next token by the average over several ways to write the prompt in tokens.

A text has many tokenizations, and a model gives each of them another distribution over the next token. `Retokenize`
reads the prompt in its own tokens and in random re-splits of them, and averages the distributions. The splits are those
of StochasTok, arXiv:2506.01687, which is a method of training; reading a prompt in several of them is our use.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.params import Resource, checked, number, whole
from logitkit.processors.canonical.splits import TokenSplits
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.log_probabilities import log_probabilities, mark_normalised
from logitkit.processors.engine.prompt_inputs import refuse_missed
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import Stream, StreamLike, as_stream
from logitkit.processors.engine.trace import Trace
from logitkit.processors.tokens.vocabulary import vocabulary_of


def averaged(scores: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of several distributions in each row, and how far they differ.

    Args:
        scores: logits or log-probabilities, ``[rows, vocab]``; tokens that are impossible here stay impossible, and the
            mean is renormalised over the others.
        others: logits or log-probabilities of further distributions, of the same shape.

    Returns:
        Log-probabilities, fp32 nats, ``[rows, vocab]``, and the Jensen-Shannon divergence of all distributions with
        equal weights, before tokens are left out of the mean: 0 to log2 of their number, bits, ``[rows]``.

    Example:
        >>> import torch
        >>> mean, divergence = averaged(torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]]).log())
        >>> mean.exp(), divergence
        (tensor([[1., 0.]]), tensor([1.]))
    """
    logp = [log_probabilities(each) for each in (scores, *others)]
    mean = functools.reduce(torch.logaddexp, logp) - math.log(len(logp))
    bits = (_entropy(mean) - torch.stack([_entropy(each) for each in logp]).mean(0)) / math.log(2)
    kept = mean.masked_fill(logp[0] == -torch.inf, -torch.inf)
    return mark_normalised(kept.log_softmax(-1)), bits.clamp(0, math.log2(len(logp)))


def _entropy(logp: Tensor) -> Tensor:
    """Return the entropy of each row in nats, ``[rows]``; several times as fast as ``torch.special.entr``."""
    entropy: Tensor = -torch.linalg.vecdot(logp.exp(), logp.clamp_min(-1e4))
    return entropy


class Retokenize(LogitsProcessor):
    """Average the distributions after the prompt in its own tokens and in random re-splits of them.

    With p_1 the distribution of the steps before and p_2 to p_k those of the generating model after the same bytes in
    other tokens, rows become the mean ``(p_1 + ... + p_k) / k``. Tokens that p_1 makes impossible stay impossible, and
    the others are renormalised. The continuation has the same tokens behind every split. A prompt that a split leaves
    as it is counts as p_1.

    The trace has the Jensen-Shannon divergence of the k distributions, 0 to log2(k) bits: its mean
    ``split divergence``, and the note ``split_js_bits`` of each recorded step.

    Args:
        splits: the streams whose prompts are split again; None: a split that leaves every prompt as it is. Empty: the
            scores are returned unchanged.
        unchanged: maps rows of tokens to bool ``[splits, rows]``: whether a split leaves the prompt of a row as it is.
            None: no split leaves a prompt as it is.
        trace: receives the divergence.

    Example:
        >>> import torch
        >>> processor = Retokenize(splits=[lambda rows: torch.tensor([[0.2, 0.8]]).log()])
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.6, 0.4]]).log()).exp()
        tensor([[0.4000, 0.6000]])
    """

    order = ("k", "seed")

    @checked
    def __init__(
        self,
        *,
        splits: Annotated[Sequence[StreamLike | None], Resource()],
        unchanged: Annotated[Callable[[Tensor], Tensor] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.splits = [None if split is None else as_stream(split) for split in splits]
        self.unchanged, self.trace = unchanged, trace
        self.streams: tuple[Stream, ...] = tuple(split for split in self.splits if split is not None)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        k: Annotated[int, whole("encodings of the prompt, its own among them", ge=1, le=256, neutral=1)] = 4,
        seed: Annotated[int, whole("a different seed gives other splits", ge=0)] = 0,
        share: Annotated[
            float, number("tokens that are drawn to be split, as a share of the prompt; at least one", gt=0, le=1)
        ] = 0.1,
    ) -> Retokenize:
        """Build the processor whose second streams read re-splits of the prompts; see `TokenSplits`.

        The splits depend on the seed and on the tokens of a prompt alone. A larger k adds splits to those of a smaller
        one.

        Raises:
            ModeError: the prompts hold inputs besides tokens, such as images.
            ModelError: the tokenizer is a slow one.
        """
        if k == 1:
            return cls(splits=())
        refuse_missed(binding.prompts.inputs, "retokenize", "since it splits the tokens alone; leave it out")
        pairs, own = TokenSplits(vocabulary_of(binding.model, binding.tokenizer)), binding.own_prompts()
        written = [
            [pairs.resplit(tokens, share=share, seed=seed, number=number) for tokens in own] for number in range(1, k)
        ]
        same = torch.tensor([[new == old for new, old in zip(each, own, strict=True)] for each in written])
        same = same.to(binding.model.device)
        for prompt in same.all(0).nonzero()[:, 0].tolist():
            name = binding.prompts.name(prompt)
            binding.trace.notices.append(f"retokenize: every split leaves {name} in its own tokens")
        if bool(same.all()):
            reason = "no drawn token of the prompt is two tokens joined"
            binding.no_effect["retokenize"] = (reason, "give a larger share or another seed, or leave retokenize out")
            return cls(splits=())
        splits = [
            None if unchanged else binding.reader(prompts, label="re-split prompt")
            for prompts, unchanged in zip(written, same.all(1).tolist(), strict=True)
        ]

        def unchanged(rows: Tensor) -> Tensor:
            return same.to(rows.device)[:, binding.prompts.rows(rows)]

        return cls(splits=splits, unchanged=unchanged if bool(same.any()) else None, trace=binding.trace)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the averaged log-probabilities, ``[rows, vocab]``."""
        if not self.splits:
            return scores
        others = [None if split is None else fit(split(input_ids), scores.shape[-1]) for split in self.splits]
        read = [scores if each is None else each for each in others]
        if self.unchanged is not None:
            pairs = zip(read, self.unchanged(input_ids), strict=True)
            read = [torch.where(same[:, None], scores, each) for each, same in pairs]
        mean, bits = averaged(scores, *read)
        if self.trace is not None:
            self.trace.note(split_js_bits=bits)
            self.trace.average("retokenize", "split divergence", bits)
        return mean.to(scores.dtype)
