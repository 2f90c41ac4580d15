"""What each alignment covers between real vocabularies, how long it takes to build, and how large it is.

    python -m studies.alignments --main smollm2=FOLDER --helper gemma3=FOLDER --helper llama3=FOLDER

A folder holds a tokenizer.json, and a model where embeddings are wanted. Names known to `logitkit models` need
no folder.
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

END_TOKENS = ("<|im_end|>", "<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>")


def side(text: str) -> tuple[str, AlignmentVocabulary]:
    """One end of a map, from ``name`` or ``name=folder``."""
    name, _, place = text.partition("=")
    folder = Path(place) if place else models.path(name)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    ends = tuple(vocabulary[token] for token in END_TOKENS if token in vocabulary)
    weights = _embeddings(folder)
    size = len(Vocabulary.of(tokenizer)) if weights is None else max(len(weights), len(Vocabulary.of(tokenizer)))
    return name, AlignmentVocabulary(
        tokenizer=tokenizer, vocabulary=Vocabulary.of(tokenizer, size), end_tokens=ends, embeddings=weights
    )


def _embeddings(folder: Path) -> Any:
    """Input embeddings of a checkpoint, or None."""
    if not (folder / "config.json").is_file():
        return None
    AutoConfig.from_pretrained(folder, local_files_only=True)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - it is no dict
                if key.endswith("embed_tokens.weight"):
                    return tensors.get_tensor(key)
    return None


def line(helper: str, main: str, made: Alignment, seconds: float, busy: float) -> str:
    """One row of the table."""
    told = made.coverage()
    words = told["exact"] + told["partial"] + told["none"]
    shares = " | ".join(f"{told[kind]} ({told[kind] / words:.1%})" for kind in ("exact", "partial", "none"))
    reached = int(torch.unique(made.targets[made.weights > 0]).numel())
    return (
        f"| {helper} | {main} | {made.method} | {shares} | {told['special']} | {reached / made.main_size:.1%} | "
        f"{seconds:.1f} | {busy:.1f} | {made.nbytes() / 1e6:.1f} |"
    )


def main(
    main: Annotated[str, typer.Option(help="The main vocabulary: name or name=folder.")] = "smollm2-135m",
    helper: Annotated[list[str] | None, typer.Option(help="Helper vocabularies.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Alignments; embedding needs models on both sides.")] = None,
) -> None:
    """Print the table."""
    name, target = side(main)
    head = "| helper | main | align | exact | partial | none | special or absent | main ids reached |"
    print(f"{head} seconds | CPU seconds | MB |\n|{'---|' * 11}")
    for text in helper or []:
        other, source = side(text)
        for how in method or ["exact", "gac", "mined"]:
            if how == "embedding" and (source.embeddings is None or target.embeddings is None):
                continue
            begun, busy = time.perf_counter(), time.process_time()
            made = align(how, source, target)
            print(line(other, name, made, time.perf_counter() - begun, time.process_time() - busy), flush=True)
    print(f"\nlargest memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    typer.run(main)
