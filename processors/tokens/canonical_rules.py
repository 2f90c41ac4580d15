"""Canonical token sequences by rules: which sequences of tokens a BPE tokenizer writes for their text.

A sequence is canonical when the encoding of some text starts with it. Two rules decide this token by token. Words
start and end where the pretokenizer cuts (`pretokenizer`). Inside a word, no merge may come before those that make its
tokens (`merge_rule`). A cut can depend on the characters behind it, so a token is allowed when some continuation
allows it; the actual continuation is checked as soon as it is known. `Reencoding` decides the same by encoding texts;
it is slow, serves tokenizers that are unknown here, and is what the tests compare these rules with.

Phan et al., arXiv:2410.09303, sum over encodings that are re-encoded to themselves. Departure: here the beginnings of
such encodings count, too. A beginning need not be re-encoded to itself: "a", " ", " " begins the Qwen2.5 encoding of
"a  ʤ". Only with the beginnings do the probabilities of all next bytes sum to the probability of the text.
"""

from __future__ import annotations

import codecs
import dataclasses
import enum
import functools
import warnings
from typing import Any

import numpy as np

from logitkit.errors import ModelError
from logitkit.processors.tokens.byte_fallback import ByteFallback
from logitkit.processors.tokens.merge_rule import MergeRule
from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.reencoding import LONGEST, Context, Ids, Mask, Reencoding
from logitkit.processors.tokens.rule_support import unsupported_part
from logitkit.processors.tokens.token_bytes import starts_inside_character
from logitkit.processors.tokens.token_shapes import ShapeExample, TokenShapes
from logitkit.processors.tokens.token_window import Window, character_classes, shortened
from logitkit.processors.tokens.tokenizer_description import description
from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.processors.tokens.writable_tokens import SAMPLE_CONTINUATIONS, uncut_tokens, writable_tokens


class WordPosition(enum.Enum):
    """Where a token stands in its word: at the start, with a cut of the pretokenizer before it, or inside."""

    START = enum.auto()
    INSIDE = enum.auto()


class CanonicalRules(Reencoding):
    """Which tokens can follow which in the canonical sequences of a BPE tokenizer, by rules.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its vocabulary, of the size of the model.

    Attributes:
        writable: tokens that some text is written with, bool ``[vocab]``.
        merge_rule: which tokens can be neighbours inside a word.

    Raises:
        ModelError: there are no rules for the tokenizer; see `unsupported_part`.

    >>> from logitkit.processors.tokens import Vocabulary
    >>> from logitkit.registry.laws import foreign_tokenizer
    >>> tokenizer = foreign_tokenizer()
    >>> rules = CanonicalRules(tokenizer, Vocabulary.of(tokenizer))
    >>> t, h, the = tokenizer.convert_tokens_to_ids(["t", "h", "the"])
    >>> context = rules.extend((), t)
    >>> rules.allows(context, h), rules.allows(rules.extend((), the), t)
    (False, True)
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        data = description(tokenizer)
        unsupported = unsupported_part(data)
        if unsupported is not None:
            raise ModelError(
                "CanonicalRules: tokenizer must have a BPE model and a known pretokenizer, "
                f"got {unsupported}; use Reencoding"
            )
        super().__init__(tokenizer, vocabulary)
        self.merge_rule = MergeRule(data["model"]["vocab"], data["model"]["merges"])
        self.pretokenizer = Pretokenizer(data, vocabulary)
        self._ignores_merges = bool(data["model"].get("ignore_merges"))
        self._fallback = ByteFallback(data["model"], vocabulary)
        self._inside_character = np.array([starts_inside_character(text) for text in vocabulary.token_bytes])
        writable = writable_tokens(data, vocabulary, self.merge_rule)
        # Added tokens that the pretokenizer is not searched for are allowed wherever a text may end.
        self._isolated = np.zeros(len(vocabulary), dtype=bool)
        self._isolated[list(vocabulary.added - set(self.pretokenizer.added.values()))] = True
        self._isolated &= writable
        self.writable = writable & uncut_tokens(vocabulary, self.pretokenizer, writable)
        self._shapes = {
            fine: TokenShapes(vocabulary, self.pretokenizer, self.writable, fine=fine) for fine in (False, True)
        }
        self._successors = functools.lru_cache(maxsize=1024)(self._find_successors)
        self._window = functools.lru_cache(maxsize=4096)(self._read_window)
        self._positions_by_shape: dict[Any, tuple[Mask, Mask]] = {}

    def extend(self, context: Context, token: int) -> Context:
        """Return the context after one more token; tokens before a sure start of a word are dropped."""
        if self._isolated[token]:
            return ()
        context = (*context, token)
        window = self._window(context)
        if len(context) > 1 and len(window.text) > 2:
            for number in range(len(context) - 1, 0, -1):
                if self.pretokenizer.surely_cuts(window.text, window.starts[number]):
                    return context[number:]
        return context[-LONGEST:]

    def may_end(self, context: Context) -> bool:
        """Return whether a text may end here: whether its encoding is then these tokens."""
        window = self._window(context)
        return not window.open_bytes and self._word_position(window, "", "") is not None

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """Return which of some tokens can come next; bool, of the shape of ``ids``."""
        mask: Mask = self.successors(context)[ids]
        return mask

    def successors(self, context: Context) -> Mask:
        """Return which tokens can come next, bool ``[vocab]``."""
        mask: Mask = self._successors(context)
        return mask

    def _find_successors(self, context: Context) -> Mask:
        """The value of `successors`, computed anew."""
        window = self._window(context)
        if window.open_bytes:
            return self._completing_tokens(window)
        start, inside = self._positions(window)
        if window.last is not None and not self._fallback.is_byte_token(window.last):
            inside = inside & self._mergeable(window.last)
        mask: Mask = self.writable & ~self._inside_character & (start | inside) | self._fallback.first
        return mask | self._isolated if self.may_end(context) else mask

    def _mergeable(self, token: int) -> Mask:
        """The tokens that the merge rule allows behind a token, inside a word, bool ``[vocab]``."""
        mask = np.zeros(len(self.vocabulary), dtype=bool)
        width = min(len(mask), self.merge_rule.size)
        if token < self.merge_rule.size:
            mask[:width] = self.merge_rule.successors(token)[:width]
        return mask

    def _positions(self, window: Window) -> tuple[Mask, Mask]:
        """The tokens that can start a word behind a window, and those that can stand inside one, ``[vocab]`` each."""
        if self.pretokenizer.never_cuts:
            every = np.ones(len(self.vocabulary), dtype=bool)
            return np.zeros_like(every) if window.last is not None else every, every
        fine = bool(self.pretokenizer.letters) and "'" in window.text[-2:]
        shapes = self._shapes[fine]
        window = shortened(window, self.pretokenizer)
        classes = character_classes(window, self.pretokenizer)
        key = fine, classes, window.added, window.taken_whole, *window.boundaries()
        if key not in self._positions_by_shape:
            each = [self._positions_of(window, example) for example in shapes.examples]
            self._positions_by_shape[key] = np.array([row[0] for row in each]), np.array([row[1] for row in each])
        start, inside = self._positions_by_shape[key]
        return start[shapes.of], inside[shapes.of]

    def _positions_of(self, window: Window, example: ShapeExample) -> tuple[bool, bool]:
        """Whether some continuation lets a token of this shape start a word, and stand inside one.

        Where the first value is True, the second is not decided to the end: a token that starts a word is allowed
        whatever the merge rule says.
        """
        inside = False
        for continuation in self._continuations_of(example.text, example.open_bytes):
            position = self._word_position(window, example.text, continuation, added=example.added)
            if position is WordPosition.START:
                return True, inside
            inside = inside or position is WordPosition.INSIDE
        return False, inside

    def _continuations_of(self, text: str, open_bytes: bytes) -> tuple[str, ...]:
        """The continuations to try behind a token with this text and these bytes of an incomplete character."""
        contraction = bool(self.pretokenizer.letters) and text.endswith("'")
        # A heuristic: behind two classes of characters, no known pattern looks further than a few characters.
        mixed = len({self.pretokenizer.class_of(char) for char in text}) > 1 and not contraction
        return self.pretokenizer.completions(open_bytes) or (
            SAMPLE_CONTINUATIONS[:3] if mixed else SAMPLE_CONTINUATIONS
        )

    def _word_position(
        self, window: Window, text: str, continuation: str, *, added: bool = False
    ) -> WordPosition | None:
        """Where a token with this text stands behind a window, if the text goes on in this way.

        None where the sequence is not canonical: a cut falls inside a token, or tokens of the window would have
        merged.
        """
        end = len(window.text)
        cuts, spans = self.pretokenizer.cuts(window.text + text + continuation)
        wanted = window.added | ({(end, end + len(text))} if added else set())
        actual = {span for span in spans if span[0] < end + len(text) and (span[0] < end or text)}
        if actual != wanted:
            return None
        inner = {cut for cut in cuts if 0 < cut < end + len(text) and cut != end}
        if not inner <= set(window.starts) or any(
            not joinable and place not in inner for place, joinable in window.boundaries()
        ):
            return None
        if not (end == 0 or end in cuts or added):
            return WordPosition.INSIDE
        last_word = max((cut for cut in inner if cut < end), default=0)
        return None if end and window.taken_whole[window.starts.index(last_word)] else WordPosition.START

    def _completing_tokens(self, window: Window) -> Mask:
        """The tokens that can follow an incomplete character, bool ``[vocab]``."""
        last = window.last
        if last is None or self._fallback.is_byte_token(last):
            return self._fallback.completing(window.open_bytes)
        allowed: Mask = self.writable & self._mergeable(last) & self._inside_character
        agreements: dict[Any, bool] = {}  # by what the pretokenizer distinguishes
        for token in np.flatnonzero(allowed):
            decoder = codecs.getincrementaldecoder("utf-8")("strict")
            try:
                decoder.decode(window.open_bytes)
                text = decoder.decode(self.vocabulary.token_bytes[token] or b"")
            except UnicodeDecodeError:
                allowed[token] = False
                continue
            open_bytes = decoder.getstate()[0]
            completions = self.pretokenizer.completions(open_bytes)
            # Without a whole character in the token, the incomplete one can be any of the completions.
            chars, behind, open_bytes = (text[0], text[1:], open_bytes) if text else (completions, "", b"")
            key = tuple(map(self.pretokenizer.class_of, chars)), behind, completions
            if key not in agreements:
                agreements[key] = any(self._agrees(window, char, behind, open_bytes) for char in chars)
            allowed[token] = agreements[key]
        return allowed

    def _agrees(self, window: Window, char: str, behind: str, open_bytes: bytes) -> bool:
        """Whether some cuts agree with a token that completes a character and goes on with more text, uncut."""
        whole = dataclasses.replace(window, text=window.text + char, open_bytes=b"")
        ends_here = not behind and not open_bytes
        agreeing = {WordPosition.INSIDE, WordPosition.START} if ends_here else {WordPosition.INSIDE}
        return any(
            self._word_position(whole, behind, continuation) in agreeing
            for continuation in self._continuations_of(behind, open_bytes)
        )

    def _read_window(self, context: Context) -> Window:
        """The tokens of a context as a window."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, starts, joinable, added = "", [], [], set()
        for number, token in enumerate(context):
            starts.append(len(text) if not decoder.getstate()[0] else -1)
            before = context[number - 1] if number else None
            joinable.append(before is None or bool(self._mergeable(before)[token]))
            token_text = decoder.decode(self.vocabulary.token_bytes[token] or b"")
            if token in self.vocabulary.added and token_text in self.pretokenizer.added:
                added.add((len(text), len(text) + len(token_text)))
            if before is not None and any(map(self._fallback.is_byte_token, (before, token))):
                joinable[-1] = True  # byte tokens never merge
            text += token_text
        return Window(
            text=text,
            starts=tuple(starts),
            joinable=tuple(joinable),
            taken_whole=tuple(self._is_taken_whole(context[number:]) for number in range(len(context))),
            added=frozenset(added),
            open_bytes=decoder.getstate()[0],
            last=context[-1] if context else None,
        )

    def _is_taken_whole(self, tokens: Context) -> bool:
        """Whether several tokens spell a token that the tokenizer writes before any merge (``ignore_merges``)."""
        if not self._ignores_merges or len(tokens) < 2:
            return False
        return any(self.writable[token] for token in self.vocabulary.ids_of.get(self.vocabulary.join(tokens), ()))


def canonical_rules_for(tokenizer: Any, vocabulary: Vocabulary) -> Reencoding:
    """Return the canonical sequences of a tokenizer: `CanonicalRules`, or `Reencoding` with a warning.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its vocabulary, of the size of the model.

    Raises:
        ModelError: the tokenizer is a slow one.

    >>> from logitkit.processors.tokens import Vocabulary
    >>> from logitkit.registry.laws import tiny_tokenizer
    >>> type(canonical_rules_for(tiny_tokenizer(), Vocabulary.of(tiny_tokenizer()))).__name__
    'CanonicalRules'
    """
    unsupported = unsupported_part(description(tokenizer))
    if unsupported is None:
        return CanonicalRules(tokenizer, vocabulary)
    warnings.warn(
        f"canonical covers: there are no rules for the tokenizer's {unsupported}. Next tokens are found by "
        "re-encoding, which is exact but takes up to seconds per byte. "
        "For short texts, covers='all' is an alternative.",
        stacklevel=2,
    )
    return Reencoding(tokenizer, vocabulary)
