"""Run a chain from the command line: ``logitkit run`` on your prompt, ``logitkit demo`` on ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from logitkit.cli import options
from logitkit.inspection.completion import complete, load, read_chain, read_prompt, sampling
from logitkit.registry.chain import Chain

if TYPE_CHECKING:
    from logitkit.processors.engine.trace import Step

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


def run(
    prompt: options.Prompt = None,
    file: options.File = None,
    model: options.Model = "smollm2-135m",
    chain: options.ChainText = "",
    chat: options.Chat = False,
    max_new_tokens: options.NewTokens = 64,
    do_sample: options.DoSample = False,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    num_beams: Annotated[int, typer.Option(min=1)] = 1,
    seed: options.Seed = 0,
    trace: Annotated[bool, typer.Option("--trace", help="Show where the chain moved the distribution most.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Continue a prompt under a chain; the text streams as it is written."""
    read, text = read_chain(chain), read_prompt("run", prompt, file)
    loaded, tokenizer = load(model)
    settings = sampling(do_sample, temperature, top_k, top_p, max_new_tokens) | {"num_beams": num_beams}
    given = [{"role": "user", "content": text}] if chat else text
    done = complete(loaded, tokenizer, given, read, seed=seed, record=trace, show=not as_json, **settings)
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
        console.print(f"[dim]second streams {_escaped(str(done.trace.fusion))}[/]")
    if trace:
        console.print(_moves(done.trace.steps, tokenizer))


def demo() -> None:
    """Decode a prompt plainly and with USCD, side by side, on a real small model."""
    console = Console(highlight=False)
    model, tokenizer = load("smollm2-135m")
    prompt = [{"role": "user", "content": DEMO_PROMPT}]
    console.print("[bold]The prompt[/] (in the style of HumanEval, as a chat turn):")
    console.print(DEMO_PROMPT, markup=False, soft_wrap=True)
    settings: dict[str, Any] = {"max_new_tokens": 72, "do_sample": False}
    complete(model, tokenizer, prompt, Chain(), max_new_tokens=2, do_sample=False)  # warm up
    plain = complete(model, tokenizer, prompt, Chain(), label="plain", **settings)
    timed = complete(model, tokenizer, prompt, Chain(DEMO_CHAIN), label="uscd", **settings)
    traced = complete(model, tokenizer, prompt, Chain(DEMO_CHAIN), record=True, label="tracing", **settings)
    for notice in timed.trace.notices:
        console.print(f"[bold]The lame prompt[/]: {notice}", markup=True, soft_wrap=True)
    console.print()
    table = Table("", "plain", timed.chain, show_lines=True)
    table.add_row("text", _verbatim(plain.text), _verbatim(timed.text))
    table.add_row("gate fired", "no gate", f"at {timed.trace.fired['uscd']:.0%} of {timed.tokens} tokens")
    table.add_row("second stream", "none", _verbatim(str(timed.trace.fusion)))
    table.add_row("forwards/token", f"{plain.forwards:.2f}", f"{timed.forwards:.2f}")
    table.add_row("tokens/second", f"{plain.rate:.1f}", f"{timed.rate:.1f}")
    console.print(table)
    console.print(_moves(traced.trace.steps, tokenizer))
    console.print(
        "Next: [bold]logitkit list[/], [bold]logitkit show uscd[/], [bold]logitkit run 'Once' --chain 'cfg(1.5)'[/]"
    )


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
