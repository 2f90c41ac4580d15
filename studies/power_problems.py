"""Power sampling by SMC on word problems, beside greedy decoding, plain sampling, a low temperature and best-of.

    python -m studies.power_problems --items 24 --out power_problems.jsonl

Problems of GSM8K with two worked examples before each, and no chat template. Every arm that samples writes the same
number of texts for a problem, and ``smc`` has as many particles. An arm is right on a problem with the share of its
texts whose number is right; particles count with their weights. The exponent and the low temperature are the published
ones (arXiv:2510.14901), so nothing is chosen, and all problems are judged. Problems in the results file are not solved
again.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import logitkit
from logitkit import models
from logitkit.bench.execution.sampling import pinned_settings
from logitkit.bench.tasks.text_tasks import number_in
from logitkit.cli.options import Engine
from logitkit.execution import PerProcess
from studies import command
from studies.evidence import Page, PairedDifferences, comparison_table, item_id, items_to_see, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, read_records, resumed_records
from studies.stamps import clock_of
from studies.tables import markdown_table
from studies.units import placed, run_units

ALPHA = 4.0
LOW = f"temperature {1 / ALPHA:g}"
SMC = f"smc, exponent {ALPHA:g}"
BEST = "likeliest text of temperature 1"
HEAVIEST = "heaviest particle of smc"
OF_TEXTS = {BEST: "temperature 1", HEAVIEST: SMC}  # arms that are one of the texts of another
COMPARED = ((SMC, LOW), (SMC, "temperature 1"), (SMC, "greedy"), (SMC, BEST), (LOW, "temperature 1"), (LOW, "greedy"))
EXAMPLES = """Question: A box holds 6 eggs. Ann has 3 boxes and 2 more eggs. How many eggs does Ann have?
Answer: The boxes hold 3 * 6 = 18 eggs. With 2 more there are 18 + 2 = 20 eggs. #### 20

Question: A train needs 40 minutes for each trip. How many hours do 9 trips take?
Answer: The trips take 9 * 40 = 360 minutes. That is 360 / 60 = 6 hours. #### 6

"""
Record = dict[str, Any]  # item; by arm: one text, of all texts the share of different ones, the mean characters, the
# share with an answer behind ####, which are right, and seconds; of particles: weights and mean effective size


def chains(texts: int) -> dict[str, str]:
    """Return the chain of each arm, with this number of texts of a problem."""
    return {
        "greedy": "",
        "temperature 1": f"best_of(n={texts}, by='likelihood')",  # all texts, the likeliest first
        LOW: f"temperature({1 / ALPHA:g})",
        SMC: f"smc(particles={texts}, alpha={ALPHA:g})",
    }


def problems(data: Path, items: int, longest: int) -> list[dict[str, str]]:
    """Return the first problems of GSM8K with a short solution.

    Args:
        data: folder of the data files.
        items: number of problems.
        longest: most characters of a solution in the data, without calculator marks.
    """
    short = []
    for row in read_records(data / "gsm8k-test.jsonl"):
        solution = re.sub(r"<<.*?>>", "", row["answer"].partition("####")[0]).strip()
        if len(solution) <= longest:
            short.append(row)
    return short[:items]


def solved(loaded: tuple[Any, Any], rows: Sequence[dict[str, str]], texts: int, tokens: int) -> list[Record]:
    """Return what every arm writes for some problems, which are decoded together.

    Args:
        loaded: model and tokenizer.
        rows: the problems.
        texts: texts of each problem and arm, and particles of ``smc``.
        tokens: largest number of new tokens.
    """
    model, tokenizer = loaded
    prompts = [f"{EXAMPLES}Question: {row['question']}\nAnswer:" for row in rows]
    right = [number_in(row["answer"]) for row in rows]
    by_arm = ("text", "different", "characters", "finished", "right", "seconds")
    found: list[Record] = [{"item": item_id(row["question"])} | {name: {} for name in by_arm} for row in rows]
    for arm, chain in chains(texts).items():
        count = 1 if arm == "greedy" else texts
        settings: dict[str, Any] = {"do_sample": arm != "greedy", "num_return_sequences": count, "top_k": 0}
        torch.manual_seed(zlib.crc32(found[0]["item"].encode()))
        clock = clock_of(model.device)
        start = clock()
        with pinned_settings(model):
            if arm == "greedy":
                del settings["top_k"]
            run = logitkit.generate(
                model, tokenizer, prompts, chain, stop_strings=["\n"], max_new_tokens=tokens, **settings
            )
        seconds = (clock() - start) / len(rows)
        for number, record in enumerate(found):
            own, best = run.texts[number * count : (number + 1) * count], 0
            if arm == SMC:
                assert run.weights is not None and run.trace.search is not None
                record["weights"] = [round(weight, 6) for weight in run.weights[number].exp().tolist()]
                record["ess"] = round(float(np.mean([sizes[number] for sizes in run.trace.search.notes["ess"]])), 3)
                best = int(np.argmax(record["weights"]))
            own = [text.strip() for text in own]
            record["text"][arm] = own[best]
            record["different"][arm] = round(len(set(own)) / count, 4)
            record["characters"][arm] = round(float(np.mean([len(text) for text in own])), 1)
            record["finished"][arm] = round(float(np.mean(["####" in text for text in own])), 4)
            record["right"][arm] = [int(number_in(text) == right[number]) for text in own]
            record["seconds"][arm] = round(seconds, 2)
    return found


def shares(records: Sequence[Record], arm: str) -> Any:
    """Return the share of right texts of an arm for each problem, in percent, ``[problems]``.

    Args:
        records: of the problems.
        arm: an arm of `chains`, or of `OF_TEXTS`.

    Examples:
        >>> record = {"right": {"temperature 1": [1, 0], SMC: [0, 1]}, "weights": [0.25, 0.75]}
        >>> [float(shares([record], arm)[0]) for arm in ("temperature 1", BEST, SMC, HEAVIEST)]
        [50.0, 100.0, 75.0, 100.0]
    """
    if arm in OF_TEXTS:
        return np.array([100.0 * record["right"][OF_TEXTS[arm]][shown(record, OF_TEXTS[arm])] for record in records])
    weights = [record["weights"] if arm == SMC else None for record in records]
    return np.array(
        [100.0 * np.average(record["right"][arm], weights=own) for record, own in zip(records, weights, strict=True)]
    )


def shown(record: Record, arm: str) -> int:
    """Return the number of the text of an arm that a record holds: the heaviest particle, else the first."""
    return int(np.argmax(record["weights"])) if arm == SMC else 0


def results(records: Sequence[Record]) -> dict[str, str]:
    """Return the tables: the arms, the comparisons, the items that a difference needs, and some texts."""
    rows, texts = [], []
    for arm in ("greedy", "temperature 1", BEST, LOW, SMC, HEAVIEST):
        right = interval_text(bootstrap_interval(shares(records, arm)), ".1f")
        if arm in OF_TEXTS:
            own = OF_TEXTS[arm]
            length = np.mean([len(record["text"][own]) for record in records])
            finished = np.mean(["####" in record["text"][own] for record in records])
            rows.append([arm, "1", right, "", f"{length:.0f}", f"{100 * finished:.0f}"])
            continue
        any_right = f"{100 * np.mean([any(record['right'][arm]) for record in records]):.1f}"
        length, finished = (np.mean([record[name][arm] for record in records]) for name in ("characters", "finished"))
        count = str(len(records[0]["right"][arm]))
        rows.append([arm, count, right, any_right, f"{length:.0f}", f"{100 * finished:.0f}"])
        different = f"{np.mean([record['different'][arm] for record in records]):.2f}"
        size = f"{np.mean([record['ess'] for record in records]):.2f}" if arm == SMC else ""
        texts.append([arm, different, size, f"{np.sum([record['seconds'][arm] for record in records]):.0f}"])
    headings = ["arm", "texts", "right, %", "problems with a right text, %", "characters", "with an answer, %"]
    compared = [
        PairedDifferences(f"{one} - {other}", "points right", shares(records, one) - shares(records, other))
        for one, other in COMPARED
    ]
    needed = [
        [one.comparison, *(items_to_see(one.differences, points, len(compared)) for points in (5, 10, 20))]
        for one in compared
    ]
    of_texts = ["arm", "different texts", "mean effective particles", "seconds in all"]
    return {
        "arms": f"{len(records)} problems.\n\n{markdown_table(headings, rows)}",
        "texts": markdown_table(of_texts, texts),
        "comparisons": comparison_table(compared, "+.1f"),
        "needed": markdown_table(["problems needed for", "5 points", "10 points", "20 points"], needed),
        "samples": samples(records),
    }


def samples(records: Sequence[Record]) -> str:
    """Return a text of each arm for the first problem where the heaviest particle and the low temperature differ."""
    one_each = {"greedy": "greedy", BEST: "temperature 1", LOW: LOW, HEAVIEST: SMC}
    right = {arm: [record["right"][own][shown(record, own)] for record in records] for arm, own in one_each.items()}
    differing = [
        number for number, pair in enumerate(zip(right[HEAVIEST], right[LOW], strict=True)) if len({*pair}) == 2
    ]
    number, rows = (differing or [0])[0], []
    for arm, own in one_each.items():
        text = records[number]["text"][own].replace("|", "\\|").replace("$", "\\$").replace("*", "\\*")
        rows.append([arm, "yes" if right[arm][number] else "no", text])
    return markdown_table(["arm", "right", "text"], rows)


def _solved(
    loaded: PerProcess[tuple[Any, Any]], texts: int, tokens: int, rows: Sequence[dict[str, str]]
) -> list[Record]:
    """Return what every arm writes for some problems; see `solved`."""
    return solved(loaded.value, rows, texts, tokens)


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[str, typer.Option(help="A known model, a hub id or a folder.")] = "qwen2.5-coder-1.5b",
    items: Annotated[int, typer.Option(min=2, help="Number of problems.")] = 24,
    texts: Annotated[int, typer.Option(min=2, help="Texts of each problem and arm; particles of smc.")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="Largest number of new tokens of a text.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Problems decoded together.")] = 8,
    longest: Annotated[int, typer.Option(min=1, help="Most characters of a solution in the data.")] = 100,
    dtype: Annotated[str, typer.Option(help="Dtype of the model.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="Device of the model: cpu, cuda, cuda:1, ...")] = "cpu",
    out: Annotated[Path, typer.Option(help="File of results; problems in it are not solved again.")] = Path(
        "power_problems.jsonl"
    ),
    page: Page = None,
    engine: Engine = "local",
) -> None:
    """Solve the problems that are missing in the results file, and print the tables of all problems in it."""
    like = placed("power_problems", device, dtype, engine)
    settings = {"model": model, "dtype": dtype, "texts": texts, "tokens": tokens, "longest": longest}
    records = resumed_records(out, settings, "power_problems")
    done = {record["item"] for record in records}
    todo = [row for row in problems(data, items, longest) if item_id(row["question"]) not in done]

    def keep(_: Sequence[dict[str, str]], found: list[Record]) -> None:
        for record in found:
            records.append({"settings": settings, **record})
            append_record(out, records[-1])

    job = functools.partial(_solved, PerProcess(functools.partial(models.load, model, like=like)), texts, tokens)
    parts = [todo[start : start + batch] for start in range(0, len(todo), batch)]
    run_units(job, parts, keep, engine=engine, title=f"parts of {batch} problems")
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
