"""Which sequences of tokens a tokenizer would write for their bytes.

A sequence is live when it begins the encoding of some text. Two rules decide that token by token: words begin
and end where the pretokenizer cuts (`pretokenizer`), and inside a word neighbours must be left
alone by every merge (`merge_rule`). A cut can depend on what follows, so a token is allowed
when some continuation allows it; what really follows is checked when it comes. `Reencoding` finds the same by
encoding again, slowly; it answers for the tokenizers not known here, and the tests hold the rules against it.

Phan et al., arXiv:2410.09303, sum over encodings that re-encode to themselves. We sum over live ones: a prefix
of an encoding need not re-encode to itself ("a", " ", " " begins the Qwen2.5 encoding of "a  ʤ"),
and only with the prefixes do the masses of all next bytes add up to the mass of the text.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import unicodedata
import warnings
from typing import Any

import numpy as np

from logitkit.errors import ModelError
from logitkit.processors.tokens.byte_fallback import ByteFallback
from logitkit.processors.tokens.merge_rule import MergeRule
from logitkit.processors.tokens.pretokenizer import Pretokenizer
from logitkit.processors.tokens.reencoding import LONGEST, Context, Ids, Mask, Reencoding, completions
from logitkit.processors.tokens.token_bytes import byte_alphabet, starts_inside_character
from logitkit.processors.tokens.token_shapes import Shapes
from logitkit.processors.tokens.token_window import Window, shortened, signature
from logitkit.processors.tokens.tokenizer_description import description, parts_of
from logitkit.processors.tokens.vocabulary import Vocabulary

AHEAD = ("", "a", " ", "1", ".", "\n", "s", "A", "一", "'")  # what may follow, one character of each sort


class CanonicalRules(Reencoding):
    """The canonical sequences of a BPE tokenizer, by rules.

    Args:
        tokenizer: a fast tokenizer of transformers.
        vocabulary: its tokens as bytes, as wide as the model.

    Raises:
        ModelError: no BPE model, or a pretokenizer that is not known here: `canonical_rules_for` then encodes again.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        data = description(tokenizer)
        model = data["model"]
        if model["type"] != "BPE" or model.get("continuing_subword_prefix"):
            raise ModelError(f"canonical covers: tokenizer must be a BPE one, got {model['type']}; use Reencoding")
        super().__init__(tokenizer, vocabulary)
        self.rule = MergeRule(model["vocab"], model["merges"])
        self.pretokenizer = Pretokenizer(data, vocabulary)
        self.whole = bool(model.get("ignore_merges"))
        self.may_start = self._starters(model["vocab"])
        if any(step["type"] == "NFC" for step in parts_of(data["normalizer"])):
            self.may_start &= np.array([_is_composed(spelled) for spelled in vocabulary.token_bytes])
        self._fallback = ByteFallback(model, vocabulary)
        self._unseen = np.zeros(len(vocabulary), dtype=bool)
        self._unseen[list(vocabulary.added - set(self.pretokenizer.added.values()))] = True
        self._unseen &= self.may_start
        self.may_start &= self._uncut()
        self._tails = np.array([starts_inside_character(spelled) for spelled in vocabulary.token_bytes])
        self._shapes = {
            fine: Shapes(vocabulary, self.pretokenizer, self.may_start, fine=fine) for fine in (False, True)
        }
        self._masks = functools.lru_cache(maxsize=1024)(self._find_successors)
        self._window = functools.lru_cache(maxsize=4096)(self._read_window)
        self._verdicts: dict[Any, tuple[Mask, Mask]] = {}

    def extend(self, context: Context, token: int) -> Context:
        """The context after one more token; what stands before a sure beginning of a word is dropped."""
        if self._unseen[token]:
            return ()  # it stands alone whatever is beside it
        context = (*context, token)
        window = self._window(context)
        if len(context) > 1 and len(window.text) > 2:
            for number in range(len(context) - 1, 0, -1):
                if self.pretokenizer.surely_cuts(window.text, window.starts[number]):
                    return context[number:]
        return context[-LONGEST:]

    def may_end(self, context: Context) -> bool:
        """Say whether a text may end here: with nothing to follow, these are still its tokens."""
        window = self._window(context)
        return not window.open and self._verdict(window, "", "") is not None

    def allowed(self, context: Context, ids: Ids) -> Mask:
        """Say of some tokens whether each may come next; of the shape of the ids."""
        mask: Mask = self.successors(context)[ids]
        return mask

    def successors(self, context: Context) -> Mask:
        """Say of every token whether it may come next, ``[vocab]``."""
        mask: Mask = self._masks(context)
        return mask

    def _find_successors(self, context: Context) -> Mask:
        window = self._window(context)
        if window.open:
            return self._completing(window)
        begins, joins = self._ask_shapes(window)
        if window.last is not None and not self._fallback.holds(window.last):
            joins = joins & self._followers(window.last)
        mask: Mask = self.may_start & ~self._tails & (begins | joins) | self._fallback.first
        return mask | self._unseen if self.may_end(context) else mask

    def _followers(self, token: int) -> Mask:
        """What the merge rule lets follow a token inside a word, ``[vocab]``."""
        mask = np.zeros(len(self.vocabulary), dtype=bool)
        width = min(len(mask), self.rule.size)
        if token < self.rule.size:
            mask[:width] = self.rule.successors(token)[:width]
        return mask

    def _ask_shapes(self, window: Window) -> tuple[Mask, Mask]:
        """Which tokens may begin a word after this window, and which may go on inside one, ``[vocab]`` each."""
        if self.pretokenizer.trivial:
            every = np.ones(len(self.vocabulary), dtype=bool)
            return np.zeros_like(every) if window.last is not None else every, every
        fine = bool(self.pretokenizer.letters) and "'" in window.text[-2:]
        shapes = self._shapes[fine]
        window = shortened(window, self.pretokenizer)
        key = fine, signature(window, self.pretokenizer), window.added, window.whole, *window.seams()
        if key not in self._verdicts:
            asked = [self._ask(window, *example) for example in shapes.examples]
            self._verdicts[key] = np.array([b for b, _ in asked]), np.array([j for _, j in asked])
        begins, joins = self._verdicts[key]
        return begins[shapes.of], joins[shapes.of]

    def _ask(self, window: Window, text: str, opened: bytes, added: bool) -> tuple[bool, bool]:
        """Whether some continuation lets a token with this text begin a word, and go on inside one."""
        begins = joins = False
        for ahead in self._aheads(text, opened):
            verdict = self._verdict(window, text, ahead, added=added)
            begins, joins = begins or verdict is True, joins or verdict is False
            if begins:
                break
        return begins, joins

    def _aheads(self, text: str, opened: bytes) -> tuple[str, ...]:
        """What may follow a token with this text and then, left open, these bytes."""
        contracts = bool(self.pretokenizer.letters) and text.endswith("'")
        told = len({self.pretokenizer.kind(char) for char in text}) > 1 and not contracts  # what follows hardly matters
        return self.pretokenizer.completed(opened) or (AHEAD[:3] if told else AHEAD)

    def _verdict(self, window: Window, text: str, ahead: str, *, added: bool = False) -> bool | None:
        """With this token and this continuation: True, it begins a word; False, it goes on inside one; None, neither.

        Neither: a cut would fall inside a token, or tokens of the window would have merged.
        """
        end = len(window.text)
        cuts, spans = self.pretokenizer.cuts(window.text + text + ahead)
        wanted = window.added | ({(end, end + len(text))} if added else set())
        found = {span for span in spans if span[0] < end + len(text) and (span[0] < end or text)}
        if found != wanted:
            return None
        inner = {cut for cut in cuts if 0 < cut < end + len(text) and cut != end}
        if not inner <= set(window.starts) or any(
            not joined and place not in inner for place, joined in window.seams()
        ):
            return None
        if not (end == 0 or end in cuts or added):
            return False
        start = max((cut for cut in inner if cut < end), default=0)  # of the word that ends here
        return None if end and window.whole[window.starts.index(start)] else True

    def _completing(self, window: Window) -> Mask:
        """What may follow an open character: tokens that go on with its bytes, ``[vocab]``."""
        last = window.last
        if last is None or self._fallback.holds(last):
            return self._fallback.completing(window.open)
        allowed: Mask = self.may_start & self._followers(last) & self._tails
        verdicts: dict[Any, bool] = {}  # by what the pretokenizer can tell about the character and what follows it
        for number in np.flatnonzero(allowed):
            rest = codecs.getincrementaldecoder("utf-8")("strict")
            try:
                rest.decode(window.open)
                text = rest.decode(self.vocabulary.token_bytes[number] or b"")
            except UnicodeDecodeError:
                allowed[number] = False
                continue
            opened = rest.getstate()[0]
            choices = self.pretokenizer.completed(opened)
            chars, behind, opened = (text[0], text[1:], opened) if text else (choices, "", b"")
            key = tuple(map(self.pretokenizer.kind, chars)), behind, choices
            if key not in verdicts:
                verdicts[key] = any(self._goes_on(window, char, behind, opened) for char in chars)
            allowed[number] = verdicts[key]
        return allowed

    def _goes_on(self, window: Window, char: str, behind: str, opened: bytes) -> bool:
        """Whether the cuts can agree with a token that makes an open character this one; what is behind it: uncut."""
        whole = dataclasses.replace(window, text=window.text + char, open=b"")
        verdicts = (self._verdict(whole, behind, ahead) for ahead in self._aheads(behind, opened))
        return any(verdict is False or (verdict and not behind and not opened) for verdict in verdicts)

    def _read_window(self, context: Context) -> Window:
        """Spell the tokens of a context."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, starts, joined, added = "", [], [], set()
        for number, token in enumerate(context):
            starts.append(len(text) if not decoder.getstate()[0] else -1)
            before = context[number - 1] if number else None
            joined.append(before is None or bool(self._followers(before)[token]))
            spelled = decoder.decode(self.vocabulary.token_bytes[token] or b"")
            if token in self.vocabulary.added and spelled in self.pretokenizer.added:
                added.add((len(text), len(text) + len(spelled)))
            if before is not None and (self._fallback.holds(token) or self._fallback.holds(before)):
                joined[-1] = True  # byte tokens never merge
            text += spelled
        return Window(
            text=text,
            starts=tuple(starts),
            joined=tuple(joined),
            whole=tuple(self._is_whole(context[number:]) for number in range(len(context))),
            added=frozenset(added),
            open=decoder.getstate()[0],
            last=context[-1] if context else None,
        )

    def _is_whole(self, tokens: Context) -> bool:
        """Say whether several tokens spell what the tokenizer takes whole, before any merge (``ignore_merges``)."""
        known = self.vocabulary.ids_of.get(self.vocabulary.join(tokens), ()) if self.whole and len(tokens) > 1 else ()
        return any(self.may_start[number] for number in known)

    def _uncut(self) -> Mask:
        """Tokens that the pretokenizer leaves whole before some continuation, ``[vocab]``, as all added ones."""
        mask = np.ones(len(self.vocabulary), dtype=bool)
        for number in () if self.pretokenizer.trivial else np.flatnonzero(self.may_start).tolist():
            spelled = self.vocabulary.token_bytes[number] or b""
            if starts_inside_character(spelled):
                continue
            text = codecs.getincrementaldecoder("utf-8")("replace").decode(spelled)
            if number not in self.vocabulary.added or text not in self.pretokenizer.added:
                mask[number] = any(
                    not any(0 < cut < len(text) for cut in self.pretokenizer.cuts(text + ahead)[0]) for ahead in AHEAD
                )
        return mask

    def _starters(self, known: dict[str, int]) -> Mask:
        """Tokens that the tokenizer can write at all, ``[vocab]``; of duplicates, the one that it writes."""
        mask = np.zeros(len(self.vocabulary), dtype=bool)
        width = min(len(mask), self.rule.size)
        mask[:width] = self.rule.reachable[:width]
        if self.whole:
            mask[list(known.values())] = True
        if self.vocabulary.style == "byte-level":  # other characters than the alphabet's are never met
            alphabet = byte_alphabet().keys()
            mask[[number for token, number in known.items() if not alphabet >= set(token)]] = False
        mask[[number for number, spelled in enumerate(self.vocabulary.token_bytes) if not _is_in_text(spelled)]] = False
        for number in self.vocabulary.added:
            twins = self.vocabulary.ids_of[self.vocabulary.token_bytes[number] or b""]
            mask[list(twins)] = False
        mask[list(self.vocabulary.added)] = True
        return mask


def _is_in_text(spelled: bytes | None) -> bool:
    """Say whether some UTF-8 text holds these bytes; none is no bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    begun = (spelled or b"").lstrip(bytes(range(0x80, 0xC0)))  # it may begin inside a character
    try:
        decoder.decode(begun)
    except UnicodeDecodeError:
        return False
    return bool(spelled) and len(spelled or b"") - len(begun) < 4


def _is_composed(spelled: bytes | None) -> bool:
    """Say whether a token can survive NFC, which a tokenizer may apply before anything else."""
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    text = decoder.decode(spelled or b"")
    opened = decoder.getstate()[0]
    return any(unicodedata.is_normalized("NFC", text + more) for more in (completions(opened) if opened else ("",)))


def canonical_rules_for(tokenizer: Any, vocabulary: Vocabulary) -> Reencoding:
    """The canonical sequences of a tokenizer: by rules where they are known, else by encoding again, with a warning."""
    try:
        return CanonicalRules(tokenizer, vocabulary)
    except ModelError as error:
        reason = str(error).removeprefix("canonical covers: ").partition(";")[0]
        warnings.warn(
            f"canonical covers: no rules are known ({reason}), so what may follow what is found by encoding again: "
            "right, but up to seconds a byte; covers='all' is another choice where texts are short",
            stacklevel=2,
        )
        return Reencoding(tokenizer, vocabulary)
