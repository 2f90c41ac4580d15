"""``logitkit demo``: three prompts, each continued by plain decoding and under a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from logitkit.cli.demo_acts import ACTS, Act
from logitkit.cli.inputs import load_model
from logitkit.registry.chain import Chain

if TYPE_CHECKING:
    from typing import Any

    from logitkit.inspection.completion import Completion
    from logitkit.inspection.settings import GenerateSettings

INDENT = 15  # columns before a text
NEXT = (
    ("logitkit list", "the strategies"),
    ("logitkit show byte_boundary", "how one of them works, and where it does harm"),
    ("logitkit run 'The opposite of black is whi' --chain 'byte_boundary()'", "a prompt of your own"),
    ("logitkit inspect 'Thank you very mu' --chain 'byte_boundary()'", "every step of a chain, as a page"),
    ("logitkit bench --help", "measure strategies side by side"),
)


def demo() -> None:
    """Show three prompts on which a strategy changes what a small model writes, and what each one costs."""
    model, tokenizer = load_model("demo", "smollm2-135m")
    console = Console(highlight=False)
    _print(console, "SmolLM2-135M continues three prompts, each by plain greedy decoding and under a chain.")
    for number, act in enumerate(ACTS, 1):
        plain, chained = _decode(model, tokenizer, act)
        console.print()
        _print(console, f"{number}. {act.title}", "bold")
        _print(console, act.problem)
        _print_comparison(console, act, plain, chained)
        _print(console, act.remark, "dim")
    console.print()
    _print(console, "What to try next", "bold")
    for command, purpose in NEXT:
        console.print(Text(f"  {command}", "bold"), soft_wrap=True)  # a broken line could not be copied
        _print(console, purpose, label=" " * 6)


def _print(console: Console, text: str, style: str = "", *, label: str = "") -> None:
    """Print a text behind a label; lines are broken at the width of the terminal, and empty ones left out."""
    width = max(20, console.width - len(label))
    lines = [part for line in text.split("\n") for part in Text(line).wrap(console, width) if line]
    for number, line in enumerate(lines):
        head = Text(label if number == 0 else " " * len(label), "bold")
        console.print(head + Text(line.plain.rstrip(), style), soft_wrap=True)


def _decode(model: Any, tokenizer: Any, act: Act) -> tuple[Completion, Completion]:
    """Return the continuations by plain decoding and under the chain of an act."""
    from logitkit.inspection.completion import complete

    settings: GenerateSettings = {"max_new_tokens": act.new_tokens, "do_sample": False}
    resources = act.resources(tokenizer)
    for chain in (Chain(), Chain(act.chain)):  # what a model and a tokenizer need once is not part of the cost
        complete(model, tokenizer, act.prompt, chain, resources=resources if chain else {}, max_new_tokens=2)
    plain = complete(model, tokenizer, act.prompt, Chain(), label="plain", **settings)
    return plain, complete(
        model, tokenizer, act.prompt, Chain(act.chain), label=act.chain, resources=resources, **settings
    )


def _print_comparison(console: Console, act: Act, plain: Completion, chained: Completion) -> None:
    """Print the prompt, both continuations and the cost, one under the other, at any width of the terminal."""
    name = act.chain.partition("(")[0]
    for label, text, style in (
        ("prompt", act.prompt, ""),
        ("chain", act.chain, ""),
        ("plain", _written(act, plain), ""),
        (name, _written(act, chained), "green"),
        ("cost", _cost(plain, chained), ""),
    ):
        _print(console, text, style, label=label.ljust(INDENT))


def _written(act: Act, completion: Completion) -> str:
    """Return a continuation; dots show that the model wrote on, or would have."""
    ended = completion.row[-1] in completion.call.settings.end_tokens()
    text, _, rest = completion.text.partition("\n\n") if act.one_paragraph else (completion.text, "", "")
    return text if ended and not rest else f"{text} ..."


def _cost(plain: Completion, chained: Completion) -> str:
    """Return the ratio of the durations of the two generate calls, with what the ratio is made from."""
    ratio = chained.seconds / plain.seconds
    return (
        f"{ratio:.1f} times the time of plain decoding ({chained.seconds:.1f} s for {chained.tokens} tokens, "
        f"plain {plain.seconds:.1f} s for {plain.tokens})"
    )
