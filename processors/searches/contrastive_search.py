"""`ContrastiveSearch`: tokens that are likely and unlike the text so far, by the hidden states of the model.

Source: Su et al., arXiv:2202.06417, equation 5.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor
from transformers import StaticCache

from logitkit.errors import ModeError
from logitkit.params import checked, number, whole
from logitkit.processors.searches.rows import Rows
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Search
from logitkit.processors.transformers_api import cache_of

Alpha = Annotated[float, number("weight of the likeness to the text so far; at 0 greedy decoding", ge=0, le=1)]
Top = Annotated[int, whole("number of likeliest tokens that are compared", ge=1)]


def contrastive_scores(p: Tensor, candidates: Tensor, states: Tensor, read: Tensor, *, alpha: float) -> Tensor:
    """Return ``(1 - alpha) p(v) - alpha max_j cos(h_v, h_j)`` of each candidate, fp32 ``[rows, top]``.

    Args:
        p: probabilities of the candidates, ``[rows, top]``; a candidate of probability 0 gets -inf.
        candidates: hidden states of the candidates, ``[rows, top, width]``.
        states: hidden states of the text so far, ``[rows, length, width]``.
        read: which of them belong to the text, bool ``[rows, length]``; at least one of each row.
        alpha: weight of the likeness.

    Example:
        >>> candidates, states = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[[3.0, 0.0]]])
        >>> contrastive_scores(torch.tensor([[0.6, 0.4]]), candidates, states, torch.ones(1, 1).bool(), alpha=0.5)
        tensor([[-0.2000,  0.2000]])
    """
    directions = torch.nn.functional.normalize(candidates.float(), dim=-1)
    earlier = torch.nn.functional.normalize(states.float(), dim=-1)
    likeness = (directions @ earlier.mT).masked_fill(~read[:, None], -torch.inf).amax(-1)
    return ((1 - alpha) * p - alpha * likeness).masked_fill(p == 0, -torch.inf)


class ContrastiveSearch(Search):
    """At each step, take the likely token whose hidden state is least like any earlier one (arXiv:2202.06417).

    Of the ``top`` likeliest tokens v under the chain, the one with the largest
    ``(1 - alpha) p(v) - alpha max_j cos(h_v, h_j)`` is taken, with the last hidden states h of v and of all tokens of
    the text, prompt included. One forward a step reads all candidates of all rows. The search draws nothing.

    Args:
        alpha: weight of the likeness, 0 to 1; 0 is greedy decoding.
        top: number of candidates; 1 is greedy decoding.

    Example:
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> ids, settings = tiny_tokenizer()("ab", return_tensors="pt").input_ids, {"max_new_tokens": 4}
        >>> greedy = tiny_model().generate(ids, do_sample=False, **settings)
        >>> search = ContrastiveSearch(alpha=0.0)
        >>> bool((tiny_model().generate(ids, custom_generate=search, do_sample=False, **settings) == greedy).all())
        True
    """

    name: ClassVar[str] = "contrastive_search"
    samples: ClassVar[bool] = False
    draws = False

    @checked
    def __init__(self, *, alpha: Alpha = 0.6, top: Top = 4) -> None:
        self.alpha, self.top = alpha, top

    def sequences(self, wanted: int) -> int:
        """Return 1: the search finds one sequence."""
        return 1

    def check(self, run: SearchRun) -> None:
        """Refuse prompts that an encoder reads: their hidden states are not those of the text that is written.

        Raises:
            ModeError: an encoder-decoder model, or a static cache, which has no room for the candidates of the last
                token.
        """
        if isinstance(cache_of(run.inputs), StaticCache):
            raise ModeError(
                "contrastive_search: cache_implementation must not be 'static', since such a cache has no room for the "
                "candidates of the last token; leave it out"
            )
        if run.model.config.is_encoder_decoder:
            raise ModeError(
                f"contrastive_search: model must be decoder-only, got {type(run.model).__name__}; "
                "choose a decoder-only model, or another search"
            )

    def search(self, run: SearchRun) -> Found:
        """Return one sequence of each prompt."""
        rows = run.rows()
        rows.hidden = True
        law = rows.law()
        states, read = _hidden(rows), self._mask(run)
        while not rows.done:
            count, top = len(rows), min(self.top, law.shape[-1])
            logp, tokens = torch.sort(law, dim=-1, descending=True, stable=True)
            logp, tokens = logp[:, :top], tokens[:, :top]
            rows.select(torch.arange(count, device=law.device).repeat_interleave(top))
            rows.append(tokens.flatten())
            _ = rows.raw  # reads the candidates; the chain is asked about the chosen ones alone
            candidates = _hidden(rows)[:, -1].view(count, top, -1)
            scores = contrastive_scores(logp.exp(), candidates, states, read, alpha=self.alpha)
            best = scores.argmax(-1)
            kept = torch.arange(count, device=law.device) * top + best
            rows.select(kept)
            law = rows.law()
            states = torch.cat([states, candidates[torch.arange(count), best][:, None]], dim=1)
            read = torch.cat([read, torch.ones_like(read[:, :1])], dim=1)
        return Found.of(rows)

    @staticmethod
    def _mask(run: SearchRun) -> Tensor:
        """Return which tokens of the prompts are no padding, bool ``[prompts, length]``."""
        mask = run.inputs.get("attention_mask")
        return torch.ones_like(run.ids, dtype=torch.bool) if mask is None else mask.bool()


def _hidden(rows: Rows) -> Tensor:
    """Return the hidden states of the tokens that the last forward read, ``[rows, tokens, width]``."""
    assert rows.last_hidden is not None
    return rows.last_hidden
