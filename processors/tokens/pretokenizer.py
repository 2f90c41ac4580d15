"""The cuts of a pretokenizer, which splits a text into words before merging, and the character classes of its patterns.

The tokenizer's own pretokenizer is run to find the cuts. Characters that its patterns do not distinguish form a class.
A result for one token therefore holds for every token with the same character classes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray
from tokenizers import Tokenizer

from logitkit.processors.tokens.pattern_letters import PatternLetters
from logitkit.processors.tokens.token_bytes import MARKER
from logitkit.processors.tokens.tokenizer_description import parts_of, without_prefix_space
from logitkit.processors.tokens.tokenizer_tables import TokenizerTables
from logitkit.processors.tokens.vocabulary import Vocabulary

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MANY_ADDED = 256  # a tokenizer with more added tokens is searched for those of white space only: a cost limit
Span = tuple[int, int]
CharacterClass = tuple[object, ...]
# Patterns with every character class that a step distinguishes; None: the pattern depends on the step's settings.
_PATTERNS: dict[str, str | None] = {
    "Split": None,
    "ByteLevel": None,
    "Metaspace": None,
    "Digits": r"\p{N}",
    "Whitespace": r"\w\s",
    "WhitespaceSplit": r"\s",
    "Punctuation": r"\p{P}\p{S}",
}


class Pretokenizer:
    """The pretokenizer of a tokenizer. A space that the tokenizer puts before every text is left out.

    Args:
        data: the tokenizer's description, without a step that `unknown_step` returns.
        vocabulary: its vocabulary.
        tables: the tokenizer's tables; None: everything is computed.

    Attributes:
        never_cuts: whether a whole text is one word.
        added: id of each added token that the tokenizer looks for in a text, by the text of the token.
        literal: letters that occur literally in a pattern, such as the letters of English contractions.
    """

    def __init__(self, data: Mapping[str, Any], vocabulary: Vocabulary, tables: TokenizerTables | None = None) -> None:
        steps = parts_of(without_prefix_space(data)["pre_tokenizer"])
        self._marks_spaces = any(step.get("content") == MARKER for step in parts_of(data["normalizer"]))
        bare = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
        sequence = {"type": "Sequence", "pretokenizers": steps}
        self._cutter = Tokenizer.from_str(json.dumps(bare | {"pre_tokenizer": sequence})).pre_tokenizer
        contents = {number: (vocabulary.token_bytes[number] or b"").decode() for number in vocabulary.added}
        if len(contents) > MANY_ADDED:
            contents = {number: text for number, text in contents.items() if text.isspace()}
        self.added = {text: number for number, text in sorted(contents.items(), reverse=True)}
        longest = sorted(self.added, key=len, reverse=True)
        self._added = regex.compile("|".join(map(regex.escape, longest))) if longest else None
        patterns = " ".join(_pattern(step) for step in steps)
        self.never_cuts = not self.added and not patterns.strip()
        self._classes = [regex.compile(name) for name in sorted(set(regex.findall(r"\\[pP]\{\w+\}|\\[sdw]", patterns)))]
        self._classes += [
            regex.compile(f"[{span}]") for span in sorted(set(regex.findall(r"[^\x00-\x7f]-.|a-z|A-Z|0-9", patterns)))
        ]
        self.literal = PatternLetters.of(patterns)
        literals = regex.sub(r"\\[pP]\{\w+\}|\\[sSdDwW]|\\[rnt]|\(\?[i:!=]*", "", patterns)
        written = frozenset(char for char in literals if not char.isspace() and not char.isalpha())
        self._literals = written | self.literal.letters
        self.class_of = lru_cache(maxsize=None)(self._class_of)
        if tables is not None and not self.never_cuts:
            self._class_numbers = tables.array("character_classes", lambda: self._class_numbers)

    def cuts(self, text: str) -> tuple[frozenset[int], frozenset[Span]]:
        """Return the offsets at which words start or end, and the spans of added tokens, both in characters."""
        cuts: set[int] = set()
        spans: set[Span] = set()
        place = 0
        for match in self._added.finditer(text) if self._added else ():
            self._collect_cuts(text[place : match.start()], place, cuts)
            cuts |= {match.start(), match.end()}
            spans.add(match.span())
            place = match.end()
        self._collect_cuts(text[place:], place, cuts)
        return frozenset(cuts), frozenset(spans)

    def _collect_cuts(self, piece: str, start: int, cuts: set[int]) -> None:
        """Add the cuts of a piece of text to ``cuts``; ``start`` is the offset of the piece."""
        if not piece or self.never_cuts:
            return
        marked = piece.replace(" ", MARKER) if self._marks_spaces else piece
        cuts.update(start + offset for _, span in self._cutter.pre_tokenize_str(marked) for offset in span)

    def surely_cuts(self, text: str, place: int) -> bool:
        """Return whether a word starts at an offset for every continuation of the text.

        A heuristic, which holds for all tested patterns: the text contains two characters from the offset on, and the
        first of them has another class than the character before the offset.
        """
        if not 0 < place <= len(text) - 2:
            return False
        before, here, after = text[place - 1], text[place], text[place + 1]
        if self.class_of(before) == self.class_of(here) or (here.isspace() and (before.isspace() or after.isspace())):
            return False
        if self.literal.may_grow(text[place:]):
            return False
        return self.never_cuts or place in self.cuts(text)[0]

    def _class_of(self, char: str, *, fine: bool = False) -> CharacterClass:
        """Return the class of a character; with ``fine``, each letter in `literal` forms a separate class."""
        if char.isspace() or (char in self._literals and (fine or char not in self.literal.letters)):
            return (char,)
        return tuple(bool(pattern.fullmatch(char)) for pattern in self._classes)

    def representatives(self, points: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
        """Return the first and the last of each class among code points, ascending.

        Two characters represent a class, because the newest characters of Unicode can have another class in the
        tokenizer's own tables.

        Args:
            points: code points, ascending.
        """
        points = np.asarray(points, dtype=np.int64)
        numbers = np.zeros_like(points) if self.never_cuts else self._class_numbers[points]
        _, first = np.unique(numbers, return_index=True)
        _, last = np.unique(numbers[::-1], return_index=True)
        kept: NDArray[np.int64] = points[np.union1d(first, len(points) - 1 - last)]
        return kept

    @cached_property
    def _class_numbers(self) -> NDArray[np.int32]:
        """The number of the class of each code point; characters of one class have one number."""
        patterns = tuple(pattern.pattern for pattern in self._classes)
        return _class_numbers(patterns, frozenset(self._literals - self.literal.letters))

    def shape(self, text: str, *, fine: bool = False, whole: bool = False) -> CharacterClass:
        """Return the classes of the characters of a token.

        Args:
            text: the token.
            fine: whether the first characters distinguish the letters in `literal`. Characters behind an opener inside
                the token always do.
            whole: whether each character counts; otherwise a class appears at most three times in a row.
        """
        shape: list[object] = []
        reach = self.literal.reach
        for place, char in enumerate(text):
            behind_opener = not self.literal.openers.isdisjoint(text[max(0, place - reach) : place])
            kind = self.class_of(char, fine=behind_opener or (fine and place < reach))
            if whole or shape[-3:] != [kind] * 3:
                shape.append(kind)
        return tuple(shape)


@lru_cache(maxsize=8)  # tokenizers of one kind share the array of 4 MB, which takes 0.3 s
def _class_numbers(patterns: tuple[str, ...], literals: frozenset[str]) -> NDArray[np.int32]:
    """Return the number of the class of each code point; the caller may not write to the array.

    Args:
        patterns: regular expressions that define the classes.
        literals: characters that form a class each, as white space does.
    """
    characters = _all_characters()
    numbers = np.zeros(len(characters), dtype=np.int64)
    for bit, pattern in enumerate(patterns):
        for match in regex.finditer(f"(?:{pattern})+", characters):
            numbers[match.start() : match.end()] |= 1 << bit
    alone = literals | {match.group() for match in regex.finditer(r"\s|[\x1c-\x1f]", characters)}
    for place, char in enumerate(sorted(alone)):
        numbers[ord(char)] = (1 << len(patterns)) + place
    found = np.unique(numbers, return_inverse=True)[1].astype(np.int32)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=1)
def _all_characters() -> str:
    """Return every code point at its own index; surrogates, which are no characters, are replaced."""
    return "".join(chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd" for code in range(sys.maxunicode + 1))


def unknown_step(data: Mapping[str, Any]) -> str | None:
    """Return the type of the first pretokenizer step whose patterns this module does not know, or None.

    Args:
        data: the tokenizer's description.
    """
    return next((step["type"] for step in parts_of(data["pre_tokenizer"]) if step["type"] not in _PATTERNS), None)


def _pattern(step: Mapping[str, Any]) -> str:
    """Return a regular expression that contains every character class that a step distinguishes."""
    kind = step["type"]
    if kind == "Split":
        return str(step["pattern"].get("Regex") or step["pattern"]["String"])
    if kind == "ByteLevel":
        return GPT2_PATTERN if step.get("use_regex", True) else ""
    if kind == "Metaspace":
        return " " if step.get("split", True) else ""
    return _PATTERNS[kind] or ""
