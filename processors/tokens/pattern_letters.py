"""Letters that the patterns of a pretokenizer contain literally, such as those of English contractions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import regex

_SAME_WITHOUT_CASE = {"s": "\u017f", "k": "\u212a"}  # the letters beyond ASCII that "(?i:s)" and "(?i:k)" match
_RANGE = r"[^\x00-\x7f]-.|a-z|A-Z|0-9"
_CLASS_OR_ESCAPE = rf"\\[pP]\{{[^}}]+\}}|\\.|{_RANGE}|\{{[\d,]+\}}"
_GROUP = r"\(\?[a-zA-Z^-]*:|\(\?<?[=!>]|\("


@dataclass(frozen=True, kw_only=True)
class PatternLetters:
    r"""Letters that patterns contain literally.

    Attributes:
        letters: each such letter, in both cases, with the letters that are equal when case is ignored.
        openers: characters directly before such a letter in a pattern, such as the apostrophe.
        texts: texts to try behind an opener: each letter as the pattern has it, and each run of letters.

    >>> letters = PatternLetters.of(r"'(?i:[sdmt]|ll|ve|re)|\p{L}+")
    >>> sorted(letters.openers), letters.texts
    (["'"], ('d', 'e', 'l', 'll', 'm', 'r', 're', 's', 't', 'v', 've'))
    """

    letters: frozenset[str]
    openers: frozenset[str]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, patterns: str) -> PatternLetters:
        """Return the letters of patterns, joined by spaces; ranges such as ``a-z`` have no literal letters."""
        literal = regex.sub(_GROUP, "", regex.sub(_CLASS_OR_ESCAPE, " ", patterns))
        written = {char for char in literal if char.isalpha()}
        runs = set(regex.findall(r"[^\W\d_]{2,}", regex.sub(r"\[[^\]]*\]", " ", literal)))
        openers = regex.findall(r"([^\w\s|(\[)\]}?*+^$.:\\-])\[?(?=[^\W\d_])", literal)
        folded = {_SAME_WITHOUT_CASE[char.lower()] for char in written if char.lower() in _SAME_WITHOUT_CASE}
        return cls(
            letters=frozenset({case for char in written for case in (char.lower(), char.upper())} | folded),
            openers=frozenset(openers),
            texts=tuple(sorted(written | runs)),
        )

    @cached_property
    def reach(self) -> int:
        """Largest number of letters behind an opener that a pattern distinguishes, at least 2."""
        return max([2, *map(len, self.texts)])

    def anywhere(self, text: str) -> bool:
        """Return whether a text contains an opener."""
        return bool(self.letters) and (not self.openers or not self.openers.isdisjoint(text))

    def open(self, text: str) -> bool:
        """Return whether letters behind a text can belong to an opener near its end."""
        return self.anywhere(text[-self.reach :])

    def may_grow(self, text: str) -> bool:
        """Return whether a text is an opener and the first letters of a run: more letters may change how it is cut."""
        behind = text[1:].lower()
        return text[:1] in self.openers and any(
            len(run) > len(behind) and run.lower().startswith(behind) for run in self.texts
        )
