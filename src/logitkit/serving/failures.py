"""Errors as OpenAI's clients expect them: a status, and a body that says what was wrong."""

from __future__ import annotations

import json
from typing import NamedTuple

from logitkit.errors import LogitkitError, ParameterError, PluginError, PromptError, UnknownNameError
from logitkit.serving.engine import QueueFullError, StoppedError
from logitkit.serving.intake import BodyTooLongError, ContextError, UnknownModelError

RETRY_SECONDS = 1
LONGEST = 2000  # characters of a message


class Failure(NamedTuple):
    """An error of a request.

    Attributes:
        status: of HTTP.
        kind: the field ``type``, as OpenAI's clients know it.
        message: what was wrong, and what to do.
        parameter: the field of the request that was wrong.
        code: a word for programs.
    """

    status: int
    kind: str
    message: str
    parameter: str | None = None
    code: str | None = None

    @property
    def json(self) -> str:
        """The body of the answer, in ASCII: a message may quote a lone surrogate, which UTF-8 cannot hold."""
        fields = {"message": self.message, "type": self.kind, "param": self.parameter, "code": self.code}
        return json.dumps({"error": fields})

    @property
    def headers(self) -> dict[str, str]:
        """When to try again, where that helps."""
        return {"Retry-After": str(RETRY_SECONDS)} if self.status in (429, 503) else {}


INVALID = "invalid_request_error"
ENDPOINTS = ("completions", "chat.completions")  # owners of the fields of requests


def failure_of(error: Exception) -> Failure:
    """Return an error of the server as an answer.

    >>> failure_of(ParameterError("cfg", "scale", "a finite number >= 0", -1.0)).status
    400
    """
    text = _shortened(str(error))
    parameter = error.parameter if isinstance(error, ParameterError) else None
    if isinstance(error, UnknownModelError):
        return Failure(404, INVALID, text, "model", "model_not_found")
    if isinstance(error, QueueFullError):
        return Failure(429, "rate_limit_error", text, None, "queue_full")
    if isinstance(error, StoppedError):
        return Failure(503, "server_error", text, None, "stopping")
    if isinstance(error, TimeoutError):
        return Failure(504, "timeout_error", text, None, "timeout")
    if isinstance(error, BodyTooLongError):
        return Failure(413, INVALID, text)
    if isinstance(error, ContextError):
        return Failure(400, INVALID, text, parameter, "context_length_exceeded")
    if isinstance(error, LogitkitError) and not isinstance(error, PluginError):
        name = error.name if isinstance(error, UnknownNameError) else None
        return Failure(400, INVALID, text, parameter or (name and _shortened(name)))
    if isinstance(error, PluginError):
        return Failure(500, "server_error", text)
    return Failure(500, "server_error", f"serve: the text could not be generated ({type(error).__name__})")


def summary_of(error: Exception) -> str:
    """Return an error for the log: in the words of `failure_of`, but without what it quotes of a prompt.

    >>> summary_of(ParameterError("completions", "prompt", "text", ["a secret", 5]))
    'completions: prompt must be text'
    >>> summary_of(ParameterError("completions", "n", "a whole number >= 1", 0))
    'completions: n must be a whole number >= 1, got 0'
    """
    if isinstance(error, PromptError):  # a chat template may quote messages, for instance
        return str(error).partition(", got ")[0]
    if not isinstance(error, ParameterError) or isinstance(error.value, (int, float)):
        return failure_of(error).message
    if error.owner.startswith(ENDPOINTS):
        return f"{error.owner}: {error.parameter} must be {error.rule}"
    return failure_of(error).message


def _shortened(message: str) -> str:
    """Return a message without its middle where it quotes a long value; what to do stands at its end."""
    half = LONGEST // 2
    return message if len(message) <= LONGEST else f"{message[:half]} ... {message[-half:]}"
