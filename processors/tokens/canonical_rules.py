"""Canonical token sequences of BPE tokenizers, decided by rules instead of by re-encoding.

A token sequence is canonical when the encoding of some text starts with this sequence. Two rules decide this token by
token. Words start and end where the pretokenizer cuts the text (`pretokenizer`). Inside a word, no other merge may
precede the merges that produce the tokens of the word (`merge_rule`). A cut can depend on the characters after the
cut. A token is therefore allowed when some continuation of the text allows the token, and the actual continuation is
checked as soon as it is known. `Reencoding` gives the same results by encoding texts. `Reencoding` is slow and serves
tokenizers without rules; the tests compare the rules with `Reencoding`.

Phan et al., arXiv:2410.09303, sum over encodings that are re-encoded to themselves. Departure: here the beginnings of
such encodings count, too. A beginning need not be re-encoded to itself: the tokens "a", " ", " " begin the Qwen2.5
encoding of "a  ʤ". The probabilities of all next bytes sum to the probability of the text only if beginnings count.
"""

# Over 300 lines: one class, whose questions about tokens share the facts and caches of a tokenizer.
from __future__ import annotations

import codecs
import dataclasses
import functools
from typing import Any

import numpy as np

from logitkit.errors import ModelError
from logitkit.processors.tokens.byte_fallback import ByteFallback
from logitkit.processors.tokens.composition import Composition
from logitkit.processors.tokens.incomplete_characters import IncompleteCharacters, dead_ends, inside_character
from logitkit.processors.tokens.look_ahead import continuations
from logitkit.processors.tokens.merge_rule import MergeRule
from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.reencoding import LONGEST, Context, Ids, Mask, Reencoding
from logitkit.processors.tokens.rule_support import unsupported_part
from logitkit.processors.tokens.token_shapes import TokenShapes
from logitkit.processors.tokens.token_window import Window
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.processors.tokens.word_positions import VocabularyPositions, WordPosition, WordPositions
from logitkit.processors.tokens.writable_tokens import cut_alone, writable_tokens

FEW = 4  # up to as many tokens are decided one by one
SHARE = 8  # from an eighth of the vocabulary on, tokens are looked up in the answer for the whole vocabulary


class CanonicalRules(Reencoding):
    """Next tokens of the canonical sequences of a BPE tokenizer, decided by rules.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its vocabulary, of the size of the model.
        tables: the tokenizer's tables; None: everything is computed.

    Attributes:
        writable: tokens that the merges can produce from some text, bool ``[vocab]``.
        merge_rule: which tokens can be neighbours inside a word.
        positions: which tokens can start or continue a word.

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

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary, tables: TokenizerTables | None = None) -> None:
        tables = tables or TokenizerTables(tokenizer, len(vocabulary))
        unsupported = unsupported_part(tables.settings)
        if unsupported is not None:
            raise ModelError(
                "CanonicalRules: tokenizer must have a BPE model and a known pretokenizer, "
                f"got {unsupported}; use Reencoding"
            )
        super().__init__(tokenizer, vocabulary, tables)
        self.merge_rule = merge_rule = MergeRule.of(tables)
        self.pretokenizer = Pretokenizer(tables.settings, vocabulary, tables)
        self._ignores_merges = bool(tables.settings["model"].get("ignore_merges"))
        self._fallback = ByteFallback(tables, vocabulary)
        self._inside_character = tables.array("inside_character", lambda: inside_character(vocabulary))
        writable = tables.array("writable", lambda: writable_tokens(tables.whole, vocabulary, merge_rule))
        # The pretokenizer does not look for these added tokens. They are allowed wherever a text may end.
        self._isolated = np.zeros(len(vocabulary), dtype=bool)
        self._isolated[list(vocabulary.added - set(self.pretokenizer.added.values()))] = True
        self._isolated &= writable
        self._has_isolated = bool(self._isolated.any())
        self._composition = Composition.of(tables, vocabulary)
        self._find_incomplete(tables, writable)
        whole = tables.array("cut_alone", lambda: cut_alone(vocabulary, self.pretokenizer, self.writable))
        ends = self._incomplete.characters
        shapes = {
            fine: TokenShapes(vocabulary, self.pretokenizer, self.writable, whole, ends, fine=fine, tables=tables)
            for fine in (False, True)
        }
        self.positions = WordPositions(self.pretokenizer, shapes)
        self._successors = functools.lru_cache(maxsize=1024)(self._find_successors)
        self._window = functools.lru_cache(maxsize=4096)(self._read_window)

    def _find_incomplete(self, tables: TokenizerTables, writable: Mask) -> None:
        """Set `writable`, without tokens whose last character nothing completes, and the rules of such characters."""
        inside, composes = self._inside_character, self._composition.composes
        facts = self.vocabulary, self.merge_rule, self.pretokenizer
        dead = tables.array("dead_ends", lambda: dead_ends(*facts, writable, inside, composes=composes))
        self.writable = writable & ~dead
        self._whole = self.writable & ~inside
        self._incomplete = IncompleteCharacters(*facts, self.writable & inside, composes=composes)

    def extend(self, context: Context, token: int) -> Context:
        """Return the context after one more token.

        Tokens are dropped up to the last position at which a word starts whatever text follows.
        """
        if self._isolated[token]:
            return ()
        context = (*context, token)
        window = self._window(context)
        if len(context) > 1 and len(window.text) > 2:
            for number in range(len(context) - 1, 0, -1):
                place = window.starts[number]
                if self.pretokenizer.surely_cuts(window.text, place) and self._composition.parts(window.text, place):
                    return context[number:]
        return context[-LONGEST:]

    def may_end(self, context: Context) -> bool:
        """Return whether a text may end here, that is, whether the tokens are the encoding of their text."""
        window = self._window(context)
        return not window.open_bytes and self.positions.position(window, "", "") is not None

    def allows(self, context: Context, token: int) -> bool:
        """Return whether a token can come next; several times as fast as `allowed` for one token."""
        window = self._window(context)
        if window.open_bytes:
            return bool(self.successors(context)[token])
        if self._isolated[token] and self.may_end(context):
            return True
        start, inside = self.positions.of_token(window, token)
        if inside and not start and window.last is not None and not self._fallback.is_byte_token(window.last):
            inside = self._can_merge(window.last, token)
        possible = ((start or inside) and self._whole[token]) or self._fallback.first[token]
        return bool(possible) and self._composition.permits_token(window.text, token)

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """Return which of some tokens can come next; bool, of the shape of ``ids``."""
        if ids.size <= FEW:
            few: Mask = np.array([self.allows(context, token) for token in ids.ravel().tolist()], dtype=np.bool_)
            return few.reshape(ids.shape)
        window = self._window(context)
        if ids.size * SHARE >= len(self.vocabulary) or window.open_bytes:
            mask: Mask = self.successors(context)[ids]
            return mask
        return self._decide(context, ids, *self.positions.of_tokens(window, ids))  # only their shapes are examined

    def successors(self, context: Context) -> Mask:
        """Return which tokens can come next, bool ``[vocab]``; the caller may not write to the mask."""
        mask: Mask = self._successors(context)
        return mask

    def forbidden(self, context: Context) -> Ids:
        """Return the tokens that cannot come next, ``[count]`` ids, each once; the complement of `successors`.

        Few tokens are forbidden, so this is several times as fast as a mask of the vocabulary.
        """
        window = self._window(context)
        if window.open_bytes:
            return super().forbidden(context)
        last = None if window.last is None or self._fallback.is_byte_token(window.last) else window.last
        positions = self.positions.of_vocabulary(window)
        if (last is not None) not in positions.derived:
            positions.derived[last is not None] = self._by_position(positions, behind_token=last is not None)
        forbidden, inside, possible = positions.derived[last is not None]
        unmergeable = forbidden[:0] if last is None else self._unmergeable(last, inside)
        changing = np.array(self._composition.changing(window.text), np.int64)
        changing = changing[possible[changing]]
        if len(changing):
            places = np.searchsorted(unmergeable, changing).clip(max=max(0, len(unmergeable) - 1))
            changing = changing[unmergeable[places] != changing] if len(unmergeable) else changing
        ids: Ids = np.concatenate([forbidden, unmergeable, changing])
        return ids[~self._isolated[ids]] if self._has_isolated and self.may_end(context) else ids

    def _by_position(self, positions: VocabularyPositions, *, behind_token: bool) -> tuple[Ids, Mask, Mask]:
        """Return which tokens no merge makes possible, which are possible inside a word alone, and which are possible.

        Args:
            positions: where the tokens can be.
            behind_token: whether a token before decides with which tokens it would merge.
        """
        start = positions.start & self._whole | self._fallback.first
        inside = positions.inside & self._whole & ~start
        if behind_token:
            width = min(len(inside), self.merge_rule.size)
            inside[:width] &= self.merge_rule.reachable[:width]
            inside[width:] = False
        return np.flatnonzero(~(start | inside)), inside, start | inside

    def _unmergeable(self, token: int, inside: Mask) -> Ids:
        """Return which of the tokens ``inside`` a word, bool ``[vocab]``, cannot follow a token there, ascending."""
        if token >= self.merge_rule.size or not self.merge_rule.reachable[token]:
            return np.flatnonzero(inside)
        ids: Ids = self.merge_rule.blocked(token).astype(np.int64)
        ids = ids[ids < len(inside)] if self.merge_rule.size > len(inside) else ids
        ids = np.sort(ids[inside[ids]])  # repeated ids are left out last, since few are inside
        return ids[np.append(True, ids[1:] != ids[:-1])] if len(ids) else ids

    def _find_successors(self, context: Context) -> Mask:
        """Compute the value of `successors`, which caches the result."""
        window = self._window(context)
        if window.open_bytes:
            return self._completing_tokens(window)
        positions = self.positions.of_vocabulary(window)
        return self._decide(context, slice(None), positions.start, positions.inside)

    def _decide(self, context: Context, ids: Ids | slice, start: Mask, inside: Mask) -> Mask:
        """Return which tokens can come next behind complete characters, given where they can be in a word."""
        window = self._window(context)
        if window.last is not None and not self._fallback.is_byte_token(window.last):
            inside = inside & self._mergeable(window.last)[ids]
        mask: Mask = (start | inside) & self._whole[ids] | self._fallback.first[ids]
        mask &= self._composition.permits(window.text)[ids]
        return mask | self._isolated[ids] if self._has_isolated and self.may_end(context) else mask

    def _can_merge(self, left: int, right: int) -> bool:
        """Return whether the merge rule allows two tokens as neighbours inside a word."""
        return max(left, right) < self.merge_rule.size and self.merge_rule.allows(left, right)

    def _mergeable(self, token: int) -> Mask:
        """Return which tokens the merge rule allows after a token inside a word, bool ``[vocab]``."""
        mask = np.zeros(len(self.vocabulary), dtype=bool)
        width = min(len(mask), self.merge_rule.size)
        if token < self.merge_rule.size:
            mask[:width] = self.merge_rule.successors(token)[:width]
        return mask

    def _completing_tokens(self, window: Window) -> Mask:
        """Return the tokens that can follow an incomplete character, bool ``[vocab]``."""
        last = window.last
        if last is None or self._fallback.is_byte_token(last):
            return self._fallback.completing(window.open_bytes)
        allowed: Mask = self.writable & self._mergeable(last) & self._inside_character
        agreements: dict[Any, bool] = {}  # keyed by the character classes of the pretokenizer
        for token in np.flatnonzero(allowed):
            decoder = codecs.getincrementaldecoder("utf-8")("strict")
            try:
                decoder.decode(window.open_bytes)
                text = decoder.decode(self.vocabulary.token_bytes[token] or b"")
            except UnicodeDecodeError:
                allowed[token] = False
                continue
            open_bytes = decoder.getstate()[0]
            ends = self._incomplete.characters(int(token), open_bytes)
            if (open_bytes and not ends) or not self._composition.fits_completed(window.text, text):
                allowed[token] = False
                continue
            # A token without a whole character leaves the character incomplete: any of its ends is possible.
            chars, behind, after = (text[0], text[1:], ends) if text else (ends, "", ())
            key = tuple(map(self.pretokenizer.class_of, chars)), behind, ends
            if key not in agreements:
                agreements[key] = any(self._agrees(window, char, behind, after) for char in chars)
            allowed[token] = agreements[key]
        return allowed

    def _agrees(self, window: Window, char: str, behind: str, ends: tuple[str, ...]) -> bool:
        """Return whether a token that completes a character and contains further text can stay uncut.

        Args:
            window: the tokens before.
            char: the completed character.
            behind: the text of the token after this character.
            ends: characters that can complete the last one of the token; empty where it is complete.
        """
        whole = dataclasses.replace(window, text=window.text + char, open_bytes=b"")
        agreeing = {WordPosition.INSIDE} if behind or ends else {WordPosition.INSIDE, WordPosition.START}
        return any(
            self.positions.position(whole, behind, continuation, is_open=bool(ends)) in agreeing
            for continuation in continuations(self.pretokenizer, whole.text, behind, ends)
        )

    def _read_window(self, context: Context) -> Window:
        """Return the tokens of a context as a window."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, starts, joinable, added = "", [], [], set()
        for number, token in enumerate(context):
            starts.append(len(text) if not decoder.getstate()[0] else -1)
            before = context[number - 1] if number else None
            joinable.append(before is None or self._can_merge(before, token))
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
        """Return whether several tokens spell a word that the tokenizer writes as one token (``ignore_merges``)."""
        if not self._ignores_merges or len(tokens) < 2:
            return False
        return any(self.writable[token] for token in self.vocabulary.ids_of.get(self.vocabulary.join(tokens), ()))
