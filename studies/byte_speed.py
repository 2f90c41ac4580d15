"""Speed of exact next-byte distributions relative to genlm-bytes, and of byte_boundary relative to plain decoding.

Each context of a book is read, and then the distribution of each of the next bytes is requested, one after the other.
The floor is the speed that the time inside forward passes allows. Errors are those of the log-probability of the true
next byte, in nats, relative to the exact distribution (tolerance 0). genlm-bytes 0.2.0 needs an environment of its
own, whose Python ``--peer`` names. It runs one context at a time in a fresh process, since it keeps every prefix.

    python -m studies.byte_speed ../shared/data/pg996_don_quixote.txt --peer PYTHON
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit import models
from logitkit.bench.speed import ForwardClock
from logitkit.processors.byte_level import ByteTree
from logitkit.registry import Chain
from studies import command
from studies.tables import markdown_table

PEER = """
import asyncio, json, sys, time
from genlm.backend import load_model_by_name
from genlm.bytes import ByteBeamState, BeamParams
path, text, context, count = sys.argv[1], open(sys.argv[2], "rb").read(), int(sys.argv[3]), int(sys.argv[4])
async def main():
    model = load_model_by_name(path, backend="hf")
    state = await ByteBeamState.initial(model, BeamParams(K=5, prune_threshold=0.001))
    begun = time.perf_counter()
    state = await state.prefill(text[:context])
    prefill, logp, begun = time.perf_counter() - begun, [], time.perf_counter()
    for byte in text[context : context + count]:
        law = await state.logp_next()
        logp.append(float(law[byte]))
        state = await (state.prune() << byte)
    print(json.dumps({"prefill": prefill, "seconds": time.perf_counter() - begun, "logp": logp}))
    await state.cleanup()
asyncio.run(main())
"""
HEADINGS = ("", "prefill, s", "bytes/s", "floor: forwards alone", "forwards/byte", "largest error, nats")


def measure(model: Any, tokenizer: Any, text: bytes, context: int, count: int, tolerance: float) -> dict[str, Any]:
    """Read a context, then request the distribution of each next byte.

    Args:
        model, tokenizer: the model.
        text: the book.
        context: number of bytes of the context.
        count: number of bytes after the context.
        tolerance: tolerance of the distributions.

    Returns:
        ``prefill``, ``seconds`` and ``forward_seconds`` in seconds, the number of ``forwards``, and the normalised
        log-probabilities ``logp`` of the true bytes in nats.
    """
    tree = ByteTree(model, tokenizer, tolerance=tolerance)
    begun = time.perf_counter()
    tree.distribution(text[:context])
    prefill, forwards, logp = time.perf_counter() - begun, tree.forwards, []
    clock, begun = ForwardClock(model), time.perf_counter()
    for place in range(context, context + count):
        distribution = tree.distribution(text[:place])
        logp.append(float((distribution.logp - distribution.logp.logsumexp(-1))[text[place]]))
    seconds = time.perf_counter() - begun
    clock.remove()
    return {
        "prefill": prefill,
        "seconds": seconds,
        "logp": logp,
        "forwards": tree.forwards - forwards,
        "forward_seconds": clock.seconds,
    }


def measure_peer(python: str, path: str, book: Path, context: int, count: int) -> dict[str, Any]:
    """Return the measurements of genlm-bytes, in a fresh process of its own environment."""
    command = [python, "-c", PEER, path, str(book), str(context), str(count)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    results: dict[str, Any] = json.loads(process.stdout.strip().split("\n")[-1])
    return results


def relative_speed(model: Any, tokenizer: Any, prompt: str, tokens: int, rounds: int) -> float:
    """Return the speed of generation with byte_boundary divided by plain decoding, after the first 8 tokens.

    The value is the median of paired rounds.
    """
    ratios = []
    for _ in range(rounds):
        durations = []
        for chain in ("", "byte_boundary()"):
            seconds = []
            for length in (8, 8 + tokens):
                call = Chain(chain).bind(model, tokenizer, prompt)
                begun = time.perf_counter()
                call.generate(max_new_tokens=length, min_new_tokens=length, do_sample=False)
                seconds.append(time.perf_counter() - begun)
            durations.append(seconds[1] - seconds[0])
        ratios.append(durations[0] / durations[1])
    return statistics.median(ratios)


def table_row(name: str, results: dict[str, Any], exact: Sequence[float], count: int) -> list[str]:
    """Return the row of one method; ``exact`` are the exact log-probabilities."""
    error = max(abs(logp - expected) for logp, expected in zip(results["logp"], exact, strict=True))
    floor = f"{count / results['forward_seconds']:.1f}" if "forward_seconds" in results else "-"
    forwards = f"{results['forwards'] / count:.2f}" if "forwards" in results else "-"
    return [name, f"{results['prefill']:.2f}", f"{count / results['seconds']:.1f}", floor, forwards, f"{error:.1e}"]


def main(
    book: Annotated[Path, typer.Argument(help="A text file.")],
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    context: Annotated[list[int] | None, typer.Option(help="Bytes of a context; repeatable.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of bytes after each context.")] = 40,
    peer_python: Annotated[str, typer.Option("--peer", help="Python of an environment with genlm-bytes.")] = "",
    peer_longest: Annotated[int, typer.Option(help="Longest context, in bytes, that the peer reads.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Paired rounds of generation with byte_boundary.")] = 5,
) -> None:
    """Print a table for each context, and the relative speed of byte_boundary."""
    text = book.read_bytes()
    loaded, tokenizer = models.load(model)
    measure(loaded, tokenizer, text, 50, 5, 0.0)  # warms up, and builds the tables of the tokenizer
    for size in context or [100, 500, 2000]:
        exact = measure(loaded, tokenizer, text, size, count, 0.0)
        pruned = measure(loaded, tokenizer, text, size, count, 1e-6)
        typer.echo(f"{model}, {size} bytes of context, {count} bytes after it\n")
        rows = [
            table_row("exact", exact, exact["logp"], count),
            table_row("tolerance 1e-6", pruned, exact["logp"], count),
        ]
        ratios = ""
        if peer_python and size <= peer_longest:
            peer = measure_peer(peer_python, str(models.path(model)), book, size, count)
            rows.append(table_row("genlm-bytes 0.2.0, K=5, prune 0.001", peer, exact["logp"], count))
            speed, prefill = peer["seconds"] / pruned["seconds"], peer["prefill"] / pruned["prefill"]
            ratios = f"\n\nratio to the peer: {speed:.1f} in bytes/s, {prefill:.0f} in prefill"
        typer.echo(markdown_table(HEADINGS, rows) + ratios + "\n")
    share = relative_speed(loaded, tokenizer, "def fibonacci(n):\n    if n <= 1:\n        retu", 48, rounds)
    typer.echo(f"byte_boundary: {share:.3f} of the speed of plain decoding ({rounds} paired rounds)")


if __name__ == "__main__":
    command.run(main)
