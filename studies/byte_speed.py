"""Bytes a second of exact next-byte laws, beside genlm-bytes, and what byte_boundary costs behind the boundary.

Each context of a book is read, then the law of each of the next bytes is asked for one after the other. The floor
is the time inside forward passes. Errors are against the exact law (tolerance 0) on the true next byte, in nats.
genlm-bytes 0.2.0 lives in an environment of its own, whose Python ``--peer`` names; it is run one context at a
time in a fresh process, since it keeps every prefix that it has seen.

    python -m studies.byte_speed ../shared/data/pg996_don_quixote.txt --peer PYTHON
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit import models
from logitkit.bench.speed.clock import ForwardClock
from logitkit.processors.byte_level.tree import ByteTree
from logitkit.registry.chain import Chain

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


def ours(model: Any, tokenizer: Any, text: bytes, context: int, count: int, tolerance: float) -> dict[str, Any]:
    """Prefill, then ask for each next byte; log-probabilities are normalised, as the peer's are."""
    tree = ByteTree(model, tokenizer, tolerance=tolerance)
    begun = time.perf_counter()
    tree.distribution(text[:context])
    prefill, forwards, logp = time.perf_counter() - begun, tree.forwards, []
    clock, begun = ForwardClock(model), time.perf_counter()
    for place in range(context, context + count):
        law = tree.distribution(text[:place])
        logp.append(float((law.logp - law.logp.logsumexp(-1))[text[place]]))
    seconds = time.perf_counter() - begun
    clock.remove()
    forwards = tree.forwards - forwards
    return {"prefill": prefill, "seconds": seconds, "logp": logp, "forwards": forwards, "floor": clock.seconds}


def peer(python: str, path: str, book: Path, context: int, count: int) -> dict[str, Any]:
    """The same of genlm-bytes, in a fresh process of its own environment."""
    command = [python, "-c", PEER, path, str(book), str(context), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    return found


def boundary(model: Any, tokenizer: Any, prompt: str, tokens: int, rounds: int) -> float:
    """How fast byte_boundary generates behind the boundary, as a share of plain decoding; median of paired rounds."""
    ratios = []
    for _ in range(rounds):
        rates = []
        for chain in ("", "byte_boundary()"):
            took = []
            for length in (8, 8 + tokens):
                call = Chain(chain).bind(model, tokenizer, prompt)
                begun = time.perf_counter()
                call.generate(max_new_tokens=length, min_new_tokens=length, do_sample=False)
                took.append(time.perf_counter() - begun)
            rates.append(took[1] - took[0])
        ratios.append(rates[0] / rates[1])
    return statistics.median(ratios)


def line(name: str, found: dict[str, Any], exact: list[float], count: int) -> str:
    """One row of the table."""
    error = max(abs(got - want) for got, want in zip(found["logp"], exact, strict=True))
    floor = f"{count / found['floor']:.1f}" if "floor" in found else "-"
    forwards = f"{found['forwards'] / count:.2f}" if "forwards" in found else "-"
    return f"| {name} | {found['prefill']:.2f} | {count / found['seconds']:.1f} | {floor} | {forwards} | {error:.1e} |"


def main(
    book: Annotated[Path, typer.Argument(help="A text.")],
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    context: Annotated[list[int] | None, typer.Option(help="Bytes of context.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Bytes asked for behind each context.")] = 40,
    peer_python: Annotated[str, typer.Option("--peer", help="Python of an environment with genlm-bytes.")] = "",
    peer_longest: Annotated[int, typer.Option(help="Contexts beyond this are not asked of the peer.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="Paired rounds of generation behind the boundary.")] = 5,
) -> None:
    """Print the tables as Markdown."""
    loaded, tokenizer = models.load(model)
    text = book.read_bytes()
    ours(loaded, tokenizer, text, 50, 5, 0.0)  # warms up, and reads the tokenizer
    for size in context or [100, 500, 2000]:
        exact = ours(loaded, tokenizer, text, size, count, 0.0)
        quick = ours(loaded, tokenizer, text, size, count, 1e-6)
        print(f"{model}, {size} bytes of context, {count} bytes asked for\n")
        print("| | prefill, s | bytes/s | floor: forwards alone | forwards a byte | largest error, nats |")
        print("|---|---|---|---|---|---|")
        print(line("exact", exact, exact["logp"], count))
        print(line("tolerance 1e-6", quick, exact["logp"], count))
        if peer_python and size <= peer_longest:
            theirs = peer(peer_python, str(models.path(model)), book, size, count)
            print(line("genlm-bytes 0.2.0, K=5, prune 0.001", theirs, exact["logp"], count))
            rate, prefill = theirs["seconds"] / quick["seconds"], theirs["prefill"] / quick["prefill"]
            print(f"\nratio to the peer: {rate:.1f} in bytes/s, {prefill:.0f} in prefill")
        print(flush=True)
    share = boundary(loaded, tokenizer, "def fibonacci(n):\n    if n <= 1:\n        retu", 48, rounds)
    print(f"byte_boundary behind the boundary: {share:.3f} of plain decoding ({rounds} paired rounds)")


if __name__ == "__main__":
    typer.run(main)
