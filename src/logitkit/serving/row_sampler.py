"""Chooses the tokens of rows with settings of their own, so that they can share a batch.

A sampled row takes the token with the highest log-probability plus Gumbel noise, which is a draw from the distribution.
The noise depends on the seed and the tokens of the row alone, so a row gets the same text whatever it is batched with.
The logits of a padded row are rounded otherwise; noise for each token keeps what that changes as rare as near ties. One
number for the whole row, at which the cumulative probability is read, would move all improbable tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.processors.engine.prefix_random import PrefixRandom
from logitkit.processors.engine.prompts import Prompts
from logitkit.serving.row import Row, TokenScore


class RowSampler(LogitsProcessor):
    """Leaves each row its token alone, under the temperature, the top_p and the seed of the row.

    Used under ``do_sample=False``, behind the chain. Log-probabilities are those of the chain: before the temperature.

    Args:
        rows: the rows of the batch.
        prompts: the prompts of the call.

    >>> import torch
    >>> from logitkit.registry.chain import Chain
    >>> from logitkit.serving.row import Prompt
    >>> prompts = Prompts(ids=torch.tensor([[0]]), mask=torch.ones(1, 1), texts=("",), messages=(None,),
    ...                   adds_specials=False)
    >>> row = Row(prompt=Prompt(value="", kind="text"), chain=Chain(), seed=1, temperature=0.0, top_p=1.0, new_tokens=1)
    >>> RowSampler([row], prompts)(prompts.ids, torch.tensor([[1.0, 2.0]]))
    tensor([[-inf, 0.]])
    """

    supports_continuous_batching = False

    def __init__(self, rows: Sequence[Row], prompts: Prompts) -> None:
        self._random = PrefixRandom(seed=[row.seed for row in rows], prompts=prompts)
        self._sampled = torch.tensor(
            [number for number, row in enumerate(rows) if row.temperature > 0], dtype=torch.long
        )
        self._heat = torch.tensor([row.temperature for row in rows], dtype=torch.float64)[self._sampled]
        self._shares = torch.tensor([row.top_p for row in rows], dtype=torch.float64)[self._sampled]
        self._widest = max((row.top_logprobs for row in rows if row.top_logprobs is not None), default=None)
        self._wanted = [row.top_logprobs for row in rows]
        self._scores: list[TokenScore | None] = [None] * len(rows)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return 0 for the token of each row and -inf for all others, ``[rows, vocab]``."""
        tokens = scores.argmax(-1)  # [rows]
        if len(self._sampled):
            sampled = self._sampled.to(scores.device)
            tokens[sampled] = self._drawn(input_ids, scores, sampled)
        if self._widest is not None:
            self._remember(scores, tokens)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)

    def scores_of(self, row: int) -> TokenScore | None:
        """Return the log-probabilities of the last token of a row; None where they are not wanted."""
        return self._scores[row]

    def _drawn(self, input_ids: Tensor, scores: Tensor, sampled: Tensor) -> Tensor:
        """Return a token for each sampled row, ``[sampled]``."""
        logits = scores[sampled].double()
        logits -= logits.amax(-1, keepdim=True)  # a maximum of 0 stays finite at any heat
        logits /= self._heat.to(scores.device)[:, None]
        noise = self._random.of_tokens(input_ids, scores.shape[-1], sampled).log_().neg_().log_()
        return kept_share(logits.log_softmax(-1), self._shares).sub_(noise).argmax(-1)

    def _remember(self, scores: Tensor, tokens: Tensor) -> None:
        """Keep the log-probabilities of the chosen and of the likeliest tokens."""
        logp = scores.float().log_softmax(-1)
        best = logp.topk(min(max(self._widest or 0, 1), logp.shape[-1]))
        values, ids = best.values.tolist(), best.indices.tolist()
        chosen = logp.gather(1, tokens[:, None])[:, 0].tolist()
        for row, (token, wanted) in enumerate(zip(tokens.tolist(), self._wanted, strict=True)):
            if wanted is not None:
                pairs = list(zip(ids[row], values[row], strict=True))[:wanted]
                top = tuple((each, value) for each, value in pairs if value > -torch.inf)
                self._scores[row] = TokenScore(token, chosen[row], top)


def kept_share(logp: Tensor, shares: Tensor) -> Tensor:
    """Return log-probabilities in which only the likeliest tokens remain that reach a share together.

    Args:
        logp: ``[rows, vocab]``.
        shares: in (0, 1] for each row, ``[rows]``, on the CPU, so that no device is waited for; 1 keeps all. The
            likeliest token always remains.

    >>> import torch
    >>> kept_share(torch.tensor([[0.5, 0.25, 0.25]] * 2).log(), torch.tensor([0.5, 1.0])).exp().tolist()
    [[0.5, 0.0, 0.0], [0.5, 0.25, 0.25]]
    """
    cut = (shares < 1).nonzero()[:, 0]
    if not len(cut):
        return logp
    cut, shares = cut.to(logp.device), shares[cut].to(logp.device)
    ordered, order = logp[cut].sort(stable=True, dim=-1, descending=True)
    probabilities = ordered.exp()
    outside = probabilities.cumsum(-1) - probabilities >= shares[:, None]
    kept = logp.clone()
    kept[cut] = torch.empty_like(ordered).scatter_(1, order, ordered.masked_fill(outside, -torch.inf))
    return kept
