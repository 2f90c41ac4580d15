"""What became of each bracketed word of a passage in an answer: unchanged, replaced, a phantom edit, or missing.

A phantom edit keeps the text of a word and changes its tokens ("Say Anything but This", arXiv:2601.14658). Texts are
aligned word by word, after NFC and without white space, and the tokens of a word are those that share bytes with it or
with the white space before it.

Departures: the paper compares the tokens of a word with those that it has in the passage. A word that an answer leaves
in its brackets is compared here with the tokens that it has in brackets. The eight classes have the paper's names and
fit its examples; the rules that tell them apart are heuristics of this module.
"""

from __future__ import annotations

import difflib
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import regex

from logitkit.processors.tokens.vocabulary import Vocabulary

Outcome = Literal["unchanged", "replaced", "phantom_edit", "missing"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Marks = tuple[str, str]  # the brackets around a word
LONGEST = 3  # most words of the passage that a replacement of one word may touch; a heuristic
TAILS = ("s", "es", "'s", "’s")
_PREFIXES = (
    "anti auto co counter de dis ex fore im in inter ir mid mis non out over per pre pro re semi sub super trans un "
    "under up"
)
PREFIXES = frozenset(_PREFIXES.split())
_SUFFIXES = (
    "able age al ally ance ant ary ate ation ed en ence ent er ers ery est ful hood ian ible ic ing ingly ion ish ism "
    "ist ity ive ize less ly ment ness or ous ship some tion ty ward wise y"
)
SUFFIXES = frozenset(_SUFFIXES.split())


class Token(NamedTuple):
    """A token at a place of a text.

    Attributes:
        offset: offset of its first byte, from the first byte of a word.
        number: its id.
        text: its text; bytes that are not UTF-8 are escaped as surrogates.
    """

    offset: int
    number: int
    text: str


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenizedText:
    """A text, and the place of each of its tokens.

    Attributes:
        text: the text; bytes that are not UTF-8 are escaped as surrogates.
        spans: first byte, end and id of each token with bytes.

    Examples:
        >>> from logitkit.registry.laws import foreign_tokenizer
        >>> vocabulary = Vocabulary.of(foreign_tokenizer())
        >>> text = TokenizedText.of(vocabulary, foreign_tokenizer()("on the")["input_ids"])
        >>> text.text, [token.text for token in text.of_word(3, 6)]
        ('on the', [' the'])
    """

    text: str
    spans: Sequence[tuple[int, int, int]]

    @classmethod
    def of(cls, vocabulary: Vocabulary, ids: Sequence[int]) -> TokenizedText:
        """Return the text of some tokens; special tokens and ids without text are left out."""
        known = [(number, vocabulary.token_bytes[number]) for number in ids if number < len(vocabulary)]
        with_text = [(number, token_bytes) for number, token_bytes in known if token_bytes]
        ends = list(itertools.accumulate(len(token_bytes) for _, token_bytes in with_text))
        return cls(
            text=_text(b"".join(token_bytes for _, token_bytes in with_text)),
            spans=[
                (end - len(token_bytes), end, number)
                for end, (number, token_bytes) in zip(ends, with_text, strict=True)
            ],
        )

    def of_word(self, start: int, end: int) -> list[Token]:
        """Return the tokens that share bytes with a word, and those that lie in the white space before it.

        Args:
            start, end: offsets of the word, in characters.
        """
        blank = len(_bytes(self.text[:start].rstrip()))
        first, last = len(_bytes(self.text[:start])), len(_bytes(self.text[:end]))
        whole = _bytes(self.text)
        return [
            Token(begin - first, number, _text(whole[begin:until]))
            for begin, until, number in self.spans
            if (begin < last and until > first) or (begin >= blank and until <= first)
        ]

    def has_bytes_of(self, start: int, other: TokenizedText, place: int, reach: tuple[int, int]) -> bool:
        """Return whether this text around an offset has the bytes of another text around another offset.

        Args:
            start: an offset in this text, in characters.
            other: the other text.
            place: an offset in the other text, in characters.
            reach: first byte and end of the part that is compared, from these offsets.
        """
        parts = []
        for text, offset in ((self.text, start), (other.text, place)):
            zero = len(_bytes(text[:offset]))
            parts.append((_bytes(text)[max(0, zero + reach[0]) : zero + reach[1]], zero + reach[0] < 0))
        return parts[0] == parts[1]


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of one bracketed word.

    Attributes:
        outcome: ``unchanged``: same text and tokens. ``replaced``: another text between words that are the same.
            ``phantom_edit``: the same text in other tokens. ``missing``: neither the word nor a replacement was found.
        kind: class of a phantom edit, one of `KINDS`; empty for other outcomes.
        same_bytes: whether a phantom edit keeps every byte of the tokens, white space included. Then the tokenizer
            writes one of the two sequences at most.

    Example:
        >>> Fate(outcome="replaced").kind
        ''
    """

    outcome: Outcome
    kind: str = ""
    same_bytes: bool = False


KINDS = {
    "whitespace_shift": "white space joins or leaves the word's first token",
    "whitespace_detached": "white space before the word is a token of its own",
    "newline": "a line break in place of other white space",
    "resegmentation": "the word is cut at other places",
    "proper_noun": "a name is cut at other places",
    "morphology": "the cut separates a prefix or an ending",
    "acronym": "a word of capitals is cut at other places",
    "tail": "the cut separates a plural or possessive s",
}


class Alignment(NamedTuple):
    """Where a word of a passage is in an answer.

    Attributes:
        found: ``equal``: at ``start`` to ``end``. ``other``: another text has its place. ``none``: nothing has.
        start, end: offsets in the answer, in characters.
        in_marks: whether the answer has the word in brackets.
    """

    found: Literal["equal", "other", "none"]
    start: int = 0
    end: int = 0
    in_marks: bool = False


def align(passage: str, words: Sequence[tuple[int, int]], answer: str, marks: Marks) -> list[Alignment]:
    """Return where words of a passage are in an answer.

    Words and punctuation marks are compared after NFC; white space and the brackets are not. A word is replaced if at
    most `LONGEST` words of the passage differ there and a later word is the same.

    Args:
        passage: the passage without brackets.
        words: start and end of each word, in characters.
        answer: the answer.
        marks: the brackets.

    Examples:
        >>> [place.found for place in align("an old man", [(0, 2), (3, 6)], "an [[aged]] man", ("[[", "]]"))]
        ['equal', 'other']
    """
    pattern = regex.compile(rf"{regex.escape(marks[0])}|{regex.escape(marks[1])}|[\w\p{{M}}]+|[^\w\s]")
    before = [match for match in pattern.finditer(passage) if match.group() not in marks]
    every = list(pattern.finditer(answer))
    after = [(place, match) for place, match in enumerate(every) if match.group() not in marks]
    matcher = difflib.SequenceMatcher(
        None, [_key(match.group()) for match in before], [_key(match.group()) for _, match in after], autojunk=False
    )
    codes = matcher.get_opcodes()
    number_of = {match.start(): number for number, match in enumerate(before)}
    found = []
    for start, _ in words:
        number = number_of[start]
        code = next(place for place, code in enumerate(codes) if code[1] <= number < code[2])
        tag, first, until, begin, end = codes[code]
        if tag == "equal":
            place, match = after[begin + number - first]
            found.append(Alignment("equal", *match.span(), place > 0 and every[place - 1].group() == marks[0]))
        else:
            bounded = code + 1 < len(codes) and end > begin and until - first <= LONGEST
            found.append(Alignment("other" if bounded else "none"))
    return found


def fate(
    reference: TokenizedText, word: tuple[int, int], answer: TokenizedText, place: tuple[int, int], *, begins: bool
) -> Fate:
    """Return whether a word whose text is the same has the same tokens, and which kind of phantom edit it is if not.

    Args:
        reference: the text in which the word has its own tokens.
        word: start and end of the word in it, in characters.
        answer: the answer.
        place: start and end of the word in the answer, in characters.
        begins: whether the word begins a sentence, so that its capital says nothing.
    """
    old, new = reference.of_word(*word), answer.of_word(*place)
    if [token[:2] for token in old] == [token[:2] for token in new]:
        return Fate(outcome="unchanged")
    both = [*old, *new]
    reach = min(token.offset for token in both), max(token.offset + len(_bytes(token.text)) for token in both)
    return Fate(
        outcome="phantom_edit",
        kind=kind_of([token.text for token in old], [token.text for token in new], begins=begins),
        same_bytes=answer.has_bytes_of(place[0], reference, word[0], reach),
    )


def kind_of(old: Sequence[str], new: Sequence[str], *, begins: bool = False) -> str:
    r"""Return the class of a phantom edit, one of `KINDS`, from the texts of the tokens before and after.

    Args:
        old, new: texts of the tokens of the word and of the white space before it.
        begins: whether the word begins a sentence.

    Examples:
        >>> kind_of([" February"], ["February"]), kind_of([" However"], ["\n", "However"])
        ('whitespace_shift', 'newline')
        >>> kind_of([" rights"], ["right", "s"]), kind_of([" repaid"], ["re", "paid"])
        ('tail', 'morphology')
    """
    pieces = [[text.strip() for text in texts if text.strip()] for texts in (old, new)]
    if list(old) == list(new):  # two ids with one text
        return "resegmentation"
    if pieces[0] == pieces[1]:
        breaks = [any(sign in "\r\n" for text in texts for sign in text) for texts in (old, new)]
        if breaks[0] != breaks[1]:
            return "newline"
        alone = [sum(text.isspace() for text in texts) for texts in (old, new)]
        return "whitespace_detached" if alone[0] != alone[1] else "whitespace_shift"
    word, finer = "".join(pieces[0]), max(pieces[1], pieces[0], key=len)
    if word.isupper() and len(word) > 1:
        return "acronym"
    if (pieces[0][-1] in TAILS) != (pieces[1][-1] in TAILS):
        return "tail"
    if word[:1].isupper() and not begins:
        return "proper_noun"
    return "morphology" if _cuts_at_affixes(finer) else "resegmentation"


def _cuts_at_affixes(pieces: Sequence[str]) -> bool:
    """Return whether pieces of a word are one stem with a prefix, an ending, or both."""
    stem = list(pieces)
    stem = stem[1:] if stem[0].lower() in PREFIXES else stem
    stem = stem[:-1] if len(stem) > 1 and stem[-1] in SUFFIXES else stem
    return len(stem) == 1 < len(pieces)


def _key(text: str) -> str:
    """Return a word as it is compared."""
    return unicodedata.normalize("NFC", text)


def _text(data: bytes) -> str:
    """Return bytes as text; bytes that are not UTF-8 become surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    """Return the bytes of a text, the inverse of `_text`."""
    return text.encode("utf-8", "surrogateescape")
