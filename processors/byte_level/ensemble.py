"""Ensembles of byte laws: any number of models, whatever their tokenizers, choose each byte together.

Three ways, all over normalised laws of the next byte p_i (`ByteModel`) with weights w_i that sum to 1:

- ``mixture``: sum_i w_i p_i at each byte, as Phan et al. (arXiv:2410.09303, section 5) and Hayase et al.
  (arXiv:2506.14123) mix models.
- ``product``: proportional to prod_i p_i ** w_i at each byte.
- ``sequence``: sum_i v_i p_i with v_i proportional to w_i times the probability that model i gives to all that was
  written after the prompt. That is the law of picking one model by w_i and letting it write the whole text
  (sums of prefix weights in genlm-control; Vieira et al., arXiv:2412.03719), which ``mixture`` is not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ParameterError
from logitkit.params import Resource, checked, option
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.byte_level.tokenizer import SIZE, texts_of
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.scores import fit
from logitkit.processors.engine.streams import StreamLike, as_stream
from logitkit.processors.engine.trace import Trace
from logitkit.processors.tokens.byte_trie import END

Fuse = Literal["mixture", "product", "sequence"]
Weights = Annotated[list[float] | None, option("one a model, the generating one first, >= 0; None: all alike")]
REMEMBERED = 512  # rows whose evidence is kept


def fuse_distributions(laws: Tensor, logw: Tensor, how: Fuse = "mixture") -> Tensor:
    """Combine laws of the next byte.

    Args:
        laws: log-probabilities in nats, ``[models, rows, vocab]``, the main model first.
        logw: logs of the weights in nats, ``[models]`` or ``[models, rows]``; for ``sequence`` with the evidence
            added. Their scale does not matter; a row on which all are -inf weighs all models alike.
        how: ``product`` the normalised geometric mean; else the arithmetic one.

    Returns:
        Normalised fp32 log-probabilities, ``[rows, vocab]``. Where a product leaves nothing, the main model's.
    """
    laws = laws.float()
    logw = logw[:, None].expand(laws.shape[:2]) if logw.ndim == 1 else logw
    lost = (logw == -torch.inf).all(0)
    logw = logw.masked_fill(lost, 0.0).log_softmax(0).to(laws)[..., None]  # [models, rows, 1]
    if how != "product":
        return (logw + laws).logsumexp(0).log_softmax(-1)
    weighted = torch.where(logw == -torch.inf, 0.0, logw.exp() * laws)  # a model without weight forbids nothing
    mixed = weighted.sum(0)
    nothing = (mixed == -torch.inf).all(-1, keepdim=True)
    return torch.where(nothing, laws[0], mixed).log_softmax(-1)


class Evidence:
    """How likely each model finds what a row has written after its prompt: a function of the row alone.

    Sums of normalised laws, so it is the log-probability with which the model's own ``generate`` writes it.
    Kept by text; in decoding each byte costs one look at the law before it, which is remembered too.

    Args:
        models: byte models, the generating one first.
        prompts: the prompts of the call.
    """

    def __init__(self, models: Sequence[ByteModel], prompts: Prompts) -> None:
        self.models, self.prompts = tuple(models), prompts
        starts = [text for (text,) in texts_of(prompts.ids, prompts.mask)]
        self._starts = [None if text is None else len(text) for text in starts]
        self._known: OrderedDict[tuple[int, bytes], tuple[float, ...]] = OrderedDict()

    def __reduce__(self) -> Any:
        raise ModelError("byte_ensemble: cannot be pickled, it holds models; pickle the chain and bind it again")

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Log-probabilities in nats, float64 ``[models, rows]``; 0 for rows that have ended.

        Raises:
            PromptError: a row starts with no bound prompt.
        """
        index = self.prompts.rows(input_ids).cpu()
        mask = torch.ones_like(input_ids)
        mask[:, : self.prompts.width] = self.prompts.mask.to(mask.device)[index.to(mask.device)]
        texts = [text for (text,) in texts_of(input_ids, mask)]
        rows = [
            None if text is None or start is None else (start, text)
            for text, start in zip(texts, [self._starts[number] for number in index.tolist()], strict=True)
        ]
        self._learn([row for row in rows if row is not None])
        nothing = (0.0,) * len(self.models)
        found = [nothing if row is None else self._known[row] for row in rows]
        while len(self._known) > max(REMEMBERED, 2 * len(rows)):
            self._known.popitem(last=False)
        return torch.tensor(found, dtype=torch.float64, device=input_ids.device).T

    def _learn(self, rows: Sequence[tuple[int, bytes]]) -> None:
        """Bring the evidence of rows up to date from the longest prefixes that are known."""
        missing: dict[tuple[int, bytes], None] = {}
        for start, text in rows:
            end = len(text)
            while end > start and (start, text[:end]) not in self._known and (start, text[:end]) not in missing:
                end -= 1
            missing |= dict.fromkeys((start, text[:longer]) for longer in range(end + 1, len(text) + 1))
            if end == start:
                self._known.setdefault((start, text[:end]), (0.0,) * len(self.models))
        fresh = list(missing)
        if fresh:
            before = [text[:-1] for _, text in fresh]
            letters = torch.tensor([text[-1] for _, text in fresh])[:, None]
            gains = torch.cat([model.logp(before).gather(1, letters) for model in self.models], dim=1).tolist()
            for (start, text), gain in zip(fresh, gains, strict=True):  # a prefix comes before what extends it
                total = self._known[start, text[:-1]]
                self._known[start, text] = tuple(a + b for a, b in zip(total, gain, strict=True))
        for row in rows:
            self._known.move_to_end(row)


class ByteEnsemble(LogitsProcessor):
    """Ensemble of byte laws; the generating model is a `ByteModel`.

    What the scores make impossible stays so: a byte that the generating model cannot write is never chosen.

    Args:
        helpers: laws of the other models, ``rows of ids -> logits [rows, 257]``.
        evidence: for ``sequence``, log-probability in nats of each row under each model, ``[models, rows]``.
        trace: where the weights are noted.
    """

    order = ("models", "weights", "fuse")

    @checked
    def __init__(
        self,
        *,
        weights: Weights = None,
        fuse: Annotated[
            Fuse, option("mixture or product of the next byte's laws; sequence: one model writes the whole text")
        ] = "mixture",
        helpers: Annotated[Sequence[StreamLike], Resource()],
        evidence: Annotated[Callable[[Tensor], Tensor] | None, Resource()] = None,
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        share = shares(weights, 1 + len(helpers))
        if fuse == "sequence" and helpers and evidence is None:
            raise ParameterError("byte_ensemble", "evidence", "given with fuse='sequence'", None)
        self.helpers = tuple(as_stream(helper) for helper in helpers)
        self.fuse, self.evidence, self.trace = fuse, evidence, trace
        self.logw = torch.tensor(share, dtype=torch.float64).log()

    @classmethod
    def bind(
        cls,
        binding: Binding,
        *,
        models: Annotated[
            list[str], option("the other models: names passed to bind, known models, hub ids or folders; [] none")
        ],
        weights: Weights = None,
        **given: Any,
    ) -> ByteEnsemble:
        """Read along with each other model; those equal to the generating one add to its weight."""
        main = _main(binding, "byte_ensemble")
        first, *rest = shares(weights, 1 + len(models))
        helpers: list[tuple[str, ByteModel, float]] = []
        for (name, model), weight in zip(byte_helpers(binding, "byte_ensemble", models), rest, strict=True):
            if model is main:
                first += weight
            elif weight > 0:
                helpers.append((name, model, weight))
        own = binding.own_prompts()
        return cls(
            weights=[first, *(weight for _, _, weight in helpers)],
            helpers=[binding.reader(own, model, label=name) for name, model, _ in helpers],
            evidence=Evidence([main, *(model for _, model, _ in helpers)], binding.prompts),
            trace=binding.trace,
            **given,
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return log-probabilities of the ensemble, ``[rows, vocab]``."""
        if not self.helpers:
            return scores
        said = [fit(helper(input_ids), scores.shape[-1]) for helper in self.helpers]
        laws = torch.stack([scores, *said]).float().log_softmax(-1)
        logw = self.logw.to(scores.device)
        if self.fuse == "sequence" and self.evidence is not None:
            logw = logw[:, None] + self.evidence(input_ids)
            if self.trace is not None:
                self.trace.note(weight_main=logw.softmax(0)[0])
        mixed = fuse_distributions(laws, logw, self.fuse).masked_fill(scores == -torch.inf, -torch.inf)
        nothing = (mixed == -torch.inf).all(-1, keepdim=True)  # only what the generating model cannot write is left
        return torch.where(nothing, laws[0], mixed).log_softmax(-1).to(scores.dtype)


def shares(weights: Sequence[float] | None, count: int) -> list[float]:
    """Weights that sum to 1, one a model.

    Raises:
        ParameterError: another number of weights, a negative or infinite one, or nothing but zeros.
    """
    given = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(given) != count or not all(0 <= weight < float("inf") for weight in given) or sum(given) <= 0:
        rule = f"{count} finite numbers >= 0 (the generating model's first), not all 0"
        raise ParameterError("byte_ensemble", "weights", rule, weights)
    return [weight / sum(given) for weight in given]


def byte_helpers(binding: Binding, owner: str, models: Sequence[str]) -> list[tuple[str, ByteModel]]:
    """The models named, as models over bytes that read as the generating one does.

    Raises:
        ModelError: the generating model, or its tokenizer, is not over bytes.
    """
    main, found = _main(binding, owner), list[tuple[str, ByteModel]]()
    for name in models:
        model = binding.model_named(name)
        if main.same_as(model):
            model = main
        elif not isinstance(model, ByteModel):
            tokenizer = binding.tokenizer_named(name)
            model = ByteModel(model, tokenizer, covers=main.which, tolerance=main.tree.tolerance)
        found.append((name, model))
    return found


def _main(binding: Binding, owner: str) -> ByteModel:
    """The generating model, having made sure that it and its tokenizer are over bytes."""
    if not isinstance(binding.model, ByteModel):
        raise ModelError(
            f"{owner}: the generating model must be a ByteModel, got {type(binding.model).__name__}; "
            "bind to ByteModel(model, tokenizer) and byte_tokenizer()"
        )
    if len(binding.tokenizer) != SIZE or binding.tokenizer.eos_token_id != END:
        raise ModelError(
            f"{owner}: tokenizer must be the byte model's, got one of {len(binding.tokenizer)} tokens; "
            "bind with byte_tokenizer()"
        )
    return binding.model
