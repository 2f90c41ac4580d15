"""Budgets of tokens: for a block of thinking, and for the whole continuation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from logitkit.errors import ModelError, ParameterError, ScoresError
from logitkit.params import Resource, checked, is_neutral, number, option, whole
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.call_vocabulary import call_vocabulary
from logitkit.processors.engine.constraint_step import RowReader
from logitkit.processors.engine.prefix_states import PrefixStates
from logitkit.processors.engine.prompts import Prompts
from logitkit.processors.engine.scores import are_usable
from logitkit.processors.model_facts import end_tokens

LARGEST_SHIFT = 1e4  # nats; a larger shift changes no probability, and scores of half precision end at 65504


class BlockState(NamedTuple):
    """The text of a row, as far as later tokens depend on it.

    Attributes:
        tail: the last bytes, in which the next marker may begin.
        written: number of generated tokens in the open block; None: no block is open.
        forced: number of leading closing tokens that the row ends with, counted from the end of the budget.
    """

    tail: bytes = b""
    written: int | None = None
    forced: int = 0


class ThinkingBudget(LogitsProcessor):
    """End a block of thinking after a number of tokens, by closing tokens that are forced one at a time.

    A block is open from the text ``open``, in the prompt or in the row, to the text ``close``. Generated tokens behind
    ``open`` count. Once ``tokens`` of them are written, the tokens of ``closing_text + close`` are the only ones
    possible, in order; how many of them are there already is read off the row. Without ``open``, nothing happens.

    Args:
        open: text that opens a block, such as ``<think>``; the text of a special token counts.
        close: text that closes it.
        tokens: number of generated tokens that a block may have before the closing tokens.
        closing_text: text that is forced before ``close``.
        closing: the tokens of ``closing_text + close``.
        texts: the bytes of each token id, with those of special tokens.
        prompts: the prompts of the call.
        settings: the settings of the call.

    Raises:
        ParameterError: an empty marker, or two equal markers.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> chain = "thinking_budget(open='<think>', close='</think>', tokens=3)"
        >>> generation = logitkit.generate(tiny_model(), tiny_tokenizer(), "Why? <think>", chain=chain,
        ...                                do_sample=False, max_new_tokens=11)
        >>> generation.texts[0].find("</think>"), generation.texts[0].endswith("</think>")
        (3, True)
    """

    @checked
    def __init__(
        self,
        *,
        open: Annotated[str, option("text that opens a block of thinking")],
        close: Annotated[str, option("text that closes it")],
        tokens: Annotated[int, whole("generated tokens of a block before it is closed", ge=0)],
        closing_text: Annotated[str, option("text that is written before the closing marker")] = "",
        closing: Annotated[Sequence[int], Resource()],
        texts: Annotated[Sequence[bytes], Resource()],
        prompts: Annotated[Prompts, Resource()],
        settings: Annotated[CallSettings, Resource()],
    ) -> None:
        for name, marker in (("open", open), ("close", close)):
            if not marker or open == close:
                raise ParameterError("thinking_budget", name, "text, different from the other marker", marker)
        self.open, self.close, self.tokens, self.closing_text = open, close, tokens, closing_text
        self._closing, self._texts, self._prompts = tuple(closing), texts, prompts
        self._reader = RowReader(prompts, settings)
        self._states = PrefixStates(self._initial, self._advance)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_states"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._states = PrefixStates(self._initial, self._advance)

    @classmethod
    def bind(cls, binding: Binding, *, open: str, close: str, tokens: int, closing_text: str) -> ThinkingBudget:
        """Return the processor with the closing tokens and the text of every token.

        Raises:
            ParameterError: as for the class, and where the tokens of ``closing_text + close`` do not spell ``close``.
        """
        vocabulary = call_vocabulary(binding)
        texts = [data or b"" for data in vocabulary.token_bytes]
        for token in vocabulary.special:
            texts[token] = str(binding.tokenizer.convert_ids_to_tokens(token)).encode()
        closing = binding.tokenizer(closing_text + close, add_special_tokens=False)["input_ids"]
        if close.encode() not in b"".join(texts[token] for token in closing if token < len(texts)):
            raise ParameterError("thinking_budget", "close", "text that the tokenizer keeps as it is", close)
        own: dict[str, Any] = {"prompts": binding.prompts, "settings": binding.settings}
        given: dict[str, Any] = {"open": open, "close": close, "tokens": tokens, "closing_text": closing_text}
        return cls(**given, closing=closing, texts=texts, **own)

    def _initial(self, prompt: int) -> BlockState:
        """Return the state after a prompt, whose tokens do not count towards the budget."""
        state = BlockState()
        for token in [] if self._prompts.in_encoder else self._prompts.tokens(prompt):
            state = self._read(state, token)
            state = state._replace(written=None if state.written is None else 0)
        return state

    def _advance(self, state: BlockState, token: int) -> BlockState:
        """Return the state after one more generated token."""
        before, state = state, self._read(state, token)
        if before.written is None or state.written is None or state.written == 0:
            return state
        if before.written < self.tokens:
            return state
        return state._replace(forced=self._matched(before.forced, token))

    def _read(self, state: BlockState, token: int) -> BlockState:
        """Return the state after the text of one more token, without the count of forced tokens."""
        text = state.tail + (self._texts[token] if token < len(self._texts) else b"")
        written = None if state.written is None else state.written + 1
        markers = self.open.encode(), self.close.encode()
        while (at := text.find(marker := markers[written is not None])) >= 0:
            text = text[at + len(marker) :]
            written = 0 if written is None else None
        longest = max(map(len, markers)) - 1
        return BlockState(text[max(0, len(text) - longest) :], written)

    def _matched(self, forced: int, token: int) -> int:
        """Return how many leading closing tokens a row ends with after one more token."""
        written = (*self._closing[:forced], token)
        return next(
            count for count in range(len(written), -1, -1) if written[len(written) - count :] == self._closing[:count]
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores, with every token but the next closing one at -inf where the budget is spent.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.

        Raises:
            ScoresError: the scores make the closing token impossible.
        """
        index, tails, ended = self._reader(input_ids)
        states = self._states(index, tails)
        spent = [
            row
            for row, state in enumerate(states)
            if not ended[row] and state.written is not None and state.written >= self.tokens
        ]
        if not spent:
            return scores
        rows = torch.tensor(spent, device=scores.device)
        closing = torch.tensor([self._closing[states[row].forced] for row in spent], device=scores.device)
        kept = scores[rows, closing]
        if not bool(are_usable(kept).all()):
            raise ScoresError(
                "thinking_budget: the closing token must be possible where the budget is spent, got -inf for it; put "
                "thinking_budget first in the chain, or leave out the step that forbids the token"
            )
        forced = scores.clone()
        forced[rows] = -torch.inf
        forced[rows, closing] = kept
        return forced


class LengthTarget(LogitsProcessor):
    """Shift the log-odds of ending by ``strength * (t - tokens)`` nats, with t the number of generated tokens.

    The end tokens together are less probable before ``tokens`` and more probable after. The proportions among the end
    tokens, and among the others, stay the same. An impossible end token stays impossible.

    Args:
        tokens: number of generated tokens at which nothing is shifted.
        strength: nats a token, at least 0; 0 changes nothing. Shifts are limited to 10,000 nats.
        ends: end tokens where `generate` and the model state none.
        settings: the settings of the call.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> call = logitkit.chain("length_target(tokens=2, strength=0.5)").bind(tiny_model(), tiny_tokenizer(), "one")
        >>> scores = call.composite(call.prompts.ids, torch.zeros(1, 272))  # two tokens too early: -2 * 0.5 nats
        >>> float(scores[0, 257] - scores[0, 0])
        -1.0
    """

    @checked
    def __init__(
        self,
        *,
        tokens: Annotated[int, whole("number of generated tokens that is aimed at", ge=0)],
        strength: Annotated[float, number("nats by which each token shifts the odds of ending", ge=0, neutral=0)] = 0.1,
        ends: Annotated[Sequence[int], Resource()],
        settings: Annotated[CallSettings, Resource()],
    ) -> None:
        self.tokens, self.strength, self._ends, self._settings = tokens, strength, tuple(ends), settings

    @classmethod
    def bind(cls, binding: Binding, *, tokens: int, strength: float) -> LengthTarget:
        """Return the processor with the end tokens of the call.

        Raises:
            ModelError: neither the model nor the tokenizer has an end token.
        """
        # The tokenizer's end token counts only where the model has none: else `generate` does not stop at it.
        ends = end_tokens(binding.model) or end_tokens(binding.model, binding.tokenizer)
        if not ends:
            raise ModelError("length_target: model must have an end token; set model.generation_config.eos_token_id")
        return cls(tokens=tokens, strength=strength, ends=ends, settings=binding.settings)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with shifted end tokens, ``[rows, vocab]``.

        Args:
            input_ids: ``[rows, length]``.
            scores: logits or log-probabilities, ``[rows, vocab]``.
        """
        shift = self.strength * (input_ids.shape[1] - self._settings.start - self.tokens)
        ends = [end for end in self._settings.text_ends(self._ends) if end < scores.shape[-1]]
        if is_neutral(self.strength, 0) or not shift or not ends:
            return scores
        shift = max(-LARGEST_SHIFT, min(shift, LARGEST_SHIFT))
        is_end = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        is_end[ends] = True
        # Only lower scores, so that none overflows: the end tokens before the target, all others behind it.
        return torch.where(is_end == (shift < 0), scores - abs(shift), scores)
