"""Coverage, construction time and size of alignments between real vocabularies.

    python -m studies.alignments --main smollm2=FOLDER --helper gemma3=FOLDER --helper llama3=FOLDER

A folder holds a ``tokenizer.json``, and a model if embedding alignments are wanted. A name that `logitkit models`
lists needs no folder.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors import safe_open
from transformers import AutoConfig, PreTrainedTokenizerFast

from logitkit import models
from logitkit.processors.alignment import Alignment, AlignmentVocabulary, align
from logitkit.processors.tokens import Vocabulary
from studies import command
from studies.tables import markdown_table

END_TOKENS = ("<|im_end|>", "<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>")
HEADINGS = (
    "helper",
    "main",
    "align",
    "exact",
    "partial",
    "none",
    "special or absent",
    "main ids reached",
    "seconds",
    "CPU seconds",
    "MB",
)


def load_vocabulary(text: str) -> tuple[str, AlignmentVocabulary]:
    """Return the name and the vocabulary of ``name`` or ``name=folder``."""
    name, _, place = text.partition("=")
    folder = Path(place) if place else models.path(name)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer.get_vocab()
    end_tokens = tuple(ids[token] for token in END_TOKENS if token in ids)
    embeddings = _embeddings(folder)
    size = len(Vocabulary.of(tokenizer))
    size = size if embeddings is None else max(len(embeddings), size)
    return name, AlignmentVocabulary(
        tokenizer=tokenizer,
        vocabulary=Vocabulary.of(tokenizer, size),
        end_tokens=end_tokens,
        embeddings=embeddings,
    )


def _embeddings(folder: Path) -> Any:
    """Return the input embeddings of a checkpoint; None if the folder holds no model."""
    if not (folder / "config.json").is_file():
        return None
    AutoConfig.from_pretrained(folder, local_files_only=True)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - safe_open returns no mapping
                if key.endswith("embed_tokens.weight"):
                    return tensors.get_tensor(key)
    return None


def table_row(helper: str, main: str, alignment: Alignment, seconds: float, cpu_seconds: float) -> list[str]:
    """Return the row of one alignment."""
    coverage = alignment.coverage()
    words = coverage["exact"] + coverage["partial"] + coverage["none"]
    reached = int(torch.unique(alignment.targets[alignment.weights > 0]).numel())
    return [
        helper,
        main,
        alignment.method,
        *(f"{coverage[kind]} ({coverage[kind] / words:.1%})" for kind in ("exact", "partial", "none")),
        str(coverage["special"]),
        f"{reached / alignment.main_size:.1%}",
        f"{seconds:.1f}",
        f"{cpu_seconds:.1f}",
        f"{alignment.nbytes() / 1e6:.1f}",
    ]


def main(
    main: Annotated[str, typer.Option(help="The main vocabulary, as NAME or NAME=FOLDER.")] = "smollm2-135m",
    helper: Annotated[
        list[str] | None, typer.Option(help="A helper's vocabulary, as NAME or NAME=FOLDER; repeatable.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="An alignment method; repeatable. The method embedding needs models on both sides."),
    ] = None,
) -> None:
    """Print the coverage, construction time and size of each alignment, as a Markdown table."""
    name, target = load_vocabulary(main)
    rows = []
    for text in helper or []:
        other, source = load_vocabulary(text)
        for method_name in method or ["exact", "gac", "mined"]:
            if method_name == "embedding" and (source.embeddings is None or target.embeddings is None):
                continue
            begun, cpu_begun = time.perf_counter(), time.process_time()
            alignment = align(method_name, source, target)
            seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
            rows.append(table_row(other, name, alignment, seconds, cpu_seconds))
    typer.echo(markdown_table(HEADINGS, rows))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    typer.echo(f"\npeak memory of the process: {peak:.2f} GB")


if __name__ == "__main__":
    command.run(main)
