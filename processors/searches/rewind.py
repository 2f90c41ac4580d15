"""`Rewind`: phrases are banned by going back to where they began, with the KV cache cut at that place.

Source: sam-paech/antislop-sampler, where the first token of a phrase loses probability at its place. Changes: the token
in which the phrase began is forbidden there, and a dead end goes back further.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from logitkit.errors import ScoresError
from logitkit.params import Resource, checked
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.call_vocabulary import call_vocabulary
from logitkit.processors.samplers.ban_phrases import FoldCase, Phrases, check_phrases, check_spelling
from logitkit.processors.samplers.phrases import Origins, PhraseAutomaton
from logitkit.processors.searches.random_numbers import draw, uniform
from logitkit.processors.searches.rows import Rows, RowsMark
from logitkit.processors.searches.run import Found, SearchRun
from logitkit.processors.searches.search import Search
from logitkit.processors.tokens.vocabulary import Vocabulary

PROMPT = -1  # in place of the number of a token, of the tokens of the prompt
SPACING = 64  # tokens between the marks of places far behind the end of a row


class Rewind(Search):
    r"""Decode as without the search, and go back where a banned phrase has appeared.

    When a token completes a phrase in the text of prompt and continuation, the row goes back to the token in which
    the phrase began, that token is forbidden at its place, and another one is chosen there. Of several phrases that
    one token completes, the one that began last counts; a phrase that began in the prompt goes back to the first new
    token. Where no token is left at a place, the token before it is forbidden in turn. No output contains a phrase,
    whichever tokens spell it.

    The distribution. Let p be the law of the steps, and f(v) the probability that token v, tried after prefix u, is
    forbidden there: that a phrase began in v, or that nothing was left behind v. Tokens are tried at u without
    replacement, so the last one tried is v with probability::

        sum over sequences w_1 ... w_k of distinct tokens other than v, k >= 0, of
        prod_i [p(w_i) f(w_i) / (1 - p(w_1) - ... - p(w_(i-1)))] * p(v) (1 - f(v)) / (1 - p(w_1) - ... - p(w_k))

    Behind v the text goes on by the same rule; a phrase that began before v then takes the row back further. Where
    each phrase is one token, this is p renormalised over the other tokens, the distribution of ``ban_phrases``.
    Otherwise it is neither that one, in which the beginning of a phrase keeps its probability, nor p given that no
    phrase occurs: a token that has led into a phrase is gone from its place, and its other continuations with it.
    Without a phrase in the text, the tokens are those of plain decoding.

    So a place, and in the end the prompt, may run out of tokens although a text without a phrase exists; with a whole
    vocabulary to choose from, this is rare.

    The search ends: a token is forbidden for good as long as the text before it stands, and there are finitely many
    texts of ``max_new_tokens``. Where steps leave few tokens and phrases forbid them all, it may try very many texts;
    ``max_time`` ends it. Several prompts, and sequences of one prompt, are decoded one after another.

    Args:
        phrases: one or more texts, none empty.
        fold_case: compare case-folded characters.
        vocabulary: the tokens as bytes; special tokens have no text.
        removed: bytes that a step cut from the end of each prompt and that the row spells first; empty: none.

    Raises:
        ParameterError: no phrase, an empty one, or one that holds U+FFFD.

    Example:
        >>> import logitkit
        >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
        >>> for phrase in ("yes", "no"):
        ...     chain = f"choices(['yes', 'no']) | rewind(['{phrase}'])"
        ...     print(logitkit.generate(tiny_model(), tiny_tokenizer(), "Is it?", chain, max_new_tokens=4).texts)
        ['no']
        ['yes']
    """

    name: ClassVar[str] = "rewind"
    drops: ClassVar[bool] = True
    samples: ClassVar[bool] = False
    alike: ClassVar[bool] = True
    order = ("phrases",)

    @checked
    def __init__(
        self,
        *,
        phrases: Phrases,
        fold_case: FoldCase = False,
        vocabulary: Annotated[Vocabulary, Resource()],
        removed: Annotated[tuple[bytes, ...], Resource()] = (),
    ) -> None:
        check_phrases("rewind", phrases)
        self.phrases, self.fold_case, self.removed = tuple(phrases), fold_case, removed
        self.vocabulary, self.automaton = vocabulary, PhraseAutomaton(phrases, fold_case=fold_case)

    @classmethod
    def bind(cls, binding: Binding, *, phrases: list[str], fold_case: bool) -> Rewind:
        """Return the search with the vocabulary of the generating model.

        Raises:
            ParameterError: as for the class, and for a phrase that is the text of a special token.
            ModelError: the tokenizer removes spaces when it decodes, so the tokens do not spell the text.
        """
        vocabulary = call_vocabulary(binding)
        check_spelling("rewind", binding.tokenizer, vocabulary, phrases)
        removed = tuple(binding.prompts.removed or ())
        return cls(phrases=phrases, fold_case=fold_case, vocabulary=vocabulary, removed=removed)

    def search(self, run: SearchRun) -> Found:
        """Decode every sequence of every prompt; the prompts are read in one forward."""
        read = run.rows()
        read.prepare_rewinding()
        read.law()
        texts: list[Tensor] = []
        values: list[Tensor] = []
        rewinds = dropped = 0
        for prompt in range(run.prompts):
            for copy in range(run.wanted):
                rows = read.fork()
                rows.select(torch.tensor([prompt], device=run.ids.device))
                decoder = _Decoder(self, run, rows, copy)
                decoder.decode()
                texts.append(rows.ids[0])
                values.append(torch.cat([rows.logp, rows.certainty]))
                rewinds, dropped = rewinds + decoder.rewinds, dropped + decoder.dropped
        new = sum(len(text) - run.start for text in texts)
        run.cost.notes |= {"rewinds": rewinds, "dropped tokens": dropped, "new tokens": new}
        ids = torch.full((len(texts), max(map(len, texts))), run.padding, device=run.ids.device)
        for number, text in enumerate(texts):
            ids[number, : len(text)] = text
        logp, certainty = torch.stack(values, dim=1)
        return Found(ids=ids, logp=logp, certainty=certainty if run.measures_certainty else None)


@dataclass(eq=False)
class _Place:
    """A place of the row: the prefix before it, and what was tried there.

    Attributes:
        origins: the text before the place.
        removed: bytes of the prompt that the row must still spell.
        forbidden: tokens that led into a phrase.
        light: the row before its law is known; None: an earlier place has such a mark.
        full: the row with its law, so that going back needs no forward; None: no unfinished phrase began here.
    """

    origins: Origins
    removed: bytes
    forbidden: list[int] = field(default_factory=list)
    light: RowsMark | None = None
    full: RowsMark | None = None


class _Decoder:
    """Decodes one sequence of one prompt.

    Args:
        search: the search.
        run: the run of the search.
        rows: one row that holds the prompt.
        copy: number of the sequence among those of its prompt.

    Attributes:
        rewinds: how often a token was forbidden.
        dropped: tokens that were taken back, those that completed a phrase included.
    """

    def __init__(self, search: Rewind, run: SearchRun, rows: Rows, copy: int) -> None:
        self.search, self.run, self.rows, self.copy = search, run, rows, copy
        self.prompt = int(rows.prompt)
        self.rewinds = self.dropped = self._draws = 0
        self._thinned = 0  # places before this one have no full mark
        removed = search.removed[self.prompt] if search.removed else b""
        self.places = [_Place(self._prompt_text(), removed)]

    def decode(self) -> None:
        """Write tokens until the row has ended."""
        rows = self.rows
        while not rows.done:
            place = self.places[-1]
            place.light = place.light or rows.mark()
            law = _allowed(rows.law(), place)
            if bool((law == -torch.inf).all()):
                self._leave_dead_end()
                continue
            token = self._choose(law)
            following, began = self._read(place, int(token))
            if began is not None:
                self.dropped += 1
                self._forbid(max(began, 0), int(token))
                continue
            place.full = rows.mark()
            rows.append(token)
            self.places.append(following)
            self._thin()

    def _prompt_text(self) -> Origins:
        """Return the end of the text of the prompt."""
        mask, ids = self.run.inputs.get("attention_mask"), self.run.ids[self.prompt]
        if mask is not None and not self.run.model.config.is_encoder_decoder:
            ids = ids[mask[self.prompt].bool()]
        text = b"".join(self._bytes(token) for token in ids.tolist())
        return self.search.automaton.trace(Origins(), text, PROMPT)[0]

    def _bytes(self, token: int) -> bytes:
        """Return the bytes of a token; special tokens and ids beyond the vocabulary have none."""
        known = self.search.vocabulary.token_bytes
        return (known[token] if token < len(known) else None) or b""

    def _read(self, place: _Place, token: int) -> tuple[_Place, int | None]:
        """Return the place after a token, and the number of the token in which a phrase that it completes began."""
        data, number = self._bytes(token), len(self.places) - 1
        spelled = place.removed[: len(data)]  # text of the prompt, in which phrases do not count
        origins, _ = self.search.automaton.trace(place.origins, spelled, PROMPT)
        origins, began = self.search.automaton.trace(origins, data[len(spelled) :], number)
        return _Place(origins, place.removed[len(data) :]), began

    def _choose(self, law: Tensor) -> Tensor:
        """Return the next token, ``[1]``: drawn, or the likeliest one."""
        if not self.run.sampling:
            return law.argmax(-1)
        numbers = uniform(self.run.seeds[self.prompt : self.prompt + 1], self.copy, self._draws)
        self._draws += 1
        return draw(law, numbers)

    def _leave_dead_end(self) -> None:
        """Forbid the token before a place at which no token is left.

        Raises:
            ScoresError: the place is the first one.
        """
        if len(self.places) == 1:
            raise ScoresError(
                f"rewind: a token must be left behind prompt {self.prompt}, got none that has not led into a phrase; "
                "ban fewer phrases, or let the steps leave more tokens"
            )
        self._forbid(len(self.places) - 2)

    def _forbid(self, number: int, completing: int = -1) -> None:
        """Forbid the token at a place, and go back to that place.

        Args:
            number: of the place.
            completing: the token that completes a phrase, which is not part of the row yet.
        """
        last = len(self.places) - 1
        written = self.rows.ids[0, self.run.start :].tolist()
        self.places[number].forbidden.append(completing if number == last else written[number])
        self.rewinds, self.dropped = self.rewinds + 1, self.dropped + last - number
        if number == last:
            return
        del self.places[number + 1 :]
        self._thinned = min(self._thinned, number)
        nearest = next(each for each in range(number, -1, -1) if self.places[each].light is not None)
        mark = self.places[nearest].full or self.places[nearest].light
        assert mark is not None
        self.rows.rewind(mark)
        for token in written[nearest:number]:
            self.rows.append(torch.tensor([token], device=self.run.ids.device))

    def _thin(self) -> None:
        """Drop marks that no phrase can ask for.

        A full mark holds a law, so it is kept only from the token on in which an unfinished phrase began. A place far
        behind the end of the row is asked for only where no token is left after it, so every 64th has a light mark.
        """
        last = len(self.places) - 1
        earliest = self.places[-1].origins.earliest
        live = last if earliest is None else max(earliest, 0)
        for place in self.places[self._thinned : live]:
            place.full = None
        self._thinned = max(self._thinned, live)
        far = last - SPACING
        if far > 0 and far % SPACING and far < self._thinned:
            self.places[far].light = None


def _allowed(law: Tensor, place: _Place) -> Tensor:
    """Return the law of a place with its forbidden tokens at -inf, ``[1, vocab]``."""
    if not place.forbidden:
        return law
    return law.index_fill(-1, torch.tensor(place.forbidden, device=law.device), -torch.inf)
