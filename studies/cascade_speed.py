"""Speed of cascades relative to their models alone, and of speculative cascades relative to the large model.

Every round runs each variant once, one after the other. Ratios are taken within a round, and their medians are
reported. The floor is the speed that the forward passes of a run alone would allow. A cascade that needs the large
model at a share r of the steps is compared with one step of the small model plus r steps of the large model as well; it
can cost more where a chunk of tokens costs more than a step, since the large model reads every token once, in chunks.

    python -m studies.cascade_speed SMALL LARGE --tokens 48
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
import typer

from logitkit import Call, models
from logitkit.bench.speed import ForwardClock
from logitkit.models.placement import placement
from logitkit.processors.cascade import SpeculativeCascade
from logitkit.processors.engine import Trace
from logitkit.progress import progress_bar
from logitkit.registry import Chain
from studies import command
from studies.tables import markdown_table

PROMPT = "Once upon a time there was a little girl named Lily. She had a small boat and wanted to"


class RunResult(NamedTuple):
    """Result of one run.

    Attributes:
        ids: token ids of prompt and continuation.
        large_share: share of the steps of a cascade that need the large model.
        note: a note for the table.
    """

    ids: Any
    large_share: float = 0.0
    note: str = ""


PreparedRun = Callable[[], RunResult]
CascadeVariant = Callable[[], PreparedRun]  # binds a fresh call, which is not timed: a bound chain keeps its caches


@dataclass(eq=False)
class CascadeTiming:
    """Timings of one variant.

    Attributes:
        seconds: duration of each round.
        forward_seconds: time inside forward passes in each round.
        large_share, note: those of the last run; see `RunResult`.
    """

    seconds: list[float] = field(default_factory=list)
    forward_seconds: list[float] = field(default_factory=list)
    large_share: float = 0.0
    note: str = ""


def cascade_variants(
    small: Any, large: Any, tokenizer: Any, prompt: str, *, tokens: int, alphas: list[float], drafts: list[int]
) -> dict[str, CascadeVariant]:
    """Return the variants by label.

    Args:
        small, large: the models.
        tokenizer: their common tokenizer.
        prompt: the text to continue.
        tokens: number of new tokens.
        alphas: alphas of the cascade with rule chow.
        drafts: draft lengths of the speculative form.
    """
    settings: dict[str, Any] = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
    inputs = Chain().bind(small, tokenizer, prompt).inputs

    def alone(model: Any) -> CascadeVariant:
        return lambda: lambda: RunResult(model.generate(**inputs, **settings))

    def speculative(draft: int, alpha: float) -> CascadeVariant:
        return lambda: partial(_run_speculative, small, large, inputs, settings, draft=draft, alpha=alpha)

    def cascade(alpha: float) -> CascadeVariant:
        chain = Chain(f"cascade(large='big', rule='chow', alpha={alpha}, temperature=0.0)")
        return lambda: partial(
            _run_cascade, chain.bind(small, tokenizer, prompt, big=large, tokenizers={"big": tokenizer}), settings
        )

    variants = {"small alone": alone(small), "large alone": alone(large)}
    variants |= {f"cascade chow {alpha:g}": cascade(alpha) for alpha in alphas}
    variants |= {f"speculative token_v3 0, draft {draft}": speculative(draft, 0.0) for draft in drafts}
    return variants | {f"speculative token_v3 0.3, draft {drafts[0]}": speculative(drafts[0], 0.3)}


def _run_cascade(call: Call, settings: dict[str, Any]) -> RunResult:
    """Decode with a bound cascade."""
    ids = call.generate(**settings)
    share = call.trace.means["cascade"]["large needed"]
    return RunResult(ids, share, f"{call.trace.forwards['big']} large forwards")


def _run_speculative(
    small: Any, large: Any, inputs: Any, settings: dict[str, Any], *, draft: int, alpha: float
) -> RunResult:
    """Decode with a speculative cascade."""
    trace = Trace()
    search = SpeculativeCascade(large=large, rule="token_v3", alpha=alpha, draft_length=draft, trace=trace)
    ids = small.generate(**inputs, custom_generate=search, **settings)
    accepted = trace.means["speculative"]["accepted"]
    return RunResult(ids, note=f"{trace.forwards['large']} large forwards, {accepted:.2f} of drafts accepted")


def measure(
    small: Any, large: Any, variants: dict[str, CascadeVariant], rounds: int
) -> tuple[dict[str, CascadeTiming], dict[str, Any]]:
    """Time every variant, round by round; return the timings and the token ids that each variant generated."""
    timings = {name: CascadeTiming() for name in variants}
    generated: dict[str, Any] = {}
    with progress_bar("rounds", total=(rounds + 1) * len(variants)) as bar:
        for number in range(rounds + 1):  # the first round warms up
            for name, prepare in variants.items():
                run, timing = prepare(), timings[name]
                clocks = [ForwardClock(model) for model in (small, large)]
                begun = time.perf_counter()
                generated[name], timing.large_share, timing.note = run()
                seconds = time.perf_counter() - begun
                if number:
                    timing.seconds.append(seconds)
                    timing.forward_seconds.append(sum(clock.seconds for clock in clocks))
                for clock in clocks:
                    clock.remove()
                bar.advance()
    return timings, generated


def table(timings: dict[str, CascadeTiming], tokens: int) -> str:
    """Return the timings as a Markdown table."""
    small, large = timings["small alone"].seconds, timings["large alone"].seconds
    rows = []
    for name, timing in timings.items():
        rate = tokens / statistics.median(timing.seconds)
        speedup = statistics.median(b / s for b, s in zip(large, timing.seconds, strict=True))
        floor = statistics.median(b / f for b, f in zip(large, timing.forward_seconds, strict=True))
        sums = [a + timing.large_share * b for a, b in zip(small, large, strict=True)]
        cost = statistics.median(s / f for s, f in zip(timing.seconds, sums, strict=True))
        share = f"r = {timing.large_share:.2f}, {cost:.3f}" if name.startswith("cascade") else ""
        rows.append([name, f"{rate:.1f}", f"{speedup:.2f}", f"{floor:.2f}", share, timing.note])
    headings = ["variant", "tokens/s", "speed / large alone", "floor", "time / (small + r large)", "note"]
    return markdown_table(headings, rows)


def main(
    small: Annotated[str, typer.Argument(help="The small model: a known name, a folder, or a hub id.")],
    large: Annotated[str, typer.Argument(help="The large model, with the same tokenizer.")],
    prompt: Annotated[str, typer.Option(help="The text to continue.")] = PROMPT,
    tokens: Annotated[int, typer.Option(min=2, help="Number of new tokens.")] = 48,
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed rounds.")] = 3,
    alpha: Annotated[list[float] | None, typer.Option(help="An alpha of the rule chow; repeatable.")] = None,
    draft: Annotated[list[int] | None, typer.Option(help="A draft length of the speculative form; repeatable.")] = None,
    dtype: Annotated[str, typer.Option(help="Dtype of the large model.")] = "bfloat16",
) -> None:
    """Print the table, and whether the speculative text at alpha = 0 equals that of the large model."""
    like = placement("cascade_speed", "cpu", dtype)
    first, tokenizer = models.load(small)
    second = models.load(large)[0].to(like.dtype)
    alphas, drafts = alpha or [0.2, 0.5, 0.8], draft or [2, 4]
    variants = cascade_variants(first, second, tokenizer, prompt, tokens=tokens, alphas=alphas, drafts=drafts)
    timings, generated = measure(first, second, variants, rounds)
    threads = torch.get_num_threads()
    typer.echo(f"torch {torch.__version__}, {threads} threads, {small} to {large} in {dtype}, {rounds} rounds\n")
    typer.echo(table(timings, tokens))
    equal = [torch.equal(ids, generated["large alone"]) for name, ids in generated.items() if "token_v3 0," in name]
    typer.echo(f"\nThe speculative text at alpha = 0 equals that of the large model: {equal}")


if __name__ == "__main__":
    command.run(main)
