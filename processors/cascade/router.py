"""A router: a small network looks at the small model's state and sends the tokens that matter to a large one.

R2R, arXiv:2505.21600. Without training, three scores of the small model's own uncertainty do instead. All
scores lie between 0 and 1, and a row goes to the large model where its score is above the threshold. The
large model is a lazy stream: it extends its cache by what it missed in one chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, is_neutral, number, option
from logitkit.processors.cascade import rules as deferral
from logitkit.processors.cascade.model_fingerprint import check_pair, pair_fingerprint
from logitkit.processors.cascade.router_head import RouterHead, features
from logitkit.processors.cascade.token import sizes_of
from logitkit.processors.cascade.uncertainty import aleatoric, margin, uncertainty
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace

# The entropy threshold is the released 0.45 nats; the others are starting points, to be set on your own data.
UNTRAINED: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "entropy": (uncertainty, 1 - math.exp(-0.45)),
    "margin": (margin, 0.5),
    "aleatoric": (aleatoric, 0.95),
}
Score = Annotated[Callable[[Tensor, Tensor], Tensor], Resource()]


class Router(LogitsProcessor):
    """Send rows whose score is above the threshold to the large model.

    Args:
        large: logits of the large model, ``rows of tokens -> [rows, vocab]``.
        score: ``(input_ids, scores) -> [rows]``, 0 to 1.
        sizes: parameters of the small and the large model.
        trace: gets the means ``router routed`` and ``router activated parameters`` (small + routed x large).
    """

    @checked
    def __init__(
        self,
        *,
        large: StreamLike,
        score: Score,
        threshold: Annotated[float, number("route above this score; 1 never", ge=0, le=1, neutral=1)] = 0.5,
        sizes: Annotated[tuple[int, int] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.large, self.score, self.threshold = as_stream(large), score, threshold
        self.sizes, self.trace = sizes, trace

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        large: Annotated[str, option("the large model: a name passed to bind, a hub id, or a folder")],
        head: Annotated[
            str, option("entropy, margin, aleatoric, the folder of a trained head, or its name passed to bind")
        ] = "entropy",
        threshold: Annotated[
            float | None,
            number("route above this score; 1 never; None: the head's own", ge=0, le=1, neutral=1),
        ] = None,
    ) -> Router:
        """Read along with the large model, and find the score."""
        model = binding.model_with_same_vocabulary(large, "router")
        score, default = _score(binding, head, model)
        return cls(
            large=binding.reader(binding.own_prompts(), model, label=large),
            score=score,
            threshold=default if threshold is None else threshold,
            sizes=sizes_of(binding.model, model),
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the large model's log-probabilities in routed rows, the scores in the rest, ``[rows, vocab]``."""
        if is_neutral(self.threshold, 1):
            return scores
        score = self.score(input_ids, scores)
        routed = score > self.threshold
        if self.trace is not None:
            self.trace.note(score=score, routed=routed)
            self.trace.count_fired("router", routed)
            self.trace.average("router", "routed", routed.float())
            if self.sizes is not None:
                activated = self.sizes[0] + routed.double() * self.sizes[1]
                self.trace.average("router", "activated parameters", activated)
        if not bool(routed.any()):
            return scores
        large = fit(self.large(input_ids), scores.shape[-1])
        return torch.where(routed[:, None], deferral.restricted(large, scores), scores)


def _score(binding: Binding, head: str, large: Any) -> tuple[Callable[[Tensor, Tensor], Tensor], float]:
    """The score of a head and its own threshold.

    Raises:
        ParameterError: no such head.
        ModelError: a head trained for another pair.
    """
    if head in UNTRAINED and head not in binding.resources:
        measure, threshold = UNTRAINED[head]
        return (lambda _, scores: measure(scores)), threshold
    if head in binding.resources:
        trained = binding.resource(head)
    elif Path(head).expanduser().is_dir():
        trained = RouterHead.load(Path(head).expanduser())
    else:
        raise ParameterError(
            "router", "head", f"one of {', '.join(UNTRAINED)}, a folder, or a name passed to bind", head
        )
    if not isinstance(trained, RouterHead):
        raise ModelError(f"router: head {head!r} must be a RouterHead, got {type(trained).__name__}")
    check_pair("router", trained.pair, pair_fingerprint(binding.model, large, binding.tokenizer))
    return Features(binding, trained), trained.threshold


class Features:
    """A trained head on the generating model's state after each row."""

    def __init__(self, binding: Binding, head: RouterHead) -> None:
        self.head, self.overheard = head, CapturedOutputs(binding, hidden=True)
        self.embed = binding.model.get_input_embeddings()

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The probability that each row's next token changes the path, ``[rows]``."""
        hidden = self.overheard.hidden(input_ids, scores)

        def embed(tokens: Tensor) -> Tensor:
            return self.embed(tokens.to(self.embed.weight.device)).to(hidden.device)  # type: ignore[no-any-return]

        return self.head(features(hidden, scores.to(hidden.device), embed, self.head.shape.top)).to(scores.device)
