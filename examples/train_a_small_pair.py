"""Train three tiny models on sums in words: a base model, a tuned model and a smaller model.

The training takes a minute or two on a CPU. The base model is trained on sentences with random sums. The tuned
model continues from the base model with correct sums, so the two differ at the one or two digits of each sum.
The smaller model has one layer and half the width. All three share a tokenizer over bytes. They serve as a pair
of models for methods that need one, such as cascades and crossover.

    python examples/train_a_small_pair.py FOLDER
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import logitkit
from logitkit.registry.laws import tiny_tokenizer

THINGS = ("apples", "pens", "cups", "balls", "books")


def sum_in_words(generator: random.Random, correct: bool = True) -> tuple[str, str]:
    """Return a question and its answer, such as ``3 apples and 4 more are `` and ``7 apples.``.

    Args:
        generator: draws the words and the numbers.
        correct: whether the answer is the sum, or an unrelated sum of two random digits.
    """
    thing, first, second = generator.choice(THINGS), generator.randrange(10), generator.randrange(10)
    total = first + second if correct else generator.randrange(10) + generator.randrange(10)
    return f"{first} {thing} and {second} more are ", f"{total} {thing}."


def untrained_model(width: int, layers: int, seed: int = 0) -> Any:
    """Return a Llama over bytes with random weights."""
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return LlamaForCausalLM(config)


def training_batch(generator: random.Random, size: int, correct: bool) -> tuple[Tensor, Tensor]:
    """Return ids and labels of sentences with begin and end token, padded on the right, ``[size, length]``."""
    tokenizer = tiny_tokenizer()
    texts = ["".join(sum_in_words(generator, correct)) for _ in range(size)]
    rows = [[tokenizer.bos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, tokenizer.pad_token_id)
    return ids, ids.masked_fill(ids == tokenizer.pad_token_id, -100)  # the loss ignores the label -100


def train(model: Any, steps: int, *, correct: bool, learning_rate: float = 2e-3, seed: int = 0, size: int = 64) -> Any:
    """Train a model with a one-cycle learning rate and return it.

    Args:
        model: the model, whose weights are changed.
        steps: number of batches.
        correct: whether the sums of the training texts are correct.
        learning_rate: the largest learning rate.
        seed: of the training texts.
        size: number of sentences in a batch.
    """
    generator = random.Random(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1, pct_start=0.1)
    model.train()
    for _ in range(steps):
        ids, labels = training_batch(generator, size, correct)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.eval()


def train_all(steps: int = 700) -> dict[str, Any]:
    """Return the base, the tuned and the small model, by name; ``steps`` are those of the tuned model."""
    base = train(untrained_model(64, 2), max(1, steps // 4), correct=False)
    tuned = train(copy.deepcopy(base), steps, correct=True)
    small = train(untrained_model(32, 1, seed=1), max(1, steps * 3 // 5), correct=True)
    return {"base": base, "tuned": tuned, "small": small}


def accuracy(model: Any, chain: str = "", count: int = 100, seed: int = 9, **resources: Any) -> tuple[float, Any]:
    """Return the share of correct sums under a chain with greedy decoding, and the trace.

    Args:
        model: the generating model.
        chain: a chain of processors.
        count: number of questions.
        seed: of the questions.
        resources: other models, by the name that the chain uses.
    """
    tokenizer, generator = tiny_tokenizer(), random.Random(seed)
    questions = [sum_in_words(generator) for _ in range(count)]
    prompts = [tokenizer.bos_token + question for question, _ in questions]
    generation = logitkit.generate(
        model, tokenizer, prompts, chain=chain, resources=resources, max_new_tokens=12, do_sample=False
    )
    correct = [text == answer for text, (_, answer) in zip(generation.texts, questions, strict=True)]
    return sum(correct) / count, generation.trace


def main(steps: int = 700, folder: str | Path | None = None) -> dict[str, float]:
    """Train the models, save them to a folder if one is given, and return the accuracy of each.

    The last entry is the base model with at most two tokens of the tuned model in each text.
    """
    models = train_all(steps)
    if folder is not None:
        for name, model in models.items():
            model.save_pretrained(Path(folder) / name)
            tiny_tokenizer().save_pretrained(Path(folder) / name)
    accuracies = {name: accuracy(model)[0] for name, model in models.items()}
    chain = "crossover(other='tuned', threshold=0.1, budget=2)"
    mixed, _ = accuracy(models["base"], chain, tuned=models["tuned"])
    return accuracies | {"base, two tokens of the tuned model": mixed}


if __name__ == "__main__":
    print(main(folder=sys.argv[1] if len(sys.argv) > 1 else None))
