"""Plots: which metric they show, error bars of cost, and which strategies they call dominated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench_runs import tiny_run, write_costs, write_records, write_rows
from logitkit.bench.config import ChainEntry, CostEntry, Run, TaskEntry
from logitkit.bench.execution import Store
from logitkit.bench.report import Summary, summarise
from logitkit.bench.report.plots import Plot, dominated, plots

Metrics = Callable[[str, str, int], dict[str, float | None]]
CHAINS = {"plain": ChainEntry(), "good": ChainEntry(chain="cfg(1.2)"), "poor": ChainEntry(chain="cfg(1.5)")}
SHIFT = {"plain": 0.0, "good": -0.5, "poor": 0.5}


def losses(chain: str, task: str, number: int) -> dict[str, float | None]:
    """Return metrics of a sample: all are wrong, and the loss differs from plain decoding's by the chain's shift."""
    return {"accuracy": 0.0, "loss": 3 + number % 7 + SHIFT[chain] + 0.01 * (number % 3), "impossible": 0.0}


@pytest.fixture
def summary_of(tmp_path: Path) -> Callable[..., Summary]:
    """Return a function that summarises a run with given metrics and seconds, of which no model has run."""

    def build(metrics: Metrics, seconds: dict[str, list[float]], *, samples: int = 20) -> Summary:
        write_rows(tmp_path / "rows.jsonl", [{"text": f"the number {number}"} for number in range(samples)])
        tasks = {"words": TaskEntry(task="lambada", data="rows.jsonl")}
        rounds = len(seconds["plain"])
        price = CostEntry(rounds=rounds, tokens=2, memory=False)
        run: Run = tiny_run(tmp_path, chains=CHAINS, tasks=tasks, seeds=[0], cost=price)
        with Store(tmp_path / "results") as store:
            write_records(run, store, metrics)
            write_costs(run, store, seconds)
        return summarise(run, store)

    return build


def notes(plot: Plot) -> dict[str, str]:
    """Return the notes of a legend by strategy."""
    return {label: note for _, label, note in plot.legend}


def test_the_loss_is_drawn_where_the_accuracy_is_coarse(summary_of: Callable[..., Summary]) -> None:
    """Of 20 samples the accuracy's interval is 0.16 wide, so the plot shows the loss and says why."""
    summary = summary_of(losses, {name: [1.0] * 5 for name in CHAINS})
    (plot,) = plots(summary)
    assert plot.title == "words, tiny: loss against cost" and summary.tables[0].chart == "loss"
    assert "No plot of accuracy: with 20 samples its interval is 0.16 wide." in plot.about


def test_the_accuracy_is_drawn_where_it_is_fine(summary_of: Callable[..., Summary]) -> None:
    """Of 400 samples that are all wrong the accuracy's interval is 0.01 wide, so the plot shows the accuracy."""
    summary = summary_of(losses, {name: [1.0] * 5 for name in CHAINS}, samples=400)
    assert summary.tables[0].chart == "accuracy" and "No plot" not in plots(summary)[0].about


def test_the_accuracy_is_drawn_where_losses_are_infinite(summary_of: Callable[..., Summary]) -> None:
    """If fewer than two strategies have a finite loss, the plot shows the accuracy."""

    def metrics(chain: str, task: str, number: int) -> dict[str, float | None]:
        return losses(chain, task, number) | ({} if chain == "plain" else {"loss": None})

    summary = summary_of(metrics, {name: [1.0] * 5 for name in CHAINS})
    assert summary.tables[0].chart == "accuracy" and plots(summary)[0].title.endswith("accuracy against cost")


def test_a_strategy_with_infinite_loss_is_named(summary_of: Callable[..., Summary]) -> None:
    """The plot leaves out a strategy whose loss is infinite, and names it."""

    def metrics(chain: str, task: str, number: int) -> dict[str, float | None]:
        return losses(chain, task, number) | ({"loss": None} if chain == "poor" and number == 3 else {})

    (plot,) = plots(summary_of(metrics, {name: [1.0] * 5 for name in CHAINS}))
    assert "Not drawn, because loss is infinite: poor." in plot.about and set(notes(plot)) == {"plain", "good"}


def test_the_cost_has_error_bars(summary_of: Callable[..., Summary]) -> None:
    """A strategy with different ratios in its rounds has a horizontal bar; the baseline, always 1, has none."""
    seconds = {"plain": [1.0] * 5, "good": [1.0, 1.1, 1.2, 1.3, 1.4], "poor": [2.0] * 5}
    (plot,) = plots(summary_of(losses, seconds))
    bars = [part for part in plot.svg.split("<line ")[1:] if part.startswith('class="bar"')]
    level = [bar for bar in bars if bar.split('y1="')[1].split('"')[0] == bar.split('y2="')[1].split('"')[0]]
    assert len(bars) == 3 + 1 and len(level) == 1


@pytest.mark.parametrize(
    ("good", "want"),
    [
        ([0.5, 0.6, 0.7, 0.8, 0.9], {"plain": "dominated by good", "good": "", "poor": "dominated by plain, good"}),
        ([0.5, 0.6, 0.7, 0.8, 1.1], {"plain": "", "good": "", "poor": "dominated by plain"}),  # the ranges overlap
        ([2.0, 2.1, 2.2, 2.3, 2.4], {"plain": "", "good": "", "poor": "dominated by plain"}),
    ],
)
def test_dominated_needs_both_differences(
    summary_of: Callable[..., Summary], good: list[float], want: dict[str, str]
) -> None:
    """A strategy is dominated where another is shown to be better and the ranges show that it costs no more."""
    seconds = {"plain": [1.0] * 5, "good": good, "poor": [1.0, 1.01, 1.02, 1.03, 1.04]}
    assert notes(plots(summary_of(losses, seconds))[0]) == want


def test_a_difference_by_chance_dominates_nothing(summary_of: Callable[..., Summary]) -> None:
    """A lower mean loss at the same cost is no reason to call a strategy dominated."""

    def metrics(chain: str, task: str, number: int) -> dict[str, float | None]:
        return losses("plain", task, number) | {"loss": 3.0 + (number * list(CHAINS).index(chain) + number) % 7}

    (plot,) = plots(summary_of(metrics, {name: [1.0] * 5 for name in CHAINS}))
    assert len({part.split('cy="')[1] for part in plot.svg.split("<circle ")[1:]}) > 1
    assert set(notes(plot).values()) == {""}


def test_few_rounds_dominate_nothing(summary_of: Callable[..., Summary]) -> None:
    """One round has no range of cost, so the plot calls no strategy dominated and says so."""
    (plot,) = plots(summary_of(losses, {"plain": [1.0], "good": [0.5], "poor": [2.0]}))
    assert set(notes(plot).values()) == {""} and "1 round of timing is too few to call" in plot.about


def test_dominated_by_hand() -> None:
    """Ranges that touch cost no more; strategies without a cost dominate nothing."""
    prices: Any = {"a": (1.0, 1.0, 1.0), "b": (1.0, 0.9, 1.0), "c": (1.0, 0.9, 1.01)}
    assert dominated(prices, {"a": ["b", "c", "d"], "b": []}) == {"a": ["b"], "b": [], "c": []}
