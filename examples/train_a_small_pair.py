"""Train three tiny models on sums in words: a base model, a tuned model, and a smaller model.

The base model learns the sentences with wrong sums. The tuned model continues from the base model with correct sums,
so the two models differ at one or two digits of each text. The smaller model has one layer and half the width. All
three share a byte tokenizer. The training takes one or two minutes on a CPU. The models serve where a method needs a
pair of related models.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import logitkit
from logitkit.registry.laws import tiny_tokenizer

THINGS = ("apples", "pens", "cups", "balls", "books")


def sum_in_words(rng: random.Random, right: bool = True) -> tuple[str, str]:
    """Return a question and its answer, such as ``3 apples and 4 more are `` and ``7 apples.``."""
    thing, first, second = rng.choice(THINGS), rng.randrange(10), rng.randrange(10)
    total = first + second if right else rng.randrange(10) + rng.randrange(10)
    return f"{first} {thing} and {second} more are ", f"{total} {thing}."


def fresh(width: int, layers: int, seed: int = 0) -> Any:
    """Return a Llama model with random weights and a byte vocabulary."""
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


def batch_of(rng: random.Random, size: int, right: bool) -> tuple[Tensor, Tensor]:
    """Return the ids and labels of texts with begin and end tokens, ``[size, length]``, padded on the right."""
    tokenizer = tiny_tokenizer()
    texts = ["".join(sum_in_words(rng, right)) for _ in range(size)]
    rows = [[tokenizer.bos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, tokenizer.pad_token_id)
    return ids, ids.masked_fill(ids == tokenizer.pad_token_id, -100)


def train(model: Any, steps: int, *, right: bool, rate: float = 2e-3, seed: int = 0, size: int = 64) -> Any:
    """Train a model with AdamW and a one-cycle learning rate schedule, and return it in evaluation mode."""
    rng, optimiser = random.Random(seed), torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps + 1, pct_start=0.1)
    model.train()
    for _ in range(steps):
        ids, labels = batch_of(rng, size, right)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.eval()


def train_all(steps: int = 700) -> dict[str, Any]:
    """Return the base, the tuned and the smaller model; the smaller one is trained on fewer texts."""
    base = train(fresh(64, 2), max(1, steps // 4), right=False)
    tuned = train(copy.deepcopy(base), steps, right=True)
    small = train(fresh(32, 1, seed=1), max(1, steps * 3 // 5), right=True)
    return {"base": base, "tuned": tuned, "small": small}


def accuracy(model: Any, chain: str = "", count: int = 100, seed: int = 9, **resources: Any) -> tuple[float, Any]:
    """Return the share of correct sums under a chain with greedy decoding, and the trace."""
    tokenizer, rng = tiny_tokenizer(), random.Random(seed)
    sums = [sum_in_words(rng) for _ in range(count)]
    prompts = [tokenizer.bos_token + question for question, _ in sums]
    generation = logitkit.generate(
        model, tokenizer, prompts, chain=chain, resources=resources, max_new_tokens=12, do_sample=False
    )
    return sum(
        text == answer for text, (_, answer) in zip(generation.texts, sums, strict=True)
    ) / count, generation.trace


def main(steps: int = 700, folder: str | Path | None = None) -> dict[str, float]:
    """Return the accuracy of each model, and of the base model with up to two tokens of the tuned model.

    Args:
        steps: training steps of the tuned model.
        folder: where the models are saved; None saves nothing.
    """
    models = train_all(steps)
    for name, model in models.items():
        if folder is not None:
            model.save_pretrained(Path(folder) / name)
            tiny_tokenizer().save_pretrained(Path(folder) / name)
    accuracies = {name: accuracy(model)[0] for name, model in models.items()}
    chain = "crossover(other='tuned', threshold=0.1, budget=2)"
    return accuracies | {
        "base, two tokens of the tuned model": accuracy(models["base"], chain, tuned=models["tuned"])[0]
    }


if __name__ == "__main__":
    import sys

    print(main(folder=sys.argv[1] if len(sys.argv) > 1 else None))
