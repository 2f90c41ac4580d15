"""Where a tokenizer cuts a text into words before it merges, and which characters it can tell apart.

The cuts are the tokenizer's own: its pretokenizer is run. Characters that its patterns cannot tell apart are
of one kind, so that an answer for one token holds for every token of the same shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import regex
from tokenizers import Tokenizer

from logitkit.errors import ModelError
from logitkit.processors.tokens.reencoding import completions, unprefixed
from logitkit.processors.tokens.token_bytes import MARKER
from logitkit.processors.tokens.tokenizer_description import parts_of
from logitkit.processors.tokens.vocabulary import Vocabulary

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MANY_ADDED = 256  # beyond this, added tokens other than white space are not looked for
Span = tuple[int, int]
Kind = tuple[object, ...]


class Pretokenizer:
    """The pretokenizer of a tokenizer, without the space that it may put before a text.

    Args:
        description: the parts of the tokenizer, as ``tokenizer.json`` holds them.
        vocabulary: its tokens as bytes.

    Attributes:
        trivial: it never cuts, so that a whole text is one word.

    Raises:
        ModelError: a pretokenizer whose patterns are unknown here.
    """

    def __init__(self, description: Mapping[str, Any], vocabulary: Vocabulary) -> None:
        steps = unprefixed(parts_of(description["pre_tokenizer"]))
        self._marks = any(step.get("content") == MARKER for step in parts_of(description["normalizer"]))
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
        self.trivial = not self.added and not patterns.strip()
        self._classes = [regex.compile(name) for name in sorted(set(regex.findall(r"\\[pP]\{\w+\}|\\[sdw]", patterns)))]
        self._classes += [
            regex.compile(f"[{span}]") for span in sorted(set(regex.findall(r"[^\x00-\x7f]-.|a-z|A-Z|0-9", patterns)))
        ]
        rest = regex.sub(r"\\[pP]\{\w+\}|\\[sSdDwW]|\\[rnt]|\(\?[i:!=]*", "", patterns)
        self._literals = frozenset(char for char in rest.lower() + rest.upper() if not char.isspace())
        self.letters = frozenset(char for char in self._literals if char.isalpha())
        self.kind = lru_cache(maxsize=None)(self._kind)
        self.completed = lru_cache(maxsize=None)(self._completed)

    def cuts(self, text: str) -> tuple[frozenset[int], frozenset[Span]]:
        """Where words begin and end inside a text, and which spans are added tokens; offsets in characters."""
        cuts: set[int] = set()
        spans: set[Span] = set()
        place = 0
        for match in self._added.finditer(text) if self._added else ():
            self._cut(text[place : match.start()], place, cuts)
            cuts |= {match.start(), match.end()}
            spans.add(match.span())
            place = match.end()
        self._cut(text[place:], place, cuts)
        return frozenset(cuts), frozenset(spans)

    def _cut(self, piece: str, start: int, cuts: set[int]) -> None:
        if not piece or self.trivial:
            return
        marked = piece.replace(" ", MARKER) if self._marks else piece
        cuts.update(start + offset for _, span in self._cutter.pre_tokenize_str(marked) for offset in span)

    def surely_cuts(self, text: str, place: int) -> bool:
        """Say whether a word begins here whatever follows the text: two characters on are known, of another kind."""
        if not 0 < place <= len(text) - 2:
            return False
        before, here, after = text[place - 1], text[place], text[place + 1]
        if self.kind(before) == self.kind(here) or (here.isspace() and (before.isspace() or after.isspace())):
            return False
        return self.trivial or place in self.cuts(text)[0]

    def _kind(self, char: str, *, fine: bool = False) -> Kind:
        """What the patterns can tell about a character; letters of contractions only when ``fine``."""
        if char.isspace() or (char in self._literals and (fine or char not in self.letters)):
            return (char,)
        return tuple(bool(pattern.fullmatch(char)) for pattern in self._classes)

    def _completed(self, opened: bytes) -> tuple[str, ...]:
        """What an open character can be, nothing where none is open: the first and the last of each kind.

        Two, since the newest characters can be of another kind in the tokenizer's own tables.
        """
        chars = completions(opened) if opened else ()
        last = {self.kind(char): char for char in chars}
        first = {self.kind(char): char for char in reversed(chars)}
        return tuple(dict.fromkeys([*first.values(), *last.values()]))

    def shape(self, text: str, *, fine: bool = False, longest: int = 4) -> Kind:
        """The kinds of the first characters of a token, runs shortened to three; ``fine`` for the first two."""
        shape: list[object] = []
        for place, char in enumerate(text):
            kind = self.kind(char, fine=fine and place < 2)
            if shape[-3:] != [kind] * 3:
                shape.append(kind)
            if len(shape) == longest:
                break
        return tuple(shape)


def _pattern(step: Mapping[str, Any]) -> str:
    """A regular expression that names every class of characters that a step can tell apart."""
    kind = step["type"]
    if kind == "Split":
        return str(step["pattern"].get("Regex") or step["pattern"]["String"])
    if kind == "ByteLevel":
        return GPT2_PATTERN if step.get("use_regex", True) else ""
    if kind == "Metaspace":
        return " " if step.get("split", True) else ""
    known = {"Digits": r"\p{N}", "Whitespace": r"\w\s", "WhitespaceSplit": r"\s", "Punctuation": r"\p{P}\p{S}"}
    if kind not in known:
        raise ModelError(f"canonical covers: pretokenizer {kind} is not known here; use Reencoding")
    return known[kind]
