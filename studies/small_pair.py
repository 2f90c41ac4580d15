"""Cascades, routers and crossover on a pair that one can afford: the models of ``examples/train_a_small_pair.py``.

They were trained in a minute or two on sums in words, so what is measured here is the machinery, not language.
Token-level figures are sampled continuations of ``3 apples and``: quality is the share of right sums, with a 95 %
bootstrap interval over texts. Sequence-level ones are greedy answers to whole questions.

    python examples/train_a_small_pair.py pair && python -m studies.small_pair pair bench/results
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
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
    area_under_deferral_curve,
    generate_outputs,
    label_divergence,
    length_bias,
    router_examples,
    router_head_config,
    sequence_score,
)

ALPHAS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.0)
BUDGETS = (0.05, 0.1, 0.2, 0.5, 1.0)
THINGS = ("apples", "pens", "cups", "balls", "books")
SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False}
SAMPLED: dict[str, Any] = {"max_new_tokens": 28, "do_sample": True, "top_k": 0}


def sums(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Questions, after a begin token, and their answers."""
    chance, asked, answers = random.Random(seed), [], []
    for _ in range(count):
        thing, first, second = chance.choice(THINGS), chance.randrange(10), chance.randrange(10)
        asked.append(f"<s>{first} {thing} and {second} more are ")
        answers.append(f"{first + second} {thing}.")
    return asked, answers


def is_right(text: str) -> bool:
    """Whether a text states a right sum."""
    found = re.fullmatch(r"(\d+) (\w+) and (\d+) more are (\d+) \2\.", text)
    return found is not None and int(found[1]) + int(found[3]) == int(found[4])


def interval(right: Sequence[float]) -> list[float]:
    """The mean and its 95 % bootstrap interval."""
    values = np.array(right, dtype=float)
    picks = np.random.default_rng(0).integers(0, len(values), (1000, len(values)))
    low, high = np.quantile(values[picks].mean(-1), [0.025, 0.975])
    return [float(values.mean()), float(low), float(high)]


def measured(
    model: Any, tokenizer: Any, chain: str, count: int, mean: tuple[str, str] = ("", ""), **more: Any
) -> dict[str, Any]:
    """Quality and what the trace says of one chain."""
    asked = [question.partition(" and ")[0] + " and " for question in sums(count, 9)[0]]
    torch.manual_seed(0)
    done = logitkit.generate(model, tokenizer, asked, chain=chain, resources=more, **SAMPLED)
    rate = done.trace.means.get(mean[0], {}).get(mean[1], 0.0)
    right = [is_right(head.removeprefix("<s>") + text) for head, text in zip(asked, done.texts, strict=True)]
    return {"chain": chain, "rate": rate, "right": interval(right)}


def token_rules(small: Any, tuned: Any, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Every rule at every alpha, random deferral among them."""
    return [
        measured(
            small,
            tokenizer,
            f"cascade(large='tuned', rule={rule!r}, alpha={alpha})",
            count,
            ("cascade", "deferral"),
            tuned=tuned,
        )
        for rule in get_args(DeferralRule)
        for alpha in ALPHAS
    ]


def crossovers(base: Any, tuned: Any, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Forward: the base with tokens of the tuned model; reverse: the other way; controls at the same budgets."""
    found = []
    for direction, (primary, other) in {"forward": (base, tuned), "reverse": (tuned, base)}.items():
        for measure, threshold in (("js", 0.05), ("entropy", 0.05), ("random", 0.0)):
            for budget in BUDGETS:
                # The random control switches as often: its share of positions is the budget itself.
                cut, left = (1 - budget, 1.0) if measure == "random" else (threshold, budget)
                chain = f"crossover(other='other', measure={measure!r}, threshold={cut:.3f}, budget={left})"
                told = measured(primary, tokenizer, chain, count, ("crossover", "switched"), other=other)
                found.append({"direction": direction, "measure": measure, "budget": budget} | told)
    return found


def routers(small: Any, tuned: Any, tokenizer: Any, count: int, folder: Path) -> list[dict[str, Any]]:
    """A head trained on labels of other sums beside training-free ones, at several thresholds."""
    asked = [question.removesuffix(" more are ") for question in sums(150, 1)[0]]
    pair = ModelPair(small=small, large=tuned, tokenizer=tokenizer)
    labels = label_divergence(asked, folder / "labels.jsonl", pair, tokens=24, batch_size=64)
    config = router_head_config(small, top_logits=20, width=32, blocks=1)
    features, targets = router_examples(labels, small, config)
    head = RouterHead.fit(features, targets, config, pair=pair, settings=TrainingSettings(batch_size=64))
    found: list[dict[str, Any]] = [{"head": "report", "threshold": head.threshold} | head.report]
    for name in ("trained", "entropy", "margin", "aleatoric"):
        for threshold in (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99):
            chain = f"router(large='tuned', head={name!r}, threshold={threshold})"
            more = {"tuned": tuned} | ({"trained": head} if name == "trained" else {})
            told = measured(small, tokenizer, chain, count, ("router", "routed"), **more)
            found.append({"head": name, "threshold": threshold} | told)
    return found


def sequences(small: Any, tuned: Any, tokenizer: Any, count: int) -> dict[str, Any]:
    """AUC-DF of every sequence rule; the learned one is trained on other sums."""
    given = {}
    for name, seed in (("train", 2), ("test", 9)):
        asked, answers = sums(count, seed)
        said = {
            who: generate_outputs(Stage(model=m, tokenizer=tokenizer, batch_size=100), asked, **SETTINGS)
            for who, m in (("small", small), ("large", tuned))
        }
        right = {
            who: torch.tensor([t == a for t, a in zip(one.texts, answers, strict=True)]).float()
            for who, one in said.items()
        }
        given[name] = (said["small"].logps, said["small"].mask, right["small"], right["large"])
    learned = PostHocRule.fit(*given["train"], config=PostHocRuleConfig(quantiles=11, target="gain"))
    logps, mask, mine, theirs = given["test"]
    scores = {"sum": sequence_score(logps, mask, "sum"), "average": sequence_score(logps, mask, "average")}
    for level in (0.0, 0.2, 0.5):
        scores[f"quantile {level:g}"] = sequence_score(logps, mask, "quantile", alpha=level)
    scores["learned"] = learned(logps, mask)
    found: dict[str, Any] = {"items": count, "small": float(mine.mean()), "large": float(theirs.mean()), "rules": {}}
    for name, score in scores.items():
        values = score.numpy()
        found["rules"][name] = vars(area_under_deferral_curve(values, mine.numpy(), theirs.numpy())) | {
            "length_bias": length_bias(values, mask.sum(-1).numpy())
        }
    return found


def main(
    pair: Annotated[Path, typer.Argument(help="Folder with base, tuned and small.")],
    out: Annotated[Path, typer.Argument(help="Folder of the tables.")],
    count: Annotated[int, typer.Option(min=10, help="Sums.")] = 200,
) -> None:
    """Write ``small_pair.json`` and ``small_pair.md``."""
    base, tuned, small = (models.load(str(pair / name))[0] for name in ("base", "tuned", "small"))
    tokenizer = models.load(str(pair / "base"))[1]
    found: dict[str, Any] = {
        "alone": {
            name: measured(m, tokenizer, "", count)["right"]
            for name, m in (("base", base), ("tuned", tuned), ("small", small))
        }
    }
    found["tokens"] = token_rules(small, tuned, tokenizer, count)
    found["crossover"] = crossovers(base, tuned, tokenizer, count)
    found["router"] = routers(small, tuned, tokenizer, count, pair)
    found["sequences"] = sequences(small, tuned, tokenizer, count)
    out.mkdir(parents=True, exist_ok=True)
    (out / "small_pair.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = _tables(found, count)
    (out / "small_pair.md").write_text(text + "\n", encoding="utf-8")
    plot(found, out / "small_pair.png")
    print(text)


def plot(found: dict[str, Any], path: Path) -> None:
    """Quality against the share of tokens from the other model; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    lines: list[dict[str, list[tuple[float, float]]]] = [{}, {}, {}]
    for row in found["tokens"]:
        lines[0].setdefault(row["chain"].split("'")[3], []).append((row["rate"], row["right"][0]))
    for row in found["router"][1:]:
        lines[1].setdefault(row["head"], []).append((row["rate"], row["right"][0]))
    for row in found["crossover"]:
        lines[2].setdefault(f"{row['direction']} {row['measure']}", []).append((row["rate"], row["right"][0]))
    for panel, title, drawn in zip(panels, ("token rules", "routers", "crossover"), lines, strict=True):
        for name, points in drawn.items():
            style = ":" if "random" in name else "-"
            panel.plot(*zip(*sorted(points), strict=True), marker=".", label=name, linestyle=style)
        panel.set(title=title, xlabel="share of tokens from the other model")
        panel.legend(fontsize=6)
    panels[0].set_ylabel("sums right")
    figure.savefig(path, dpi=100)


def _tables(found: dict[str, Any], count: int) -> str:
    """Everything as Markdown."""
    alone = ", ".join(f"{name} {_told(value)}" for name, value in found["alone"].items())
    lines = [f"{count} sums. Alone: {alone}.", "", "Token rules, small to tuned.", ""]
    lines += ["| rule | deferral rate | right |", "|---|---|---|"]
    lines += [f"| `{row['chain']}` | {row['rate']:.3f} | {_told(row['right'])} |" for row in found["tokens"]]
    lines += ["", "Crossover.", "", "| direction | measure | budget | swapped | right |", "|---|---|---|---|---|"]
    for row in found["crossover"]:
        head = f"| {row['direction']} | {row['measure']} | {row['budget']} |"
        lines.append(f"{head} {row['rate']:.3f} | {_told(row['right'])} |")
    report, *rows = found["router"]
    lines += ["", f"Routers, small to tuned. The trained head on held-out tokens: {json.dumps(report)}.", ""]
    lines += ["| head | threshold | routed | right |", "|---|---|---|---|"]
    lines += [f"| {r['head']} | {r['threshold']} | {r['rate']:.3f} | {_told(r['right'])} |" for r in rows]
    told = found["sequences"]
    lines += ["", f"Sequence rules, {told['items']} sums: small {told['small']:.3f}, tuned {told['large']:.3f}.", ""]
    lines += ["| rule | AUC-DF | gain over random | length bias |", "|---|---|---|---|"]
    for name, row in told["rules"].items():
        area, gain = ([row[key], *row[ends]] for key, ends in (("area", "interval"), ("gain", "gain_interval")))
        lines.append(f"| {name} | {_told(area)} | {_told(gain)} | {row['length_bias']:+.2f} |")
    return "\n".join(lines)


def _told(values: Sequence[float]) -> str:
    """A value and its interval."""
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


if __name__ == "__main__":
    typer.run(main)
