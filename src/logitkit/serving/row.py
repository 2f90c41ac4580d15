"""One text of a request: what is asked for, and what was generated so far."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

from logitkit.processors.engine.chats import Message
from logitkit.registry.chain import Chain
from logitkit.serving.speller import speller_of
from logitkit.serving.stop_texts import first_stop, withheld

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompt:
    """The prompt of a text.

    Attributes:
        value: a text, the messages of a chat, or token ids.
        kind: which of the three.
        template: arguments of the chat template.
        tokens: number of tokens that the model reads.
    """

    value: str | tuple[Message, ...] | tuple[int, ...]
    kind: Literal["text", "chat", "tokens"]
    template: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0


class TokenScore(NamedTuple):
    """A token with its log-probability in nats and the likeliest tokens of its step.

    Attributes:
        token: id.
        logp: log-probability under the chain.
        top: (id, log-probability) of the likeliest tokens, the best first; tokens that are impossible are left out.
        place: number of characters of the text before the token.
    """

    token: int
    logp: float
    top: tuple[tuple[int, float], ...]
    place: int = 0


class Piece(NamedTuple):
    """Text that is ready to be sent, and the tokens that it ends."""

    text: str
    scores: tuple[TokenScore, ...]


@dataclass(eq=False, kw_only=True)
class Row:
    """One text that is to be generated.

    The worker thread adds tokens; the request reads pieces. Text that may belong to a stop string, or to a character
    that is not complete, stays behind. A row may be generated again from its beginning: what was sent is not repeated.

    Attributes:
        prompt, chain: the chain, and the prompt to bind it to.
        seed: of the sampling.
        temperature: divides the log-probabilities; 0 takes the likeliest token.
        top_p: share of the probability from which a token is drawn.
        new_tokens: most tokens.
        stops: stop strings, which are no part of the text.
        top_logprobs: number of likeliest tokens in `TokenScore`; None: no log-probabilities are wanted.
        streams: whether ``notify`` is called at every piece.
        notify: called without arguments, in the worker thread, when there is something to read.
        cancelled: whether nobody waits for the text any more.
        finish_reason: why the text ended; None while it is generated and after a failure.
        error: why the text could not be generated.
        tokens: number of tokens that were generated.
    """

    prompt: Prompt
    chain: Chain
    seed: int
    temperature: float
    top_p: float
    new_tokens: int
    stops: tuple[str, ...] = ()
    top_logprobs: int | None = None
    streams: bool = False
    notify: Callable[[], None] = lambda: None
    # The rest is state.
    cancelled: bool = False
    finish_reason: FinishReason | None = None
    error: Exception | None = None
    tokens: int = 0
    _text: str = ""
    _sent: str = ""
    _scores: list[TokenScore] = field(default_factory=list)
    _scores_sent: int = 0
    _pieces: list[Piece] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _speller: Any = None

    @property
    def done(self) -> bool:
        """Whether nothing is to be generated any more."""
        return self.cancelled or self.finish_reason is not None or self.error is not None

    @cached_property
    def batch_key(self) -> tuple[str, str, str] | None:
        """What the rows of a batch have in common; None: the row must be alone, since a search has one prompt."""
        template = repr(sorted(self.prompt.template.items()))
        return None if self.chain.searches else (str(self.chain), self.prompt.kind, template)

    def begin(self, tokenizer: Any, removed: bytes) -> None:
        """Begin the text, or begin it again.

        Args:
            tokenizer: of the generating model.
            removed: bytes that the chain cut from the end of the prompt.
        """
        self._speller, self._text, self.tokens = speller_of(tokenizer, removed), "", 0
        self._scores.clear()

    def add(self, token: int, score: TokenScore | None, *, ends: bool) -> None:
        """Add a token.

        Args:
            token: id.
            score: its log-probabilities, where they are wanted.
            ends: whether it is an end token, which is no part of the text.
        """
        self.tokens += 1
        before = len(self._text)
        if score is not None and not ends:
            self._scores.append(score._replace(place=before))
        if not ends:
            self._text += self._speller.add(token)
        if ends or self.tokens >= self.new_tokens:
            self._text += self._speller.end()
        cut = first_stop(self._text, self.stops, max(0, before - max(map(len, self.stops), default=0)))
        if cut is not None:
            self._text = self._text[:cut]
        reason: FinishReason | None = "stop" if ends or cut is not None else None
        if reason is None and self.tokens >= self.new_tokens:
            reason = "length"
        self._release(reason, whole=reason is not None and cut is None)

    def _release(self, reason: FinishReason | None, *, whole: bool) -> None:
        """Make the text readable that no later token can change, and end the row where there is a reason.

        Args:
            reason: why the text ends here; None: it goes on.
            whole: whether the text ends, and all of its tokens belong to it.
        """
        ready = self._text if reason else self._text[: len(self._text) - withheld(self._text, self.stops)]
        if not ready.startswith(self._sent) and not self._sent.startswith(ready):
            self.fail(RuntimeError("the text differs from what was sent of it"))
            return
        text = ready[len(self._sent) :]
        count = sum(1 for score in self._scores if whole or score.place < len(ready))
        scores = tuple(self._scores[self._scores_sent : count])
        with self._lock:
            if text or scores:
                self._pieces.append(Piece(text, scores))
            self._sent, self._scores_sent = max(ready, self._sent, key=len), max(count, self._scores_sent)
            self.finish_reason = reason
        if reason or (self.streams and (text or scores)):
            self.notify()

    def stop(self) -> None:
        """End the text where it is; the search that wrote it goes no further."""
        self._text += self._speller.end()
        self._release("stop", whole=True)

    def fail(self, error: Exception) -> None:
        """End the row with an error."""
        self.error = error
        self.notify()

    def read(self) -> tuple[list[Piece], bool]:
        """Return the pieces that were not read before, and whether they are the last ones."""
        with self._lock:
            pieces, self._pieces = self._pieces, []
            return pieces, self.done
