r"""Search for phrases in text that grows token by token, and the tokens that would complete one.

The bytes of the tokens are read as text, and an Aho-Corasick automaton over characters finds the phrases; the automaton
therefore does not depend on how the text is divided into tokens. A character that is divided between tokens counts when
its last byte is there. Bytes that are no UTF-8 are in no phrase.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple

from logitkit.processors.tokens.vocabulary import Vocabulary

BETWEEN = chr(0x10FFFF)  # stands between texts; Unicode defines it as no character


class Place(NamedTuple):
    """A state of the search: everything about a text that decides how later text is matched.

    Attributes:
        node: the node of the automaton after the last whole character.
        pending: the bytes of a character whose last bytes are missing.
    """

    node: int = 0
    pending: bytes = b""


class Origins(NamedTuple):
    """A place, and the tokens in which the characters before it began.

    Attributes:
        place: the place.
        tokens: number of the token in which each character of an unfinished phrase began, the first character first.
        pending: number of the token in which the character with missing bytes began.
    """

    place: Place = Place()
    tokens: tuple[int, ...] = ()
    pending: int = 0

    @property
    def earliest(self) -> int | None:
        """Number of the first token of what may become a phrase; None: no phrase has begun."""
        return self.tokens[0] if self.tokens else self.pending if self.place.pending else None


@dataclass
class _Node:
    """One beginning of phrases; node 0 is the empty one."""

    following: dict[str, int] = field(default_factory=dict)
    fallback: int = 0  # the node of the longest proper suffix
    complete: bool = False  # whether a phrase ends here
    rests: tuple[str, ...] = ()  # what is missing of each phrase that begins so
    depth: int = 0  # characters of the beginning
    shortest: int = 0  # characters of the shortest phrase that ends here; 0: none does


class PhraseAutomaton:
    r"""An Aho-Corasick automaton over characters that reads bytes.

    Args:
        phrases: one or more texts, none empty.
        fold_case: compare case-folded characters, as ``str.casefold`` does.

    Example:
        >>> automaton = PhraseAutomaton(["né"], fold_case=True)
        >>> place, found = automaton.read(Place(), b"N\xc3")
        >>> found, automaton.read(place, b"\x89")  # the last byte of an upper-case É
        (False, (Place(node=2, pending=b''), True))
    """

    def __init__(self, phrases: Sequence[str], *, fold_case: bool = False) -> None:
        self.fold: Callable[[str], str] = str.casefold if fold_case else str
        self.phrases = tuple(dict.fromkeys(self.fold(phrase) for phrase in phrases))
        self._nodes = [_Node()]
        for phrase in self.phrases:
            self._add(phrase)
        self._link()

    def _add(self, phrase: str) -> None:
        """Add the nodes of a phrase."""
        node = 0
        for count, character in enumerate(phrase):
            self._nodes[node].rests += (phrase[count:],)
            if character not in self._nodes[node].following:
                self._nodes[node].following[character] = len(self._nodes)
                self._nodes.append(_Node(depth=count + 1))
            node = self._nodes[node].following[character]
        self._nodes[node].complete, self._nodes[node].shortest = True, len(phrase)

    def _link(self) -> None:
        """Set the fallbacks, from short beginnings to long ones."""
        waiting = deque(self._nodes[0].following.values())
        while waiting:
            node = self._nodes[waiting.popleft()]
            for character, child in node.following.items():
                self._nodes[child].fallback = self._step(node.fallback, character)
                waiting.append(child)
            node.complete |= self._nodes[node.fallback].complete
            node.shortest = self._nodes[node.fallback].shortest or node.shortest

    def _step(self, node: int, character: str) -> int:
        """Return the node after one folded character."""
        while node and character not in self._nodes[node].following:
            node = self._nodes[node].fallback
        return self._nodes[node].following.get(character, 0)

    def read(self, place: Place, data: bytes) -> tuple[Place, bool]:
        """Return the place after more bytes, and whether a phrase ended in them."""
        node, found = place.node, False
        text, pending = _decoded(place.pending + data)
        for character in text:
            for folded in self.fold(character):
                node = self._step(node, folded)
                found |= self._nodes[node].complete
        return Place(node, pending), found

    def trace(self, origins: Origins, data: bytes, token: int) -> tuple[Origins, int | None]:
        """Read the bytes of one token; if they complete a phrase, return in which token the phrase began.

        Args:
            origins: the place before the token.
            data: its bytes.
            token: its number in the row.

        Returns:
            The place after the token, and the number of the token in which the phrase began; of several phrases, that
            of the one that began last; None: no phrase ended.
        """
        node, tokens = origins.place.node, list(origins.tokens)
        text, pending = _decoded(origins.place.pending + data)
        began: int | None = None
        for number, character in enumerate(text):
            own = origins.pending if number == 0 and origins.place.pending else token
            for folded in self.fold(character):
                node = self._step(node, folded)
                tokens.append(own)
                if shortest := self._nodes[node].shortest:
                    began = tokens[-shortest] if began is None else max(began, tokens[-shortest])
        still = origins.pending if not text and origins.place.pending else token
        open_tokens = tuple(tokens[len(tokens) - self._nodes[node].depth :])
        return Origins(Place(node, pending), open_tokens, still), began

    def rests(self, node: int) -> list[str]:
        """Return what is missing of every phrase whose beginning ends at a node, the empty beginning excluded."""
        missing: list[str] = []
        while node:
            missing += self._nodes[node].rests
            node = self._nodes[node].fallback
        return missing


def _decoded(data: bytes) -> tuple[str, bytes]:
    """Return bytes as text, with U+FFFD for invalid ones, and the bytes of an unfinished last character."""
    for length in range(1, min(3, len(data)) + 1):
        last = data[-length]
        if last < 0x80:
            break
        if last >= 0xC0:  # the first byte of a character
            whole = 2 + (last >= 0xE0) + (last >= 0xF0)
            if length < whole and last < 0xF8:
                return data[:-length].decode(errors="replace"), data[-length:]
            break
    return data.decode(errors="replace"), b""


@dataclass(frozen=True, eq=False)
class SortedTexts:
    """The tokens of a vocabulary as text.

    Attributes:
        texts: folded texts of the tokens that are whole characters, sorted.
        ids: their ids, in the same order.
        parts: ids and bytes of the other tokens, which hold parts of characters.
    """

    texts: list[str]
    ids: list[int]
    parts: list[tuple[int, bytes]]

    def beginning(self, text: str) -> list[int]:
        """Return the ids of the tokens that begin with a text."""
        low = bisect_left(self.texts, text)
        return self.ids[low : bisect_right(self.texts, text, low, key=lambda token: token[: len(text)])]

    def containing(self, phrases: Sequence[str]) -> list[int]:
        """Return the ids of the tokens that contain one of the phrases."""
        joined = BETWEEN.join(self.texts)
        starts = list(accumulate((len(text) + 1 for text in self.texts), initial=0))
        found: set[int] = set()
        for phrase in phrases:
            at = joined.find(phrase)
            while at >= 0:
                number = bisect_right(starts, at) - 1
                if phrase in self.texts[number]:
                    found.add(self.ids[number])
                at = joined.find(phrase, starts[number + 1])
        return sorted(found)


@lru_cache(maxsize=8)
def sorted_texts(vocabulary: Vocabulary, fold: Callable[[str], str]) -> SortedTexts:
    """Return the tokens of a vocabulary as folded text; computed once for each vocabulary."""
    texts, parts = list[tuple[str, int]](), list[tuple[int, bytes]]()
    for number, token_bytes in enumerate(vocabulary.token_bytes):
        if token_bytes:
            try:
                texts.append((fold(token_bytes.decode()), number))
            except UnicodeDecodeError:
                parts.append((number, token_bytes))
    texts.sort()
    return SortedTexts([text for text, _ in texts], [number for _, number in texts], parts)


class PhraseIndex:
    """The tokens of a vocabulary that complete a phrase after some text.

    Tokens that are whole characters are sorted by their folded text, so that those that begin with the rest of a phrase
    form a range. The few tokens with parts of characters are read one by one.

    Args:
        automaton: the phrases.
        vocabulary: the tokens as bytes; special tokens have none and complete nothing.

    Attributes:
        completing: cached; the sorted ids of the tokens that complete a phrase after a place.

    Example:
        >>> from logitkit.processors.tokens import Vocabulary
        >>> from logitkit.registry.laws import foreign_tokenizer
        >>> tokenizer = foreign_tokenizer()
        >>> automaton = PhraseAutomaton(["another"])
        >>> index = PhraseIndex(automaton, Vocabulary.of(tokenizer))
        >>> place, _ = automaton.read(Place(), b"in ano")
        >>> tokenizer.convert_ids_to_tokens(index.completing(place))  # "the" begins the rest and may follow
        []
        >>> place, _ = automaton.read(place, b"th")
        >>> tokenizer.convert_ids_to_tokens(index.completing(place))
        ['er']
    """

    def __init__(self, automaton: PhraseAutomaton, vocabulary: Vocabulary) -> None:
        self.automaton, self.vocabulary = automaton, vocabulary
        self.completing = lru_cache(maxsize=4096)(self._completing)

    def __reduce__(self) -> tuple[type[PhraseIndex], tuple[PhraseAutomaton, Vocabulary]]:
        return type(self), (self.automaton, self.vocabulary)

    @cached_property
    def _texts(self) -> SortedTexts:
        return sorted_texts(self.vocabulary, self.automaton.fold)

    @cached_property
    def _containing(self) -> list[int]:
        return self._texts.containing(self.automaton.phrases)

    def _completing(self, place: Place) -> list[int]:
        """Return the tokens that complete a phrase after a place."""
        found = set(self._containing)
        if not place.pending:  # else the whole characters of a token do not continue the text before
            for rest in self.automaton.rests(place.node):
                found.update(self._texts.beginning(rest))
        found.update(number for number, data in self._texts.parts if self.automaton.read(place, data)[1])
        return sorted(found)

    def completing_behind(self, place: Place, removed: bytes) -> list[int]:
        """Return the tokens that complete a phrase behind bytes that the row must spell first.

        Args:
            place: where the text ends.
            removed: bytes of the prompt that are still to be spelled; a phrase that ends in them does not count.
        """
        behind, _ = self.automaton.read(place, removed)
        return [
            number
            for number, data in enumerate(self.vocabulary.token_bytes)
            if data and data.startswith(removed) and self.automaton.read(behind, data[len(removed) :])[1]
        ]
