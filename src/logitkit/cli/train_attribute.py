"""``logitkit train-attribute``: train the head of an attribute on labelled texts."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_folder, load_model
from logitkit.cli.interrupts import continued_from
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line, print_table
from logitkit.execution import PerProcess, engine_named
from logitkit.progress import progress_bar
from logitkit.tables import FittedTable

EXAMPLES = ("logitkit train-attribute labelled.jsonl polite --model smollm2-135m --prompt question",)


# Over 40 lines: each option of the command is a parameter.
def train_attribute(
    texts: Annotated[
        Path, typer.Argument(help="JSON lines with a text and a label each: true, false, or a number from 0 to 1.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the trained head. An interrupted run continues there.")],
    model: options.Model,
    field: Annotated[str, typer.Option(help="Field of a line that holds the text.")] = "text",
    label: Annotated[str, typer.Option(help="Field of a line that holds the label.")] = "label",
    prompt: Annotated[
        str | None, typer.Option(help="Field of a line that holds the text before; none without it.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send each prompt as a chat message.")] = False,
    positions: Annotated[int, typer.Option(min=1, help="Largest number of places of a text to train on.")] = 32,
    tokens: Annotated[int, typer.Option(min=2, help="Largest number of tokens of a text that are read.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Number of texts in one forward.")] = 8,
    width: Annotated[int, typer.Option(min=1, help="Width of the head's hidden layers.")] = 64,
    blocks: Annotated[int, typer.Option(min=0, help="Number of residual blocks of the head.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Number of passes over the places.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of places and training.")] = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    engine: options.Engine = "local",
    as_json: options.AsJson = False,
) -> None:
    """Train a head that predicts an attribute of the whole text from the states of a model.

    Use the head as `attribute({'head': 'FOLDER'})` in a chain of the same model. The engine reads the texts; the
    training itself runs in this process.
    """
    chosen = engine_named(engine, "train-attribute")
    from logitkit.processors import samplers
    from logitkit.processors.cascade import TrainingSettings

    check_folder("train-attribute", "OUT", out)
    items = samplers.read_labelled_texts(texts, text=field, label=label, prompt=prompt)
    shared = PerProcess(functools.partial(load_model, "train-attribute", model, device=device, dtype=dtype))
    loaded, tokenizer = shared.value
    settings = samplers.CaptureSettings(positions=positions, tokens=tokens, batch_size=batch, chat=chat, seed=seed)
    with continued_from(out), progress_bar("texts", total=len(items), piped=True) as bar:
        examples = samplers.attribute_examples(
            items, loaded, tokenizer, out, settings, advance=bar.advance, engine=chosen, workers_load=shared
        )
    with continued_from(out), progress_bar("epochs", total=epochs, piped=True) as bar:
        head = samplers.AttributeHead.fit(
            examples,
            samplers.attribute_head_config(loaded, width=width, blocks=blocks),
            trained_for=samplers.ModelFingerprint.of(loaded, tokenizer),
            settings=TrainingSettings(epochs=epochs, seed=seed),
            advance=bar.advance,
        )
    head.save(out)
    shutil.rmtree(out / samplers.STATES)
    if as_json:
        print_json({"path": str(out), **head.report})
        return
    _print_measures(head.report)
    print_line(f"{out}: the head; name the folder in a chain: attribute({{'head': '{out}'}})", stderr=True)


def _print_measures(measured: dict[str, Any]) -> None:
    """Print the measures of a head as a table."""
    table = FittedTable("measure", "value", numbers=("value",))
    for name, value in measured.items():
        table.add_row(name.replace("_", " "), f"{value:.4g}")
    print_table(table)
