"""Context-aware decoding: the prompt with its context against the prompt without, in three published forms.

- ``cad``: arXiv:2305.14739. One strength for all steps; `logitkit.processors.contrast.formulas.cad`.
- ``adacad``: AdaCAD, arXiv:2409.07394. The strength of a step is the Jensen-Shannon divergence of the two streams, so
  that a context that agrees with the model is not exaggerated. Departure: the released code averages the divergence
  over the batch; here each row has its own.
- ``coiecd``: COIECD, arXiv:2402.11893. Tokens far less or far more surprising than the model expects are taken from the
  stream with the context, the others from the stream without; the contrast is added to both. The released code shifts
  the surprisals by the entropy of the stream without context, which its own normalisation removes again; the shift is
  left out here. Departure: impossible tokens do not take part in the bounds.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import checked, is_neutral, number, option
from logitkit.processors.contrast.formulas import cad
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.divergences import divergence
from logitkit.processors.engine.log_probabilities import log_probabilities, mark_normalised
from logitkit.processors.engine.other_prompts import PromptTexts
from logitkit.processors.engine.scores import at_width, masked_log_softmax, within_width
from logitkit.processors.engine.streams import StreamLike, as_stream

Mode = Literal["cad", "adacad", "coiecd"]
PUBLISHED_STRENGTH: dict[Mode, float] = {"cad": 0.5, "adacad": 1.0, "coiecd": 1.0}
BOUND = math.log(4)  # distance of the bounds of coiecd from the extremes, nats; the released code's


def adacad(with_context: Tensor, without: Tensor, *, alpha: float = 1.0, offset: float = 0.0) -> Tensor:
    """AdaCAD, arXiv:2409.07394: `cad` with the strength ``alpha JS(p, q) + offset`` of each row, JS in nats.

    Args:
        with_context: logits under the whole prompt (p), ``[rows, vocab]``.
        without: logits under the prompt without its context (q), same shape.
        alpha: factor of the divergence, >= 0; 1 as published; 0 returns ``with_context``.
        offset: added to the strength of every row, >= 0; 0 as published.

    Returns:
        log-probabilities, ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.4, 0.6]]).log()
        >>> adacad(p, q).exp()  # the divergence of p and q is 0.0201 nats
        tensor([[0.6039, 0.3961]])
    """
    if is_neutral(alpha, 0):
        return with_context
    strength = alpha * divergence(with_context, without, "js")[:, None] + offset
    logp, logq = log_probabilities(with_context), masked_log_softmax(without)
    one_sided = torch.minimum(logp, logq) == -torch.inf
    score = torch.where(one_sided, logp, logp + strength * (logp - logq))
    return mark_normalised(score.log_softmax(-1))


def coiecd(with_context: Tensor, without: Tensor, *, alpha: float = 1.0) -> Tensor:
    """COIECD, arXiv:2402.11893: ``c log p + (1 - c) log q + alpha (log p - log q)``, normalised.

    With s the log-softmax over the possible tokens of -log p, c is 1 for tokens whose s is below ``min s + ln 4`` (at
    least two of them) or above ``max s - ln 4``, and 0 for all others.

    Args:
        with_context: logits under the whole prompt (p), ``[rows, vocab]``.
        without: logits under the prompt without its context (q), same shape.
        alpha: strength of the contrast, >= 0; 1 as published; 0 returns ``with_context``, which is not the limit of
            the formula.

    Returns:
        log-probabilities, ``[rows, vocab]``.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log(), torch.tensor([[0.25, 0.25, 0.25, 0.25]]).log()
        >>> coiecd(p, q, alpha=1.0).exp()  # c is 1 for the whole row: p**2 / q
        tensor([[0.5333, 0.3000, 0.1333, 0.0333]])
    """
    if is_neutral(alpha, 0):
        return with_context
    logp, logq = log_probabilities(with_context), masked_log_softmax(without)
    possible = logp > -torch.inf
    surprise = torch.where(possible, -logp, -torch.inf).log_softmax(-1)
    low = torch.where(possible, surprise, torch.inf).amin(-1, keepdim=True) + BOUND
    high = surprise.amax(-1, keepdim=True) - BOUND
    below = possible & (surprise < low)
    chosen = (below & (below.sum(-1, keepdim=True) > 1)) | (surprise > high)
    one_sided = torch.minimum(logp, logq) == -torch.inf
    score = torch.where(chosen, logp, logq) + alpha * (logp - logq)
    return mark_normalised(torch.where(one_sided, logp, score).log_softmax(-1))


class CAD(LogitsProcessor):
    """Context-aware decoding, arXiv:2305.14739, and its forms AdaCAD and COIECD; see the functions of these names.

    Args:
        without: the stream whose prompt lacks the context.
        alpha: strength, >= 0; at 0 the scores are returned unchanged. None: as published, 0.5 for ``cad``, 1 for
            ``adacad``, where it is a factor of the divergence, and 1 for ``coiecd``.
        mode: ``cad``, ``adacad`` or ``coiecd``.
        offset: added to the strength of every row; for ``adacad``.

    Raises:
        ParameterError: a parameter is outside its range, or an offset for another mode than ``adacad``.

    Example:
        >>> import torch
        >>> processor = CAD(without=lambda rows: torch.tensor([[0.4, 0.6]]).log(), alpha=1.0)
        >>> processor(torch.tensor([[7]]), torch.tensor([[0.6, 0.4]]).log()).exp()
        tensor([[0.7714, 0.2286]])
    """

    order = ("alpha", "context")

    @checked
    def __init__(
        self,
        *,
        without: StreamLike,
        alpha: Annotated[
            float | None,
            number(
                "strength; larger values give the context more weight; None: cad 0.5, adacad 1, coiecd 1",
                ge=0,
                neutral=0,
            ),
        ] = None,
        mode: Annotated[
            Mode, option("cad: one strength; adacad: a strength by divergence; coiecd: by the surprise of each token")
        ] = "cad",
        offset: Annotated[float, number("added to the strength of adacad", ge=0)] = 0.0,
    ) -> None:
        if offset and mode != "adacad":
            raise ParameterError("cad", "offset", "0 for a mode other than 'adacad'", offset)
        self.alpha = PUBLISHED_STRENGTH[mode] if alpha is None else alpha
        self.without, self.mode, self.offset = as_stream(without), mode, offset
        self.streams = () if is_neutral(self.alpha, 0) else (self.without,)

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        context: Annotated[
            PromptTexts,
            option("the part of the prompt to leave out of the second stream, one for all prompts or one for each"),
        ],
        alpha: float | None,
        mode: Mode,
        offset: float,
    ) -> CAD:
        """Build the processor whose second stream has the prompt without the context.

        Raises:
            ParameterError: a context is not a part of its prompt, or is the whole prompt.
        """
        contexts = binding.one_text_per_prompt("cad", "context", context)
        without_context = []
        for text, piece in zip(binding.prompts.texts, contexts, strict=True):
            if not piece or piece not in text:
                raise ParameterError("cad", "context", "a piece of its prompt, word for word", piece)
            ids = binding.prompts.encode(binding.tokenizer, text.replace(piece, "", 1))
            if not ids:
                raise ParameterError("cad", "context", "shorter than the whole prompt", piece)
            without_context.append(ids)
        without = binding.reader(without_context, label="no context")
        return cls(without=without, alpha=alpha, mode=mode, offset=offset)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities that amplify the effect of the context, ``[rows, vocab]``."""
        if is_neutral(self.alpha, 0):
            return scores
        without = self.without(input_ids)
        scores = within_width(scores, without)
        without = at_width(without, scores.shape[-1])
        if self.mode == "adacad":
            return adacad(scores, without, alpha=self.alpha, offset=self.offset).to(scores.dtype)
        formula = cad if self.mode == "cad" else coiecd
        return formula(scores, without, alpha=self.alpha).to(scores.dtype)
