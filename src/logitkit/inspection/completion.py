"""One prompt, one chain, one continuation: what ``run``, ``demo`` and ``inspect`` do before they show it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitkit.errors import ParameterError
from logitkit.models.progress import progress_bar
from logitkit.registry.chain import Chain

if TYPE_CHECKING:
    from logitkit.processors.engine.trace import Trace
    from logitkit.registry.call import Call


@dataclass(frozen=True, eq=False, kw_only=True)
class Completion:
    """One continuation and what it cost.

    Attributes:
        call: the chain as it was bound.
        row: token ids of the prompt and the continuation.
        text: the continuation.
        seconds: of the whole generate call.
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
        """What happened."""
        return self.call.trace

    @property
    def tokens(self) -> int:
        """New tokens."""
        return len(self.row) - self.call.prompts.width

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def forwards(self) -> float:
        """Forward passes a token, the generating model's own included."""
        return 1 + sum(self.trace.forwards.values()) / max(1, self.trace.calls)

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        steps = [vars(step) for step in self.trace.steps]
        told = {"chain": self.chain, "text": self.text, "tokens": self.tokens, "seconds": round(self.seconds, 3)}
        return told | {"forwards_per_token": round(self.forwards, 3), "trace": self.trace.summary() | {"steps": steps}}


def complete(
    model: Any,
    tokenizer: Any,
    prompt: Any,
    chain: Chain,
    *,
    show: bool = False,
    record: bool = False,
    seed: int = 0,
    label: str = "",
    ready: Callable[[Call], None] | None = None,
    resources: Mapping[str, Any] | None = None,
    tokenizers: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Completion:
    """Continue one prompt under a chain, with a progress bar.

    Args:
        model, tokenizer, prompt, chain: what to run; ``prompt`` is text or chat messages.
        show: stream the text to standard output.
        record: record every step in the trace.
        seed: of the sampling.
        label: before the progress bar.
        ready: called with the bound call before it generates.
        resources, tokenizers: as in `logitkit.generate`.
        settings: of ``model.generate``; ``max_new_tokens`` is needed.
    """
    import torch

    from logitkit.inspection.streaming import Streamer

    torch.manual_seed(seed)
    call = chain.bind(model, tokenizer, prompt, trace=record, tokenizers=tokenizers, **(resources or {}))
    if ready is not None:
        ready(call)
    with progress_bar(label or "tokens", total=settings["max_new_tokens"]) as bar:
        streamer = Streamer(
            tokenizer,
            advance=bar.advance,
            write=_write if show else None,
            removed=b"".join(call.prompts.removed),
        )
        one_row = settings.get("num_beams", 1) == 1  # transformers streams one row only
        begun = time.perf_counter()
        output = call.generate(streamer=streamer if one_row else None, **settings)
        seconds = time.perf_counter() - begun
    (text,), (row,) = call.texts(output), call.ids(output).tolist()
    if show:
        _write("\n" if one_row else f"{text}\n")
    return Completion(call=call, row=row, text=text, seconds=seconds)


def read_chain(chain: str) -> Chain:
    """A chain given on the command line: its text, or a file of one."""
    return Chain.from_file(chain) if chain.endswith((".yaml", ".yml", ".json")) else Chain(chain)


def read_prompt(owner: str, prompt: str | None, file: Path | None) -> str:
    """The prompt from its argument, a file, or standard input.

    Raises:
        ParameterError: none or two of them, or an empty one; in the name of the command ``owner``.
    """
    if prompt is not None and file is not None:
        raise ParameterError(owner, "the prompt", "given once", str(file), "drop the argument or --file")
    if file is not None and not file.is_file():
        raise ParameterError(owner, "--file", "a file that exists", str(file))
    if prompt is None and file is None and sys.stdin.isatty():
        raise ParameterError(owner, "the prompt", "given", None, f"write it behind {owner}, or use --file or a pipe")
    text = prompt if prompt is not None else file.read_text(encoding="utf-8") if file else sys.stdin.read()
    if not text:
        raise ParameterError(owner, "the prompt", "text", text)
    return text


def load(name: str) -> tuple[Any, Any]:
    """Model and tokenizer; imports torch only here."""
    from logitkit import models

    loaded: tuple[Any, Any] = models.load(name)
    return loaded


def sampling(
    do_sample: bool, temperature: float | None, top_k: int | None, top_p: float | None, max_new_tokens: int
) -> dict[str, Any]:
    """Settings of `generate` from the options of the command line; a setting of sampling asks for sampling."""
    asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    settings: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return settings | {"do_sample": do_sample or bool(settings), "max_new_tokens": max_new_tokens}


def _write(text: str) -> None:
    """Write a piece of the continuation at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
