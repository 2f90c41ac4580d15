"""Sweep of the weight of style injection: the gain in style and the loss in text quality.

The corpus is cut into two halves. The first half steers. Style is measured with both halves, so that copying from the
first half shows as a difference. Measured rows are kept in a file of JSON lines and not measured again.

    python -m studies.style_sweep don_quixote.txt --out studies/results/ngram_style
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit import models
from logitkit.bench.tasks import Continuation, Spread, StyleMeter, base_log_perplexity, distinct, halves
from logitkit.bench.tasks.style_prompts import PROMPTS
from logitkit.errors import UnknownNameError
from logitkit.processors.model_facts import end_tokens
from logitkit.processors.ngram import NgramTable, TextFiles
from logitkit.progress import progress_bar
from logitkit.registry import Chain
from studies import command
from studies.records import append_record, resumed_records
from studies.style_report import plot, report

GRID = {
    "lift": [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6],
    "lift, k=1": [0.2, 0.3, 0.4],
    "lift, orders 2-3": [0.1, 0.15],
    "lift plausible": [0.1, 0.15],
    "lift once": [0.1, 0.15, 0.2, 0.25],
    "literal": [0.05, 0.1, 0.2, 0.4, 0.8],
    "mixture": [0.1, 0.2],
}
RULES = {
    "lift": "rule='lift'",
    "lift, k=1": "rule='lift', k=1.0",
    "lift, orders 2-3": "rule='lift', order_weights=[0.0, 0.3, 0.6]",
    "lift plausible": "rule='lift', plausible=0.1",
    "lift once": "rule='lift', once=True",
    "literal": "rule='literal', top=512",
    "mixture": "rule='mixture'",
}
TARGETS = [0.01, 0.02, 0.04]  # bits, for target_js


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One configuration, measured over all prompts.

    Attributes:
        rule, weight, chain: the configuration.
        style, held_out: style perplexity by the half that steers, and by the other half.
        base: perplexity under the model itself.
        js_bits: mean Jensen-Shannon divergence per token between the distributions before and after the chain, in bits.
        unigram_overlap: share of tokens that are frequent in the style.
        bigram_seen, held_out_bigrams: share of bigrams that occur in the half that steers, and in the other half.
        distinct_3: share of different trigrams.
        repetition_4: share of repeated 4-grams.
    """

    rule: str
    weight: float
    chain: str
    style: Spread
    held_out: Spread
    base: Spread
    js_bits: float
    unigram_overlap: float
    bigram_seen: float
    held_out_bigrams: float
    distinct_3: float
    repetition_4: float

    @classmethod
    def of_data(cls, data: dict[str, Any]) -> SweepRow:
        """Return a row from its JSON data."""
        spreads = {name: Spread(**data[name]) for name in ("style", "held_out", "base")}
        return cls(**{**data, **spreads})


class Sweep:
    """Generates texts under chains and measures them.

    Args:
        model, tokenizer: the generating model.
        table: the table that steers.
        other: a table of other text of the same style.
        tokens: largest number of new tokens per prompt.
        file: file of measured rows.
        each: number of prompts of each kind.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        table: NgramTable,
        other: NgramTable,
        *,
        tokens: int,
        file: Path,
        each: int = 4,
    ) -> None:
        self.model, self.tokenizer, self.tokens, self.file = model, tokenizer, tokens, file
        self.tables = {
            "style": table,
            "literal": table.smoothed("add-k", 1e-3),
        }  # the published smoothing of the rule literal
        self.own, self.other = StyleMeter(table), StyleMeter(other)
        self.prompts = [prompt for every in PROMPTS.values() for prompt in every[:each]]
        identity = [self.prompts, tokens, getattr(model, "name_or_path", ""), table.tokens, table.fingerprint]
        self.key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]

    def known(self) -> dict[str, SweepRow]:
        """Return the rows that were measured with the same model, prompts, length and table, by chain."""
        kept = resumed_records(self.file, None, "style_sweep")
        records = [record for record in kept if record["key"] == self.key]
        return {record["row"]["chain"]: SweepRow.of_data(record["row"]) for record in records}

    def measure(self, rule: str, weight: float, chain: str) -> SweepRow:
        """Generate texts greedily under a chain, and measure them."""
        texts = self.generate(chain)
        return SweepRow(
            rule=rule,
            weight=weight,
            chain=chain,
            style=Spread.of([self.own.log_perplexity(text) for text in texts]),
            held_out=Spread.of([self.other.log_perplexity(text) for text in texts]),
            base=Spread.of(base_log_perplexity(self.model, texts)),
            js_bits=statistics.fmean(bits for text in texts for bits in text.js_bits) if chain else 0.0,
            unigram_overlap=statistics.fmean(map(self.own.unigram_overlap, texts)),
            bigram_seen=statistics.fmean(map(self.own.bigram_seen, texts)),
            held_out_bigrams=statistics.fmean(map(self.other.bigram_seen, texts)),
            distinct_3=statistics.fmean(distinct(text, 3) for text in texts),
            repetition_4=statistics.fmean(1 - distinct(text, 4) for text in texts),
        )

    def generate(self, chain: str) -> list[Continuation]:
        """Continue every prompt greedily, up to its end token or the given length."""
        resources: dict[str, Any] = {name: table for name, table in self.tables.items() if f"'{name}'" in chain}
        call = Chain(chain).bind(self.model, self.tokenizer, self.prompts, trace=True, **resources)
        output = call.ids(call.generate(max_new_tokens=self.tokens, do_sample=False))
        ends = {*end_tokens(self.model, self.tokenizer), self.tokenizer.pad_token_id}
        bits: dict[int, list[float]] = {}
        for step in call.trace.steps:
            bits.setdefault(step.row, []).append(step.js_bits)
        texts = []
        for number, row in enumerate(output[:, call.prompts.width :].tolist()):
            length = next((place for place, token in enumerate(row) if token in ends), len(row))
            length = max(length, 2)
            texts.append(
                Continuation(
                    prompt=call.prompts.tokens(number),
                    continuation=row[:length],
                    js_bits=bits.get(number, [0.0] * length)[:length],
                )
            )
        return texts

    def run(self, configurations: Sequence[tuple[str, float, str]]) -> list[SweepRow]:
        """Measure the configurations that are not in the file, and return the rows of all."""
        known = self.known()
        with progress_bar("style sweep", total=len(configurations)) as bar:
            for rule, weight, chain in configurations:
                if chain not in known:
                    row = known[chain] = self.measure(rule, weight, chain)
                    append_record(self.file, {"key": self.key, "row": dataclasses.asdict(row)})
                bar.advance()
        return [known[chain] for _, _, chain in configurations]


def configurations(rules: Sequence[str], weights: Sequence[float] | None = None) -> list[tuple[str, float, str]]:
    """Return the configurations as (rule, weight, chain); the weight of ``target_js`` is its target in bits.

    Args:
        rules: names of rules.
        weights: the weights; default: those of `GRID`.
    """
    listed = [("none", 0.0, "")]
    for rule in rules:
        if rule == "target_js":
            listed += [(rule, bits, f"ngram_style('style', 1.0, target_js={bits})") for bits in TARGETS]
            continue
        table = "literal" if rule == "literal" else "style"
        listed += [
            (rule, weight, f"ngram_style({table!r}, {weight}, {RULES[rule]})") for weight in weights or GRID[rule]
        ]
    return listed


def main(
    corpus: Annotated[list[Path], typer.Argument(help="Text files of one style.")],
    out: Annotated[Path, typer.Option(help="Folder for table, plot and measured rows.")] = Path("ngram_style"),
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    tokens: Annotated[int, typer.Option(min=8, help="Largest number of new tokens per prompt.")] = 128,
    rule: Annotated[list[str] | None, typer.Option(help="A rule to sweep; repeatable. Default: all.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="A weight that replaces the grid; repeatable.")] = None,
    prompts: Annotated[int, typer.Option(min=1, max=10, help="Number of prompts of each of the four kinds.")] = 4,
    encoding: Annotated[str, typer.Option(help="Encoding of the corpus.")] = "utf-8",
) -> None:
    """Sweep rules and weights on a corpus; write the table, the plot and the usable range of weights."""
    rules = list(rule or [*GRID, "target_js"])
    for name in {*rules} - {*GRID, "target_js"}:
        raise UnknownNameError("rule", name, [*GRID, "target_js"])
    first, second = halves("\n\n".join(TextFiles(corpus, encoding=encoding)))
    loaded, tokenizer = models.load(model)
    tables = [NgramTable.train([half], tokenizer) for half in (first, second)]
    sweep = Sweep(loaded, tokenizer, *tables, tokens=tokens, file=out / "rows.jsonl", each=prompts)
    rows = sweep.run(configurations(rules, weight))
    name = ", ".join(path.name for path in corpus)
    about = f"{model}, greedy, {len(sweep.prompts)} prompts, {tokens} new tokens; "
    about += f"table of the first half of {name}, {tables[0].tokens:,} tokens"
    page = report(rows, about=about)
    (out / "style.md").write_text(page, encoding="utf-8")
    plot_path = plot(rows, out / "style.svg", title=about)
    typer.echo(page)
    typer.echo(f"plot: {plot_path}" if plot_path else "no plot: pip install 'logitkit[plot]'")


if __name__ == "__main__":
    command.run(main)
