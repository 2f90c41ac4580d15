"""Run a chain from the command line: ``logitkit run`` on your prompt, ``logitkit demo`` on ours."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from logitkit.errors import ParameterError
from logitkit.registry.chain import Chain

if TYPE_CHECKING:
    from logitkit.processors.trace import Step, Trace

DEMO_CHAIN = "uscd()"
DEMO_PROMPT = '''Complete this Python function:

def longest_run(numbers: list[int]) -> int:
    """Return the length of the longest run of equal neighbours in a list of numbers.

    An empty list has no run.

    >>> longest_run([4, 4, 4, 1, 1])
    3
    >>> longest_run([])
    0
    """
'''


@dataclass(frozen=True, eq=False, kw_only=True)
class Completion:
    """One continuation and what it cost."""

    chain: str
    text: str
    tokens: int
    seconds: float
    trace: Trace

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


def run(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; without it, --file or standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read the prompt from this file.")] = None,
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    chain: Annotated[str, typer.Option(help="A chain, or a .yaml or .json file of one.")] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Send the prompt as a chat message.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    do_sample: Annotated[
        bool, typer.Option("--do-sample", help="Sample instead of taking the likeliest token.")
    ] = False,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from this much mass.")] = None,
    num_beams: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    trace: Annotated[bool, typer.Option("--trace", help="Show where the chain moved the distribution most.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Continue a prompt under a chain; the text streams as it is written."""
    read = Chain.from_file(chain) if chain.endswith((".yaml", ".yml", ".json")) else Chain(chain)
    text = _prompt(prompt, file)
    loaded, tokenizer = _load(model)
    asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    settings: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    settings |= {"do_sample": do_sample or bool(settings), "num_beams": num_beams, "max_new_tokens": max_new_tokens}
    given = [{"role": "user", "content": text}] if chat else text
    done = _complete(loaded, tokenizer, given, read, seed=seed, record=trace, show=not as_json, **settings)
    if as_json:
        typer.echo(json.dumps(done.as_data(), indent=2))
        return
    console = Console(stderr=True, highlight=False)
    for notice in done.trace.notices:
        console.print(f"[dim]{_escaped(notice)}[/]")
    console.print(
        f"[dim]{done.tokens} tokens, {done.rate:.1f} tokens/s, {done.forwards:.2f} forwards/token, "
        f"fired {done.trace.fired or 'no gate'}[/]"
    )
    if done.trace.readers:
        console.print(f"[dim]second streams {_escaped(done.trace.fusion)}[/]")
    if trace:
        console.print(_moves(done.trace.steps, tokenizer))


def demo() -> None:
    """Decode a prompt plainly and with USCD, side by side, on a real small model."""
    console = Console(highlight=False)
    model, tokenizer = _load("smollm2-135m")
    prompt = [{"role": "user", "content": DEMO_PROMPT}]
    console.print("[bold]The prompt[/] (in the style of HumanEval, as a chat turn):")
    console.print(DEMO_PROMPT, markup=False, soft_wrap=True)
    settings: dict[str, Any] = {"max_new_tokens": 72, "do_sample": False}
    _complete(model, tokenizer, prompt, Chain(), show=False, max_new_tokens=2, do_sample=False)  # warm up
    plain = _complete(model, tokenizer, prompt, Chain(), show=False, label="plain", **settings)
    timed = _complete(model, tokenizer, prompt, Chain(DEMO_CHAIN), show=False, label="uscd", **settings)
    traced = _complete(
        model, tokenizer, prompt, Chain(DEMO_CHAIN), show=False, record=True, label="tracing", **settings
    )
    for notice in timed.trace.notices:
        console.print(f"[bold]The lame prompt[/]: {notice}", markup=True, soft_wrap=True)
    console.print()
    table = Table("", "plain", timed.chain, show_lines=True)
    table.add_row("text", _verbatim(plain.text), _verbatim(timed.text))
    table.add_row("gate fired", "no gate", f"at {timed.trace.fired['uscd']:.0%} of {timed.tokens} tokens")
    table.add_row("second stream", "none", _verbatim(timed.trace.fusion))
    table.add_row("forwards/token", f"{plain.forwards:.2f}", f"{timed.forwards:.2f}")
    table.add_row("tokens/second", f"{plain.rate:.1f}", f"{timed.rate:.1f}")
    console.print(table)
    console.print(_moves(traced.trace.steps, tokenizer))
    console.print(
        "Next: [bold]logitkit list[/], [bold]logitkit show uscd[/], [bold]logitkit run 'Once' --chain 'cfg(1.5)'[/]"
    )


def _prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from its argument, a file, or standard input.

    Raises:
        ParameterError: none or two of them, or an empty one.
    """
    if prompt is not None and file is not None:
        raise ParameterError("run", "the prompt", "given once", str(file), "drop the argument or --file")
    if file is not None and not file.is_file():
        raise ParameterError("run", "--file", "a file that exists", str(file))
    if prompt is None and file is None and sys.stdin.isatty():
        raise ParameterError("run", "the prompt", "given", None, "write it behind run, or use --file or a pipe")
    text = prompt if prompt is not None else file.read_text(encoding="utf-8") if file else sys.stdin.read()
    if not text:
        raise ParameterError("run", "the prompt", "text", text)
    return text


def _load(name: str) -> tuple[Any, Any]:
    """Model and tokenizer; imports torch only here."""
    from logitkit import models

    loaded: tuple[Any, Any] = models.load(name)
    return loaded


def _complete(
    model: Any,
    tokenizer: Any,
    prompt: Any,
    chain: Chain,
    *,
    show: bool,
    record: bool = False,
    seed: int = 0,
    label: str = "",
    **settings: Any,
) -> Completion:
    """Continue one prompt under a chain, with a progress bar, streaming the text to standard output if asked."""
    import torch

    from logitkit.streaming import Streamer

    torch.manual_seed(seed)
    call = chain.bind(model, tokenizer, prompt, trace=record)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label or "tokens", total=settings["max_new_tokens"])
        streamer = Streamer(
            tokenizer,
            advance=lambda: progress.advance(task),
            write=_write if show else None,
            removed=b"".join(call.prompts.removed),
        )
        one_row = settings.get("num_beams", 1) == 1  # transformers streams one row only
        begun = time.perf_counter()
        output = call.generate(streamer=streamer if one_row else None, **settings)
        seconds = time.perf_counter() - begun
    (text,) = call.texts(output)
    if show and not one_row:
        _write(text)
    if show:
        _write("\n")
    tokens = call.ids(output).shape[1] - call.prompts.width
    return Completion(chain=str(chain), text=text, tokens=tokens, seconds=seconds, trace=call.trace)


def _write(text: str) -> None:
    """Write a piece of the continuation at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _escaped(text: str) -> str:
    """Text that rich prints as it stands, inside markup."""
    return text.replace("[", r"\[")


def _verbatim(text: str) -> Any:
    """Text that is shown as it stands."""
    from rich.text import Text

    return Text(text)


def _moves(steps: list[Step], tokenizer: Any, count: int = 5) -> Table:
    """The steps at which the chain moved the distribution most."""
    table = Table(
        "token", "processor", "JS, bits", "before", "after", title="Where the chain moved the distribution most"
    )

    def tops(likeliest: tuple[tuple[int, float], ...]) -> Any:
        return _verbatim("  ".join(f"{tokenizer.decode([token])!r} {p:.2f}" for token, p in likeliest[:3]))

    for step in sorted(steps, key=lambda step: -step.js_bits)[:count]:
        table.add_row(str(step.position), step.processor, f"{step.js_bits:.3f}", tops(step.before), tops(step.after))
    return table
