"""The command line of routers: ``logitkit label-divergence`` makes the data, ``logitkit train-router`` the head."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from logitkit.errors import FileFormatError, ModelError, ParameterError
from logitkit.models.progress import progress_bar

Small = Annotated[str, typer.Option(help="The small model: a known name, a folder, or a hub id.")]
Large = Annotated[str, typer.Option(help="The large model, with the same tokenizer.")]


def label_divergence(
    prompts: Annotated[Path, typer.Argument(help="JSON lines with a text each, or plain lines.")],
    out: Annotated[Path, typer.Argument(help="The labels, as JSON lines; an interrupted run goes on.")],
    small: Small,
    large: Large,
    field: Annotated[str, typer.Option(help="Where the text is in a JSON line.")] = "text",
    items: Annotated[int | None, typer.Option(min=1, help="The first so many prompts.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send each prompt as a chat message.")] = False,
    judge: Annotated[
        str, typer.Option(help="answer (last number, else text), text, model:NAME, or module:function.")
    ] = "answer",
    tokens: Annotated[int, typer.Option(min=1, help="Of an answer, and of each continuation.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Continuations generated together.")] = 8,
) -> None:
    """Label where the small model's token changes the large one's path: identical, neutral or divergent."""
    texts = _texts(prompts, field)[:items]
    first, second, tokenizer = _pair(small, large)
    from logitkit.processors.cascade import labelling as divergence

    given = [[{"role": "user", "content": text}] if chat else text for text in texts]
    with progress_bar("prompts", total=len(given)) as bar:
        found = divergence.label_divergence(
            given,
            out,
            small=first,
            large=second,
            tokenizer=tokenizer,
            judge=_judge(judge),
            judge_name=judge,
            tokens=tokens,
            batch=batch,
            advance=bar.advance,
        )
    counts = Counter(label for one in found for label in one.labels)
    table = Table("label", "tokens", "share")
    for label, name in ((0, "identical"), (1, "neutral"), (2, "divergent")):
        table.add_row(name, str(counts[label]), f"{counts[label] / max(1, counts.total()):.1%}")
    Console().print(table)


def train_router(
    labels: Annotated[Path, typer.Argument(help="What label-divergence wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of the head.")],
    small: Small,
    large: Large,
    recall: Annotated[float, typer.Option(help="Share of divergent tokens that the threshold must catch.")] = 0.95,
    width: Annotated[int, typer.Option(min=1)] = 128,
    blocks: Annotated[int, typer.Option(min=0)] = 2,
    epochs: Annotated[int, typer.Option(min=1)] = 50,
    seed: int = 0,
) -> None:
    """Train a router on labels; use it as ``router(large=..., head='FOLDER')``."""
    from logitkit.processors.cascade import labelling as divergence

    made_with, found = divergence.read_labels(labels)
    first, second, tokenizer = _pair(small, large)
    from logitkit.processors.cascade.model_fingerprint import check_pair, pair_fingerprint
    from logitkit.processors.cascade.router_head import RouterHead

    check_pair("train-router", made_with["pair"], pair_fingerprint(first, second, tokenizer))
    shape = divergence.shape_for(first, width=width, blocks=blocks)
    rows, targets = divergence.router_examples(found, first, shape)
    with progress_bar("epochs", total=epochs) as bar:
        head = RouterHead.fit(
            rows,
            targets,
            shape,
            small=first,
            large=second,
            tokenizer=tokenizer,
            recall=recall,
            epochs=epochs,
            seed=seed,
            advance=bar.advance,
        )
    head.save(out)
    typer.echo(json.dumps({"threshold": head.threshold, **head.report}, indent=2))


def _texts(path: Path, field: str) -> list[str]:
    """The prompts of a file.

    Raises:
        FileFormatError: no such file, no prompts, or a line without the field.
    """
    if not path.is_file():
        raise FileFormatError(f"label-divergence: prompts must be a file, got {path}")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if path.suffix == ".jsonl":
        try:
            lines = [json.loads(line)[field] for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"label-divergence: every line of {path} must be JSON with {field!r}, got {error!r}; see --field"
            ) from error
    if not lines:
        raise FileFormatError(f"label-divergence: {path} must hold a prompt, got none")
    return lines


def _pair(small: str, large: str) -> tuple[Any, Any, Any]:
    """Both models and their tokenizer.

    Raises:
        ModelError: they have two.
    """
    from logitkit import models

    (first, tokenizer), (second, other) = models.load(small), models.load(large)
    if tokenizer.get_vocab() != other.get_vocab():
        raise ModelError(f"label-divergence: {large} must have the tokenizer of {small}; read both as byte models")
    return first, second, tokenizer


def _judge(name: str) -> Any:
    """The judge of a name.

    Raises:
        ParameterError: it cannot be found.
    """
    from logitkit.processors.cascade import labelling as divergence

    if name in ("answer", "text"):
        return divergence.SameAnswer() if name == "answer" else divergence.SameText()
    kind, _, rest = name.partition(":")
    if kind == "model" and rest:
        from logitkit import models

        return divergence.ModelJudge(*models.load(rest))
    try:
        found = getattr(importlib.import_module(kind), rest)
    except (ImportError, AttributeError, ValueError) as error:
        rule = "answer, text, model:NAME, or module:function"
        raise ParameterError("label-divergence", "--judge", rule, name) from error
    return found() if isinstance(found, type) else found
