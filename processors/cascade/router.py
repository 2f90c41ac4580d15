"""A router: a score of the small model's state decides at each step which rows a large model continues.

Source: R2R, arXiv:2505.21600. The score comes from a trained `RouterHead` or, without training, from one of three
uncertainty scores. All scores lie between 0 and 1; a row is routed when its score exceeds the threshold.
The large model runs only at steps where some row is routed, and then reads all tokens since its last forward in
one chunk.
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
from logitkit.files import is_folder
from logitkit.params import Resource, checked, is_neutral, number, option
from logitkit.processors.cascade.activated_parameters import ParameterCounts, parameter_counts
from logitkit.processors.cascade.model_fingerprint import ModelPair, check_pair
from logitkit.processors.cascade.router_head import RouterHead, router_features
from logitkit.processors.cascade.rules import replaced_rows
from logitkit.processors.cascade.uncertainty_scores import aleatoric_uncertainty, margin_uncertainty, uncertainty
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.captured_outputs import CapturedOutputs
from logitkit.processors.engine.scores import at_width
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import is_same_model

# Name: (score, default threshold). The entropy threshold is that of the released code, 0.45 nats. The other two
# are heuristic starting points; set them on your own data.
TRAINING_FREE_SCORES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "entropy": (uncertainty, 1 - math.exp(-0.45)),
    "margin": (margin_uncertainty, 0.5),
    "aleatoric": (aleatoric_uncertainty, 0.95),
}
RowScore = Callable[[Tensor, Tensor], Tensor]  # (input_ids, scores) -> [rows], 0 to 1


class Router(LogitsProcessor):
    """Continue rows whose score exceeds a threshold with a large model.

    Args:
        large: stream of the large model, or a function ``rows of tokens -> logits [rows, vocab]``.
        score: routing score, ``(input_ids, scores) -> [rows]``, 0 to 1.
        threshold: rows with a higher score are routed; at 1 no row is. None: ``default_threshold``.
        default_threshold: the threshold that belongs to the score.
        parameter_counts: numbers of parameters of both models, for the average number that a token activates.
        trace: receives, under ``router``, the means ``routed`` and ``activated parameters``.

    Raises:
        ParameterError: a parameter is outside its range.

    Source: arXiv:2505.21600.

    >>> from logitkit.processors.cascade import uncertainty
    >>> large = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).log()
    >>> router = Router(large=lambda rows: large, score=lambda rows, scores: uncertainty(scores), threshold=0.3)
    >>> router(torch.zeros(2, 3).long(), torch.tensor([[0.5, 0.5], [0.95, 0.05]]).log()).exp()
    tensor([[0.0000, 1.0000],
            [0.9500, 0.0500]])
    """

    order = ("large", "head", "threshold")

    @checked
    def __init__(
        self,
        *,
        large: StreamLike,
        score: Annotated[RowScore, Resource()],
        threshold: Annotated[
            float | None,
            number("route rows above this score; 1: never; None: the default of the score", ge=0, le=1, neutral=1),
        ] = None,
        default_threshold: Annotated[float, Resource()] = 0.5,
        parameter_counts: Annotated[ParameterCounts | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self.large, self.score = as_stream(large), score
        self.threshold = default_threshold if threshold is None else threshold
        self.parameter_counts, self.trace = parameter_counts, trace

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        large: Annotated[str, option("the large model: a name passed to bind, a hub id, or a folder")],
        head: Annotated[
            str,
            option(
                "score: entropy, margin, aleatoric, the folder of a trained router head, or its name passed to bind"
            ),
        ] = "entropy",
        threshold: float | None,
    ) -> Router:
        """Build the processor of one call; the large model reads the same prompt as the generating model.

        Raises:
            ModelError: the large model has another vocabulary, or the head was trained for other models.
            ParameterError: ``head`` names no score.
        """
        model = binding.model_with_same_vocabulary(large, "router")
        if is_same_model(model, binding.model):
            reason = "the large model is the generating model"
            binding.no_effect["router"] = (reason, "name another model, or leave router out")
        score, default = _score_named(binding, head, model)
        return cls(
            large=binding.reader(binding.own_prompts(), model, label=large),
            score=score,
            threshold=threshold,
            default_threshold=default,
            parameter_counts=parameter_counts(binding.model, model),
            trace=binding.trace,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the large model in routed rows and the scores elsewhere, ``[rows, vocab]``.

        Args:
            input_ids: tokens of the rows, ``[rows, length]``.
            scores: scores of the small model, ``[rows, vocab]``.
        """
        if is_neutral(self.threshold, 1):
            return scores
        score = self.score(input_ids, scores)
        routed = score > self.threshold
        self._record(score, routed)
        large = self.large.where(routed, input_ids)
        return scores if large is None else replaced_rows(scores, at_width(large, scores.shape[-1]), routed)

    def _record(self, score: Tensor, routed: Tensor) -> None:
        """Add one step to the trace; both arguments are ``[rows]``."""
        if self.trace is None:
            return
        self.trace.note(score=score, routed=routed)
        self.trace.count_fired("router", routed)
        self.trace.average("router", "routed", routed)
        if self.parameter_counts is not None:
            self.parameter_counts.derive_activated(self.trace, "router", "routed")


class TrainedScore:
    """The routing score of a trained head: reads the generating model's last hidden state after each row.

    Args:
        binding: the binding of the call. Hidden states are captured from the generating model's own forward.
        head: the trained head.
    """

    def __init__(self, binding: Binding, head: RouterHead) -> None:
        self.head, self.captured = head, CapturedOutputs(binding, hidden=True)
        self.embedding = binding.model.get_input_embeddings()

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the probability that the next token of each row is divergent, ``[rows]``."""
        hidden = self.captured.hidden(input_ids, scores)

        def embed(tokens: Tensor) -> Tensor:
            return self.embedding(tokens.to(self.embedding.weight.device)).to(hidden.device)  # type: ignore[no-any-return]

        features = router_features(hidden, scores.to(hidden.device), embed, self.head.config.top_logits)
        return self.head(features).to(scores.device)


def _score_named(binding: Binding, name: str, large: Any) -> tuple[RowScore, float]:
    """Return the score with this name and its default threshold.

    Raises:
        ParameterError: ``name`` is no score, no folder, and was not passed to bind.
        ModelError: the head was trained for other models, or the object passed to bind is no head.
    """
    if name in TRAINING_FREE_SCORES and name not in binding.resources:
        measure, threshold = TRAINING_FREE_SCORES[name]
        return (lambda _, scores: measure(scores)), threshold
    if name in binding.resources:
        head = binding.resource(name)
    elif is_folder(Path(name).expanduser()):
        head = RouterHead.load(Path(name).expanduser())
    else:
        choices = f"one of {', '.join(TRAINING_FREE_SCORES)}, a folder, or a name passed to bind"
        raise ParameterError("router", "head", choices, name)
    if not isinstance(head, RouterHead):
        raise ModelError(f"router: head {name!r} must be a RouterHead, got {type(head).__name__}")
    pair = ModelPair(small=binding.model, large=large, tokenizer=binding.tokenizer)
    check_pair("router", head.pair, pair.fingerprint())
    return TrainedScore(binding, head), head.threshold
