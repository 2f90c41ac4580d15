"""Samplers against libllama, from data that ``studies/llama_goldens.py`` wrote.

The same tokens stay, except within 1e-6 of a threshold, and kept logits agree to 1e-5.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from logitkit.processors.engine import History, Prompts, as_stream
from logitkit.processors.samplers import (
    DRY,
    XTC,
    AdaptiveP,
    BreakerTable,
    DynamicTemperature,
    FrequencyPenalty,
    Mirostat,
    PresencePenalty,
    TopNSigma,
)

DATA = json.loads((Path(__file__).parent / "llama_goldens.json").read_text(encoding="utf-8"))
KINDS: dict[str, Any] = {
    "xtc": XTC,
    "top_n_sigma": TopNSigma,
    "dynamic_temperature": DynamicTemperature,
    "frequency_penalty": FrequencyPenalty,
    "presence_penalty": PresencePenalty,
}
ROW = torch.tensor([[0]])


def parameters(case: dict[str, Any], *left_out: str) -> dict[str, Any]:
    """Return the parameters of a case."""
    return {key: value for key, value in case.items() if key not in ("name", "row", "kept", "logits", *left_out)}


def near_the_threshold(case: dict[str, Any], logits: Tensor) -> set[int]:
    """Return the tokens whose probability or logit is within 1e-6 of the threshold."""
    wide = logits[0].double()
    if case["name"] == "xtc":
        distance = (wide.softmax(-1) - case["threshold"]).abs()
    else:
        distance = (wide - (wide.amax() - case["n"] * wide.std(correction=0))).abs()
    return {int(token) for token in (distance < 1e-6).nonzero()[:, 0]}


@pytest.mark.parametrize("name", ["xtc", "top_n_sigma"])
def test_truncations_keep_what_libllama_keeps(name: str) -> None:
    """xtc with probabilities 0 and 1 at thresholds from 0 to 0.6; top_n_sigma from -1 to 2."""
    cases = [case for case in DATA["steps"] if case["name"] == name]
    assert len(cases) >= 32 and any(len(case["kept"]) < 40 for case in cases)
    for case in cases:
        logits = torch.tensor([DATA["rows"][case["row"]]])
        got = KINDS[name](**parameters(case))(ROW, logits)
        kept = {int(token) for token in got[0].isfinite().nonzero()[:, 0]}
        assert kept ^ set(case["kept"]) <= near_the_threshold(case, logits), case
        assert torch.equal(got[0, sorted(kept)], logits[0, sorted(kept)])


def test_dynamic_temperature_equals_libllama() -> None:
    """Every logit, for limits from 0 to 1.9 and exponents 0.5 to 2."""
    cases = [case for case in DATA["steps"] if case["name"] == "dynamic_temperature"]
    assert len(cases) == 32
    for case in cases:
        got = DynamicTemperature(**parameters(case))(ROW, torch.tensor([DATA["rows"][case["row"]]]))
        torch.testing.assert_close(got[0], torch.tensor(case["kept"]), rtol=1e-5, atol=1e-7)


def test_count_penalties_equal_libllama() -> None:
    """Windows shorter than the row, and longer; a penalty below 0."""
    assert Counter(case["name"] for case in DATA["penalties"]) == {"frequency_penalty": 12, "presence_penalty": 6}
    for case in DATA["penalties"]:
        processor = KINDS[case["name"]](**parameters(case))
        got = processor(torch.tensor([case["row"]]), torch.tensor([case["logits"]]))
        torch.testing.assert_close(got[0], torch.tensor(list(case["kept"].values())), rtol=1e-5, atol=1e-6)


def test_dry_equals_libllama() -> None:
    """GPT-2 tokens of texts with breakers as tokens, inside tokens, and over two tokens; a loop of 40 tokens."""
    pieces = {int(token): text.encode() for token, text in DATA["dry"]["pieces"].items()}
    token_bytes = [pieces.get(token) for token in range(1 + max(pieces))]
    tables = {tuple(case["breakers"]): BreakerTable.of(token_bytes, case["breakers"]) for case in DATA["dry"]["cases"]}
    penalised = 0
    for case in DATA["dry"]["cases"]:
        options = parameters(case, "text", "breakers", "lost")
        ids = torch.tensor([case["row"]])
        got = -DRY(table=tables[tuple(case["breakers"])], **options)(ids, torch.zeros(1, 1 + max(case["row"])))[0]
        want = torch.zeros_like(got)
        for token, amount in case["lost"].items():
            want[int(token)] = amount
        torch.testing.assert_close(got, want, rtol=1e-5, atol=0, msg=lambda text, case=case: f"{case}: {text}")
        penalised += len(case["lost"])
    assert penalised > 60


def controller(case: dict[str, Any]) -> tuple[Any, Tensor, Tensor]:
    """Return the controller of a case after a prompt of one token, the row that libllama drew, and the logits."""
    logits = torch.tensor([step["logits"] for step in case["steps"]])
    row = torch.tensor([[0, *(step["drawn"] for step in case["steps"])]])
    mask = torch.ones(1, 1)
    prompts = Prompts(ids=row[:, :1], mask=mask, texts=("",), messages=(None,), adds_specials=False)
    history = History(prompts, (), stream=as_stream(lambda rows: logits[rows.shape[1] - 1].expand(len(rows), -1)))
    kind = {"mirostat": Mirostat, "adaptive_p": AdaptiveP}[case["name"]]
    return kind(history=history, **parameters(case, "steps")), row, logits


@pytest.mark.parametrize("number", range(5))
def test_controllers_equal_libllama(number: int) -> None:
    """Twelve steps with the tokens that libllama drew, asked for in order and backwards."""
    case = DATA["controllers"][number]
    processor, row, logits = controller(case)
    steps = len(case["steps"])
    sizes = set()
    for step in (*range(steps), *reversed(range(steps))):
        got = processor(row[:, : 1 + step], logits[step : step + 1])[0]
        want = {int(token): logit for token, logit in case["steps"][step]["kept"].items()}
        assert got.isfinite().nonzero()[:, 0].tolist() == sorted(want), (step, want)
        torch.testing.assert_close(
            got[sorted(want)], torch.tensor([want[token] for token in sorted(want)]), rtol=1e-5, atol=1e-5
        )
        sizes.add(len(want))
    assert case["name"] == "adaptive_p" or len(sizes) > 3
