"""``logitkit label-divergence``: make the training data of a router."""

from __future__ import annotations

import functools
import importlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_output, load_model, utf8_text
from logitkit.cli.interrupts import continued_from
from logitkit.cli.json_output import print_json
from logitkit.cli.model_pair import load_pair
from logitkit.cli.rendering import print_table
from logitkit.errors import FileFormatError, ParameterError
from logitkit.execution import PerProcess, engine_named
from logitkit.files import parse_json
from logitkit.progress import progress_bar
from logitkit.tables import FittedTable

EXAMPLES = ("logitkit label-divergence prompts.jsonl labels.jsonl --small Qwen/Qwen2.5-0.5B --large Qwen/Qwen2.5-3B",)


# Over 40 lines: each option of the command is a parameter.
def label_divergence(
    prompts: Annotated[Path, typer.Argument(help="JSON lines with one text each (*.jsonl), or lines of plain text.")],
    out: Annotated[Path, typer.Argument(help="The labels, as JSON lines. An interrupted run continues in this file.")],
    small: options.SmallModel,
    large: options.LargeModel,
    field: Annotated[str, typer.Option(help="Field of a JSON line that holds the text.")] = "text",
    items: Annotated[int | None, typer.Option(min=1, help="Label only this many prompts, from the first.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send each prompt as a chat message.")] = False,
    judge: Annotated[
        str,
        typer.Option(
            help="How two continuations are compared: answer (the last number, else the text), text, "
            "model:NAME, or module:function."
        ),
    ] = "answer",
    tokens: Annotated[int, typer.Option(min=1, help="Maximum tokens of an answer, and of each continuation.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Number of continuations generated together.")] = 8,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    engine: options.Engine = "local",
    as_json: options.AsJson = False,
) -> None:
    """Label each token of the large model's answers by the effect of the small model's token in its place.

    identical: both models choose the same token.

    neutral: the token differs, and the judge finds the same answer.

    divergent: the token differs, and the judge finds another answer.
    """
    chosen = engine_named(engine, "label-divergence")
    check_output("label-divergence", "OUT", out)
    texts = _read_prompts(prompts, field)[:items]
    deciding = PerProcess(functools.partial(_judge, judge, device, dtype))
    _ = deciding.value  # an unknown judge is refused before the models are loaded
    pair = PerProcess(functools.partial(load_pair, "label-divergence", small, large, device, dtype))
    from logitkit.processors import cascade

    messages = [[{"role": "user", "content": text}] if chat else text for text in texts]
    with continued_from(out), progress_bar("prompts", total=len(messages), piped=True) as bar:
        labelled = cascade.label_divergence(
            messages,
            out,
            pair,
            judge=functools.partial(_decision, deciding),
            judge_name=judge,
            tokens=tokens,
            batch_size=batch,
            advance=bar.advance,
            engine=chosen,
        )
    counts = Counter(label for prompt in labelled for label in prompt.labels)
    names = {cascade.IDENTICAL: "identical", cascade.NEUTRAL: "neutral", cascade.DIVERGENT: "divergent"}
    if as_json:
        print_json({"labels": {name: counts[label] for label, name in names.items()}, "tokens": counts.total()})
        return
    table = FittedTable("label", "tokens", "share", numbers=("tokens", "share"))
    for label, name in names.items():
        table.add_row(name, str(counts[label]), f"{counts[label] / max(1, counts.total()):.1%}")
    print_table(table)


def _read_prompts(path: Path, field: str) -> list[str]:
    """Return the prompts of a file.

    Raises:
        FileFormatError: the file is missing or empty, or a JSON line has no such field.
    """
    if not path.is_file():
        raise FileFormatError(f"label-divergence: prompts must be a file, got {path}")
    lines = [line for line in utf8_text("label-divergence", "prompts", path).splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        try:
            lines = [parse_json(line)[field] for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"label-divergence: every line of {path} must be JSON with {field!r}, got {error!r}; see --field"
            ) from error
    if not lines:
        raise FileFormatError(f"label-divergence: {path} must hold a prompt, got none")
    return lines


def _decision(judge: PerProcess[Any], pair: Any) -> bool:
    """Return whether two continuations diverge, as the judge of this process finds."""
    return bool(judge.value(pair))


def _judge(name: str, device: str, dtype: str) -> Any:
    """Return the function that compares two continuations.

    Args:
        name: what the option ``--judge`` names.
        device, dtype: of a model that judges.

    Raises:
        ParameterError: no judge has this name, or torch does not have the device.
    """
    from logitkit.processors import cascade

    if name in ("answer", "text"):
        return cascade.SameAnswer() if name == "answer" else cascade.SameText()
    module, _, attribute = name.partition(":")
    if module == "model" and attribute:
        return cascade.ModelJudge(*load_model("label-divergence", attribute, device=device, dtype=dtype))
    try:
        judge = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        rule = "answer, text, model:NAME, or module:function"
        raise ParameterError("label-divergence", "--judge", rule, name) from error
    return judge() if isinstance(judge, type) else judge
