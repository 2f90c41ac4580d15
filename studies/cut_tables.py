"""The tables of the studies of cut prompts: ways of prompting by kind of cut, their differences, and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from studies.evidence import PairedDifferences, items_to_see
from studies.intervals import bootstrap_interval, interval_text

ROWS = {"plain": "plain prompt", "healing": "transformers token_healing", "mask": "hard mask"}
BOUNDARY, ALIGNED = "byte_boundary", "cut at a token boundary, plain"
SIZES = ("byte_boundary - hard mask", "cuts to see 0.02 of the share right", "cuts to see 0.05 bits")


class CutTables(NamedTuple):
    """What the pages of cut prompts show.

    Attributes:
        methods: for each kind and method the number of cuts, the share right, and the loss in bits.
        compared: `byte_boundary` minus other methods, of each kind and of all.
        sizes: for each kind the numbers of cuts under the headings `SIZES`, corrected for all of ``compared``.
    """

    methods: list[list[str]]
    compared: list[PairedDifferences]
    sizes: list[list[str]]


def cut_tables(cuts: Sequence[dict[str, Any]], kinds: Sequence[str], others: Sequence[str], unit: str) -> CutTables:
    """Return the tables of all cuts.

    Args:
        cuts: a record of each cut, with its ``kind``, and ``hits`` and ``losses`` by method.
        kinds: the kinds of cuts.
        others: the methods from which `byte_boundary` differs.
        unit: of a difference of losses.
    """
    rows, compared, spreads = [], [], []
    for kind in (*kinds, "all"):
        own = [cut for cut in cuts if kind in (cut["kind"], "all")]
        for method in (*ROWS.values(), BOUNDARY, ALIGNED):
            hits = interval_text(bootstrap_interval([bool(cut["hits"][method]) for cut in own]), ".3f")
            losses = [cut["losses"][method] for cut in own if method in cut["losses"]]
            loss = interval_text(bootstrap_interval(losses), ".2f") if losses else "-"
            rows.append([kind, str(len(own)), method, hits, loss])
        for other in others:
            name = f"{kind}: {BOUNDARY} - {other}"
            hits_of = [[bool(cut["hits"][method]) for cut in own] for method in (BOUNDARY, other)]
            right = PairedDifferences(name, "share right", np.subtract(*np.array(hits_of, dtype=float)).tolist())
            compared.append(right)
            if other in own[0]["losses"]:
                bits = [cut["losses"][BOUNDARY] - cut["losses"][other] for cut in own]
                compared.append(PairedDifferences(name, unit, bits))
            if other == ROWS["mask"]:
                spreads.append((kind, (right.differences, 0.02), (bits, 0.05)))
    sizes = [
        [kind, *(items_to_see(of, size, comparisons=len(compared)) for of, size in wanted)] for kind, *wanted in spreads
    ]
    return CutTables(rows, compared, sizes)
