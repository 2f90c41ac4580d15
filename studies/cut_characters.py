"""Distributions of the next character, byte by byte, after a text that is cut inside a token.

A character of Chinese, Japanese or Thai has three bytes, of which the first says little. So each way of prompting is a
law of the next byte after some bytes of the character, and the loss is that of all its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from logitkit.processors.byte_level import ByteTree
from logitkit.processors.byte_level.hypotheses import Hypothesis
from logitkit.processors.byte_level.logsumexp import logsumexp
from studies.cut_prompts import NEGLIGIBLE, ByteProbabilities, CutPromptMethods

Law = Callable[[bytes], ByteProbabilities]  # of the next byte, given the bytes after the cut so far
SMALLEST = 1e-12  # probability of a byte at least, so that every loss is finite


class Branch(NamedTuple):
    """A way in which the hard mask writes the removed bytes.

    Attributes:
        tokens: the prompt and the tokens of the mask.
        mass: probability of these tokens under the mask.
        beyond: bytes of the last token that follow the removed bytes.
    """

    tokens: tuple[int, ...]
    mass: float
    beyond: bytes


class CutCharacterMethods:
    """The ways of prompting one model with a text that is cut between two characters.

    Args:
        model, tokenizer: the generating model and its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.cut = CutPromptMethods(model, tokenizer)
        self.exact = self.cut.tree
        self.loose = ByteTree(model, tokenizer, covers="all")  # after given tokens, any token may follow
        self.begin = tuple(tokenizer("")["input_ids"])  # tokens that precede every prompt

    def evaluate(self, text: str, after: str) -> dict[str, Any]:
        """Return for each method whether the likeliest next bytes are the next character, and its log-loss in bits.

        Args:
            text: the text before the cut.
            after: the text after the cut, long enough for the token that is cut.
        """
        self.exact.release()  # the previous cut was in another text
        self.loose.release()
        truth = after[0]
        ids, following = self.at_token_boundary(text, after)
        laws: dict[str, tuple[Law, str]] = {
            "plain prompt": (self.after(self.tokenizer(text)["input_ids"]), truth),
            "hard mask": (self.masked(text.encode()), truth),
            "byte_boundary": (self.byte_boundary(text.encode()), truth),
            "cut at a token boundary, plain": (self.after(ids), following),
        }
        measured = {method: along(law, character.encode()) for method, (law, character) in laws.items()}
        hits: dict[str, bool | None] = {method: right for method, (right, _) in measured.items()}
        hits["transformers token_healing"] = self.cut.token_healing(text, truth)
        return {"hits": hits, "losses": {method: loss for method, (_, loss) in measured.items()}}

    def after(self, ids: Sequence[int]) -> Law:
        """Return the law of the bytes after these tokens, over every tokenization of the bytes."""
        return lambda written: _normalised(self.loose.distribution(written, conditioning=tuple(ids)).logp.exp().numpy())

    def byte_boundary(self, text: bytes) -> Law:
        """Return the exact law given all bytes of the text."""

        def law(written: bytes) -> ByteProbabilities:
            found = self.exact.distribution(text + written, conditioning=self.begin)
            return _normalised(found.logp.exp().numpy())

        return law

    def masked(self, text: bytes) -> Law:
        """Return the law under a hard mask after the prompt without its last tokens; see `CutPromptMethods.hard_mask`.

        Once the removed bytes are written, any token may follow.
        """
        branches = list(self._branches(text))

        def law(written: bytes) -> ByteProbabilities:
            total = np.zeros(257)
            for branch in branches:
                if len(branch.beyond) > len(written):
                    if branch.beyond.startswith(written):
                        total[branch.beyond[len(written)]] += branch.mass
                elif written.startswith(branch.beyond):
                    rest, following = written[len(branch.beyond) :], self.after(branch.tokens)
                    total += branch.mass * _probability(following, rest) * following(rest)
            return _normalised(total)

        return law

    def _branches(self, text: bytes) -> Iterator[Branch]:
        """Yield the ways in which the mask writes the bytes that the prompt lost, the negligible ones left out."""
        rule, vocabulary = self.cut.every_token, self.exact.vocabulary
        trunk, _ = self.exact.covers.of_text(text)
        removed = text[len(vocabulary.join(trunk)) :]
        start = (*self.begin, *trunk)
        open_ = [(Hypothesis(context=(), start=0), start, 1.0)]
        while open_:
            hypothesis, tokens, mass = open_.pop()
            if hypothesis.start == len(removed):
                yield Branch(tokens, mass, b"")
                continue
            pending = removed[hypothesis.start :]
            beyond = rule.tokens_beyond(hypothesis, removed).tolist()
            within = rule.extensions_within(hypothesis, removed)
            ids = [*beyond, *(extended.tokens[-1] for extended in within)]
            logp = self._next_token(tokens)[ids]
            masses = np.exp(logp - logsumexp(logp)) * mass
            for token, own in zip(beyond, masses, strict=False):
                yield Branch((*tokens, token), float(own), vocabulary.token_bytes[token][len(pending) :])
            for extended, own in zip(within, masses[len(beyond) :], strict=True):
                if own > NEGLIGIBLE:
                    open_.append((extended, (*tokens, extended.tokens[-1]), float(own)))

    def _next_token(self, tokens: tuple[int, ...]) -> Any:
        """Return log-probabilities of the next token."""
        tree = self.loose.kv_tree
        return tree.read(tree.root, list(tokens), conditioning=True).logp

    def at_token_boundary(self, text: str, after: str) -> tuple[list[int], str]:
        """Return the tokens up to the last token boundary before the cut, and the character that follows there.

        The boundaries are those of the whole text.
        """
        ids = list(self.tokenizer(text + after)["input_ids"])
        whole = (text + after).encode()
        while True:
            length = len(self.exact.vocabulary.join(ids))
            if length <= len(text.encode()) and whole[length] & 0xC0 != 0x80:  # not inside a character
                return ids, whole[length:].decode()[0]
            ids = ids[:-1]


def along(law: Law, character: bytes) -> tuple[bool, float]:
    """Return whether a law has each byte of a character as its likeliest one, and the loss of the character in bits.

    Examples:
        >>> def law(written):
        ...     return np.array([0.75, 0.25]) if not written else np.array([0.5, 0.5])
        >>> along(law, bytes([1, 0]))
        (False, 3.0)
    """
    right, bits = True, 0.0
    for place, byte in enumerate(character):
        probabilities = law(character[:place])
        right = right and int(probabilities.argmax()) == byte
        bits -= float(np.log2(max(probabilities[byte], SMALLEST)))
    return right, bits


def _probability(law: Law, written: bytes) -> float:
    """Return the probability of some bytes under a law."""
    return float(np.prod([law(written[:place])[byte] for place, byte in enumerate(written)]))


def _normalised(probabilities: Any) -> ByteProbabilities:
    """Return probabilities that sum to 1."""
    found: ByteProbabilities = np.asarray(probabilities, dtype=np.float64)
    return found / float(found.sum())
