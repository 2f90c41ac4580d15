"""Canonical decoding: forbid the tokens that the tokenizer would not write behind the tokens so far.

A text has many tokenizations, and a model can leave the tokenizer's own one: the text then looks the same and has other
tokens. "Say Anything but This", arXiv:2601.14658, counts such changes. Vieira et al., arXiv:2412.03719, and Hayase et
al., arXiv:2506.14123, section 3, give rules for canonical sequences; `logitkit.processors.tokens.canonical_rules`
carries them out.

Departure from masks that encode the text again after each token: a beginning of an encoding need not be the encoding
of its own text. A token is allowed if some continuation of the text makes the sequence begin an encoding. Otherwise
characters of several tokens, such as emoji, could never be written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitkit.errors import ModelError
from logitkit.params import Resource, checked
from logitkit.processors.canonical.prefix import CanonicalPrefix, canonical_prefix, extended
from logitkit.processors.canonical.rules import RuleSource, warn_without_rules
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.constraint_step import ConstraintStep, Mask
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.trace import Trace

KEPT = 256  # contexts whose forbidden tokens are kept: about 15 MB for 150,000 tokens


class Canonical(ConstraintStep[CanonicalPrefix]):
    """Allow only tokens that the tokenizer itself would write behind the prompt and the tokens so far.

    A token is forbidden if no continuation makes the sequence the beginning of an encoding. End tokens and other
    special tokens are allowed where the text so far, encoded again, gives the same tokens. The probabilities of the
    other tokens are renormalised. The trace has the probability of the removed tokens: the mean ``removed mass``, and
    the note ``removed_mass`` of each recorded step.

    A row with a token that the tokenizer would not write, in its prompt or where a gate was closed, is judged from the
    last such token on. For prompts, a notice in the trace says so.

    Args:
        source: gives the rules of the tokenizer; where it has none, texts are encoded again, which is slow.
        prompts: the prompts of the call.
        settings: the settings of the call.
        trace: receives the removed mass.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import foreign_model, foreign_tokenizer
        >>> tokenizer = foreign_tokenizer()
        >>> new = logitkit.generate(foreign_model(), tokenizer, "on the", chain="canonical()", do_sample=False,
        ...                         max_new_tokens=8).ids[0]
        >>> tokenizer(tokenizer.decode(new), add_special_tokens=False)["input_ids"] == list(new)
        True
    """

    owner: ClassVar[str] = "canonical"
    dead_end: ClassVar[str] = "the text ends inside a character that no token of the vocabulary completes"

    @checked
    def __init__(
        self,
        *,
        source: Annotated[RuleSource, Resource()],
        prompts: Annotated[Prompts, Resource()],
        settings: Annotated[CallSettings, Resource()],
        trace: Annotated[Trace | None, Resource()] = None,
    ) -> None:
        self._source, self._settings, self._prompts, self.trace = source, settings, prompts, trace
        self._rules = source.rules()
        vocabulary = self._rules.vocabulary
        super().__init__(prompts, settings, len(vocabulary))
        self._kept: OrderedDict[Any, Tensor] = OrderedDict()
        self._special = np.array(sorted(number for number in vocabulary.special if number < len(vocabulary)), np.int64)
        self._is_special = np.zeros(self._width, dtype=bool)
        self._is_special[self._special] = True
        self._behind_prefix = np.array([(text or b"").startswith(vocabulary.prefix) for text in vocabulary.token_bytes])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name not in ("_rules", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._kept = OrderedDict()
        self._rules = self._source.rules()

    @classmethod
    def bind(cls, binding: Binding) -> Canonical:
        """Return the processor with the rules of the tokenizer; they are built once and kept in the cache folder.

        Raises:
            ModelError: the tokenizer is a slow one, or changes texts, so that no tokens spell them.
        """
        source = RuleSource.of(binding)
        rules = source.rules()
        warn_without_rules(binding.tokenizer, rules)
        loss = rules.vocabulary.loss_reason
        if loss:
            raise ModelError(f"canonical: tokenizer must keep every byte of a text, but {loss}; leave canonical out")
        step = cls(source=source, prompts=binding.prompts, settings=binding.settings, trace=binding.trace)
        for number in range(len(binding.prompts)):
            if step.initial(number).restarted:
                name = binding.prompts.name(number)
                binding.trace.notices.append(
                    f"canonical: the tokenizer would write {name} in other tokens; the continuation is judged from the "
                    "last token on that does not fit the tokens before it"
                )
        return step

    def initial(self, prompt: int) -> CanonicalPrefix:
        """Return the canonical part of a prompt; a decoder's rows begin without text."""
        if self._prompts.in_encoder:
            return CanonicalPrefix((), restarted=False, at_start=False)
        return canonical_prefix(self._rules, self._prompts.tokens(prompt))

    def advance(self, state: CanonicalPrefix, token: int) -> CanonicalPrefix:
        """Return the canonical part after one more token."""
        return extended(self._rules, state, token)

    def permitted(self, state: CanonicalPrefix) -> Mask:
        """Return which tokens the tokenizer can write next, and special tokens where the text may end, ``[width]``."""
        mask = self._rules.successors(state.context).copy()
        if state.at_start and self._rules.vocabulary.prefix:
            mask &= self._behind_prefix
        for end in self._settings.end_tokens():
            if end < self._width and mask[end]:
                mask[end] = self._may_end_with(state, end)
        mask[self._special] = self._rules.may_end(state.context)
        return mask

    def remove(self, scores: Tensor, states: Mapping[int, CanonicalPrefix]) -> Tensor:
        """Return the scores with the forbidden tokens at -inf, and add their probability to the trace."""
        width = scores.shape[1]
        forbidden = [(row, self._forbidden(state, width)) for row, state in states.items()]
        parts = [ids + row * width if row else ids for row, ids in forbidden]
        # By number, because few tokens are forbidden: several times as fast as a mask of the vocabulary.
        single = len(parts) == 1  # in short, since each operation takes longer than its few numbers
        removed = (parts[0] if single else torch.cat(parts)).to(scores.device)
        masked = scores.clone(memory_format=torch.contiguous_format)
        masked.view(-1).index_fill_(0, removed, -torch.inf)
        if self.trace is not None:
            probabilities = scores.float().softmax(-1).view(-1).index_select(0, removed)
            split = [probabilities] if single else probabilities.split([len(part) for part in parts])
            shares = torch.stack([part.sum() for part in split])
            shares = shares.nan_to_num(0.0)  # nan: an earlier step removed every token
            if self.trace.recording:
                rows = torch.tensor(list(states), device=scores.device)
                self.trace.note(removed_mass=shares.new_zeros(len(scores)).index_copy(0, rows, shares))
            self.trace.average("canonical", "removed mass", shares, intervention=True)
        return masked

    def _forbidden(self, state: CanonicalPrefix, width: int) -> Tensor:
        """Return the ids that may not follow a canonical part, of a model with ``width`` ids; the last are kept."""
        ends = tuple(self._settings.end_tokens())
        key = state.context, state.at_start, ends, width
        if key not in self._kept:
            ids = self._forbidden_ids(state, ends)
            if width != self._width:
                ids = np.concatenate([ids[ids < width], np.arange(self._width, width)])
            self._kept[key] = torch.from_numpy(ids)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _forbidden_ids(self, state: CanonicalPrefix, ends: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the ids of the vocabulary that may not follow a canonical part: the complement of `permitted`."""
        if state.at_start and self._rules.vocabulary.prefix:
            return np.flatnonzero(~self.permitted(state))
        ids = self._rules.forbidden(state.context)
        ids = ids[~self._is_special[ids]]
        with_text = np.array([end for end in ends if end < self._width and not self._is_special[end]], np.int64)
        possible = np.setdiff1d(with_text, ids).tolist() if len(with_text) else []
        more = [end for end in possible if not self._may_end_with(state, end)]
        if not self._rules.may_end(state.context):
            more += self._special.tolist()
        return np.concatenate([ids, np.array(more, np.int64)]) if more else ids

    def _may_end_with(self, state: CanonicalPrefix, end: int) -> bool:
        """Return whether a text is complete with an end token that is text; nothing follows an end token."""
        return self._rules.may_end(self._rules.extend(state.context, end))
