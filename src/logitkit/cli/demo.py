"""``logitkit demo``: one prompt decoded with and without a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from logitkit.cli.inputs import load_model
from logitkit.cli.rendering import escape_markup, largest_changes, print_table
from logitkit.registry.chain import Chain
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from logitkit.inspection.completion import Completion
    from logitkit.inspection.settings import GenerateSettings

CHAIN = "uscd()"
PROMPT = '''Complete this Python function:

def longest_run(numbers: list[int]) -> int:
    """Return the length of the longest run of equal neighbours in a list of numbers.

    An empty list has no run.

    >>> longest_run([4, 4, 4, 1, 1])
    3
    >>> longest_run([])
    0
    """
'''


def demo() -> None:
    """Decode one prompt plainly and with USCD, side by side, on a small model."""
    model, tokenizer = load_model("demo", "smollm2-135m")
    from logitkit.inspection.completion import complete

    console = Console(highlight=False)
    console.print("[bold]The prompt[/] (in the style of HumanEval, as a chat message):")
    console.print(PROMPT, markup=False, soft_wrap=True)
    prompt = [{"role": "user", "content": PROMPT}]
    settings: GenerateSettings = {"max_new_tokens": 72, "do_sample": False}
    complete(model, tokenizer, prompt, Chain(), max_new_tokens=2, do_sample=False)  # warm-up, not timed
    plain = complete(model, tokenizer, prompt, Chain(), label="plain", **settings)
    uscd = complete(model, tokenizer, prompt, Chain(CHAIN), label="uscd", **settings)
    # Recording costs time, so the steps come from a run of their own.
    recorded = complete(model, tokenizer, prompt, Chain(CHAIN), record=True, label="trace", **settings)
    for notice in uscd.trace.notices:
        console.print(f"[bold]Notice[/]: {escape_markup(notice)}", soft_wrap=True)
    console.print()
    print_table(_comparison(plain, uscd))
    print_table(largest_changes(recorded.trace.steps, tokenizer))
    console.print(
        "Next: [bold]logitkit list[/], [bold]logitkit show uscd[/], [bold]logitkit run 'Once' --chain 'cfg(1.5)'[/]"
    )


def _comparison(plain: Completion, uscd: Completion) -> FittedTable:
    """Return a table of text and cost with one column per completion."""
    table = FittedTable("", "plain", uscd.chain)
    table.add_row("text", Text(plain.text), Text(uscd.text))
    table.add_row("gate fired", "no gate", f"at {uscd.trace.fired['uscd']:.0%} of {uscd.tokens} tokens")
    table.add_row("second stream", "none", Text(str(uscd.trace.fusion)))
    table.add_row("forwards/token", f"{plain.forwards_per_token:.2f}", f"{uscd.forwards_per_token:.2f}")
    table.add_row("tokens/second", f"{plain.tokens_per_second:.1f}", f"{uscd.tokens_per_second:.1f}")
    return table
