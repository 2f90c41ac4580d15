"""Quality and cost of generated answers under deferral rules and a trained router, beside deferring at random.

    python -m studies.cascade_answers SMALL LARGE --items 360 --out cascade_answers.jsonl

The models answer questions on short stories of this study, greedily. On the development stories the large model's
answers are labelled as in R2R (arXiv:2505.21600), the router head is trained, and each rule gets one threshold for each
share of tokens that the large model is to write. On the held-out stories each rule writes its answers at these
thresholds. The first of them are written again by the chains themselves, one prompt at a time, for the time. What is in
the results file is not repeated; a run with more stories adds held-out ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit import models
from logitkit.bench.speed import ForwardClock
from logitkit.models.placement import placement
from logitkit.processors.cascade import ModelPair, RouterHead
from logitkit.progress import progress_bar
from logitkit.registry import Chain
from studies import command
from studies.evidence import Page, PairedDifferences, comparison_table, half_of, item_id, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.story_answers import RULES, SEEDS, SHARES, TOKENS, Curves, Story, StoryAnswers, stories
from studies.tables import markdown_table

BATCH = 32  # stories that are answered together
TIMED_SHARES, TIMED_TWICE = ("0.25", "0.5"), ("router", "token_v3")
SAMPLED_FROM = 100  # stories, of which the first held-out ones are shown
Records = Sequence[dict[str, Any]]
Thresholds = dict[str, dict[str, float]]


def held_out_records(
    study: StoryAnswers, asked: Sequence[Story], thresholds: Thresholds, head: RouterHead
) -> Iterator[dict[str, Any]]:
    """Yield the record of each held-out story: `StoryAnswers.judged` of every strategy, and its text."""
    strategies = study.alone()
    strategies |= {f"random {share:g} {seed}": study.at_random(share, seed) for share in SHARES for seed in SEEDS}
    for rule in RULES:
        for share, threshold in thresholds[rule].items():
            strategies[f"{rule} {share}"] = study.by_rule(rule, threshold, head)
    answers = study.write(asked, strategies)
    for number, story in enumerate(asked):
        arms = {name: study.judged(story, found[number]) for name, found in answers.items()}
        arms["large"][2:] = [arms["large"][1]] * 2  # alone, it writes every token
        shown = [name for name in answers if is_shown(name)]
        yield {"arms": arms, "texts": {n: study.text(answers[n][number].ids) for n in shown}}


def is_shown(name: str) -> bool:
    """Return whether the texts of a strategy are kept: those at one share, with one seed at random, and timed ones."""
    rule, *setting = name.split()
    return not setting or setting in (["0.25"], ["0.25", "0"]) or (rule in TIMED_TWICE and setting == ["0.5"])


def chains(thresholds: Thresholds) -> dict[str, str]:
    """Return the chains that are timed, by name of the strategy; empty for one model alone."""

    def cascade(rule: str, alpha: float) -> str:
        return f"cascade('large', {rule!r}, {alpha}, temperature=0.0)"

    found = {"large": "", "small": "", "random 0.25 0": cascade("random", 0.75)}
    found["chow 0.25"] = cascade("chow", thresholds["chow"]["0.25"])
    found |= {f"router {share}": f"router('large', 'head', {thresholds['router'][share]})" for share in TIMED_SHARES}
    found["token_v3 0.25"] = cascade("token_v3", thresholds["token_v3"]["0.25"])
    for share in TIMED_SHARES:
        found[f"token_v3 {share}, drafts of 2"] = f"{cascade('token_v3', thresholds['token_v3'][share])} | speculate(2)"
    return found


def timed_record(study: StoryAnswers, story: Story, thresholds: Thresholds, head: RouterHead) -> dict[str, Any]:
    """Return CPU seconds, seconds of the clock, forwards of the large model, tokens and text of every timed chain."""
    pair, found = study.pair, {}
    for name, text in chains(thresholds).items():
        model = pair.large if name == "large" else pair.small
        resources = {key: value for key, value in {"large": pair.large, "head": head}.items() if f"'{key}'" in text}
        tokenizers = {"large": pair.tokenizer} if "large" in resources else {}
        call = Chain(text).bind(model, pair.tokenizer, story.prompt, tokenizers=tokenizers, **resources)
        clock, begun, wall = ForwardClock(pair.large), time.process_time(), time.perf_counter()
        ids = call.generate(max_new_tokens=TOKENS, do_sample=False, eos_token_id=study.ends)
        seconds, wall = time.process_time() - begun, time.perf_counter() - wall
        clock.remove()
        new = call.ids(ids)[0, call.prompts.width :].tolist()
        found[name] = [round(seconds, 3), round(wall, 3), clock.count, len(new), study.text(new)]
    return {"timed": found}


def results(records: Records) -> dict[str, str]:
    """Return the tables of the page."""
    held_out = [record for record in records if record["kind"] == "held-out"]
    (chosen,) = (record for record in records if record["kind"] == "chosen")
    return {
        "curve": _curve_table(held_out),
        "comparisons": comparison_table(_compared(held_out)),
        "development": _development_table(records, chosen),
        "cost": _cost_table([record for record in records if record["kind"] == "timed"], held_out),
        "samples": _samples(held_out[:3]),
    }


def _curve_table(held_out: Records) -> str:
    """Return quality and shares of every strategy."""
    curves, rows = Curves(held_out), []
    names = ["small", "large", *(f"random {share:g}" for share in SHARES)]
    for name in [*names, *(f"{rule} {share:g}" for rule in RULES for share in SHARES)]:
        share = curves.share(name)
        row = [name, f"{share:.3f}", f"{curves.share(name, 3):.3f}"]
        row += [interval_text(bootstrap_interval(curves.right(name)), ".1f")]
        others = (curves.at_random(share), curves.whole_answers(share))
        rows.append(row + [f"{float(np.mean(other)):.1f}" for other in others])
    headings = ["strategy and share aimed at", "tokens of the large model", "large model asked", "right, %"]
    headings += ["random tokens, same share", "random answers, same share"]
    return f"{len(held_out)} held-out stories.\n\n{markdown_table(headings, rows)}"


def _compared(held_out: Records) -> list[PairedDifferences]:
    """Return the comparisons: each rule with both ways to defer at random, the router with Chow's rule."""
    curves, compared = Curves(held_out), []
    for share in map("{:g}".format, SHARES):
        for rule in RULES:
            for other, points in (("tokens", curves.at_random), ("answers", curves.whole_answers)):
                name = f"{rule} {share} - random {other}"
                compared.append(PairedDifferences(name, "points right", curves.gain(f"{rule} {share}", points)))
        router, chow = (curves.gain(f"{rule} {share}", curves.at_random) for rule in ("router", "chow"))
        name = f"router {share} - chow {share}, gains over random tokens"
        compared.append(PairedDifferences(name, "points right", router - chow))
    return compared


def _development_table(records: Records, chosen: dict[str, Any]) -> str:
    """Return thresholds, labels and the report of the head."""
    labels = [label for record in records if record["kind"] == "development" for label in record["labels"]["labels"]]
    stories_read = sum(record["kind"] == "development" for record in records)
    rows = [[rule, *(f"{value:.3f}" for value in chosen["thresholds"][rule].values())] for rule in RULES]
    counts = {name: labels.count(number) for number, name in enumerate(("identical", "neutral", "divergent"))}
    head = ", ".join(f"{name.replace('_', ' ')} {round(value, 3):g}" for name, value in chosen["head"].items())
    text = f"{stories_read} development stories, {len(labels)} labelled tokens: "
    text += f"{', '.join(f'{count} {name}' for name, count in counts.items())}. The head: {head}.\n\n"
    return text + markdown_table(["threshold for a share of", *(f"{share:g}" for share in SHARES)], rows)


def _cost_table(timed: Records, held_out: Records) -> str:
    """Return the time of every timed chain, as a share of that of the large model alone on the same story."""
    texts, rows = {record["item"]: record["texts"] for record in held_out}, []
    for name in timed[0]["timed"]:
        cells = [record["timed"][name] for record in timed]
        alone = [record["timed"]["large"] for record in timed]
        forwards = sum(cell[2] for cell in cells) / sum(cell[3] for cell in cells)
        row = [name, f"{forwards:.2f}", f"{np.mean([cell[0] for cell in cells]):.2f}"]
        for place in (0, 1):
            ratios = [cell[place] / other[place] for cell, other in zip(cells, alone, strict=True)]
            row.append(interval_text(bootstrap_interval(ratios), ".2f"))
        equal = sum(texts[record["item"]][name.partition(",")[0]] == record["timed"][name][4] for record in timed)
        rows.append([*row, f"{equal} of {len(timed)}"])
    headings = ["chain", "large forwards a token", "CPU seconds a story", "CPU time / large alone"]
    return markdown_table([*headings, "clock / large alone", "texts as above"], rows)


def _samples(held_out: Records) -> str:
    """Return the answers to some stories."""
    prompts = {item_id(story.prompt): story.prompt.replace("\n", " ") for story in stories(SAMPLED_FROM)}
    texts = [record["texts"] for record in held_out]
    rows = [[name, *(one[name].replace("\n", " ").replace("|", "/") for one in texts)] for name in texts[0]]
    return markdown_table(["strategy", *(prompts[record["item"]] for record in held_out)], rows)


def main(
    small: Annotated[str, typer.Argument(help="The small model: a known name, a folder, or a hub id.")],
    large: Annotated[str, typer.Argument(help="The large model, with the same tokenizer.")],
    items: Annotated[int, typer.Option(min=20, help="Number of stories, of which a third is for development.")] = 360,
    timed: Annotated[int, typer.Option(min=1, help="Number of held-out stories that are timed.")] = 8,
    dtype: Annotated[str, typer.Option(help="Dtype of the large model.")] = "bfloat16",
    out: Annotated[Path, typer.Option(help="File of results; stories in it are not answered again.")] = Path(
        "cascade_answers.jsonl"
    ),
    page: Page = None,
) -> None:
    """Answer the stories that are missing in the results file, and print the tables of all stories in it."""
    settings = {"small": Path(small).name, "large": Path(large).name, "dtype": dtype, "tokens": TOKENS}
    records = resumed_records(out, settings, "cascade_answers")
    asked = stories(items)
    if next(missing(records, asked, timed), None) is not None:
        run(_loaded(small, large, dtype), records, asked, timed, lambda record: _keep(out, settings, records, record))
    publish(results(records), page)


def missing(records: Records, asked: Sequence[Story], timed: int) -> Iterator[tuple[str, list[Story]]]:
    """Yield the kinds of records that are missing, and for which stories: development, chosen, held-out, timed.

    Once thresholds are chosen, no further development story is answered.
    """
    have = {(record["kind"], record.get("item")) for record in records}
    halves = {half: [story for story in asked if half_of(story.prompt) == half] for half in ("development", "held-out")}
    halves["timed"] = halves["held-out"][:timed]
    for kind in ("development", "chosen", "held-out", "timed"):
        if kind == "chosen":
            yield from [(kind, [])] if (kind, None) not in have else []
        elif kind != "development" or ("chosen", None) not in have:
            todo = [story for story in halves[kind] if (kind, item_id(story.prompt)) not in have]
            yield from ((kind, todo[place : place + BATCH]) for place in range(0, len(todo), BATCH))


def run(
    study: StoryAnswers,
    records: Records,
    asked: Sequence[Story],
    timed: int,
    keep: Callable[[dict[str, Any]], None],
) -> None:
    """Make the missing records in their order.

    Args:
        study: writes the answers.
        records: the records so far, to which ``keep`` adds.
        asked: the stories.
        timed: number of stories that are timed.
        keep: stores a record.
    """
    steps = list(missing(records, asked, timed))
    head: RouterHead | None = None
    with progress_bar("batches", total=len(steps)) as bar:
        for kind, batch in steps:
            development = [record for record in records if record["kind"] == "development"]
            head = head if head or kind == "development" else study.train(development)
            if head is None:
                found = study.develop(batch)
            elif kind == "chosen":
                found = iter([{"thresholds": study.thresholds(development, head), "head": head.report}])
            else:
                found = held_out_answers(study, kind, batch, records, head)
            names = [{"item": item_id(story.prompt)} for story in batch] or [{}]
            for name, record in zip(names, found, strict=True):
                keep({"kind": kind, **name, **record})
            bar.advance()


def held_out_answers(
    study: StoryAnswers, kind: str, batch: Sequence[Story], records: Records, head: RouterHead
) -> Iterator[dict[str, Any]]:
    """Yield the records of a batch of held-out stories, or of timed ones."""
    (chosen,) = (record["thresholds"] for record in records if record["kind"] == "chosen")
    if kind == "held-out":
        yield from held_out_records(study, batch, chosen, head)
    else:
        yield from (timed_record(study, story, chosen, head) for story in batch)


def _keep(out: Path, settings: dict[str, Any], records: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Store a record in the file and in the list."""
    records.append({"settings": settings, **record})
    append_record(out, records[-1])


def _loaded(small: str, large: str, dtype: str) -> StoryAnswers:
    """Return the study of two models."""
    like = placement("cascade_answers", "cpu", dtype)
    first, tokenizer = models.load(small)
    second, other = models.load(large, like=like)
    pair = ModelPair(small=first, large=second, tokenizer=tokenizer, large_tokenizer=other)
    pair.agreement.check("cascade_answers", large, way_out="name two models with one tokenizer")
    return StoryAnswers(pair)


if __name__ == "__main__":
    command.run(main)
