"""Speed of bytes on a GPU: along a text, and sampled by `generate`, one row and several rows.

The model is a Llama of 7B with random weights, since speed does not depend on them and nothing is downloaded. Its
tokenizer is trained on the pages of `docs`, and bigrams of their tokens are added to its logits, so that likely and
unlikely tokens are as far apart as in a trained model. Without a GPU the model is small.

    python -m studies.gpu_bytes
    python -m studies.gpu_bytes --model random-1b --rows 1 --rows 16
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import transformers
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from logitkit.bench.speed.random_models import RANDOM_SIZES, ModelSizes, random_model
from logitkit.errors import UnknownNameError
from logitkit.models.placement import placement
from logitkit.processors.byte_level import ByteModel, rows_of
from studies import command
from studies.tables import markdown_table

SIZES = {**RANDOM_SIZES, "random-30m": ModelSizes(512, 1536, 8, 8, 2)}
MERGED = 4096  # tokens of the trained tokenizer
STEP = 4000  # bytes between the beginnings of two contexts
UNIGRAMS = 0.3  # weight of single tokens beside bigrams
HEADINGS = ("", "bytes/s", "forwards a byte", "ms a forward", "ms a byte outside forwards", "first run, s")


class Measured(NamedTuple):
    """What some bytes took.

    Attributes:
        seconds: in all.
        growing: seconds of growing the tree, forwards and copies to the host included.
        written: bytes of all rows.
        forwards: of the model.
        first: seconds of the first run, of other texts.
    """

    seconds: float
    growing: float
    written: int
    forwards: int
    first: float


def trained_tokenizer(texts: Sequence[str]) -> Any:
    """Return a byte-level BPE tokenizer that is trained on texts."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=MERGED, initial_alphabet=alphabet, special_tokens=special, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


class WithBigrams(LlamaForCausalLM):
    """A Llama whose logits get the log-probabilities of bigrams, ``[tokens, logits]``."""

    bigrams: Tensor

    def forward(self, input_ids: Tensor, **inputs: Any) -> Any:
        """Return the output of the Llama with its logits changed."""
        output = super().forward(input_ids=input_ids, **inputs)
        ids = input_ids[:, -output.logits.shape[1] :].clamp(max=len(self.bigrams) - 1)
        output.logits = output.logits + self.bigrams[ids]
        return output


def add_bigrams(model: Any, tokenizer: Any, texts: Sequence[str], size: int) -> None:
    """Add the log-probabilities of bigrams of texts to the logits of a Llama with ``size`` logits."""
    counts = torch.zeros(len(tokenizer), size)
    for text in texts:
        ids = torch.tensor([tokenizer.bos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id])
        counts.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1), accumulate=True)
    single = (counts.sum(0) + 0.1) / (counts.sum(0) + 0.1).sum()
    pairs = (counts + UNIGRAMS * single) / (counts.sum(1, keepdim=True) + UNIGRAMS)
    model.__class__ = WithBigrams  # a hook would keep its forwards from being recorded
    model.bigrams = pairs.log().to(model.device, model.dtype)


def measure(model: ByteModel, run: Callable[[int], int], clock: Callable[[], float]) -> Measured:
    """Run once untimed and once timed; ``run`` takes the number of the run and returns the number of bytes."""
    tree = model.tree.kv_tree
    grow, growing = tree.grow, [0.0]

    def timed(wanted: Any) -> Any:
        begun = clock()
        nodes = grow(wanted)  # ends with a copy to the host, so that the device has finished
        growing[0] += clock() - begun
        return nodes

    begun = clock()
    run(0)
    first = clock() - begun
    tree.grow = timed  # type: ignore[method-assign]
    growing[0], forwards, begun = 0.0, tree.forwards, clock()
    count = run(1)
    seconds = clock() - begun
    del tree.grow
    return Measured(seconds, growing[0], count, tree.forwards - forwards, first)


def along(model: ByteModel, text: bytes, context: int, count: int) -> Callable[[int], int]:
    """Return a function that requests the distribution of each byte of a text after its first ``context`` bytes."""

    def run(number: int) -> int:
        start = number * STEP
        for place in range(start + context, start + context + count):
            model.logp([text[start:place]])
        return count

    return run


def sampled(model: Any, text: bytes, context: int, count: int, rows: int) -> Callable[[int], int]:
    """Return a function that samples ``count`` bytes after ``context`` bytes of each row."""

    def run(number: int) -> int:
        torch.manual_seed(number)
        places = [(number * rows + row) * STEP for row in range(rows)]
        prompts = rows_of([text[place : place + context] for place in places])
        model.generate(**prompts, max_new_tokens=count, min_new_tokens=count, do_sample=True)
        return count * rows

    return run


def table_row(name: str, one: Measured) -> list[str]:
    """Return the row of one way of writing bytes."""
    forwards = max(1, one.forwards)
    outside = (one.seconds - one.growing) / one.written
    values = (
        one.written / one.seconds,
        one.forwards / one.written,
        1e3 * one.growing / forwards,
        1e3 * outside,
        one.first,
    )
    return [name, *(f"{value:.{digits}f}" for value, digits in zip(values, (1, 3, 2, 2, 1), strict=True))]


def pages(folder: Path) -> list[str]:
    """Return the texts of the Markdown pages in a folder."""
    return [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.md"))]


def main(
    model: Annotated[str | None, typer.Option(help=f"One of {', '.join(SIZES)}.")] = None,
    rows: Annotated[list[int] | None, typer.Option(help="A number of rows to sample; repeatable.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Bytes before the measured ones.")] = 500,
    count: Annotated[int, typer.Option(min=1, help="Measured bytes of each row.")] = 120,
    tolerance: Annotated[float, typer.Option(help="Tolerance of the distributions.")] = 1e-3,
    folder: Annotated[Path, typer.Option(help="Folder with the pages for tokenizer and bigrams.")] = Path("docs"),
    cpu: Annotated[bool, typer.Option("--cpu", help="Measure CPU time, which other processes disturb less.")] = False,
) -> None:
    """Print a table of bytes a second."""
    on_gpu = torch.cuda.is_available()
    device, dtype = ("cuda", "bfloat16") if on_gpu else ("cpu", "float32")
    name, texts = model or ("random-7b" if on_gpu else "random-30m"), pages(folder)
    if name not in SIZES:
        raise UnknownNameError("model", name, SIZES)
    tokenizer = trained_tokenizer(texts)
    size = 32000 if on_gpu else MERGED
    torch.manual_seed(0)
    loaded = random_model(SIZES[name], tokenizer, placement("gpu_bytes", device, dtype), vocabulary=size)
    add_bigrams(loaded, tokenizer, texts, size)
    over_bytes = ByteModel(loaded, tokenizer, tolerance=tolerance)
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads of a CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    how = f"{count} bytes after {context}, tolerance {tolerance:g}{', CPU time' if cpu else ''}"
    typer.echo(f"{name}, {dtype}, {where}; {versions}; {how}\n")
    whole = "".join(texts).encode()
    runs = {"along a text": along(over_bytes, whole, context, count)}
    for number in rows or [1, 8]:
        runs[f"sampled, rows: {number}"] = sampled(over_bytes, whole, context, count, number)
    clock = time.process_time if cpu else time.perf_counter
    typer.echo(
        markdown_table(HEADINGS, [table_row(each, measure(over_bytes, run, clock)) for each, run in runs.items()])
    )


if __name__ == "__main__":
    command.run(main)
