"""Positions of tokens in their words: at the start of a word or inside, given the tokens before."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from logitkit.processors.tokens.look_ahead import continuations
from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.reencoding import Ids, Mask
from logitkit.processors.tokens.token_shapes import ShapeExample, TokenShapes
from logitkit.processors.tokens.token_window import Window, character_classes, shortened
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables

KEPT = 128  # windows whose masks of the whole vocabulary are kept: 40 MB for 150,000 tokens


@dataclass(frozen=True, eq=False)
class VocabularyPositions:
    """Positions of the whole vocabulary behind the windows of one kind; the masks may not be written to.

    Attributes:
        start: which tokens can start a word, bool ``[vocab]``.
        inside: which tokens can continue a word, bool ``[vocab]``.
        derived: what `CanonicalRules` derives from the masks, so that it is kept as long as they are.
    """

    start: Mask
    inside: Mask
    derived: dict[bool, tuple[Ids, Mask, Mask]] = field(default_factory=dict)


class WordPosition(enum.Enum):
    """Position of a token in its word: at the start, directly after a cut of the pretokenizer, or inside."""

    START = enum.auto()
    INSIDE = enum.auto()


class WordPositions:
    """Tells which tokens can start a word behind a window, and which can continue a word.

    Tokens of one shape have the same positions behind windows of the same character classes, so the positions are
    kept in a table for each class of windows.

    Args:
        pretokenizer: cuts texts into words.
        shapes: the shapes of all tokens; with True, those that distinguish the letters in `Pretokenizer.literal`.
    """

    def __init__(self, pretokenizer: Pretokenizer, shapes: Mapping[bool, TokenShapes]) -> None:
        self.pretokenizer, self._shapes = pretokenizer, shapes
        self._tables: dict[str, NDArray[np.int8]] = {}
        self._masks: dict[str, VocabularyPositions] = {}  # the one asked for last at the end
        # By identity: `CanonicalRules` keeps the window of each context.
        self._described = lru_cache(maxsize=1024)(self._describe)

    def keep(self, tables: TokenizerTables, warm_up: Callable[[], object]) -> None:
        """Take the positions that a file has, or find some by ``warm_up`` and have them saved.

        Args:
            tables: the tokenizer's tables.
            warm_up: follows common texts, so that the positions behind common windows are found.
        """

        def found() -> list[str]:
            warm_up()
            return list(self._tables)

        names = tables.value("position_windows", found)
        most = max((len(shapes.examples) for shapes in self._shapes.values()), default=0)
        stacked = tables.array("positions", lambda: self._stacked(most))
        for name, table in zip(names, stacked, strict=True):
            fine = name.startswith("(True")
            self._tables[name] = table[: len(self._shapes[fine].examples)].copy()

    def _stacked(self, most: int) -> NDArray[np.int8]:
        """Return all tables, padded to ``most`` shapes, int8 ``[windows, most, 2]``."""
        stacked = np.full((len(self._tables), most, 2), -1, dtype=np.int8)
        for place, table in enumerate(self._tables.values()):
            stacked[place, : len(table)] = table
        return stacked

    def of_token(self, window: Window, token: int) -> tuple[bool, bool]:
        """Return whether a token can start a word after a window, and whether it can continue a word.

        Only the shape of this token is examined.

        Args:
            window: the tokens before.
            token: its id.
        """
        if self.pretokenizer.never_cuts:
            return window.last is None, True
        window, shapes, key = self._described(window)
        table, number = self._tables[key], int(shapes.of[token])
        if table[number, 0] < 0:
            table[number] = self._of_shape(window, shapes.examples[number])
        return bool(table[number, 0]), bool(table[number, 1])

    def of_tokens(self, window: Window, ids: Ids) -> tuple[Mask, Mask]:
        """Return which of some tokens can start a word after a window, and which can continue a word.

        Only the shapes of these tokens are examined.

        Args:
            window: the tokens before.
            ids: token ids, of any shape.

        Returns:
            Two masks, bool, of the shape of ``ids``.
        """
        if self.pretokenizer.never_cuts:
            every = np.ones(ids.shape, dtype=bool)
            return np.zeros_like(every) if window.last is not None else every, every
        window, shapes, key = self._described(window)
        table, numbers = self._tables[key], shapes.of[ids]
        self._complete(table, window, shapes, np.unique(numbers[table[numbers, 0] < 0]))
        return table[numbers, 0] > 0, table[numbers, 1] > 0

    def of_vocabulary(self, window: Window) -> VocabularyPositions:
        """Return the positions of the whole vocabulary; those of the `KEPT` kinds of windows asked for last are kept.

        Args:
            window: the tokens before.
        """
        if self.pretokenizer.never_cuts:
            every = np.ones(len(self._shapes[False].of), dtype=bool)
            return VocabularyPositions(np.zeros_like(every) if window.last is not None else every, every)
        window, shapes, key = self._described(window)
        positions = self._masks.pop(key, None)
        if positions is None:
            table = self._tables[key]
            self._complete(table, window, shapes, np.flatnonzero(table[:, 0] < 0))
            start, inside = (np.take(np.ascontiguousarray(column), shapes.of) for column in table.astype(bool).T)
            positions = VocabularyPositions(start, inside)
        self._masks[key] = positions
        for oldest in list(self._masks)[:-KEPT]:
            self._masks.pop(oldest, None)
        return positions

    def _complete(self, table: NDArray[np.int8], window: Window, shapes: TokenShapes, missing: Ids) -> None:
        """Write the positions of the ``missing`` shapes behind a window into its table."""
        for number in missing.tolist():
            table[number] = self._of_shape(window, shapes.examples[number])

    def _describe(self, window: Window) -> tuple[Window, TokenShapes, str]:
        """Return a window in its short form, the shapes to distinguish behind it, and the key of its table."""
        fine = self.pretokenizer.literal.open(window.text)
        shapes = self._shapes[fine]
        window = shortened(window, self.pretokenizer)
        classes = character_classes(window, self.pretokenizer)
        key = repr((fine, classes, sorted(window.added), window.taken_whole, *window.boundaries()))
        if key not in self._tables:
            self._tables[key] = np.full((len(shapes.examples), 2), -1, dtype=np.int8)
        return window, shapes, key

    def _of_shape(self, window: Window, example: ShapeExample) -> tuple[bool, bool]:
        """Return whether a token of this shape can start a word, and whether such a token can continue a word.

        Each value is True if some continuation of the text permits the position. The second value may be incomplete
        where the first value is True: a token that starts a word is allowed regardless of the merge rule.
        """
        inside = False
        for continuation in continuations(self.pretokenizer, window.text, example.text, example.ends):
            position = self.position(
                window, example.text, continuation, added=example.added, is_open=bool(example.ends)
            )
            if position is WordPosition.START:
                return True, inside
            inside = inside or position is WordPosition.INSIDE
        return False, inside

    def position(
        self, window: Window, text: str, continuation: str, *, added: bool = False, is_open: bool = False
    ) -> WordPosition | None:
        """Return the position in its word of a token after a window, given the continuation of the text.

        Returns None where the sequence is not canonical: a cut falls inside a token, or tokens of the window would
        have merged.

        Args:
            window: the tokens before.
            text: the whole characters of the token.
            continuation: the text behind them.
            added: whether the token is an added one.
            is_open: whether the token has the first bytes of one more character, with which the continuation begins.
        """
        end = len(window.text)
        cuts, spans = self.pretokenizer.cuts(window.text + text + continuation)
        wanted = window.added | ({(end, end + len(text))} if added else set())
        actual = {span for span in spans if span[0] < end + len(text) and (span[0] < end or text)}
        if actual != wanted:
            return None
        inner = {cut for cut in cuts if 0 < cut < end + len(text) + is_open and cut != end}
        if not inner <= set(window.starts) or any(
            not joinable and place not in inner for place, joinable in window.boundaries()
        ):
            return None
        if not (end == 0 or end in cuts or added):
            return WordPosition.INSIDE
        last_word = max((cut for cut in inner if cut < end), default=0)
        return None if end and window.taken_whole[window.starts.index(last_word)] else WordPosition.START
