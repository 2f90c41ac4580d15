"""``logitkit membership``: scores that tell whether texts were among the training data of a model."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_output, load_model, utf8_text
from logitkit.cli.interrupts import continued_from
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line, print_table
from logitkit.errors import PromptError
from logitkit.execution import PerProcess, carry_out, engine_named
from logitkit.files import parse_json
from logitkit.progress import progress_bar
from logitkit.tables import FittedTable

if TYPE_CHECKING:
    from logitkit.diagnostics import MembershipText

EXAMPLES = (
    "logitkit membership passages.jsonl --model smollm2-135m",
    "logitkit membership passages.jsonl --model smollm2-135m --reference book.txt --out scores.jsonl",
)
NAMES = {"log_likelihood": "log-likelihood", "min_k": "min-k %", "min_k_plus_plus": "min-k %++", "dc_pdd": "DC-PDD"}


# Over 40 lines: each option of the command is a parameter.
def membership(
    file: Annotated[Path, typer.Argument(help="JSON lines with a text each (*.jsonl), or lines of plain text.")],
    model: options.Model = "smollm2-135m",
    field: Annotated[str, typer.Option(help="Field of a JSON line that holds the text.")] = "text",
    label: Annotated[
        str, typer.Option(help="Field that holds the label: 1 for a text of the training data, 0 for another.")
    ] = "label",
    reference: Annotated[
        Path | None, typer.Option(help="A text that shows how common each token is, for DC-PDD; without it, left out.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.001, max=1, help="Share of a text's tokens, the least likely ones, that count.")
    ] = 0.2,
    clip: Annotated[float, typer.Option(min=1e-9, help="Largest contribution of a token to DC-PDD.")] = 0.01,
    tokens: Annotated[int, typer.Option(min=2, help="Read at most this many tokens of a text, from the first.")] = 1024,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The scores, as JSON lines; an interrupted run continues there.")
    ] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    engine: options.Engine = "local",
    as_json: options.AsJson = False,
) -> None:
    """Score texts by how likely they were among the training data of a model; higher means likelier.

    With labels, the area under the curve tells how well each score separates the two kinds of texts: 0.5 is chance.
    """
    chosen = engine_named(engine, "membership")
    from logitkit.diagnostics import read_membership_texts

    check_output("membership", "--out", out)
    texts = read_membership_texts(file, field=field, label=label)
    corpus = None if reference is None else utf8_text("membership", "--reference", reference)
    settings = json.dumps([model, dtype, share, clip, tokens, corpus and hashlib.sha256(corpus.encode()).hexdigest()])
    keys = [hashlib.sha256(f"{settings}\n{text.text}".encode()).hexdigest()[:16] for text in texts]
    known = _known(out) if out else {}
    missing = {key: number for number, key in reversed([*enumerate(keys)]) if key not in known}  # one of equal texts
    shared = PerProcess(functools.partial(_load, model, device, dtype, corpus))
    job = functools.partial(_scores, shared, str(file), [text.text for text in texts], tokens, share, clip)
    with continued_from(out), progress_bar("texts", total=len(texts), piped=True) as bar:

        def keep(number: int, scores: dict[str, float]) -> None:
            known[keys[number]] = scores
            if out:
                _append(out, {"key": keys[number], "number": number, "member": texts[number].member, **scores})
            bar.advance()

        bar.advance(len(texts) - len(missing))
        carry_out(job, sorted(missing.values()), keep, engine=chosen)
    results = [known[key] for key in keys]
    if out:
        print_line(f"{out}: the scores of each text", stderr=True)
    _print_results(texts, results, as_json=as_json)


def _load(model: str, device: str, dtype: str, corpus: str | None) -> tuple[Any, Any, Any]:
    """Return a model, its tokenizer, and how often each token occurs in a text; None without a text."""
    from logitkit.diagnostics import token_counts
    from logitkit.processors.model_facts import text_config

    loaded, tokenizer = load_model("membership", model, device=device, dtype=dtype)
    counts = None if corpus is None else token_counts(tokenizer, [corpus], int(text_config(loaded).vocab_size))
    return loaded, tokenizer, counts


def _scores(
    shared: PerProcess[tuple[Any, Any, Any]],
    file: str,
    texts: list[str],
    tokens: int,
    share: float,
    clip: float,
    number: int,
) -> dict[str, float]:
    """Return the scores of the text of a number: a unit of the command.

    Raises:
        PromptError: the text has too few tokens; names its number.
    """
    from logitkit.diagnostics import membership_scores, token_statistics

    model, tokenizer, counts = shared.value
    try:
        found = token_statistics(model, tokenizer, texts[number], max_tokens=tokens)
    except PromptError as error:
        raise PromptError(f"membership: text {number + 1} of {file}: {error}") from error
    return membership_scores(found, share=share, counts=counts, clip=clip)


def _known(path: Path) -> dict[str, dict[str, float]]:
    """Return the scores that a file holds already, by key; a last line that was left incomplete is ended."""
    if not path.exists():
        return {}
    known, content = {}, utf8_text("membership", "--out", path)
    if content and not content.endswith("\n"):
        path.write_text(f"{content}\n", encoding="utf-8")
    for line in content.splitlines():
        try:
            data = parse_json(line)
            known[data["key"]] = {name: float(data[name]) for name in NAMES if name in data}
        except (ValueError, KeyError, TypeError):
            continue
    return known


def _append(path: Path, data: dict[str, Any]) -> None:
    """Add a line to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(data) + "\n")


def _print_results(texts: list[MembershipText], results: list[dict[str, float]], *, as_json: bool) -> None:
    """Print the area under the curve of each score, or without labels of both kinds the scores of each text."""
    from logitkit.diagnostics import area_under_curve

    groups = {
        flag: [scores for text, scores in zip(texts, results, strict=True) if text.member is flag]
        for flag in (True, False)
    }
    areas = (
        {name: area_under_curve(*([s[name] for s in groups[flag]] for flag in (True, False))) for name in results[0]}
        if all(groups.values())
        else {}
    )
    if as_json:
        named = [{"member": text.member, **scores} for text, scores in zip(texts, results, strict=True)]
        print_json({"areas": {name: area._asdict() for name, area in areas.items()}, "texts": named})
    elif areas:
        table = FittedTable("score", "area under the curve", "95 %", numbers=("area under the curve", "95 %"))
        for name, area in areas.items():
            table.add_row(NAMES[name], f"{area.value:.3f}", f"[{area.low:.3f}, {area.high:.3f}]")
        print_table(table)
        print_line(f"{len(groups[True])} texts of the training data, {len(groups[False])} others", stderr=True)
    else:
        columns = [NAMES[name] for name in results[0]]
        table = FittedTable("text", *columns, numbers=("text", *columns))
        for number, scores in enumerate(results, start=1):
            table.add_row(str(number), *(f"{value:.4g}" for value in scores.values()))
        print_table(table)
