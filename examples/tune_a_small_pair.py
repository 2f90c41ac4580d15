"""Tune a small model on a book, or on questions with answers, and save it as a checkpoint folder.

The model as it was and the tuned one are a pair: expert and antiexpert of `dexperts` (proxy tuning), the two models of
a `crossover` or of a cascade. All weights are trained, in float32 on a CPU; a model of 15M parameters reads a book of
150,000 tokens in some minutes.

    python examples/tune_a_small_pair.py SMALL book.txt tuned --encoding cp1252
    python examples/tune_a_small_pair.py smollm2-135m answers.jsonl tuned --rate 1e-4 --rows 4

Of a text file the first 80 % are read, in blocks of equal length, and the rest is left for tests; hard line breaks
inside paragraphs become spaces. A file of JSON lines holds a ``prompt`` and its ``completion`` in each line, and the
loss is that of the completions with the end token.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from logitkit import models
from logitkit.progress import progress_bar

Example = tuple[list[int], list[int]]  # ids and labels; the loss ignores the label -100


def joined_lines(text: str) -> str:
    r"""Return a text with a space for each line break inside a paragraph.

    >>> joined_lines("It was\nlate.\n\nThey left.")
    'It was late.\n\nThey left.'
    """
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


def book_examples(tokenizer: Any, text: str, length: int) -> list[Example]:
    """Return blocks of a text, each of a begin token, if the tokenizer writes one, and its tokens; no remainder."""
    ids = tokenizer(text, verbose=False)["input_ids"]
    begin = ids[:1] if ids[:1] == [tokenizer.bos_token_id] else []
    body, room = ids[len(begin) :], length - len(begin)
    blocks = [begin + body[start : start + room] for start in range(0, len(body) - room + 1, room)]
    return [(block, block) for block in blocks]


def answer_examples(tokenizer: Any, lines: list[str], length: int) -> list[Example]:
    """Return an example for each line of JSON, whose prompt is cut on the left where it is too long."""
    examples = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row = {name: row[name] + "" for name in ("prompt", "completion")}
        except (ValueError, KeyError, TypeError):
            rule = "must be an object of JSON with the texts prompt and completion"
            raise typer.BadParameter(f"line {number} {rule}, got {line[:60]!r}", param_hint="texts") from None
        answer = [*tokenizer(row["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        prompt = tokenizer(row["prompt"])["input_ids"][-max(1, length - len(answer)) :]
        examples.append((prompt + answer, [-100] * len(prompt) + answer))
    return examples


def padded(examples: list[Example], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, mask and labels of some examples, padded on the right, ``[rows, length]``."""
    width = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([row + [pad] * (width - len(row)) for row, _ in examples])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in examples])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row, _ in examples])
    return ids, mask, labels


# Over 40 lines: the docstring documents seven parameters.
def tune(
    model: Any, examples: list[Example], *, epochs: int, rows: int, rate: float, pad: int = 0, seed: int = 0
) -> list[float]:
    """Train all weights of a model in place, with a learning rate that rises and falls once.

    Args:
        model: the model.
        examples: ids and labels.
        epochs: how often every example is read.
        rows: number of examples in a batch.
        rate: the largest learning rate.
        pad: id of the padding, which no loss counts.
        seed: of the order of the examples.

    Returns:
        The mean loss of each epoch, in nats a token.
    """
    steps = epochs * -(-len(examples) // rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.1)
    generator, losses = random.Random(seed), []
    model.train()
    with progress_bar("training", total=steps, piped=True) as bar:
        for _ in range(epochs):
            order = generator.sample(examples, len(examples))
            of_epoch = []
            for start in range(0, len(order), rows):
                ids, mask, labels = padded(order[start : start + rows], pad)
                loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                optimiser.zero_grad()
                schedule.step()
                of_epoch.append(loss.item())
                bar.advance()
            losses.append(sum(of_epoch) / len(of_epoch))
            bar.print(f"loss {losses[-1]:.3f} nats a token")
    model.eval()
    return losses


def main(
    name: Annotated[str, typer.Argument(help="A known model, a hub id or a folder.")],
    texts: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A text, or JSON lines (.jsonl): prompt, completion.")
    ],
    folder: Annotated[Path, typer.Argument(help="Folder of the tuned checkpoint; it must not exist.")],
    epochs: Annotated[int, typer.Option(min=1)] = 2,
    rows: Annotated[int, typer.Option(min=1, help="Examples in a batch.")] = 8,
    length: Annotated[int, typer.Option(min=8, help="Largest number of tokens of an example.")] = 256,
    rate: Annotated[float, typer.Option(min=0, help="Largest learning rate.")] = 1e-3,
    share: Annotated[float, typer.Option(min=0.01, max=1, help="Share of a text that is read.")] = 0.8,
    encoding: Annotated[str, typer.Option(help="Of the file of texts.")] = "utf-8",
) -> list[float]:
    """Tune the model, write the folder, and return the mean loss of each epoch."""
    if folder.exists():
        raise typer.BadParameter(f"must not exist, got {folder}; name another folder", param_hint="folder")
    try:
        text = texts.read_text(encoding=encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise typer.BadParameter(f"must be the encoding of {texts}: {error}", param_hint="--encoding") from None
    model, tokenizer = models.load(name)
    if texts.suffix == ".jsonl":
        examples = answer_examples(tokenizer, text.strip().split("\n"), length)
    else:
        examples = book_examples(tokenizer, joined_lines(text[: int(share * len(text))]), length)
    if not examples:
        raise typer.BadParameter(f"must hold an example of {length} tokens, got none", param_hint="texts")
    losses = tune(model.float(), examples, epochs=epochs, rows=rows, rate=rate)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return losses


if __name__ == "__main__":
    typer.run(main)
