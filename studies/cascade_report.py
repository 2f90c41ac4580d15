"""Tables and plots of `studies.cascade_curves`: each method beside its control."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logitkit.processors.cascade import (
    PostHocRule,
    PostHocRuleConfig,
    area_under_deferral_curve,
    deferral_curve,
    length_bias,
    sequence_score,
    switches_within_budget,
)

Numbers = NDArray[np.float64]
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def write(rows: Sequence[dict[str, Any]], alphas: Sequence[float], out: Path, name: str, *, left_out: int) -> str:
    """Write ``NAME.md``, ``NAME.json`` and, where matplotlib is installed, ``NAME.png``; return the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    found = {"tokens": token_rules(rows, alphas), "sequences": sequence_rules(rows), "crossover": crossover(rows)}
    total = sum(row["tokens"] for row in rows)
    text = (
        f"{len(rows)} passages, {total} tokens; {left_out} left out: too long, or the word is no token of its own.\n\n"
    )
    tables = _token_table(found["tokens"]), _sequence_table(found["sequences"]), _crossover_table(found["crossover"])
    text += "\n\n".join(tables)
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    (out / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _plot(found, out / f"{name}.png")
    return text


def token_rules(rows: Sequence[dict[str, Any]], alphas: Sequence[float]) -> dict[str, Any]:
    """Rate, bits a token and last words for each rule and alpha, and of random deferral at the same rate."""
    counts = np.array([row["tokens"] for row in rows], dtype=float)
    ends = {side: np.array([sum(row["positions"][f"{side}_bits"]) for row in rows]) for side in ("small", "large")}
    found: dict[str, Any] = {"small": float(ends["small"].sum() / counts.sum())}
    found |= {"large": float(ends["large"].sum() / counts.sum()), "rules": {}}
    for rule in rows[0]["rules"]:
        lines = []
        for place, alpha in enumerate(alphas):
            bits, rates, written = (np.array([row["rules"][rule][place][part] for row in rows]) for part in range(3))
            rate = float((rates * counts).sum() / counts.sum())
            gain = ends["small"] + rate * (ends["large"] - ends["small"]) - bits  # over random deferral at this rate
            chance = _random_words(rows, rate)
            lines.append(
                {
                    "alpha": alpha,
                    "rate": rate,
                    "bits": float(bits.sum() / counts.sum()),
                    "bits_gained": _interval(gain, counts),
                    "words": float(written.mean()),
                    "words_gained": _interval(written - chance, np.ones(len(rows))),
                }
            )
        found["rules"][rule] = lines
    return found


def _random_words(rows: Sequence[dict[str, Any]], rate: float) -> Numbers:
    """Probability that random deferral at a rate writes each last word: its tokens are deferred independently."""
    return np.array(
        [
            np.prod(
                [
                    (1 - rate) * mine + rate * theirs
                    for mine, theirs in zip(
                        row["positions"]["small_hit"][-row["last"] :],
                        row["positions"]["large_hit"][-row["last"] :],
                        strict=True,
                    )
                ]
            )
            for row in rows
        ]
    )


def _interval(values: Numbers, weights: Numbers, resamples: int = 1000) -> list[float]:
    """A weighted mean and its 95 % bootstrap interval over passages."""
    picks = np.random.default_rng(0).integers(0, len(values), (resamples, len(values)))
    means = values[picks].sum(-1) / weights[picks].sum(-1)
    low, high = np.quantile(means, [0.025, 0.975])
    return [float(values.sum() / weights.sum()), float(low), float(high)]


def sequence_rules(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """AUC-DF of every sequence rule on the second half; the learned rule is trained on the first."""
    small, large = (
        np.array([all(row["positions"][f"{side}_hit"][-row["last"] :]) for row in rows], dtype=float)
        for side in ("small", "large")
    )
    logps = torch.tensor([row["logps"] for row in rows])
    mask = torch.ones_like(logps, dtype=torch.bool)
    half = len(rows) // 2
    scores = {"sum": sequence_score(logps, mask, "sum"), "average": sequence_score(logps, mask, "average")}
    for level in (0.0, 0.2, 0.5, 0.8, 1.0):
        scores[f"quantile {level:g}"] = sequence_score(logps, mask, "quantile", alpha=level)
    try:
        quality = [torch.tensor(values[:half]).float() for values in (small, large)]
        config = PostHocRuleConfig(quantiles=6, layers=2, width=16, target="gain")
        rule = PostHocRule.fit(logps[:half], mask[:half], *quality, config=config)
        scores["learned"] = rule(logps, mask)
    except ValueError as error:
        scores["learned"] = torch.zeros(len(rows))
        failed = str(error)
    else:
        failed = ""
    found: dict[str, Any] = {"items": len(rows) - half, "small": small[half:].mean(), "large": large[half:].mean()}
    found |= {"learned_failed": failed, "rules": {}}
    for rule_name, score in scores.items():
        held = score[half:].numpy()
        rates, quality_at = deferral_curve(held, small[half:], large[half:])
        found["rules"][rule_name] = vars(area_under_deferral_curve(held, small[half:], large[half:])) | {
            "length_bias": length_bias(held, [row["tokens"] for row in rows[half:]]),
            "curve": [rates.round(4).tolist(), quality_at.round(4).tolist()],
        }
    return found


def crossover(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of swapped tokens against recovered bits: the highest-scoring positions of each passage, by each measure.

    For a share f of a passage's positions the ones that score highest are swapped (a threshold that is set with
    hindsight, the same for every measure); ``online`` is the divergence under the running budget at the
    threshold 0.1. Recovered: 0 is the small model, 1 the large one.
    """
    generator = np.random.default_rng(0)
    found: dict[str, Any] = {measure: [] for measure in ("js", "entropy", "random", "online")}
    whole = np.array([sum(r["positions"]["small_bits"]) - sum(r["positions"]["large_bits"]) for r in rows])
    for measure in found:
        for budget in BUDGETS:
            gained, swapped = np.zeros(len(rows)), np.zeros(len(rows))
            for place, row in enumerate(rows):
                told = {key: np.array(value) for key, value in row["positions"].items()}
                score = generator.random(row["tokens"]) if measure == "random" else told.get(measure, told["js"])
                if measure == "online":
                    chosen = switches_within_budget(torch.tensor(told["js"])[None] > 0.1, budget)[0].numpy()
                else:
                    chosen = np.zeros(row["tokens"], bool)
                    chosen[np.argsort(-score)[: round(budget * row["tokens"])]] = True
                gained[place] = (told["small_bits"] - told["large_bits"])[chosen].sum()
                swapped[place] = chosen.sum()
            share = float(swapped.sum() / sum(row["tokens"] for row in rows))
            found[measure].append({"budget": budget, "share": share, "recovered": _interval(gained, whole)})
    return found


def _token_table(found: dict[str, Any]) -> str:
    """Every rule and alpha as Markdown."""
    lines = [
        f"Token rules. Bits a token: small {found['small']:.3f}, large {found['large']:.3f}; "
        "gained: over random deferral at the same rate, with 95 % interval.",
        "",
        "| rule | alpha | deferral rate | bits/token | bits gained | last words | words gained |",
        "|---|---|---|---|---|---|---|",
    ]
    for rule, rows in found["rules"].items():
        for row in rows:
            lines.append(
                f"| {rule} | {row['alpha']:g} | {row['rate']:.3f} | {row['bits']:.3f} | {_told(row['bits_gained'])} "
                f"| {row['words']:.3f} | {_told(row['words_gained'])} |"
            )
    return "\n".join(lines)


def _sequence_table(found: dict[str, Any]) -> str:
    """AUC-DF as Markdown."""
    lines = [
        f"Sequence rules, {found['items']} passages: last words right, "
        f"small {found['small']:.3f}, large {found['large']:.3f}"
        + (f"; no learned rule: {found['learned_failed']}" if found["learned_failed"] else "")
        + ".",
        "",
        "| rule | AUC-DF | gain over random | length bias |",
        "|---|---|---|---|",
    ]
    for rule, row in found["rules"].items():
        area, gain = ([row[key], *row[interval]] for key, interval in (("area", "interval"), ("gain", "gain_interval")))
        lines.append(f"| {rule} | {_told(area)} | {_told(gain)} | {row['length_bias']:+.2f} |")
    return "\n".join(lines)


def _crossover_table(found: dict[str, Any]) -> str:
    """Recovered bits as Markdown."""
    lines = ["Crossover: share of the bits between small and large model that is recovered.", ""]
    lines += ["| measure | budget | swapped | recovered |", "|---|---|---|---|"]
    for measure, rows in found.items():
        for row in rows:
            lines.append(f"| {measure} | {row['budget']:g} | {row['share']:.3f} | {_told(row['recovered'])} |")
    return "\n".join(lines)


def _told(values: Sequence[float]) -> str:
    """A value and its interval."""
    return f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}]"


def _plot(found: dict[str, Any], path: Path) -> None:
    """Three small panels."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    tokens = found["tokens"]
    for rule, rows in tokens["rules"].items():
        order = sorted(rows, key=lambda row: row["rate"])
        left.plot([row["rate"] for row in order], [row["bits"] for row in order], marker=".", label=rule)
    left.plot([0, 1], [tokens["small"], tokens["large"]], "k:", label="random")
    left.set(title="token rules", xlabel="share of tokens from the large model", ylabel="bits a token")
    for rule, row in found["sequences"]["rules"].items():
        middle.plot(*row["curve"], label=rule)
    middle.plot([0, 1], [found["sequences"]["small"], found["sequences"]["large"]], "k:", label="random")
    middle.set(title="sequence rules", xlabel="share of passages deferred", ylabel="last words right")
    for measure, rows in found["crossover"].items():
        right.plot([row["share"] for row in rows], [row["recovered"][0] for row in rows], marker=".", label=measure)
    right.set(title="crossover", xlabel="share of tokens swapped", ylabel="bits recovered")
    for axes in (left, middle, right):
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)
