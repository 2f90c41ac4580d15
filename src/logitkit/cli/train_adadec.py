"""``logitkit train-adadec``: fit the entropy from which on the search adadec looks ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_output, load_model, read_chain, utf8_text
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line, print_table
from logitkit.errors import FileFormatError
from logitkit.files import parse_json
from logitkit.progress import progress_bar
from logitkit.tables import FittedTable

EXAMPLES = (
    "logitkit train-adadec problems.jsonl threshold.json --model Qwen/Qwen2.5-Coder-0.5B",
    'logitkit run "def add(a, b):" --model Qwen/Qwen2.5-Coder-0.5B --chain "adadec(\'threshold.json\')"',
)
ENTRIES = {"nats": "threshold, nats", "accuracy": "held-out accuracy", "above": "share above", "right": "share right"}


# Over 40 lines: each option of the command is a parameter.
def train_adadec(
    references: Annotated[Path, typer.Argument(help="JSON lines, each with a prompt and its reference solution.")],
    out: Annotated[Path, typer.Argument(help="The file of the threshold, JSON.")],
    model: options.Model = "smollm2-135m",
    chain: Annotated[str, typer.Option(help="The steps that will stand before adadec; by default none.")] = "",
    prompt_field: Annotated[str, typer.Option(help="Field that holds the prompt.")] = "prompt",
    solution_field: Annotated[str, typer.Option(help="Field that holds the solution.")] = "canonical_solution",
    items: Annotated[int | None, typer.Option(min=1, help="Read only this many lines, from the first.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of the held-out tokens.")] = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    as_json: options.AsJson = False,
) -> None:
    """Fit the entropy from which on adadec looks ahead, on reference solutions.

    At each token of the solutions the model's entropy is measured, and whether its likeliest token is the right one.
    A logistic regression finds the entropy that separates the two best. Use the file as `adadec('FILE')` in a chain.
    """
    check_output("train-adadec", "OUT", out)
    pairs = _read_references(references, prompt_field, solution_field)[:items]
    steps = read_chain(chain)
    loaded, tokenizer = load_model("train-adadec", model, device=device, dtype=dtype)
    import torch

    from logitkit.processors.engine.weights_fingerprint import model_fingerprint
    from logitkit.processors.searches import EntropyThreshold
    from logitkit.registry.reference_entropies import reference_entropies

    measured = []
    with progress_bar("references", total=len(pairs), piped=True) as bar:
        for prompt, solution in pairs:
            measured.append(reference_entropies(steps, loaded, tokenizer, prompt, solution))
            bar.advance(1)
    entropy, right = (torch.cat(parts) for parts in zip(*measured, strict=True))
    described = {"model": model_fingerprint(loaded), "chain": str(steps)}
    fitted = EntropyThreshold.fit(entropy, right, seed=seed, **described)
    fitted.save(out)
    if as_json:
        print_json({"path": str(out), **{name: getattr(fitted, name) for name in (*ENTRIES, "tokens")}})
        return
    table = FittedTable("measure", "value", numbers=("value",))
    for name, words in ENTRIES.items():
        table.add_row(words, f"{getattr(fitted, name):.4g}")
    table.add_row("tokens", str(fitted.tokens))
    print_table(table)
    print_line(f"{out}: the threshold; name the file in a chain: adadec({str(out)!r})", stderr=True)


def _read_references(path: Path, prompt: str, solution: str) -> list[tuple[str, str]]:
    """Return prompt and solution of each line of a file.

    Raises:
        ParameterError: the file cannot be read.
        FileFormatError: the file is empty, or a line has not both fields as texts.
    """
    lines = [line for line in utf8_text("train-adadec", "references", path).split("\n") if line.strip()]
    pairs = []
    for number, line in enumerate(lines, 1):
        try:
            content = parse_json(line)
            pair = content[prompt], content[solution]
        except (ValueError, KeyError, TypeError) as error:
            pair = (None, error)
        if not all(isinstance(part, str) and part for part in pair):
            raise FileFormatError(
                f"train-adadec: every line of {path} must be JSON with texts {prompt!r} and {solution!r}, line "
                f"{number} is not; see --prompt-field and --solution-field"
            )
        pairs.append(pair)
    if not pairs:
        raise FileFormatError(f"train-adadec: {path} must hold a line with a prompt and a solution, got none")
    return pairs
