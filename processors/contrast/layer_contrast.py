"""DoLa: the distribution of the whole model against that of one of its earlier layers.

arXiv:2309.03883, sections 2.1 to 2.3, and the authors' released code. An earlier layer is read by the head of the model
without the final norm, as in the code. Departures: the layer is chosen for each row by the Jensen-Shannon divergence of
the paper, where the code chooses one layer for the whole batch, by KL(m, p) in the place of KL(p, m).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ParameterError
from logitkit.params import Resource, checked, number, option
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_layers import CapturedLayers
from logitkit.processors.engine.log_probabilities import log_probabilities, mark_normalised
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import text_config

BUCKET = 20  # most layers of a bucket, which the paper takes from models of more than 40 layers


def dola(final: Tensor, premature: Tensor, *, alpha: float = 0.1) -> Tensor:
    """DoLa, arXiv:2309.03883: ``log p - log q`` where p is at least ``alpha`` times the largest p, normalised.

    q is the candidate layer that differs most from p: the one with the largest Jensen-Shannon divergence. Between equal
    divergences the first layer is taken.

    Args:
        final: logits of the whole model (p), ``[rows, vocab]``.
        premature: logits of the candidate layers, ``[rows, layers, vocab]``.
        alpha: plausibility threshold, above 0, at most 1; 0.1 as published.

    Returns:
        log-probabilities, ``[rows, vocab]``; implausible tokens are -inf.

    Example:
        >>> import torch
        >>> final = torch.tensor([[0.6, 0.3, 0.1]]).log()
        >>> layers = torch.tensor([[[0.6, 0.3, 0.1], [0.2, 0.4, 0.4]]]).log()
        >>> dola(final, layers, alpha=0.2).exp()  # against the second layer: 3 to 3/4; the third token is implausible
        tensor([[0.8000, 0.2000, 0.0000]])
    """
    logp = log_probabilities(final)
    candidates = premature.float().log_softmax(-1)
    logq = candidates[torch.arange(len(logp), device=logp.device), most_different(logp, candidates)]
    implausible = logp < logp.amax(-1, keepdim=True) + math.log(alpha)
    return mark_normalised((logp - logq).masked_fill(implausible, -torch.inf).log_softmax(-1))


def most_different(logp: Tensor, candidates: Tensor) -> Tensor:
    """Return the number of the candidate with the largest Jensen-Shannon divergence from each row, ``[rows]``.

    Args:
        logp: log-probabilities, ``[rows, vocab]``.
        candidates: log-probabilities, ``[rows, layers, vocab]``.

    Example:
        >>> import torch
        >>> most_different(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[[0.8, 0.2], [0.5, 0.5]]]).log())
        tensor([1])
    """
    first = logp[:, None].expand_as(candidates)
    middle = torch.logaddexp(first, candidates) - math.log(2)
    halves = [torch.where(law > -torch.inf, law.exp() * (law - middle), 0.0).sum(-1) for law in (first, candidates)]
    return (halves[0] + halves[1]).argmax(-1)


def candidate_layers(layers: Literal["low", "high"] | list[int], count: int, *, tied: bool) -> list[int]:
    """Return the candidate layers of a model: even layers of its lower or upper half, or the given ones.

    With tied embeddings the embedding itself is no candidate: the head would read its own rows. Of models with more
    than 40 layers the first or last 20 layers are taken.

    Args:
        layers: ``low``, ``high``, or numbers of layers.
        count: number of layers of the model.
        tied: whether the head of the model is its embedding.

    Raises:
        ParameterError: no layer, or one that is not below the number of layers.

    Example:
        >>> candidate_layers("low", 32, tied=False), candidate_layers("high", 8, tied=False)
        ([0, 2, 4, 6, 8, 10, 12, 14], [4, 6])
        >>> candidate_layers("low", 30, tied=True)
        [2, 4, 6, 8, 10, 12, 14]
    """
    if isinstance(layers, list):
        if not layers or not all(0 <= layer < count for layer in layers):
            raise ParameterError("dola", "layers", f"'low', 'high', or numbers >= 0 and < {count}", layers)
        return sorted(set(layers))
    half = min(count // 2, BUCKET)
    start = min(2, half) if tied else 0
    chosen = range(count - (count - count // 2 if count <= 2 * BUCKET else BUCKET), count, 2)
    return (list(range(start, half, 2)) or [start]) if layers == "low" else list(chosen)


class DoLa(LogitsProcessor):
    """DoLa, arXiv:2309.03883, as `dola` computes it.

    Args:
        premature: maps rows of tokens and scores to the logits of the candidate layers, ``[rows, layers, vocab]``.
        alpha: plausibility threshold, above 0, at most 1.
        candidates: numbers of the layers, for the trace.
        trace: receives the chosen layer of each row.

    Raises:
        ParameterError: a parameter is outside its range.

    Example:
        >>> import torch
        >>> layer = lambda rows, scores: torch.tensor([[[0.2, 0.4, 0.4]]]).log()
        >>> DoLa(premature=layer, alpha=0.2)(torch.tensor([[7]]), torch.tensor([[0.6, 0.3, 0.1]]).log()).exp()
        tensor([[0.8000, 0.2000, 0.0000]])
    """

    order = ("layers",)

    @checked
    def __init__(
        self,
        *,
        premature: Annotated[Callable[[Tensor, Tensor], Tensor], Resource()],
        alpha: Annotated[
            float, number("plausibility threshold, as a share of the largest probability", gt=0, le=1)
        ] = 0.1,
        candidates: Annotated[tuple[int, ...], Resource()] = (),
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.premature, self.alpha, self.candidates, self.trace = premature, alpha, candidates, trace

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        layers: Annotated[
            Literal["low", "high"] | list[int],
            option("candidate layers: even layers of the lower or upper half, or numbers (0: the embedding)"),
        ] = "low",
        alpha: float,
    ) -> DoLa:
        """Build the processor that reads the layers in the forward of the generating model.

        Raises:
            ParameterError: a layer that the model does not have.
            ModelError: a model with an encoder, or without a base model under its head.
        """
        model = binding.model
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        tied = head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", False)
        chosen = candidate_layers(layers, int(text_config(model).num_hidden_layers), tied=tied)
        captured = CapturedLayers(binding, chosen)
        return cls(premature=LayerLogits(captured, head), alpha=alpha, candidates=tuple(chosen), trace=binding.trace)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return contrasted log-probabilities, ``[rows, vocab]``."""
        premature = self.premature(input_ids, scores)
        fitted = fit(premature.flatten(0, 1), scores.shape[-1]).unflatten(0, premature.shape[:2])
        if self.trace is not None and self.trace.recording and self.candidates:
            chosen = most_different(log_probabilities(scores), fitted.float().log_softmax(-1))
            self.trace.note(layer=torch.tensor(self.candidates, device=chosen.device)[chosen])
        return dola(scores, fitted, alpha=self.alpha).to(scores.dtype)


class LayerLogits:
    """The head of a model applied to captured states: logits ``[rows, layers, vocab]``.

    Args:
        captured: the states.
        head: the head of the model.
    """

    def __init__(self, captured: CapturedLayers, head: Any) -> None:
        self.captured, self.head = captured, head

    @torch.no_grad()
    def __call__(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Return the logits of the candidate layers after each row, fp32."""
        states = self.captured(rows, scores).to(self.head.weight)
        return self.head(states).float().to(scores.device)  # type: ignore[no-any-return]
