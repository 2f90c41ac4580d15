"""Speed of second streams with a dynamic cache, and with a static cache and a forward that `generate` compiles.

Every round runs plain decoding and each chain once, in the same process; a ratio is that of one round, and the medians
over rounds are reported. The first run of each is not timed: it compiles. The floor is the speed that forwards alone
would allow: that of plain decoding for one row, that of twice the rows for a fused second stream, and half of it for
two forwards a step. On a GPU the model is a Llama of 7B with
random weights, since speed does not depend on them and nothing is downloaded; without one it is SmolLM2-135M, whose
forward is compiled by inductor for the CPU.

    python -m studies.gpu_speed
    python -m studies.gpu_speed --model random-1b --batch 1 --batch 4
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import torch
import transformers
import typer
from torch._dynamo.utils import counters
from transformers import CompileConfig

from logitkit.bench.speed.random_models import RANDOM_SIZES, load, random_model
from logitkit.models.placement import placement
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_tokenizer
from studies import command
from studies.tables import markdown_table

TEXT = "The old lighthouse keeper climbed the stairs one last time, because the storm had not let up since noon. "
CHAINS = {
    "identity chain": "",
    "cfg(1.5)": "cfg(1.5)",
    "uscd, every step": "uscd(gate=1.0, lame='Continue.')",
}
TWICE = "plain generate, twice the rows"  # the most that a doubled batch allows, in steps a second
GUIDANCE = "transformers guidance_scale=1.5"
PLAIN = "plain generate"
Cache = Literal["dynamic", "static"]
FORWARDS = {GUIDANCE: 2}  # forwards of a step, where there is more than one


class Measured(NamedTuple):
    """What one way of generating took.

    Attributes:
        seconds: of each timed run.
        first: seconds of the first run, compilation included.
        memory: peak memory beside the weights in bytes; 0 without a GPU.
        graphs: graphs that were compiled after the first run.
        streams: how second streams were read.
    """

    seconds: list[float]
    first: float
    memory: int
    graphs: int
    streams: str


def model_and_tokenizer(name: str, device: str, dtype: str) -> tuple[Any, Any]:
    """Return a model; one with random weights comes with a tokenizer of bytes, for which nothing is downloaded."""
    if name not in RANDOM_SIZES:
        return load(name, device=device, dtype=dtype)
    tokenizer = tiny_tokenizer()
    return random_model(
        RANDOM_SIZES[name], tokenizer, placement("gpu_speed", device, dtype), vocabulary=32000
    ), tokenizer


def settings_of(device: str, tokens: int, static: bool) -> dict[str, Any]:
    """Return the settings of `generate`: greedy, ``tokens`` tokens, and a static cache with a compiled forward."""
    settings: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False}
    if static:
        settings["cache_implementation"] = "static"
    if static and device == "cpu":  # on a GPU generate compiles by itself
        settings["compile_config"] = CompileConfig()
        settings["compile_config"]._compile_all_devices = True
    return settings


def runs_of(model: Any, tokenizer: Any, rows: int, settings: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """Return functions that generate once each and return how second streams were read."""
    prompts = [TEXT] * rows
    encoded = tokenizer(prompts, return_tensors="pt").to(model.device)

    twice = tokenizer(prompts * 2, return_tensors="pt").to(model.device)

    def plain(inputs: Any, **more: Any) -> str:
        model.generate(**inputs, **settings, **more)
        return ""

    def run(chain: str) -> Callable[[], str]:
        call = Chain(chain).bind(model, tokenizer, prompts)

        def generate() -> str:
            call.generate(**settings)
            return call.trace.fusion.state if chain else ""

        return generate

    runs: dict[str, Callable[[], str]] = {
        PLAIN: lambda: plain(encoded),
        TWICE: lambda: plain(twice),
        GUIDANCE: lambda: plain(encoded, guidance_scale=1.5),
    }
    return runs | {name: run(chain) for name, chain in CHAINS.items()}


def measure(runs: dict[str, Callable[[], str]], clock: Callable[[], float], rounds: int) -> dict[str, Measured]:
    """Run everything once untimed, then in rounds; return the times by name."""
    measured = {}
    for name, run in runs.items():
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        first, streams = timed(run, clock)
        memory = torch.cuda.max_memory_allocated() - before if torch.cuda.is_available() else 0
        measured[name] = Measured([], first, memory, -graphs(), streams)
        timed(run, clock)  # a first replay records what the timed ones repeat
        measured[name] = measured[name]._replace(graphs=graphs() + measured[name].graphs)
    for _ in range(rounds):
        for name, run in runs.items():
            measured[name].seconds.append(timed(run, clock)[0])
    return measured


def graphs() -> int:
    """Return the number of graphs that dynamo has made."""
    return int(counters["stats"]["unique_graphs"])


def timed(run: Callable[[], str], clock: Callable[[], float]) -> tuple[float, str]:
    """Return the seconds of a run, and its result."""
    begun = clock()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - begun, result


def table(measured: dict[str, Measured], title: str, tokens: int) -> str:
    """Return the measurements as a Markdown table.

    Args:
        measured: the measurement of each way of generating, by name; one is plain decoding.
        title: of the first column.
        tokens: number of new tokens of a run, over all rows.
    """
    plain = measured[PLAIN]

    def speed(one: Measured) -> float:
        return statistics.median(own / mine for own, mine in zip(plain.seconds, one.seconds, strict=True))

    rows = []
    for name, one in measured.items():
        rate = tokens * (2 if name == TWICE else 1) / statistics.median(one.seconds)
        memory = f"{one.memory / max(1, plain.memory):.2f}" if one.memory else ""
        floor = speed(measured[TWICE]) if name == TWICE or one.streams == "fused" else 1 / FORWARDS.get(name, 1)
        speeds = [f"{speed(one):.3f}", f"{floor:.3f}", f"{rate:.1f}"]
        rows.append([name, *speeds, f"{one.first:.1f}", str(one.graphs), memory, one.streams])
    headings = [title, "speed / plain", "floor", "tokens/s", "first run, s", "graphs after it", "memory / plain"]
    return markdown_table([*headings, "streams"], rows)


def main(  # Over 40 lines: one option a line
    model: Annotated[str | None, typer.Option(help="A known model, random-7b or random-1b.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="A batch size; repeatable.")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="New tokens per prompt.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Number of timed rounds.")] = 5,
    cache: Annotated[Cache | None, typer.Option(help="The kind of cache; both by default.")] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Measure CPU time, which other processes disturb less.")] = False,
) -> None:
    """Print a table for each kind of cache and batch size."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "bfloat16" if device == "cuda" else "float32"
    name = model or ("random-7b" if device == "cuda" else "smollm2-135m")
    loaded, tokenizer = model_and_tokenizer(name, device, dtype)
    loaded.generation_config.eos_token_id = None  # every run writes all tokens
    loaded.generation_config.pad_token_id = 0
    where = torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads of a CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    how = f"{tokens} tokens, medians of {rounds} rounds{', CPU time' if cpu else ''}"
    typer.echo(f"{name}, {dtype}, {where}; {versions}; {how}\n")
    for rows in batch or ([1, 16] if device == "cuda" else [1, 4]):
        for static in (False, True) if cache is None else (cache == "static",):
            runs = runs_of(loaded, tokenizer, rows, settings_of(device, tokens, static))
            title = f"{'static cache, compiled' if static else 'dynamic cache, eager'}, batch {rows}"
            clock = time.process_time if cpu else time.perf_counter
            typer.echo(table(measure(runs, clock, rounds), title, rows * tokens) + "\n")


if __name__ == "__main__":
    command.run(main)
