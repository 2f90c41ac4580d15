"""``logitkit run``: continue a prompt under a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from logitkit.cli import options
from logitkit.cli.inputs import generate_settings, load_model, read_chain, read_prompt
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import escape_markup, largest_changes, print_table

if TYPE_CHECKING:
    from logitkit.inspection.completion import Completion

EXAMPLES = (
    'logitkit run "Once upon a time" --chain "cfg(1.5)"',
    'logitkit run "Name three rivers." --chat --temperature 0.7 --seed 3',
    'echo "The capital of Fra" | logitkit run --chain "byte_boundary()" --trace',
)


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
    num_beams: Annotated[int, typer.Option(min=1, help="Number of beams; 1 is no beam search.")] = 1,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    trace: Annotated[
        bool, typer.Option("--trace", help="Show the tokens at which the chain changed the distribution most.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Continue a prompt under a chain. The text appears while it is generated."""
    bound_chain, text = read_chain(chain), read_prompt("run", prompt, file)
    loaded, tokenizer = load_model("run", model, device=device, dtype=dtype)
    from logitkit.inspection.completion import complete

    settings = generate_settings(
        max_new_tokens=max_new_tokens, do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p
    )
    settings["num_beams"] = num_beams
    message = [{"role": "user", "content": text}] if chat else text
    completion = complete(
        loaded, tokenizer, message, bound_chain, seed=seed, record=trace, stream=not as_json, **settings
    )
    if as_json:
        print_json(completion.as_data())
        return
    _print_summary(completion)
    if trace:
        print_table(largest_changes(completion.trace.steps, tokenizer), stderr=True)


def _print_summary(completion: Completion) -> None:
    """Print notices, cost and gates on standard error."""
    trace, console = completion.trace, Console(stderr=True, highlight=False)
    for notice in trace.notices:
        console.print(f"[dim]{escape_markup(notice)}[/]")
    gates = ", ".join(f"{name} at {share:.0%} of tokens" for name, share in trace.fired.items())
    console.print(
        f"[dim]{completion.tokens} tokens, {completion.tokens_per_second:.1f} tokens/s, "
        f"{completion.forwards_per_token:.2f} forwards/token{f', gates fired: {gates}' if gates else ''}[/]"
    )
    if trace.readers:
        console.print(f"[dim]second streams {escape_markup(str(trace.fusion))}[/]")
