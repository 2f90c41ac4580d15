"""The fields of requests: their types and ranges, and those of OpenAI that this server does not carry out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from logitkit.errors import ParameterError
from logitkit.params import Parameters, number, option, validate, whole

MOST_STOPS = 16
DEEPEST = 64  # lists and objects within each other; no chain and no JSON schema of use is deeper
SEED = {"ge": -(2**63), "le": 2**63 - 1}


class CommonFields(Parameters):
    """Fields of completions and of chats. None, and an absent field, mean the default."""

    model: Annotated[str, option("name of the model")] = ""
    chain: Annotated[
        str | list[dict[str, Any]] | dict[str, Any] | None,
        option("a chain as text or as data; empty: plain decoding; absent: the default chain of the server"),
    ] = None
    max_tokens: Annotated[int | None, whole("most new tokens", ge=1)] = None
    temperature: Annotated[float, number("divides the logits; 0 takes the likeliest token", ge=0)] = 1.0
    top_p: Annotated[float, number("share of the probability from which a token is drawn", gt=0, le=1)] = 1.0
    n: Annotated[int, whole("texts for each prompt", ge=1, le=128)] = 1
    stop: Annotated[str | list[str] | None, option("strings that end the text and are no part of it")] = None
    seed: Annotated[int | None, whole("of the sampling; absent: another one for each request", **SEED)] = None
    stream: Annotated[bool, option("whether the text is sent while it is generated")] = False
    stream_options: Annotated[dict[str, Any] | None, option("include_usage: whether a last part holds the usage")] = (
        None
    )


class CompletionFields(CommonFields):
    """Fields of ``/v1/completions``."""

    prompt: Annotated[Any, option("a text, token ids, or a list of either")]
    logprobs: Annotated[int | None, whole("number of likeliest tokens to return", ge=0, le=20)] = None


class ChatFields(CommonFields):
    """Fields of ``/v1/chat/completions``."""

    messages: Annotated[list[dict[str, Any]], option("messages with role and content")]
    max_completion_tokens: Annotated[int | None, whole("most new tokens", ge=1)] = None
    logprobs: Annotated[bool, option("whether log-probabilities are returned")] = False
    top_logprobs: Annotated[int | None, whole("number of likeliest tokens to return", ge=0, le=20)] = None
    chat_template_kwargs: Annotated[dict[str, Any] | None, option("arguments of the chat template")] = None


class Neutral(NamedTuple):
    """A field of OpenAI that is accepted only with values that ask for nothing.

    Attributes:
        values: these values, besides None.
        way_out: what to do instead.
    """

    values: tuple[Any, ...]
    way_out: str


def _step(name: str, *values: Any, parameter: str = "...") -> Neutral:
    return Neutral(values, f"write it in the chain: {name}({parameter})")


NO_TOOLS = "this server calls no tools; leave it out"
NEUTRAL: Mapping[str, Neutral] = {
    "frequency_penalty": _step("frequency_penalty", 0),
    "presence_penalty": _step("presence_penalty", 0),
    "repetition_penalty": _step("repetition_penalty", 1),
    "top_k": _step("top_k", 0, -1),
    "min_p": _step("min_p", 0),
    "typical_p": _step("typical_p", 1),
    "logit_bias": Neutral(({},), "write suppress_tokens(...) or bad_words(...) in the chain, or leave it out"),
    "response_format": Neutral(({"type": "text"},), "write grammar(...) in the chain"),
    "best_of": Neutral((1,), "write best_of(n=...) in the chain"),
    "echo": Neutral((False,), "join the prompt and the text yourself"),
    "suffix": Neutral(("",), "leave it out"),
    "tools": Neutral(([],), NO_TOOLS),
    "tool_choice": Neutral(("none", "auto"), NO_TOOLS),
    "functions": Neutral(([],), NO_TOOLS),
    "function_call": Neutral(("none", "auto"), NO_TOOLS),
    "modalities": Neutral((["text"],), "this server writes text"),
    "store": Neutral((False,), "this server stores nothing"),
    "service_tier": Neutral(("auto", "default"), "this server has one tier"),
}
# Fields that say who asks; they change no answer.
IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")


def read_fields(owner: str, kind: type[CommonFields], body: Any) -> Any:
    """Return the fields of a request, checked and with defaults.

    Args:
        owner: the endpoint, for errors.
        kind: `CompletionFields` or `ChatFields`.
        body: the decoded body.

    Raises:
        ParameterError: a body that is no object, or a value outside its rule.
        UnknownNameError: an unknown field; the message shows the closest known one.

    >>> read_fields("completions", CompletionFields, {"prompt": "a", "temperature": 0, "user": "me"}).temperature
    0.0
    >>> read_fields("completions", CompletionFields, {"prompt": "a", "frequency_penalty": 0.5})
    Traceback (most recent call last):
    logitkit.errors.ParameterError: completions: frequency_penalty must be 0, got 0.5; write it in the chain: \
frequency_penalty(...)
    """
    if not isinstance(body, dict):
        raise ParameterError(owner, "the body", "a JSON object", type(body).__name__)
    given = {name: value for name, value in body.items() if value is not None and name not in IGNORED}
    for name, (values, way_out) in NEUTRAL.items():
        if name in given and name not in kind.model_fields:
            value = given.pop(name)
            if not any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in values):
                raise ParameterError(owner, name, " or ".join(map(repr, values)), value, way_out)
    fields = kind(**validate(owner, kind, given))
    _check_common(owner, fields)
    return fields


def is_shallow(value: Any) -> bool:
    """Return whether decoded JSON has at most `DEEPEST` lists and objects within each other.

    >>> is_shallow({"a": [1, {"b": []}]}), is_shallow([[]] * 1000)
    (True, True)
    """
    layer = [value]
    for _ in range(DEEPEST):
        layer = [part for each in layer if isinstance(each, (list, dict)) for part in _parts(each)]
        if not layer:
            return True
    return False


def _parts(value: list[Any] | dict[str, Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def stops_of(fields: CommonFields) -> tuple[str, ...]:
    """Return the stop strings of a request."""
    return (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())


def _check_common(owner: str, fields: CommonFields) -> None:
    """Check what types alone do not say.

    Raises:
        ParameterError, UnknownNameError: names the field.
    """
    stops = stops_of(fields)
    if len(stops) > MOST_STOPS or not all(stops):
        raise ParameterError(owner, "stop", f"at most {MOST_STOPS} strings, none empty", fields.stop)
    if fields.stream_options is not None:
        if not fields.stream:
            raise ParameterError(owner, "stream_options", "left out without stream=true", fields.stream_options)
        validate(f"{owner} stream_options", StreamOptions, fields.stream_options)


class StreamOptions(Parameters):
    """Options of a stream."""

    include_usage: Annotated[bool, option("whether a last part holds the usage")] = False
    include_obfuscation: Annotated[bool, option("has no effect")] = False
