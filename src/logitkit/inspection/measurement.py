"""Measures what a chain does to the distribution at every token of one continuation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

from logitkit.errors import ModeError, ModelError, ParameterError
from logitkit.files import cache_folder
from logitkit.inspection.completion import Completion, complete
from logitkit.inspection.model_name import model_name
from logitkit.inspection.moves import Move, MoveRecorder
from logitkit.inspection.settings import GenerateSettings
from logitkit.processors.canonical import non_canonical_tokens
from logitkit.processors.canonical.rules import RuleSource
from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain

# Settings with which generate writes several rows, or rewinds a row.
_OTHER_THAN_ONE_ROW = ("num_beams", "num_return_sequences", "assistant_model", "prompt_lookup_num_tokens")


@dataclass(frozen=True, eq=False, kw_only=True)
class Inspection:
    """A continuation with the move of every token; `inspect` returns it.

    Attributes:
        completion: the text, the trace and the cost.
        moves: one move per token.
        tokenizer: tokenizer of the generating model.
        prompt: the prompt as the model reads it.
        model: name of the generating model: a known name, a hub id, or the name of its folder.
        settings: settings of ``model.generate``.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> inspection = inspect(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=3)
    >>> len(inspection.most_moved(2))
    2
    """

    completion: Completion
    moves: list[Move]
    tokenizer: Any
    prompt: str
    model: str
    settings: Mapping[str, Any]

    @cached_property
    def _token_bytes(self) -> tuple[bytes | None, ...] | None:
        """The bytes of every token, or None for a slow tokenizer, which does not provide them."""
        try:
            return Vocabulary.of(self.tokenizer).token_bytes
        except ModelError:
            return None

    @cached_property
    def non_canonical(self) -> tuple[bool, ...] | None:
        """For each token whether the tokenizer would not write it here, so that a second reading gives other tokens.

        None where this is unknown: the tokenizer is a slow one, or changes texts. See `non_canonical_tokens`.
        """
        try:
            rules = RuleSource.of_model(self.completion.call.model, self.tokenizer, cache_folder()).rules()
        except ModelError:
            return None
        row, count = self.completion.row, len(self.moves)
        new = row[len(row) - count :]
        return (
            None if rules.vocabulary.loss_reason else tuple(non_canonical_tokens(rules, row[: len(row) - count], new))
        )

    def token_text(self, token: int) -> str:
        """Return a token as text with its spaces; bytes that form no whole character are escaped."""
        if self._token_bytes is None:
            return str(self.tokenizer.decode([token]))
        token_bytes = self._token_bytes[token] if token < len(self._token_bytes) else None
        if token_bytes is None:
            return str(self.tokenizer.convert_ids_to_tokens(token) or f"<id {token}>")
        return token_bytes.decode(errors="backslashreplace")

    @property
    def chain(self) -> str:
        """The chain as text, or ``plain decoding`` for an empty chain."""
        return self.completion.chain or "plain decoding"

    def most_moved(self, count: int) -> list[tuple[int, Move]]:
        """Return the ``count`` largest moves with the positions of their tokens, largest first."""
        return sorted(enumerate(self.moves), key=lambda pair: -pair[1].js_bits)[:count]


# Over 40 lines: the arguments are documented one by one.
def inspect(
    model: Any,
    tokenizer: Any,
    prompt: str | list[dict[str, str]],
    chain: str | Chain = "",
    *,
    top: int = 8,
    seed: int = 0,
    label: str = "tokens",
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    **settings: Unpack[GenerateSettings],
) -> Inspection:
    """Continue one prompt under a chain and measure every step.

    Args:
        model, tokenizer: the generating model and its tokenizer.
        prompt: one text, or the messages of one chat.
        chain: the chain to inspect; empty is plain decoding.
        top: how many of the most probable tokens to keep, before and after the chain.
        seed: random seed of the sampling.
        label: description of the progress bar.
        resources, tokenizers: as in `logitkit.generate`.
        settings: settings of ``model.generate``; ``max_new_tokens`` is 64 and ``do_sample`` False unless given.

    Returns:
        The continuation and its moves. `html_page` and `terminal_view` show them.

    Raises:
        ModeError: the chain has a search or a selector.
        ParameterError: there are several prompts, or the settings do not write one row from left to right.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> inspection = inspect(tiny_model(), tiny_tokenizer(), "Once", "temperature(0.5)", max_new_tokens=3)
    >>> [0 < move.js_bits < 1 for move in inspection.moves]
    [True, True, True]
    """
    for name in _OTHER_THAN_ONE_ROW:
        value = settings.get(name)
        if value not in (None, 1):
            raise ParameterError("inspect", name, "left out, because inspect follows one row", value)
    settings.setdefault("do_sample", False)
    settings.setdefault("max_new_tokens", 64)
    recorders: list[MoveRecorder] = []

    def attach(call: Call) -> None:
        if call.search is not None:
            owner = call.chain.specs[-1].name
            raise ModeError(
                f"inspect: a chain must write one row from left to right, got {owner}, which compares many rows; leave "
                "it out to inspect the steps, or use logitkit run"
            )
        if len(call.prompts) != 1:
            raise ParameterError("inspect", "prompt", "one prompt", call.prompts.texts)
        recorders.append(MoveRecorder(call.trace, top))
        call.composite.observer = recorders[0]

    completion = complete(
        model,
        tokenizer,
        prompt,
        chain,
        record=True,
        seed=seed,
        label=label,
        before_generate=attach,
        resources=resources,
        tokenizers=tokenizers,
        **settings,
    )
    return Inspection(
        completion=completion,
        moves=recorders[0].finish(completion.row),
        tokenizer=tokenizer,
        prompt=completion.call.prompts.texts[0],
        model=model_name(model),
        settings=dict(settings) | ({"seed": seed} if settings["do_sample"] else {}),
    )
