"""Answers in the JSON shapes of OpenAI, whole and in parts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import logitkit
from logitkit.processors.tokens.vocabulary import Vocabulary
from logitkit.serving.row import Piece, Row, TokenScore

IMPOSSIBLE = -9999.0  # OpenAI's number for a log-probability that JSON cannot hold


class Shape:
    """The shape of the answers to one request.

    Args:
        rows: of the request.
        name: name of the model.
        tokenizer: spells the tokens of log-probabilities.

    Attributes:
        kind: first part of the answer's id.
        whole, part: the field ``object`` of an answer, and of a part of a stream.
    """

    kind, whole, part = "", "", ""

    def __init__(self, rows: Sequence[Row], name: str, tokenizer: Any) -> None:
        self.rows, self._name, self._tokenizer = rows, name, tokenizer
        self._id, self._created = f"{self.kind}-{uuid.uuid4().hex}", int(time.time())

    def answer(self, pieces: Sequence[Sequence[Piece]]) -> dict[str, Any]:
        """Return the whole answer.

        Args:
            pieces: those of each row.
        """
        choices = []
        for number, (row, parts) in enumerate(zip(self.rows, pieces, strict=True)):
            joined = Piece("".join(part.text for part in parts), tuple(s for part in parts for s in part.scores))
            choices.append({"index": number, **self.of_whole(number, joined), "finish_reason": row.finish_reason})
        return self._framed(self.whole, choices) | {"usage": self.usage()}

    def chunk(self, number: int, piece: Piece, *, reason: str | None = None) -> dict[str, Any]:
        """Return a part of a stream: a piece of one row, or its end."""
        return self._framed(
            self.part, [{"index": number, **self.of_part(number, piece, reason), "finish_reason": reason}]
        )

    def opening(self) -> list[dict[str, Any]]:
        """Return the parts before the first text."""
        return []

    def closing(self) -> dict[str, Any]:
        """Return the last part, which holds the usage."""
        return self._framed(self.part, []) | {"usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Return the numbers of tokens; those of a prompt count once, however many texts were written for it."""
        prompts = {id(row.prompt): row.prompt.tokens for row in self.rows}
        read, written = sum(prompts.values()), sum(row.tokens for row in self.rows)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    def of_whole(self, number: int, piece: Piece) -> dict[str, Any]:
        """Return the fields of one text in the whole answer."""
        raise NotImplementedError

    def of_part(self, number: int, piece: Piece, reason: str | None) -> dict[str, Any]:
        """Return the fields of one piece in a stream."""
        raise NotImplementedError

    def spelled(self, token: int) -> tuple[str, list[int]]:
        r"""Return a token as text and as bytes; one that is no text as ``bytes:\xc3``."""
        vocabulary = Vocabulary.of(self._tokenizer)
        written = vocabulary.token_bytes[token] if token < len(vocabulary) else None
        if written is None:
            text = str(self._tokenizer.decode([token]))
            return text, list(text.encode())
        try:
            return written.decode(), list(written)
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written), list(written)

    def _framed(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        fingerprint = f"logitkit-{logitkit.__version__}-{self.rows[0].chain.hash}"
        frame = {"id": self._id, "object": kind, "created": self._created, "model": self._name}
        return frame | {"system_fingerprint": fingerprint, "choices": choices}


class CompletionShape(Shape):
    """The shape of ``/v1/completions``."""

    kind, whole, part = "cmpl", "text_completion", "text_completion"

    def of_whole(self, number: int, piece: Piece) -> dict[str, Any]:
        """Return text and log-probabilities."""
        return {"text": piece.text, "logprobs": self._logprobs(number, piece)}

    def of_part(self, number: int, piece: Piece, reason: str | None) -> dict[str, Any]:
        """Return text and log-probabilities."""
        return {"text": piece.text, "logprobs": self._logprobs(number, piece) if piece.scores else None}

    def _logprobs(self, number: int, piece: Piece) -> dict[str, Any] | None:
        """Return the log-probabilities of a piece; an offset counts the characters of the text before the token."""
        if self.rows[number].top_logprobs is None:
            return None
        tokens = [self.spelled(score.token)[0] for score in piece.scores]
        return {
            "tokens": tokens,
            "token_logprobs": [_finite(score.logp) for score in piece.scores],
            "top_logprobs": [
                {self.spelled(token)[0]: _finite(logp) for token, logp in score.top} for score in piece.scores
            ],
            "text_offset": [score.place for score in piece.scores],
        }


class ChatShape(Shape):
    """The shape of ``/v1/chat/completions``."""

    kind, whole, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def of_whole(self, number: int, piece: Piece) -> dict[str, Any]:
        """Return the message of the assistant and its log-probabilities."""
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        return {"message": message, "logprobs": self._logprobs(number, piece)}

    def of_part(self, number: int, piece: Piece, reason: str | None) -> dict[str, Any]:
        """Return what is added to the message; nothing at its end."""
        delta = {"content": piece.text} if piece.text or reason is None else {}
        return {"delta": delta, "logprobs": self._logprobs(number, piece) if piece.scores else None}

    def opening(self) -> list[dict[str, Any]]:
        """Return a part for each row that names the role."""
        delta = {"role": "assistant", "content": ""}
        return [
            self._framed(self.part, [{"index": number, "delta": delta, "logprobs": None, "finish_reason": None}])
            for number in range(len(self.rows))
        ]

    def _logprobs(self, number: int, piece: Piece) -> dict[str, Any] | None:
        if self.rows[number].top_logprobs is None:
            return None
        return {"content": [self._token(score) for score in piece.scores], "refusal": None}

    def _token(self, score: TokenScore) -> dict[str, Any]:
        """Return one token with its likeliest alternatives."""
        top = [self._spelled(token, logp) for token, logp in score.top]
        return self._spelled(score.token, score.logp) | {"top_logprobs": top}

    def _spelled(self, token: int, logp: float) -> dict[str, Any]:
        text, written = self.spelled(token)
        return {"token": text, "logprob": _finite(logp), "bytes": written}


def _finite(logp: float) -> float:
    """Return a log-probability that JSON can hold."""
    return max(logp, IMPOSSIBLE)
