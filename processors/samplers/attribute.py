"""`Attribute`: shift each token by what it changes in ``log P(attribute | text)``.

Sampling with it is FUDGE (arXiv:2104.05218), with a value function controlled decoding (arXiv:2310.17022), with a
reward model ARGS (arXiv:2402.01694). Under beams it is conditional beam search (arXiv:2408.16241): the differences of a
row add up to ``log P(attribute | row)``, which replaces the earlier value in the score of the beam.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ParameterError, UnknownNameError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.call_vocabulary import call_vocabulary
from logitkit.processors.engine.constraint_step import RowReader
from logitkit.processors.engine.log_probabilities import log_probabilities
from logitkit.processors.engine.prefix_states import PrefixStates
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.model_facts import end_tokens
from logitkit.processors.samplers.attribute_models import RowScorer, checked_values, row_scorer
from logitkit.processors.samplers.attributes import LEAST, Attribute, Avoids, Contains, Length, Varied

KEPT_VALUES = 4096  # values of rows that are remembered at least
KINDS = ("length", "spread", "varied", "contains", "avoids", "model", "label")
SPREAD = 2.0  # tokens
NOT_DEGENERATE: dict[str, Any] = {"varied": 3}

Scorer = Annotated[str | dict[str, Any], option("the attribute: a mapping, or the name of an object passed to bind")]
Strength = Annotated[float, number("weight of the log-probability of the attribute", ge=0, neutral=0)]
Top = Annotated[int, whole("number of likeliest tokens that are scored; the others become impossible", ge=1)]


class AttributeStep(LogitsProcessor):
    """Keep the likeliest tokens v, and add ``strength (log P(a | x v) - log P(a | x))`` to their log-probabilities.

    The attribute a is given as a mapping; the log-probabilities of several entries are added.

    - ``length``: the continuation has about this number of tokens, give or take ``spread`` (2).
    - ``varied``: no group of this number of tokens repeats.
    - ``contains``, ``avoids``: the continuation contains all of these texts, or none.
    - ``model``: the name of an object passed to `Chain.bind`: a function ``scorer(rows) -> nats``, which takes token
      ids ``[n, length]`` with the padding of their prompts and returns ``[n]``; or a sequence classifier of
      transformers, of which ``label`` names the label; or a reward model. A text is short for ``{'model': text}``.

    A log-probability below -10,000 nats counts as -10,000, so a row that cannot have the attribute any more keeps its
    tokens. The result is not normalised: under beams the differences add up.

    Args:
        scorer: the attribute; see above. By default the continuation is not degenerate: ``{'varied': 3}``.
        strength: weight of the attribute, at least 0; 0 returns the scores as they are.
        top: number of tokens that are kept; beams keep at least one more than there are end tokens.
        attributes: the attributes of the mapping, as folds.
        rows: the function or classifier that the mapping names, and its name; None: there is none.
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
        rows: Annotated[tuple[str, RowScorer] | None, Resource()],
        prompts: Annotated[Prompts, Resource()],
        settings: Annotated[CallSettings, Resource()],
        ends: Annotated[Sequence[int], Resource()] = (),
    ) -> None:
        self.scorer, self.strength, self.top = scorer, strength, top
        self._attributes, self._rows, self._prompts = tuple(attributes), rows, prompts
        self._settings, self._ends = settings, tuple(ends)
        self._reader = RowReader(prompts, settings)
        self._forget()

    def _forget(self) -> None:
        self._states = PrefixStates(self._initial, self._advance)
        self._known: OrderedDict[bytes, float] = OrderedDict()  # values of rows, by their tokens

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_states", "_known")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    @classmethod
    def bind(cls, binding: Binding, *, scorer: str | dict[str, Any], strength: float, top: int) -> AttributeStep:
        """Return the processor with the attributes and the scorer that the mapping names.

        Raises:
            ParameterError, UnknownNameError, ModelError: a scorer that is none; see the class and `row_scorer`.
        """
        parts = checked_parts({"model": scorer} if isinstance(scorer, str) else scorer)
        # The tokenizer's end token counts only where the model has none: else `generate` does not stop at it.
        ends = end_tokens(binding.model) or end_tokens(binding.model, binding.tokenizer)
        if "length" in parts and not ends:
            raise ModelError("attribute: length needs a model with an end token; set generation_config.eos_token_id")
        own: dict[str, Any] = {"prompts": binding.prompts, "settings": binding.settings, "ends": ends}
        name = parts.get("model")
        rows = None if name is None else (name, row_scorer(binding, name, parts.get("label")))
        given: dict[str, Any] = {"scorer": scorer, "strength": strength, "top": top}
        return cls(**given, attributes=_attributes(parts, binding), rows=rows, **own)

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
        index, tails, ended = self._reader(input_ids)
        alive = [row for row in range(len(scores)) if not ended[row]]
        if not alive:
            return scores
        logp = log_probabilities(scores)
        kept = min(self._settings.least_kept(self.top), logp.shape[1])
        best, tokens = torch.sort(logp, dim=-1, descending=True, stable=True)  # [rows, vocab]
        places = torch.tensor(alive, device=scores.device)
        best, tokens = best[places, :kept], tokens[places, :kept]  # [alive, kept]
        differences = self._differences([index[row] for row in alive], tails[alive], input_ids[places], tokens)
        shifted = best + self.strength * torch.tensor(differences, dtype=best.dtype).to(best.device)
        result = scores.clone()
        result[places] = torch.full_like(logp[places], -torch.inf).scatter(1, tokens, shifted).to(scores.dtype)
        return result

    def _differences(self, index: list[int], tails: Any, rows: Tensor, tokens: Tensor) -> Any:
        """Return ``log P(a | x v) - log P(a | x)`` of tokens v behind rows x, ``[rows, kept]``.

        Args:
            index: number of the prompt of each row.
            tails: the tokens after the prompt on the host, ``[rows, count]``.
            rows: token ids, ``[rows, length]``.
            tokens: ids of the tokens, ``[rows, kept]``.
        """
        before, after = np.zeros((len(rows), 1)), np.zeros(tuple(tokens.shape))
        if self._attributes:
            ends = set(self._settings.text_ends(self._ends))
            for row, (states, following) in enumerate(zip(self._states(index, tails), tokens.tolist(), strict=True)):
                before[row] = self._value(states, False)
                after[row] = [
                    self._value(states, True) if token in ends else self._value(self._advance(states, token), False)
                    for token in following
                ]
        if self._rows is not None:
            before += self._of_rows(rows)[:, None]
            longer = torch.cat([rows.repeat_interleave(tokens.shape[1], 0), tokens.reshape(-1, 1)], dim=1)
            after += self._of_rows(longer).reshape(after.shape)
        return np.maximum(after, LEAST) - np.maximum(before, LEAST)

    def _of_rows(self, rows: Tensor) -> Any:
        """Return the value of each row under the function or classifier, ``[n]``; known rows are not asked again."""
        assert self._rows is not None
        name, scorer = self._rows
        keys = [row.tobytes() for row in rows.long().cpu().numpy()]
        missing = [place for place, key in enumerate(keys) if key not in self._known]
        if missing:
            asked = rows[torch.tensor(missing, device=rows.device)]
            values = checked_values(scorer(asked), len(missing), f"attribute: scorer {name!r}")
            self._known.update(zip((keys[place] for place in missing), values, strict=True))
        found = np.array([self._known[key] for key in keys])
        while len(self._known) > max(KEPT_VALUES, 2 * len(rows)):
            self._known.popitem(last=False)
        return found

    def _initial(self, prompt: int) -> tuple[Any, ...]:
        removed = self._prompts.removed[prompt] if self._prompts.removed else b""
        return tuple(attribute.initial(removed) for attribute in self._attributes)

    def _advance(self, states: tuple[Any, ...], token: int) -> tuple[Any, ...]:
        return tuple(each.advance(state, token) for each, state in zip(self._attributes, states, strict=True))

    def _value(self, states: tuple[Any, ...], ended: bool) -> float:
        return sum(each.value(state, ended) for each, state in zip(self._attributes, states, strict=True))


def checked_parts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping of an attribute after a check of its entries.

    Raises:
        UnknownNameError: an entry of another name.
        ParameterError: a value that breaks its rule, or no attribute at all.

    Example:
        >>> checked_parts({"length": 20})
        {'length': 20}
    """
    owner = "attribute"
    for name, value in parts.items():
        if name not in KINDS:
            raise UnknownNameError("attribute", name, KINDS)
        whole_number = isinstance(value, int) and not isinstance(value, bool)
        if name == "length" and not (whole_number and value >= 0):
            raise ParameterError(owner, name, "a whole number >= 0", value)
        if name == "varied" and not (whole_number and value >= 1):
            raise ParameterError(owner, name, "a whole number >= 1", value)
        if name == "spread" and not (isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0):
            raise ParameterError(owner, name, "a number > 0", value)
        if name in ("contains", "avoids"):
            texts = isinstance(value, (list, tuple)) and all(isinstance(text, str) and text for text in value)
            if not (texts and value):
                raise ParameterError(owner, name, "a list of texts, none empty", value)
        if name == "model" and not isinstance(value, str):
            raise ParameterError(owner, name, "the name of an object passed to bind", value)
    for name, needed in (("spread", "length"), ("label", "model")):
        if name in parts and needed not in parts:
            raise ParameterError(owner, name, f"given beside {needed!r}", parts[name])
    if not set(parts) - {"spread", "label"}:
        raise ParameterError(owner, "scorer", "a mapping with an attribute, such as {'length': 20}", dict(parts))
    return dict(parts)


def _attributes(parts: Mapping[str, Any], binding: Binding) -> list[Attribute]:
    """Return the attributes of a checked mapping that are folds over tokens."""
    found: list[Attribute] = []
    if "length" in parts:
        found.append(Length(parts["length"], float(parts.get("spread", SPREAD))))
    if "varied" in parts:
        found.append(Varied(parts["varied"]))
    for name, kind in (("contains", Contains), ("avoids", Avoids)):
        if name in parts:
            token_bytes = cast(Sequence[bytes | None], call_vocabulary(binding).token_bytes)
            found.append(kind(parts[name], token_bytes))
    return found
