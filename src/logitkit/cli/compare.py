"""``logitkit compare``: where two models differ on a text, token by token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from logitkit.cli import options
from logitkit.cli.compare_tables import print_comparison
from logitkit.cli.inputs import check_output, load_model
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line
from logitkit.errors import FileFormatError, ModeError
from logitkit.files import replace_file
from logitkit.progress import progress_bar

if TYPE_CHECKING:
    from logitkit.diagnostics import ComparisonTexts

EXAMPLES = (
    'logitkit compare smollm2-135m gemma-3-270m "The old lighthouse stood at the end of the pier." --html page.html',
    "logitkit compare Qwen/Qwen2.5-0.5B Qwen/Qwen2.5-3B passages.jsonl --entropy 1.5 --divergence 0.2",
    "logitkit compare Qwen/Qwen2.5-0.5B Qwen/Qwen2.5-3B passages.jsonl --labels labels.jsonl",
)
ENDINGS = {"--html": (".html", ".htm"), "--csv": (".csv",), "--labels": (".jsonl",)}


# Over 40 lines: each option of the command is a parameter.
def compare(
    model: Annotated[str, typer.Argument(help="The model that is judged: a known name, a folder, or a hub id.")],
    other: Annotated[str, typer.Argument(help="The model that it is compared with, such as a larger one.")],
    text: Annotated[
        list[str],
        typer.Argument(
            help="Texts and files: JSON lines with a text each, or a file of label-divergence (*.jsonl); "
            "any other file is one text."
        ),
    ],
    field: Annotated[str, typer.Option(help="Field of a JSON line that holds the text.")] = "text",
    measure: Annotated[
        Literal["js", "kl", "reverse_kl"],
        typer.Option(help="Divergence of the quadrants: js in bits, kl (of MODEL from OTHER) or reverse_kl in nats."),
    ] = "js",
    divergence: Annotated[float, typer.Option(min=0, help="Threshold of the divergence.")] = 0.1,
    entropy: Annotated[
        float | None, typer.Option(min=0, help="Threshold of the entropy of MODEL, nats. Default: its median.")
    ] = None,
    beta: Annotated[float, typer.Option(min=1e-6, help="Strength of the contrastive estimate.")] = 1.0,
    plausible: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Tokens above this share of OTHER's largest probability count in the estimate."
        ),
    ] = 0.01,
    over_bytes: Annotated[
        bool, typer.Option("--bytes", help="Compare over bytes, as models of different tokenizers are.")
    ] = False,
    tokens: Annotated[
        int, typer.Option(min=1, max=options.MOST_TOKENS, help="Compare at most this many tokens or bytes of a text.")
    ] = 2048,
    window: Annotated[
        int, typer.Option(min=8, help="Read at most this many at once; a longer text in overlapping windows.")
    ] = 1024,
    html: Annotated[Path | None, typer.Option(help="Page to write, *.html.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Table to write, *.csv, with one line per token.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="File of router labels to write, *.jsonl, from which train-router trains.")
    ] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    as_json: options.AsJson = False,
) -> None:
    """Show where two models differ on a text, token by token.

    For each token: the divergence of the models, the entropy, log-probability and rank under each, and how probability
    moves. Quadrants of the entropy of MODEL by the divergence show where it is sure and OTHER disagrees.

    Models of one tokenizer are compared over tokens, other models over bytes.
    """
    from logitkit.diagnostics import compare as compare_models
    from logitkit.diagnostics import comparison_csv, comparison_data, comparison_page, read_comparison_texts
    from logitkit.diagnostics import write_labels as write_router_labels

    for option, path in (("--html", html), ("--csv", csv), ("--labels", labels)):
        check_output("compare", option, path, *ENDINGS[option])
    texts = read_comparison_texts(text, field=field)
    (first, tokenizer), (second, other_tokenizer) = (
        load_model("compare", name, device=device, dtype=dtype) for name in (model, other)
    )
    pair = _pair(first, second, tokenizer, other_tokenizer)
    if labels and (over_bytes or not pair.agreement.same_text):
        raise ModeError("compare: --labels needs tokens, got bytes; choose two models of one tokenizer")
    unit = "bytes" if over_bytes or not pair.agreement.same_text else "tokens"
    with progress_bar(unit, total=None, piped=True) as bar:
        found = compare_models(
            first,
            tokenizer,
            second,
            _answers_of_pair(texts, pair),
            other_tokenizer=other_tokenizer,
            names=_names(first, second),
            over_bytes=over_bytes,
            measure=measure,
            divergence=divergence,
            entropy=entropy,
            beta=beta,
            plausible=plausible,
            max_tokens=tokens,
            window=window,
            start=lambda total: bar.update(total=total),
            advance=bar.advance,
        )
    for path, content in ((html, comparison_page), (csv, comparison_csv)):
        if path is not None:
            with replace_file(path) as part:
                part.write_text(content(found), encoding="utf-8", newline="")
            print_line(f"{path}: {len(found)} {found.level}", stderr=True)
    if labels:
        write_router_labels(labels, found, pair.fingerprint())
        print_line(f"{labels}: the labels of {len(found)} tokens", stderr=True)
    if as_json:
        print_json(comparison_data(found))
    else:
        print_comparison(found)


def _pair(first: Any, second: Any, tokenizer: Any, other_tokenizer: Any) -> Any:
    """Return two models and their tokenizers as a `ModelPair`."""
    from logitkit.processors.cascade import ModelPair

    return ModelPair(small=first, large=second, tokenizer=tokenizer, large_tokenizer=other_tokenizer)


def _names(first: Any, second: Any) -> tuple[str, str]:
    """Return the names of two models; of two with one name, the second has a mark."""
    from logitkit.inspection.model_name import model_name

    names = model_name(first), model_name(second)
    return names if names[0] != names[1] else (names[0], f"{names[1]} (2)")


def _answers_of_pair(texts: ComparisonTexts, pair: Any) -> list[Any]:
    """Return the texts; answers that were labelled for other models lose their labels.

    Raises:
        FileFormatError: answers in the tokens of another tokenizer.
    """
    if not texts.pairs:
        return texts.texts
    own = pair.fingerprint()
    if any(labelled.tokenizer != own.tokenizer for labelled in texts.pairs):
        rule = "labels must be of answers in the tokens of MODEL"
        raise FileFormatError(f"compare: {rule}, got those of another tokenizer; give the texts")
    if texts.pairs == {own}:
        return texts.texts
    return [each if isinstance(each, str) else replace(each, labels=[]) for each in texts.texts]
