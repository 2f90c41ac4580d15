"""Samplers compared at equal diversity, by the exact probability that each writes the last word of a passage.

    python -m studies.sampler_referee --items 300 --out sampler_referee.jsonl

One forward a passage of LAMBADA gives the logits before every token of its last word; every sampler is applied to
these, so nothing is drawn. The strength of each sampler is set, for each temperature before it, so that the first token
of a text has the mean entropy of a reference: the word takes no part in this. Left to choose is the temperature, which
each sampler gets on the development passages; all comparisons are made on the held-out ones.
Laws in the results file are not computed again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from logitkit import models
from logitkit.progress import progress_bar
from studies import command
from studies.evidence import Page, PairedDifferences, comparison_table, half_of, item_id, publish
from studies.intervals import bootstrap_interval, interval_text
from studies.records import append_record, resumed_records
from studies.sampler_laws import word_places
from studies.sampler_strengths import (
    CELLS,
    DEFAULTS,
    NUCLEUS,
    PAIRS,
    PLAIN,
    SAMPLERS,
    SCALE,
    TEMPERATURES,
    TOLERANCE,
    Record,
    Settings,
    computed,
    drawn,
    settings_of,
    wanted,
)
from studies.scored_items import ScoredItem, lambada
from studies.tables import markdown_table

COMPARED = ((1.0, NUCLEUS), (1.5, NUCLEUS), (2.0, PLAIN), (1.0, PAIRS))
BASELINE = "top_p"
RAISED = ("top_p", "min_p", "top_n_sigma")  # the claims are of high temperatures
NOT_COMPUTED: Record = {"parts": None, "sampler": ""}
LONGEST = 300  # characters of a passage before its last word
CHECKED = ("top_p", "min_p")  # samplers whose texts are also drawn
NAMES = {"smollm2-135m": "SmolLM2-135M", "gemma-3-270m": "Gemma 3 270M"}
LEVEL_NAMES = {NUCLEUS: "entropy of `top_p(0.9)`", PLAIN: "entropy of plain sampling", PAIRS: "pairs of `top_p(0.9)`"}


class Laws:
    """The records of one model, and which passages are held out.

    Args:
        records: of the results file, of one model.

    Attributes:
        known: the records by what they are of.
        held_out: whether each passage is held out, bool ``[passages]``.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.known = {settings_of(record): record for record in records if "sampler" in record}
        (items,) = (record["items"] for record in records if "items" in record)
        self.held_out = np.array([half_of(item) == "held-out" for item in items])

    def record(self, sampler: str, temperature: float, level: str) -> Record:
        """Return the record of a sampler, or `NOT_COMPUTED`; a temperature alone is the same behind any other."""
        one = Settings(sampler, temperature, level)
        if sampler == "temperature":
            one = Settings(PLAIN, 1.0, "") if level == PLAIN else Settings(sampler, 1.0, level)
        return self.known.get(one, NOT_COMPUTED)

    def points(self, record: Record, held_out: bool = True) -> Any:
        """Return the probability of the word of each passage in percent, of held-out or of development passages."""
        return np.array(record["words"])[self.held_out == held_out] * 100.0 / SCALE

    def chosen_temperature(self, sampler: str) -> float | None:
        """Return the temperature at which a sampler with the entropy of `NUCLEUS` is best on development passages."""
        reached = [t for t, level in CELLS if level == NUCLEUS and self.record(sampler, t, level)["parts"]]
        if not reached:
            return None
        return max(reached, key=lambda t: float(self.points(self.record(sampler, t, NUCLEUS), False).mean()))

    def difference(self, name: str, one: Record, other: Record) -> PairedDifferences | None:
        """Return the paired differences of the held-out passages; None if a sampler does not reach the entropy."""
        if not (one["parts"] and other["parts"]):
            return None
        return PairedDifferences(name, "points", self.points(one) - self.points(other))


def laws_of(records: Sequence[Record]) -> dict[str, Laws]:
    """Return the laws of each model in a results file."""
    names = dict.fromkeys(record["model"] for record in records)
    return {name: Laws([one for one in records if one["model"] == name]) for name in names}


def label(model: str, laws: Laws, *, held_out: bool = True) -> str:
    """Return the name of a model with the number of its passages."""
    return f"{NAMES.get(model, model)}, {int((laws.held_out == held_out).sum())}"


def compared(laws: dict[str, Laws]) -> list[PairedDifferences]:
    """Return the comparisons with `BASELINE`: at one temperature, of `p_less`, of higher and of chosen temperatures."""
    found: list[PairedDifferences | None] = []
    others = [name for name in SAMPLERS if name != BASELINE]
    for model, one in laws.items():
        named = NAMES.get(model, model)
        for t, level in COMPARED:
            base = one.record(BASELINE, t, level)
            title = f"{named}, temperature {t:g}, {LEVEL_NAMES[level]}"
            found += [
                one.difference(f"{title}: {name} - {BASELINE}", one.record(name, t, level), base) for name in others
            ]
        for t in TEMPERATURES:
            title = f"{named}, temperature {t:g}, entropy of `p_less`: p_less - {BASELINE}"
            found.append(one.difference(title, one.record("p_less()", t, ""), one.record(BASELINE, t, "p_less()")))
        found += [unlike_temperatures(named, one, name, 1.5, 1.0) for name in RAISED if name in SAMPLERS]
        for name in others:
            own, base_temperature = one.chosen_temperature(name), one.chosen_temperature(BASELINE)
            if own != base_temperature and own and base_temperature and (name, own) not in [(r, 1.5) for r in RAISED]:
                found.append(unlike_temperatures(named, one, name, own, base_temperature))
    return [each for each in found if each is not None]


def unlike_temperatures(model: str, laws: Laws, name: str, temperature: float, base: float) -> PairedDifferences | None:
    """Return the difference of a sampler and `BASELINE` behind different temperatures, at the entropy of `NUCLEUS`."""
    title = f"{model}, {LEVEL_NAMES[NUCLEUS]}: {name} at temperature {temperature:g} - {BASELINE} at {base:g}"
    return laws.difference(title, laws.record(name, temperature, NUCLEUS), laws.record(BASELINE, base, NUCLEUS))


def results(records: Sequence[Record]) -> dict[str, str]:
    """Return the tables of the page."""
    laws = laws_of(records)
    return {
        "defaults": defaults_table(laws),
        "equal": equal_table(laws),
        "comparisons": comparison_table(compared(laws), "+.3f"),
        "strengths": strengths_table(laws),
        "development": development_table(laws),
        "checks": checks_table([record for record in records if "check" in record]),
    }


def defaults_table(laws: dict[str, Laws]) -> str:
    """Return accuracy and diversity of settings that are in use, at every temperature."""
    rows = []
    for model, one in laws.items():
        for name, t in [(PLAIN, 1.0), *((name, t) for name in DEFAULTS for t in TEMPERATURES)]:
            record = one.record(name, t, "")
            right = interval_text(bootstrap_interval(one.points(record)), ".2f")
            diversity = [f"{record['entropy']:.3f}", f"{1 - record['same']:.3f}"]
            rows.append([label(model, one), name if name == PLAIN else f"`{name}`", f"{t:g}", right, *diversity])
    headings = [
        "model, held-out passages",
        "sampler",
        "temperature",
        "right word, %",
        "entropy, nats",
        "two texts begin differently",
    ]
    return markdown_table(headings, rows)


def equal_table(laws: dict[str, Laws]) -> str:
    """Return the accuracy of every sampler at equal entropy, and the share of pairs that begin differently."""
    rows = []
    for model, one in laws.items():
        for name in SAMPLERS:
            cells = []
            for cell in CELLS:
                record = one.record(name, *cell)
                if record["parts"]:
                    cells.append(f"{float(one.points(record).mean()):.2f} ({1 - record['same']:.3f})")
                else:
                    cells.append("not reached" if record["sampler"] else "not computed")
            rows.append([label(model, one), name, *cells])
    headings = [f"temperature {t:g}, {LEVEL_NAMES[level]}" for t, level in CELLS]
    return markdown_table(["model, held-out passages", "sampler", *headings], rows)


def strengths_table(laws: dict[str, Laws]) -> str:
    """Return the chains that have the entropies of the levels, without the temperature before them."""
    rows = []
    for model, one in laws.items():
        for name in SAMPLERS:
            cells = []
            for t, level in CELLS:
                parts = one.record(name, t, level)["parts"]
                chain = parts[0][1].removeprefix(f"temperature({t:g}) | ") if parts else ""
                cells.append(f"`{escaped(chain)}`" if chain else "-")
            rows.append([NAMES.get(model, model), *cells])
    return markdown_table(["model", *(f"temperature {t:g}, {LEVEL_NAMES[level]}" for t, level in CELLS)], rows)


def escaped(chain: str) -> str:
    """Return a chain as a cell of a table, which a bar would end."""
    return chain.replace("|", "\\|")


def development_table(laws: dict[str, Laws]) -> str:
    """Return the accuracy on development passages by temperature, and the chosen temperature."""
    rows = []
    for model, one in laws.items():
        for name in SAMPLERS:
            cells = []
            for t in TEMPERATURES:
                record = one.record(name, t, NUCLEUS)
                cells.append(f"{float(one.points(record, False).mean()):.2f}" if record["parts"] else "-")
            chosen = one.chosen_temperature(name)
            rows.append([label(model, one, held_out=False), name, *cells, f"{chosen:g}" if chosen else "-"])
    headings = [f"right word, %, temperature {t:g}" for t in TEMPERATURES]
    return markdown_table(["model, development passages", "sampler", *headings, "chosen"], rows)


def checks_table(records: Sequence[Record]) -> str:
    """Return how often drawn texts begin with the word, beside the exact expectation."""
    rows = []
    for record in records:
        one = record["check"]
        off = (one["found"] - one["expected"]) / one["deviation"]
        counts = [f"{one['draws']}", f"{one['expected']:.1f}", f"{one['found']}", f"{off:+.2f}"]
        name = str(record["model"])
        rows.append([NAMES.get(name, name), f"`{escaped(one['chain'])}`", *counts])
    return markdown_table(["model", "chain", "texts", "expected", "drawn", "off, in standard deviations"], rows)


def short_passages(data: Path, count: int) -> list[ScoredItem]:
    """Return the first passages of LAMBADA that are not long, since reading is most of the work.

    Args:
        data: folder of the data files.
        count: number of passages.
    """
    short = (item for item in lambada(data) if len(item.prompt) <= LONGEST)
    return list(itertools.islice(short, count))


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data files.", envvar="LOGITKIT_DATA")] = Path("data"),
    model: Annotated[list[str] | None, typer.Option(help="A known model, a hub id or a folder; repeatable.")] = None,
    items: Annotated[int, typer.Option(min=8, help="Passages, from the first, of a model that the file lacks.")] = 300,
    out: Annotated[Path, typer.Option(help="File of results; laws in it are not computed again.")] = Path(
        "sampler_referee.jsonl"
    ),
    page: Page = None,
) -> None:
    """Compute the laws that are missing in the results file, and print the tables."""
    settings = {"tolerance": TOLERANCE}
    records = resumed_records(out, settings, "sampler_referee")

    def keep(record: Record) -> None:
        records.append({"settings": settings, **record})
        append_record(out, records[-1])

    for name in model or list(NAMES):
        own = [record for record in records if record["model"] == name]
        known = {settings_of(record): record for record in own if "sampler" in record}
        checked = [record for record in own if "check" in record]
        if len(known) == len(wanted()) and len(checked) == len(CHECKED):
            continue
        count = next((len(record["items"]) for record in own if "items" in record), items)
        passages = short_passages(data, count)
        if not own:
            keep({"model": name, "items": [item_id(item.prompt) for item in passages]})
        loaded = models.load(name)
        todo = [one for one in wanted() if one not in known]
        with progress_bar(f"laws of {name}", total=len(todo)) as bar:
            places = word_places(loaded, passages if todo else passages[:1])
            for one in todo:
                known[one] = {"model": name, **computed(loaded, one, places, known)}
                keep(known[one])
                bar.advance()
        for sampler in CHECKED[len(checked) :]:
            record = known[Settings(sampler, 1.5, NUCLEUS)]
            keep({"model": name, "check": drawn(loaded, record, passages)})
    publish(results(records), page)


if __name__ == "__main__":
    command.run(main)
