"""Cascades, routers and crossover on the small models that ``examples/train_a_small_pair.py`` trains.

The models are trained for a minute or two on sums in words, so the study measures the implementation, not language.
Token-level figures are from sampled continuations of prompts such as ``3 apples and``. Their quality is the share of
right sums, with a 95 % bootstrap interval over texts. Sequence-level figures are from greedy answers to whole
questions.

    python examples/train_a_small_pair.py pair && python -m studies.small_pair pair studies/results
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer

import logitkit
from logitkit import models
from logitkit.processors.cascade import (
    DeferralRule,
    ModelPair,
    PostHocRule,
    PostHocRuleConfig,
    RouterHead,
    Stage,
    TrainingSettings,
    generate_outputs,
    label_divergence,
    router_examples,
    router_head_config,
)
from studies import command
from studies.cascade_sequences import deferral_area, sequence_scores
from studies.intervals import bootstrap_interval
from studies.small_pair_report import plot, tables

ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)
BUDGETS = (0.05, 0.1, 0.2, 0.5, 1.0)
THRESHOLDS = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99)
THINGS = ("apples", "pens", "cups", "balls", "books")
GREEDY: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
SAMPLED: dict[str, Any] = {"max_new_tokens": 28, "do_sample": True, "top_k": 0}
TEST_SEED = 9  # seed of the sums that are evaluated


def sums(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Return questions, each after a begin token, and their answers."""
    generator, questions, answers = random.Random(seed), [], []
    for _ in range(count):
        thing, first, second = generator.choice(THINGS), generator.randrange(10), generator.randrange(10)
        questions.append(f"<s>{first} {thing} and {second} more are ")
        answers.append(f"{first + second} {thing}.")
    return questions, answers


def is_right(text: str) -> bool:
    """Return whether a text states a right sum."""
    match = re.fullmatch(r"(\d+) (\w+) and (\d+) more are (\d+) \2\.", text)
    return match is not None and int(match[1]) + int(match[3]) == int(match[4])


def measure_chain(
    model: Any, tokenizer: Any, chain: str, count: int, mean: tuple[str, str] = ("", ""), **resources: Any
) -> dict[str, Any]:
    """Return the quality of sampled texts under a chain, and a mean of the trace.

    Args:
        model, tokenizer: the generating model.
        chain: the chain; empty for the model alone.
        count: number of texts.
        mean: processor and quantity of the mean that is returned as ``rate``.
        resources: models and heads that the chain names.
    """
    prompts = [question.partition(" and ")[0] + " and " for question in sums(count, TEST_SEED)[0]]
    torch.manual_seed(0)
    output = logitkit.generate(model, tokenizer, prompts, chain=chain, resources=resources, **SAMPLED)
    processor, quantity = mean
    rate = output.trace.means.get(processor, {}).get(quantity, 0.0)
    right = [is_right(head.removeprefix("<s>") + text) for head, text in zip(prompts, output.texts, strict=True)]
    return {"chain": chain, "rate": rate, "right": bootstrap_interval(right)}


def token_rules(small: Any, tuned: Any, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Return the results of every deferral rule at every alpha, with random deferral as the control."""
    mean = ("cascade", "deferral")
    return [
        measure_chain(
            small, tokenizer, f"cascade(large='tuned', rule={rule!r}, alpha={alpha})", count, mean, tuned=tuned
        )
        for rule in get_args(DeferralRule)
        for alpha in ALPHAS
    ]


def crossovers(base: Any, tuned: Any, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Return the results of crossover in both directions, with a random control at the same budgets.

    ``forward`` replaces tokens of the base model by tokens of the tuned model, ``reverse`` the other way round.
    """
    results = []
    for direction, (primary, other) in {"forward": (base, tuned), "reverse": (tuned, base)}.items():
        for measure, threshold in (("js", 0.05), ("entropy", 0.05), ("random", 0.0)):
            for budget in BUDGETS:
                # The random control switches as often: its share of positions is the budget itself.
                cut, left = (1 - budget, 1.0) if measure == "random" else (threshold, budget)
                chain = f"crossover(other='other', measure={measure!r}, threshold={cut:.3f}, budget={left})"
                result = measure_chain(primary, tokenizer, chain, count, ("crossover", "switched"), other=other)
                results.append({"direction": direction, "measure": measure, "budget": budget} | result)
    return results


def routers(small: Any, tuned: Any, tokenizer: Any, count: int, folder: Path) -> list[dict[str, Any]]:
    """Return the results of a head trained on other sums, and of training-free heads, at several thresholds."""
    prompts = [question.removesuffix(" more are ") for question in sums(150, 1)[0]]
    pair = ModelPair(small=small, large=tuned, tokenizer=tokenizer)
    labels = label_divergence(prompts, folder / "labels.jsonl", pair, tokens=24, batch_size=64)
    config = router_head_config(small, top_logits=20, width=32, blocks=1)
    features, targets = router_examples(labels, small, config)
    head = RouterHead.fit(features, targets, config, pair=pair, settings=TrainingSettings(batch_size=64))
    results: list[dict[str, Any]] = [{"head": "report", "threshold": head.threshold} | head.report]
    for name in ("trained", "entropy", "margin", "aleatoric"):
        for threshold in THRESHOLDS:
            chain = f"router(large='tuned', head={name!r}, threshold={threshold})"
            resources = {"tuned": tuned} | ({"trained": head} if name == "trained" else {})
            result = measure_chain(small, tokenizer, chain, count, ("router", "routed"), **resources)
            results.append({"head": name, "threshold": threshold} | result)
    return results


def sequences(small: Any, tuned: Any, tokenizer: Any, count: int) -> dict[str, Any]:
    """Return the area under the deferral curve of every sequence rule; the learned rule is trained on other sums."""
    splits = {}
    for name, seed in (("train", 2), ("test", TEST_SEED)):
        questions, answers = sums(count, seed)
        outputs = [
            generate_outputs(Stage(model=model, tokenizer=tokenizer, batch_size=100), questions, **GREEDY)
            for model in (small, tuned)
        ]
        right = [
            torch.tensor([text == answer for text, answer in zip(output.texts, answers, strict=True)]).float()
            for output in outputs
        ]
        splits[name] = (outputs[0].logps, outputs[0].mask, *right)
    learned = PostHocRule.fit(*splits["train"], config=PostHocRuleConfig(quantiles=11, target="gain"))
    logps, mask, small_right, large_right = splits["test"]
    scores = sequence_scores(logps, mask, (0.0, 0.2, 0.5)) | {"learned": learned(logps, mask)}
    quality = small_right.numpy(), large_right.numpy()
    return {
        "items": count,
        "small": float(small_right.mean()),
        "large": float(large_right.mean()),
        "rules": {name: deferral_area(score.numpy(), *quality, mask.sum(-1).numpy()) for name, score in scores.items()},
    }


def main(
    pair: Annotated[Path, typer.Argument(help="Folder with the models base, tuned and small.")],
    out: Annotated[Path, typer.Argument(help="Folder for the tables and the plot.")],
    count: Annotated[int, typer.Option(min=10, help="Number of sums.")] = 200,
) -> None:
    """Measure all methods; write ``small_pair.json``, ``small_pair.md`` and the plot, and print the tables."""
    base, tuned, small = (models.load(str(pair / name))[0] for name in ("base", "tuned", "small"))
    tokenizer = models.load(str(pair / "base"))[1]
    results: dict[str, Any] = {
        "alone": {
            name: measure_chain(model, tokenizer, "", count)["right"]
            for name, model in (("base", base), ("tuned", tuned), ("small", small))
        }
    }
    results["tokens"] = token_rules(small, tuned, tokenizer, count)
    results["crossover"] = crossovers(base, tuned, tokenizer, count)
    results["router"] = routers(small, tuned, tokenizer, count, pair)
    results["sequences"] = sequences(small, tuned, tokenizer, count)
    out.mkdir(parents=True, exist_ok=True)
    (out / "small_pair.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = tables(results, count)
    (out / "small_pair.md").write_text(text + "\n", encoding="utf-8")
    plot(results, out / "small_pair.png")
    typer.echo(text)


if __name__ == "__main__":
    command.run(main)
