"""Stop strings and end tokens for continuations that spell the end of their prompt again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from logitkit.errors import ModeError, ParameterError
from logitkit.params import is_valid_unicode
from logitkit.processors.tokens.vocabulary import Vocabulary


def refuse_ends_in_removed_bytes(tokenizer: Any, ends: Sequence[int], removed: Sequence[bytes]) -> None:
    """Refuse end tokens with which a continuation may spell the bytes removed from its prompt: it would end there.

    Args:
        tokenizer: the tokenizer of the generating model.
        ends: the tokens at which `generate` ends a row.
        removed: the removed bytes of each prompt.

    Raises:
        ModeError: names the token and the bytes.
    """
    if not any(removed):
        return
    token_bytes = Vocabulary.of(tokenizer).token_bytes
    for end in ends:
        text = token_bytes[end] if end < len(token_bytes) else None
        inside = next((each for each in removed if text and text in each), None)
        if inside is not None:
            raise ModeError(
                f"byte_boundary: eos_token_id must not be a token of the bytes cut from a prompt ({inside!r}), which "
                f"the continuation spells again, got {end} ({text!r}); use stop_strings, or leave byte_boundary out"
            )


class NewBytesStop(StoppingCriteria):
    """Stops a row when a stop string occurs in its new bytes, after the bytes removed from its prompt.

    The criterion of transformers also matches inside the removed bytes, so that a prompt that ends with its own stop
    string would stop at once.

    Args:
        vocabulary: the tokens as bytes.
        width: number of tokens of the prompts.
        removed: the removed bytes of each prompt.
        stop_strings: the stop strings.
    """

    def __init__(
        self, vocabulary: Vocabulary, width: int, removed: Sequence[bytes], stop_strings: str | Sequence[str]
    ) -> None:
        self._vocabulary, self._width, self._removed = vocabulary, width, tuple(removed)
        strings = [stop_strings] if isinstance(stop_strings, str) else stop_strings
        self._stops = [string.encode() for string in strings]

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return which rows stop, bool ``[rows]``.

        Args:
            input_ids: rows, those of one prompt next to each other, ``[rows, length]``.
            scores: unused.
        """
        rows_per_prompt = max(1, len(input_ids) // len(self._removed))
        stopped = []
        for number, row in enumerate(input_ids[:, self._width :].tolist()):
            written = self._vocabulary.join(token for token in row if token < len(self._vocabulary))
            new = written[len(self._removed[number // rows_per_prompt]) :]
            stopped.append(any(stop in new for stop in self._stops))
        return torch.tensor(stopped, dtype=torch.bool, device=input_ids.device)


def with_stop_strings(settings: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Return settings of ``generate`` with the tokenizer that their stop strings need.

    Args:
        settings: settings of ``model.generate``; without ``stop_strings`` they are returned as they are.
        tokenizer: the tokenizer of the generating model, for settings without one.

    Raises:
        ParameterError: stop strings that are not texts, are empty, or contain lone surrogates.

    >>> with_stop_strings({"stop_strings": "end"}, "a tokenizer")
    {'tokenizer': 'a tokenizer', 'stop_strings': 'end'}
    """
    stops = settings.get("stop_strings")
    if stops is None:
        return settings
    strings = [stops] if isinstance(stops, str) else stops
    texts = isinstance(strings, (list, tuple)) and all(isinstance(string, str) and string for string in strings)
    if not texts or not strings or not is_valid_unicode(list(strings)):
        raise ParameterError("generate", "stop_strings", "one or more texts of valid Unicode, none empty", stops)
    return {"tokenizer": tokenizer} | settings


def with_new_bytes_stop(settings: dict[str, Any], criterion: NewBytesStop) -> dict[str, Any]:
    """Return settings of ``generate`` in which a criterion takes the place of ``stop_strings``."""
    criteria = StoppingCriteriaList([*(settings.get("stopping_criteria") or ()), criterion])
    return {name: value for name, value in settings.items() if name != "stop_strings"} | {"stopping_criteria": criteria}
