"""The attributes of `logitkit.processors.samplers.attributes` for one row, token by token: the slow reference.

Each attribute is a fold over the continuation. It knows ``log P(attribute | continuation so far)``, which is exact for
a finished continuation; for an unfinished one it states the assumption that it makes about the rest.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

LEAST = -1e4  # nats: log P of an attribute that a continuation cannot have any more; finite, so that no beam dies


class Length:
    """The continuation has about a number of tokens: ``P(attribute | n tokens) = exp(-((n - tokens) / spread)^2 / 2)``.

    An unfinished continuation is assumed to end at each further place with probability ``1 / (tokens + 1)``. The end
    token does not count.

    Args:
        tokens: the number of tokens.
        spread: tokens by which the number may differ.

    Example:
        >>> length = Length(3, 1.0)
        >>> length.value(4, True), length.value(5, True)  # one and two spreads away: -1^2 / 2 and -2^2 / 2
        (-0.5, -2.0)
    """

    def __init__(self, tokens: int, spread: float) -> None:
        self.tokens, self.spread = tokens, spread
        self._unfinished = functools.lru_cache(maxsize=4096)(self._mean)

    def __reduce__(self) -> tuple[type[Length], tuple[int, float]]:
        return type(self), (self.tokens, self.spread)

    def initial(self, removed: bytes) -> int:
        """Return 0, the number of tokens."""
        return 0

    def advance(self, state: int, token: int) -> int:
        """Return the number of tokens."""
        return state + 1

    def value(self, state: int, ended: bool) -> float:
        """Return the log-probability; see the class."""
        return max(LEAST, self._final(state) if ended else self._unfinished(state))

    def _final(self, count: int) -> float:
        return -(((count - self.tokens) / self.spread) ** 2) / 2

    def _mean(self, count: int) -> float:
        """Return the log of the mean over the places at which an unfinished continuation may end."""
        hazard = 1 / (self.tokens + 1)
        more = range(max(self.tokens - count, 0) + math.ceil(12 * self.spread) + 1)
        if hazard == 1:
            return self._final(count)
        terms = [math.log(hazard) + k * math.log1p(-hazard) + self._final(count + k) for k in more]
        largest = max(terms)
        return largest + math.log(sum(math.exp(term - largest) for term in terms))


class Varied:
    """No group of tokens repeats: each token that completes a group seen before costs one nat.

    Args:
        tokens: size of the groups.

    Example:
        >>> varied = Varied(2)
        >>> state = varied.initial(b"")
        >>> for token in [5, 6, 5, 6]:
        ...     state = varied.advance(state, token)
        >>> varied.value(state, False)  # "5 6" twice
        -1.0
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def initial(self, removed: bytes) -> tuple[tuple[int, ...], frozenset[tuple[int, ...]], int]:
        """Return no tokens, no groups and no repetition."""
        return (), frozenset(), 0

    def advance(self, state: Any, token: int) -> tuple[tuple[int, ...], frozenset[tuple[int, ...]], int]:
        """Return the last tokens, the groups so far, and the number of repetitions."""
        last, groups, repeated = state
        group = (*last, token)[-self.tokens :]
        if len(group) == self.tokens:
            repeated += group in groups
            groups = groups if group in groups else groups | {group}
        return group, groups, repeated

    def value(self, state: Any, ended: bool) -> float:
        """Return minus the number of repetitions."""
        return max(LEAST, -float(state[2]))


class Found(NamedTuple):
    """How far a text is found in a continuation.

    Attributes:
        matched: leading bytes of the text with which the continuation ends; all of them once the text was found.
        skipped: bytes that the row still spells from the prompt.
    """

    matched: tuple[int, ...]
    skipped: int


class _Texts:
    """Search for texts in the bytes of a continuation.

    Args:
        texts: the texts, none empty.
        token_bytes: the bytes of each token; None or absent: no text.
    """

    def __init__(self, texts: Sequence[str], token_bytes: Sequence[bytes | None]) -> None:
        self._texts = [text.encode() for text in texts]
        self._fallbacks = [_fallbacks(text) for text in self._texts]
        self._token_bytes = token_bytes

    def initial(self, removed: bytes) -> Found:
        """Return that nothing was found."""
        return Found((0,) * len(self._texts), len(removed))

    def advance(self, state: Found, token: int) -> Found:
        """Return how far each text is found after one more token."""
        data = (self._token_bytes[token] if token < len(self._token_bytes) else None) or b""
        fresh = data[state.skipped :]
        matched = tuple(self._matched(number, before, fresh) for number, before in enumerate(state.matched))
        return Found(matched, max(0, state.skipped - len(data)))

    def missing(self, state: Found) -> list[int]:
        """Return how many bytes are missing of each text."""
        return [len(text) - matched for text, matched in zip(self._texts, state.matched, strict=True)]

    def _matched(self, number: int, matched: int, data: bytes) -> int:
        text, fallbacks = self._texts[number], self._fallbacks[number]
        for byte in data:
            if matched == len(text):
                break
            while matched and text[matched] != byte:
                matched = fallbacks[matched - 1]
            matched += text[matched] == byte
        return matched


class Contains(_Texts):
    """All texts occur: each missing byte of an unfinished continuation is assumed to follow with probability 1/e.

    Example:
        >>> contains = Contains(["ab"], [b"a", b"b"])
        >>> state = contains.advance(contains.initial(b""), 0)
        >>> contains.value(state, False), contains.value(state, True)  # one byte is missing; the text ends without it
        (-1.0, -10000.0)
    """

    def value(self, state: Found, ended: bool) -> float:
        """Return the log-probability; see the class."""
        missing = sum(self.missing(state))
        return max(LEAST, LEAST if ended and missing else -float(missing))


class Avoids(_Texts):
    """None of the texts occurs, under the assumption of `Contains` about the bytes that follow.

    Example:
        >>> avoids = Avoids(["ab"], [b"a", b"b"])
        >>> state = avoids.advance(avoids.initial(b""), 0)
        >>> round(avoids.value(state, False), 3), avoids.value(avoids.advance(state, 1), False)  # log(1 - 1/e)
        (-0.459, -10000.0)
    """

    def value(self, state: Found, ended: bool) -> float:
        """Return the log-probability; see the class."""
        missing = self.missing(state)
        if not all(missing):
            return LEAST
        return 0.0 if ended else sum(math.log(-math.expm1(-count)) for count in missing)


def _fallbacks(text: bytes) -> list[int]:
    """Return, for each beginning of a text, the length of the longest proper suffix that also begins the text."""
    lengths, length = [0], 0
    for byte in text[1:]:
        while length and text[length] != byte:
            length = lengths[length - 1]
        length += text[length] == byte
        lengths.append(length)
    return lengths
