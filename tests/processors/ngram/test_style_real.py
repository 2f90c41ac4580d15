"""Style injection on SmolLM2-135M: the sign of the rules on Don Quixote, and a citation from the prompt."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

import logitkit
from logitkit.bench.tasks.style_metrics import Continuation, StyleMeter
from logitkit.processors.ngram import NgramTable, TextFiles

PROMPTS = ["The rider came down from the hills at dusk, and", '"Is it a castle or an inn?" asked the boy. "It is']


@pytest.fixture(scope="module")
def book(smollm2: Any, shared_data: Path) -> NgramTable:
    """Return the table of the first fifth of Don Quixote."""
    text = "".join(TextFiles([shared_data / "pg996_don_quixote.txt"]))
    return NgramTable.train([text[: len(text) // 5]], smollm2[1], smoothing="add-k")


@pytest.mark.data
def test_lift_moves_to_the_style_and_the_published_rule_away(smollm2: Any, book: NgramTable) -> None:
    """Lift gives a lower style perplexity and more bigrams of the book than the published rule."""
    model, tokenizer = smollm2
    meter, measured = StyleMeter(book), {}
    for name, chain in {"literal": "ngram_style('b', 0.6, 'literal')", "lift": "ngram_style('b', 0.3)"}.items():
        call = logitkit.chain(chain).bind(model, tokenizer, PROMPTS, b=book)
        ids = call.ids(call.generate(max_new_tokens=20, min_new_tokens=20, do_sample=False))
        texts = [
            Continuation(prompt=call.prompts.tokens(n), continuation=row[call.prompts.width :].tolist(), js_bits=[])
            for n, row in enumerate(ids)
        ]
        measured[name] = [
            statistics.fmean(map(meter.log_perplexity, texts)),
            statistics.fmean(map(meter.bigram_seen, texts)),
        ]
    assert measured["lift"][0] < measured["literal"][0] - 1
    assert measured["lift"][1] > measured["literal"][1] + 0.2


@pytest.mark.data
def test_a_neutral_weight_is_plain_decoding(smollm2: Any, book: NgramTable) -> None:
    """At weight 0 the token ids equal those of plain decoding."""
    model, tokenizer = smollm2
    plain = logitkit.generate(model, tokenizer, PROMPTS, max_new_tokens=6, do_sample=False)
    settings: dict[str, Any] = {"chain": "ngram_style('b', 0.0)", "resources": {"b": book}, "max_new_tokens": 6}
    assert torch.equal(logitkit.generate(model, tokenizer, PROMPTS, do_sample=False, **settings).ids, plain.ids)


def test_the_source_is_cited(smollm2: Any) -> None:
    """The next word of the source becomes more probable."""
    model, tokenizer = smollm2
    source = "The brig Esmeralda left Valparaiso under Captain Oyarzun."
    prompt = f"{source}\nThe captain of the brig was Captain O"
    call = logitkit.chain("ngram_context(0.2)").bind(model, tokenizer, prompt)
    scores = model(**call.inputs).logits[:, -1].detach().float()
    following = tokenizer(" Captain Oyarzun")["input_ids"]
    begun = tokenizer(" Captain O")["input_ids"]
    wanted = following[len(begun)] if following[: len(begun)] == begun else following[-1]
    moved = call.processors[0](call.inputs["input_ids"], scores)
    assert moved.softmax(-1)[0, wanted] > scores.softmax(-1)[0, wanted]
