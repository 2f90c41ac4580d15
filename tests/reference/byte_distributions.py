"""Reference for `ByteModel`: normalised distributions and whole texts from the enumeration of covers."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from logitkit.processors.byte_level import ByteModel, texts_of
from reference.byte_covers import Enumeration, random_model, random_tokenizer

END = 256


class SlowBytes:
    """Computes the distribution of a `ByteModel` from all covers, normalised over some letters and the end."""

    def __init__(self, model: Any, tokenizer: Any, letters: bytes = b"ab ") -> None:
        self.slow, self.letters = Enumeration(model, tokenizer), letters
        self.distribution = functools.cache(self._distribution)

    def _distribution(self, text: bytes) -> dict[int, float]:
        """Return the probability of each letter and, at 256, of the end."""
        found = {letter: math.exp(logp) for letter, logp in self.slow.distribution(text, self.letters).items()}
        return {letter: p / sum(found.values()) for letter, p in found.items()}

    def texts(self, prompt: bytes, length: int) -> dict[bytes, float]:
        """Return the probability of each text that ``generate`` can write in so many bytes; 0xff marks an end."""
        growing, ended = {b"": 1.0}, {}
        for _ in range(length):
            longer: dict[bytes, float] = {}
            for text, p in growing.items():
                for letter, share in self.distribution(prompt + text).items():
                    if letter == END:
                        ended[text + b"\xff"] = p * share
                    else:
                        longer[text + bytes([letter])] = p * share
            growing = longer
        return ended | growing


class FromScratch:
    """A processor that compares the scores of each row with those of a new `ByteModel`, and returns them unchanged.

    Attributes:
        worst: largest difference in nats from the given scores, over all possible ids.
        calls: number of calls.
    """

    supports_continuous_batching = False

    def __init__(self, model: Any, tokenizer: Any, mask: Tensor, **settings: Any) -> None:
        self.make = functools.partial(ByteModel, model, tokenizer, **settings)
        self.mask, self.worst, self.calls = mask, 0.0, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.calls += 1
        rows = input_ids.shape[0] // self.mask.shape[0]
        mask = torch.ones_like(input_ids)
        mask[:, : self.mask.shape[1]] = self.mask.repeat_interleave(rows, dim=0)
        for (text,), got in zip(texts_of(input_ids, mask), scores.log_softmax(-1), strict=True):
            if text is None or bool(
                (scores == 1).all()
            ):  # the text has ended, or prompt lookup tries tokens on scores of its own
                continue
            want = self.make().logp([text])[0]
            possible = want > -torch.inf
            if not bool(possible.any()):
                continue  # a beam of probability 0
            assert torch.equal(possible, got > -torch.inf)
            self.worst = max(self.worst, float((want - got)[possible].abs().max()))
        return scores


def tiny(seed: int, **more: Any) -> tuple[Any, Any]:
    """Return a random model and a random tokenizer of the letters a, b and space."""
    tokenizer = random_tokenizer(seed, **more)
    return random_model(tokenizer, seed), tokenizer
