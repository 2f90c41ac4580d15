"""``logitkit train-router``: train the head of a router on labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_folder
from logitkit.cli.json_output import print_json
from logitkit.cli.model_pair import load_pair
from logitkit.cli.rendering import print_line, print_table
from logitkit.progress import progress_bar
from logitkit.tables import FittedTable

EXAMPLES = ("logitkit train-router labels.jsonl head --small Qwen/Qwen2.5-0.5B --large Qwen/Qwen2.5-3B",)


# Over 40 lines: each option of the command is a parameter.
def train_router(
    labels: Annotated[Path, typer.Argument(help="The file that `logitkit label-divergence` wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of the trained head.")],
    small: options.SmallModel,
    large: options.LargeModel,
    recall: Annotated[
        float, typer.Option(help="Share of divergent tokens that the decision threshold must catch, 0 to 1.")
    ] = 0.95,
    width: Annotated[int, typer.Option(min=1, help="Width of the head's hidden layers.")] = 128,
    blocks: Annotated[int, typer.Option(min=0, help="Number of residual blocks of the head.")] = 2,
    epochs: Annotated[int, typer.Option(min=1, help="Number of passes over the labels.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of the training.")] = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    as_json: options.AsJson = False,
) -> None:
    """Train a router on labels. Use the router as `router(large=..., head='FOLDER')` in a chain."""
    from logitkit.processors import cascade

    check_folder("train-router", "OUT", out)
    label_settings, prompts = cascade.read_labels(labels)
    pair = load_pair("train-router", small, large, device, dtype)
    cascade.check_pair("train-router", label_settings.pair, pair.fingerprint())
    config = cascade.router_head_config(pair.small, width=width, blocks=blocks)
    features, targets = cascade.router_examples(prompts, pair.small, config)
    with progress_bar("epochs", total=epochs, piped=True) as bar:
        head = cascade.RouterHead.fit(
            features,
            targets,
            config,
            pair=pair,
            recall=recall,
            settings=cascade.TrainingSettings(epochs=epochs, seed=seed),
            advance=bar.advance,
        )
    head.save(out)
    measured = {"threshold": head.threshold, **head.report}
    if as_json:
        print_json({"path": str(out), **measured})
        return
    _print_measures(measured)
    print_line(f"{out}: the head; name the folder in a chain: router(large='{large}', head='{out}')", stderr=True)


def _print_measures(measured: dict[str, Any]) -> None:
    """Print the measures of a head as a table."""
    table = FittedTable("measure", "value", numbers=("value",))
    for name, value in measured.items():
        table.add_row(name.replace("_", " "), f"{value:.4g}")
    print_table(table)
