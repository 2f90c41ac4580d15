"""Time and forwards of `speculate` beside the plain chain, and beside assisted decoding of transformers, all greedy.

Pairs on paragraphs of a book. Prose: an ensemble of SmolLM2-135M and Gemma-3-270M. Assisted: a cascade that writes
the greedy text of its large model, which assisted decoding writes too; the large model is SmolLM2-135M with noise on
its weights, so that both methods check the same drafts and differ in their overhead alone. Stories: the same cascade
of two models that the command line names, the drafting one much cheaper, on the beginnings of children's stories.
Guided: `cfg` on the large model of these two with the other one as its assistant, beside `cfg` without an assistant and
beside a bare ``model.generate``, whose drafts ask the whole chain.
The methods run in turn on each prompt, and their tokens are compared with those of the plain chain. The floor of a
method is the CPU time of its forwards, without the rest of its loop. Runs in the results file are not repeated.

    python -m studies.checked_drafts --data DATA --items 8 --tokens 16 --out checked.jsonl
    python -m studies.checked_drafts --data DATA --pair stories --small FOLDER --large FOLDER --items 8
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer

import logitkit
from logitkit import models
from logitkit.bench.speed import ForwardClock
from logitkit.errors import UnknownNameError
from logitkit.progress import progress_bar
from studies import command
from studies.draft_trees import paragraphs
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.tables import markdown_table

MAIN = "smollm2-135m"
PAIRS = ("assisted", "prose")
STORIES, GUIDED = "stories", "guided"
BEGINNINGS = (
    "Once upon a time there was a little girl who had a red ball. She took it to the park, and",
    "One day a small dog found a big bone in the garden. He wanted to hide it, but",
    "Tom and his sister were playing in the snow. They made a snowman with a hat, and then",
    "There was a cat who lived in a tree. Every morning she looked down and saw",
    "Mia had a new toy boat. Her father took her to the lake, where",
    "A little bird could not fly yet. Its mother said that",
    "Ben did not like to share his toys. One day his friend came to visit, and",
    "In a forest there lived a kind bear. The other animals came to him when",
    "Lucy helped her grandmother to bake a cake. When it was ready,",
    "The sun was hot, and the boys wanted to swim. They ran to the river, but",
)
LENGTHS = (2, 4, 8)  # drafted tokens
ASSISTED_LENGTH = 4
NOISE = 0.03  # standard deviation of the noise, as a share of that of the weights
ENSEMBLE, GREEDY_LARGE = "ensemble(['other'])", "cascade('other', rule='token_v3', alpha=0.0)"
GUIDANCE = "cfg(1.5, negative='a sad story')"


class Measured(NamedTuple):
    """One run.

    Attributes:
        main: forwards of the generating model, by new tokens.
        other: forwards of the other model, by new tokens.
        seconds: CPU seconds a new token.
        inside: CPU seconds a new token in forwards of both models.
        wall: seconds of the clock a new token.
        equal: whether the tokens are those of the plain chain.
    """

    main: float
    other: float
    seconds: float
    inside: float
    wall: float
    equal: bool


def with_noise(model: Any) -> Any:
    """Return a copy of a model with noise on its weights."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in other.parameters():
            weights += NOISE * weights.std() * torch.randn(weights.shape, generator=generator)
    return other


def measured(run: Callable[[], torch.Tensor], counted: Sequence[Any], start: int, plain: Any) -> tuple[Measured, Any]:
    """Return the measures of one greedy run, and its ids.

    Args:
        run: generates.
        counted: the generating and the other model, whose forwards are counted.
        start: tokens of the prompt.
        plain: the ids of the plain chain; None: this run is the plain chain.
    """
    clocks = [ForwardClock(model, time.process_time) for model in counted]
    begun, started = time.process_time(), time.perf_counter()
    ids = run()
    seconds, wall = time.process_time() - begun, time.perf_counter() - started
    for clock in clocks:
        clock.remove()
    new = ids.shape[1] - start
    equal = plain is None or torch.equal(ids, plain)
    main, other = (clock.count / new for clock in clocks)
    inside = sum(clock.seconds for clock in clocks)
    return Measured(main, other, seconds / new, inside / new, wall / new, equal), ids


def drafting(assistant: Any, count: int) -> None:
    """Let an assistant draft this many tokens at once."""
    assistant.generation_config.update(
        num_assistant_tokens=count, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.0
    )


def guided_runs_of(pair: Sequence[Any], tokenizers: Any, text: str, tokens: int, steps: str) -> dict[str, Measured]:
    """Return the measures of every method of `GUIDED` on one prompt, in turn; arguments as of `runs_of`."""
    assistant, model = pair
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": tokens, "pad_token_id": 0}
    runs: dict[str, Measured] = {}
    plain = None
    helped = {"assistant_model": assistant}
    methods: list[tuple[str, int, Callable[[Any], Any]]] = [
        ("plain chain", 0, lambda call: call.generate(**settings)),
        ("plain chain, lazy", 0, lambda call: call.generate(streams="lazy", **settings)),
        *((f"assistant, {one} drafts", one, lambda call: call.generate(**settings, **helped)) for one in LENGTHS[:2]),
        (f"chain in {LENGTHS[0]} drafts", LENGTHS[0], lambda call: bare(call)),
    ]

    def bare(call: Any) -> Any:
        further = call.settings_for(**settings, **helped)
        return model.generate(**call.inputs, logits_processor=call.processors, **further)

    for name, count, run in methods:
        drafting(assistant, count or 1)
        call = logitkit.chain(steps).bind(model, tokenizers[1], text)
        start = call.inputs["input_ids"].shape[1]
        runs[name], ids = measured(functools.partial(run, call), [model, assistant], start, plain)
        plain = ids if plain is None else plain
    return runs


def runs_of(pair: Sequence[Any], tokenizers: Any, text: str, tokens: int, steps: str) -> dict[str, Measured]:
    """Return the measures of every method on one prompt, in turn.

    Args:
        pair: the generating and the other model.
        tokenizers: theirs.
        text: the prompt.
        tokens: number of new tokens at most.
        steps: the chain.
    """
    main, other = pair
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": tokens, "pad_token_id": 0}
    runs: dict[str, Measured] = {}
    plain = None
    for name in ["plain chain", *(f"speculate({length})" for length in LENGTHS)]:
        chain = logitkit.chain(steps if plain is None else f"{steps} | {name}")
        call = chain.bind(main, tokenizers[0], text, other=other, tokenizers={"other": tokenizers[1]})
        start = call.inputs["input_ids"].shape[1]
        runs[name], ids = measured(lambda call=call: call.generate(**settings), pair, start, plain)  # type: ignore[misc]
        plain = ids if plain is None else plain
    if steps == GREEDY_LARGE:
        drafting(main, ASSISTED_LENGTH)
        inputs = tokenizers[0](text, return_tensors="pt")
        name, start = "assisted decoding", inputs["input_ids"].shape[1]
        run = lambda: other.generate(**inputs, assistant_model=main, **settings)  # noqa: E731
        runs[name], _ = measured(run, pair, start, plain)
    return runs


def table(runs: Mapping[tuple[str, int], Mapping[str, Measured]]) -> str:
    """Return a table of pairs and methods, as Markdown; times are shares of those of the plain chain, by prompt."""
    rows = []
    for task in dict.fromkeys(task for task, _ in runs):
        own = [one for (other, _), one in runs.items() if other == task]
        for name in own[0]:
            values = [[getattr(one[name], of) for one in own] for of in ("main", "other")]
            for of in ("wall", "seconds", "inside"):
                base = "wall" if of == "wall" else "seconds"
                values.append([getattr(one[name], of) / getattr(one["plain chain"], base) for one in own])
            cells = [interval_text(bootstrap_interval(np.array(each)), ".2f") for each in values]
            rows.append([task, name, *cells, f"{sum(one[name].equal for one in own)} of {len(own)}"])
    headings = ["pair", "method", "own forwards a token", "other forwards a token"]
    times = ["wall time / plain", "CPU time / plain", "floor: CPU time of the forwards / plain"]
    return markdown_table([*headings, *times, "equal to plain"], rows)


def loaded(task: str, folders: Sequence[str]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the generating and the other model of a pair, and their tokenizers.

    Args:
        task: name of the pair.
        folders: the drafting and the large model of `STORIES` and `GUIDED`; both run in 16 bits, in which a CPU reads a
            few tokens as fast as one.
    """
    if task in (STORIES, GUIDED):
        (main, tokenizer), (other, other_tokenizer) = (models.load(folder) for folder in folders)
        return (main.to(torch.bfloat16), other.to(torch.bfloat16)), (tokenizer, other_tokenizer)
    main, tokenizer = models.load(MAIN)
    if task == "assisted":
        return (main, with_noise(main)), (tokenizer, tokenizer)
    other, other_tokenizer = models.load("gemma-3-270m")
    return (main, other), (tokenizer, other_tokenizer)


def main(
    data: Annotated[Path, typer.Option(help="Folder with 1661-0.txt.", envvar="LOGITKIT_DATA")],
    pair: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(PAIRS)}, {STORIES}, {GUIDED}; may be repeated.")
    ] = None,
    small: Annotated[str, typer.Option(help=f"The drafting model of {STORIES} and {GUIDED}, a folder.")] = "",
    large: Annotated[str, typer.Option(help="Its large model, with the same tokenizer, a folder.")] = "",
    items: Annotated[int, typer.Option(min=1, max=30, help="Prompts of each pair.")] = 10,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens of each run.")] = 32,
    out: Annotated[Path, typer.Option(help="File of results; runs in it are not repeated.")] = Path("checked.jsonl"),
) -> None:
    """Print time and forwards of speculate, of the plain chain, and of assisted decoding."""
    for name in {*(pair or ())} - {*PAIRS, STORIES, GUIDED}:
        raise UnknownNameError("pair", name, [*PAIRS, STORIES, GUIDED])
    named = {STORIES, GUIDED} & {*(pair or ())}
    if named and not (small and large):
        raise typer.BadParameter(f"--small and --large must name the two models of {' and '.join(sorted(named))}")
    settings = {"tokens": tokens}
    known = {(one["task"], one["item"]): one["runs"] for one in resumed_records(out, settings, "checked_drafts")}
    prompts = {task: BEGINNINGS[:items] if task in named else paragraphs(data, items) for task in pair or PAIRS}
    places = [(task, number) for task, texts in prompts.items() for number in range(len(texts))]
    with progress_bar("prompts", total=sum(place not in known for place in places)) as bar:
        for task in prompts:
            todo = [number for one, number in places if one == task and (one, number) not in known]
            both, tokenizers = loaded(task, [small, large]) if todo else ((), ())
            steps = {"prose": ENSEMBLE, GUIDED: GUIDANCE}.get(task, GREEDY_LARGE)
            run = guided_runs_of if task == GUIDED else runs_of
            for place, number in enumerate(todo):
                if not place:  # the first run of a pair aligns the vocabularies and checks the models
                    run(both, tokenizers, "A warm-up.", 2, steps)
                runs = run(both, tokenizers, prompts[task][number], tokens, steps)
                known[task, number] = {name: one._asdict() for name, one in runs.items()}
                append_record(out, {"settings": settings, "task": task, "item": number, "runs": known[task, number]})
                bar.advance()
    typer.echo(table({at: {name: Measured(**one) for name, one in known[at].items()} for at in places}))


if __name__ == "__main__":
    command.run(main)
