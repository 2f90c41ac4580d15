"""`AttributeStep`: shift each token by what it changes in ``log P(attribute | text)``.

Sampling with it is FUDGE (arXiv:2104.05218), with a value function controlled decoding (arXiv:2310.17022), with a
reward model ARGS (arXiv:2402.01694). Under beams it is conditional beam search (arXiv:2408.16241): the differences of a
row add up to ``log P(attribute | row)``, which replaces the earlier value in the score of the beam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import end_tokens
from logitkit.processors.samplers.attribute_head_values import HeadValues, head_named
from logitkit.processors.samplers.attribute_models import Classifier, RowScorer, ScoredRows, row_scorer
from logitkit.processors.samplers.attribute_parts import attributes_of, checked_parts
from logitkit.processors.samplers.attribute_reading import ReadAlong, reads_along
from logitkit.processors.samplers.attributes import LEAST, Attribute, precise
from logitkit.processors.samplers.row_states import RowStates

NOT_DEGENERATE: dict[str, Any] = {"varied": 3}

Scorer = Annotated[str | dict[str, Any], option("the attribute: a mapping, or the name of an object passed to bind")]
Strength = Annotated[float, number("weight of the log-probability of the attribute", ge=0, neutral=0)]
Top = Annotated[int, whole("number of likeliest tokens that are scored; the others become impossible", ge=1)]
Values = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes rows, scores, candidates ``[rows, kept]`` and which rows have ended, ``[rows]``; returns the values of rows,
``[rows]``, and of candidates, ``[rows, kept]``."""


class AttributeStep(LogitsProcessor):
    """Keep the likeliest tokens v, and add ``strength (log P(a | x v) - log P(a | x))`` to their log-probabilities.

    The attribute a is given as a mapping; the log-probabilities of several entries are added.

    - ``length``: the continuation has about this number of tokens, give or take ``spread`` (2).
    - ``varied``: no group of this number of tokens repeats.
    - ``contains``, ``avoids``: the continuation contains all of these texts, or none.
    - ``head``: the folder of a head that ``logitkit train-attribute`` trained on hidden states of the generating model,
      or the name of an `AttributeHead` passed to `Chain.bind`.
    - ``model``: the name of an object passed to `Chain.bind`: a function ``scorer(rows) -> nats``, which takes token
      ids ``[n, length]`` with the padding of their prompts and returns ``[n]``; or a sequence classifier of
      transformers, of which ``label`` names the label; or a reward model. A text is short for ``{'model': text}``.

    A log-probability below -10,000 nats counts as -10,000, so a row that cannot have the attribute any more keeps its
    tokens. The result is not normalised: under beams the differences add up. All candidates of all rows are scored
    together; a step waits for the device once where a function is asked or a classifier reads texts,
    and otherwise not at all.

    Args:
        scorer: the attribute; see above. By default the continuation is not degenerate: ``{'varied': 3}``.
        strength: weight of the attribute, at least 0; 0 returns the scores as they are.
        top: number of tokens that are kept; beams keep at least one more than there are end tokens.
        attributes: the attributes of the mapping, as folds.
        values: the values of what else the mapping names.
        prompts: the prompts of the call.
        settings: the settings of the call.
        ends: end tokens where `generate` and the model state none.

    Raises:
        ParameterError: an entry of another name or value, or none.
        ScoresError: at a call, where the function or classifier returns another shape, NaN or +inf.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> chain = "attribute({'contains': ['cat']}, strength=4.0, top=200)"
        >>> out = logitkit.generate(tiny_model(), tiny_tokenizer(), "The", chain=chain, do_sample=False,
        ...                         max_new_tokens=12)
        >>> "cat" in out.texts[0]
        True
    """

    @checked
    def __init__(
        self,
        *,
        scorer: Scorer = NOT_DEGENERATE,
        strength: Strength = 1.0,
        top: Top = 20,
        attributes: Annotated[Sequence[Attribute], Resource()],
        values: Annotated[Sequence[Values], Resource()] = (),
        prompts: Annotated[Prompts, Resource()],
        settings: Annotated[CallSettings, Resource()],
        ends: Annotated[Sequence[int], Resource()] = (),
    ) -> None:
        self.scorer, self.strength, self.top = scorer, strength, top
        self._attributes, self._values, self._settings = tuple(attributes), tuple(values), settings
        self._ends = tuple(ends)
        self._states = RowStates(prompts, settings, self._initial, self._advance_by_one)

    @classmethod
    def bind(cls, binding: Binding, *, scorer: str | dict[str, Any], strength: float, top: int) -> AttributeStep:
        """Return the processor with the attributes and the scorers that the mapping names.

        Raises:
            ParameterError, UnknownNameError, ModelError: a scorer that is none; see the class and `row_scorer`.
        """
        parts = checked_parts({"model": scorer} if isinstance(scorer, str) else scorer)
        # The tokenizer's end token counts only where the model has none: else `generate` does not stop at it.
        ends = end_tokens(binding.model) or end_tokens(binding.model, binding.tokenizer)
        if "length" in parts and not ends:
            raise ModelError("attribute: length needs a model with an end token; set generation_config.eos_token_id")
        values: list[Values] = []
        if "head" in parts:
            values.append(HeadValues(binding, head_named(binding, parts["head"])))
        if "model" in parts:
            name = parts["model"]
            values.append(_values_of(name, row_scorer(binding, name, parts.get("label")), binding.prompts))
        own: dict[str, Any] = {"prompts": binding.prompts, "settings": binding.settings, "ends": ends}
        given: dict[str, Any] = {"scorer": scorer, "strength": strength, "top": top}
        return cls(**given, attributes=attributes_of(parts, binding), values=values, **own)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return shifted log-probabilities of the likeliest tokens, -inf for the others, ``[rows, vocab]``.

        Rows that have ended keep their scores.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.

        Raises:
            ScoresError: as for the class.
        """
        if is_neutral(self.strength, 0):
            return scores
        logp = log_probabilities(scores)
        tokens = likeliest(logp, min(self._settings.least_kept(self.top), logp.shape[1]))  # [rows, kept]
        ended = _are_among(input_ids[:, self._settings.start :], self._settings.end_tokens()).any(-1)
        before, after = self._of_attributes(input_ids, tokens)
        for values in self._values:
            own = values(input_ids, scores, tokens, ended)
            before, after = before + own[0], after + own[1]
        differences = after.clamp_min(LEAST) - before.clamp_min(LEAST)[:, None]  # [rows, kept]
        shifted = (logp.gather(1, tokens) + self.strength * differences.to(logp.dtype)).to(scores.dtype)
        result = torch.full_like(scores, -torch.inf).scatter(1, tokens, shifted)
        return torch.where(ended[:, None], scores, result)

    def _of_attributes(self, rows: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the summed values of rows, ``[rows]``, and of candidates, ``[rows, kept]``, under the folds."""
        tails = rows[:, self._settings.start :]
        before = torch.zeros(len(rows), dtype=precise(rows.device), device=rows.device)
        after = before[:, None].expand(tokens.shape)
        if not self._attributes:
            return before, after
        ends = _are_among(tokens, self._settings.text_ends(self._ends))
        count, states = tails.shape[1], self._states(rows)
        for attribute, place in self._placed():
            own = states[:, place]
            before = before + attribute.value(own, count, False)
            finished = attribute.value(own, count, True)[:, None]
            longer = attribute.value(attribute.advance(own, tails, tokens), count + 1, False)
            after = after + torch.where(ends, finished, longer)
        return before, after

    def _placed(self) -> list[tuple[Attribute, slice]]:
        """Return the attributes, each with the places of its numbers in the state of a row."""
        placed, begin = [], 0
        for attribute in self._attributes:
            placed.append((attribute, slice(begin, begin + attribute.size)))
            begin += attribute.size
        return placed

    def _initial(self, prompts: Tensor) -> Tensor:
        return torch.cat([attribute.initial(prompts) for attribute in self._attributes], dim=-1)

    def _advance_by_one(self, states: Tensor, tails: Tensor, tokens: Tensor) -> Tensor:
        """Return the states after one more token of each row; see `RowStates`."""
        return torch.cat([part.advance(states[:, at], tails, tokens)[:, 0] for part, at in self._placed()], dim=-1)


def _values_of(name: str, scorer: RowScorer, prompts: Prompts) -> Values:
    """Return the values of a scorer of rows; a classifier keeps a cache of the rows where it can."""
    if isinstance(scorer, Classifier) and not scorer.reads_on_host and reads_along(scorer.model):
        return ReadAlong(name, scorer, prompts)
    return ScoredRows(name, scorer, prompts)


def likeliest(logp: Tensor, count: int) -> Tensor:
    """Return the ``count`` likeliest tokens of each row, ``[rows, count]``, as a stable sort gives them.

    Args:
        logp: fp32, ``[rows, vocab]``.
        count: at most the size of the vocabulary.

    Example:
        >>> likeliest(torch.tensor([[0.0, 2.0, 1.0, 1.0]]), 2)
        tensor([[1, 2]])
    """
    bits = (logp + 0.0).view(torch.int32).long()  # adding 0 makes 0 of -0
    ordered = torch.where(bits < 0, bits ^ (2**31 - 1), bits)  # whole numbers in the order of the log-probabilities
    width = logp.shape[1]
    return (ordered * width - torch.arange(width, device=logp.device)).topk(count, dim=-1).indices


def _are_among(tokens: Tensor, few: Sequence[int]) -> Tensor:
    """Return which tokens are among a few, bool of the shape of the tokens."""
    among = torch.zeros_like(tokens, dtype=torch.bool)
    for token in few:
        among = among | (tokens == token)
    return among
