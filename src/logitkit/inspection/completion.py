"""One continuation of one prompt under a chain, with its text, its cost and a progress bar."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import torch

from logitkit.errors import ParameterError
from logitkit.inspection.settings import GenerateSettings
from logitkit.inspection.streaming import Streamer
from logitkit.inspection.word_wrap import WordWrap
from logitkit.processors.engine.trace import Trace
from logitkit.processors.model_facts import context_length
from logitkit.progress import progress_bar
from logitkit.registry.call import Call
from logitkit.registry.chain import Chain


@dataclass(frozen=True, eq=False, kw_only=True)
class Completion:
    """One continuation and its cost.

    Attributes:
        call: the chain bound to the model and the prompt.
        row: token ids of the prompt and the continuation.
        text: the continuation.
        seconds: duration of the whole generate call.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> completion = complete(tiny_model(), tiny_tokenizer(), "Once", max_new_tokens=3, do_sample=False)
    >>> completion.tokens, completion.forwards_per_token
    (3, 1.0)
    """

    call: Call
    row: list[int]
    text: str
    seconds: float

    @property
    def chain(self) -> str:
        """The chain as text."""
        return str(self.call.chain)

    @property
    def trace(self) -> Trace:
        """The trace of the call."""
        return self.call.trace

    @property
    def tokens(self) -> int:
        """Number of new tokens."""
        return len(self.row) - self.call.settings.start

    @property
    def tokens_per_second(self) -> float:
        """New tokens per second of the generate call."""
        return self.tokens / self.seconds

    @property
    def forwards_per_token(self) -> float:
        """Mean number of forward passes per token, including the one of the generating model."""
        others, search = sum(self.trace.forwards.values()), self.trace.search
        if search is not None:
            return (search.forwards + others) / max(1, self.tokens)
        return 1 + others / max(1, self.trace.calls)

    def as_data(self) -> dict[str, Any]:
        """Return the completion as plain data for JSON."""
        steps = [vars(step) for step in self.trace.steps]
        return {
            "chain": self.chain,
            "text": self.text,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "forwards_per_token": round(self.forwards_per_token, 3),
            "trace": self.trace.summary() | {"steps": steps},
        }


# Over 40 lines: the arguments are documented one by one.
def complete(
    model: Any,
    tokenizer: Any,
    prompt: str | list[dict[str, str]],
    chain: str | Chain = "",
    *,
    stream: bool = False,
    record: bool = False,
    seed: int = 0,
    label: str = "tokens",
    before_generate: Callable[[Call], None] | None = None,
    heard: Callable[[str], None] | None = None,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    **settings: Unpack[GenerateSettings],
) -> Completion:
    """Continue one prompt under a chain, and show the text or a progress bar meanwhile.

    Args:
        model, tokenizer: the generating model and its tokenizer.
        prompt: one text, or the messages of one chat.
        chain: a chain or its text; empty is plain decoding.
        stream: write the text to standard output while it is generated, without a progress bar: the bar would take
            the line on which the text grows. On a terminal, lines break between words.
        record: record every step of every processor in the trace.
        seed: random seed of the sampling.
        label: description of the progress bar.
        before_generate: called with the bound call before generation starts.
        heard: called with each piece of the text while it is generated, as far as ``stream`` writes it.
        resources, tokenizers: as in `logitkit.generate`.
        settings: settings of ``model.generate``; ``max_new_tokens`` is 64 unless given.

    Returns:
        The continuation.

    Raises:
        LogitkitError: the chain cannot be bound, or cannot run with these settings.

    >>> from logitkit.registry.laws import tiny_model, tiny_tokenizer
    >>> complete(tiny_model(), tiny_tokenizer(), "Once", "top_k(5)", max_new_tokens=3, do_sample=False).tokens
    3
    """
    torch.manual_seed(seed)
    settings.setdefault("max_new_tokens", 64)
    call = Chain(chain).bind(model, tokenizer, prompt, trace=record, tokenizers=tokenizers, **(resources or {}))
    if before_generate is not None:
        before_generate(call)
    one_row = settings.get("num_beams", 1) == 1  # the streamers of transformers accept a single row
    shown = not (stream and one_row)
    write = _writer(heard)
    _check_room(call, settings["max_new_tokens"])
    with progress_bar(label, total=settings["max_new_tokens"], enabled=shown) as bar:
        streamer = Streamer(
            tokenizer,
            advance=bar.advance,
            write=write if stream else None,
            removed=b"".join(call.prompts.removed),
        )
        begin = time.perf_counter()
        output = call.generate(streamer=streamer if one_row else None, **settings)
        seconds = time.perf_counter() - begin
    (text,), (row,) = call.texts(output), call.ids(output).tolist()
    if stream:
        write("\n" if one_row else f"{text}\n")
    return Completion(call=call, row=row, text=text, seconds=seconds)


def _writer(heard: Callable[[str], None] | None) -> Callable[[str], None]:
    """Return a function that writes to standard output; on a terminal it breaks lines between words."""
    write = WordWrap(_write, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _write
    if heard is None:
        return write

    def both(text: str) -> None:
        heard(text)
        write(text)

    return both


def _write(text: str) -> None:
    """Write a piece of the continuation to standard output without delay."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _check_room(call: Call, new: int) -> None:
    """Refuse a number of new tokens that the context of the model cannot hold.

    Raises:
        ParameterError: prompt and continuation are longer than the context.
    """
    context = context_length(call.model)
    read = 0 if call.model.config.is_encoder_decoder else call.inputs["input_ids"].shape[-1]
    if context is not None and read + new > context:
        rule = f"at most {context - read}, since the model reads {context} tokens and the prompt has {read}"
        raise ParameterError(
            "generate", "max_new_tokens", rule, new, "lower it, shorten the prompt, or change the model"
        )
