"""Models of other kinds, settings of a model's own, and every processor: a batch gives each text that it has alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import LogitkitError
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import discover
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model
from logitkit.serving import Resources
from logitkit.serving.batch_run import BatchRun
from logitkit.serving.row import Prompt, Row

TEXTS = ["The sea is", "a", "one two three four five"]
REFUSED = {  # by the check of names, or by bind: examples for two prompts, tables, other kinds of models
    *("byte_ensemble", "cad", "dexperts", "ngram_style", "uscd", "attribute", "smc"),
}


def generated(run: BatchRun, prompts: Sequence[Any], chain: str = "", *, alone: bool, **settings: Any) -> list[str]:
    """Return the texts of prompts, generated together or each alone; the seed is the number of the prompt."""
    rows = []
    for number, value in enumerate(prompts):
        prompt = Prompt(value=value, kind="text" if isinstance(value, str) else "tokens", tokens=len(value))
        defaults: dict[str, Any] = {"temperature": 0.0, "top_p": 0.9 if number % 2 else 1.0, "new_tokens": 6}
        rows.append(Row(prompt=prompt, chain=Chain(chain), seed=number, **{**defaults, **settings}))
    for batch in [[row] for row in rows] if alone else [rows]:
        run.run(batch)
    assert [row.error for row in rows] == [None] * len(rows)
    return ["".join(piece.text for piece in row.read()[0]) for row in rows]


@pytest.mark.parametrize("heat", [0.0, 1.0])
def test_an_encoder_reads_the_prompts(heat: float) -> None:
    """Texts and token ids, padded on the other side."""
    run = BatchRun(encoder_decoder_model(), tiny_tokenizer(), Resources())
    for prompts in (TEXTS, [tuple(tiny_tokenizer()(text)["input_ids"]) for text in TEXTS]):
        together = generated(run, prompts, temperature=heat, alone=False)
        assert together == generated(run, prompts, temperature=heat, alone=True)


def test_the_sampling_of_a_model_is_not_that_of_requests() -> None:
    """Whatever its configuration says; its penalties hold, and a model without end and padding tokens can be served."""
    model = copy.deepcopy(tiny_model())
    model.generation_config.update(do_sample=True, temperature=0.1, top_k=1, eos_token_id=None, pad_token_id=None)
    plain, changed = (BatchRun(each, tiny_tokenizer(), Resources()) for each in (tiny_model(), model))
    for heat in (0.0, 1.0):
        expected = generated(plain, TEXTS, "suppress_tokens([257])", temperature=heat, alone=False)
        assert generated(changed, TEXTS, "suppress_tokens([257])", temperature=heat, alone=False) == expected
    model.generation_config.repetition_penalty = 5.0
    assert generated(changed, TEXTS, alone=False) == generated(plain, TEXTS, "repetition_penalty(5.0)", alone=False)


@pytest.mark.parametrize(
    "chain", ["smc(particles=2)", "top_p(0.9) | best_of(n=2)", "goose(budget=4)", "beams(width=2)"]
)
def test_a_search_runs_alone(chain: str) -> None:
    """One seed gives one text, which ends before a stop string; another seed gives another where tokens are drawn."""
    run = BatchRun(tiny_model(), tiny_tokenizer(), Resources())
    seeds = [generated(run, TEXTS[:1], chain, alone=True, temperature=1.0, new_tokens=12)[0] for _ in range(2)]
    assert seeds[0] == seeds[1] and len(seeds[0]) > 4
    stopped = generated(run, TEXTS[:1], chain, alone=True, temperature=1.0, new_tokens=12, stops=(seeds[0][3],))
    assert stopped[0] == seeds[0][: seeds[0].index(seeds[0][3])]
    same = generated(run, TEXTS[:1] * 2, chain, alone=True, temperature=1.0, new_tokens=12)
    assert (same[0] == same[1]) == chain.startswith("beams")
    if chain.startswith("goose"):
        greedy = logitkit.generate(tiny_model(), tiny_tokenizer(), TEXTS[0], max_new_tokens=6, do_sample=False)
        assert generated(run, TEXTS[:1], chain, alone=True) == greedy.texts


@pytest.mark.long
def test_every_processor() -> None:
    """Greedy and sampled: in a batch, alone, and greedy as `generate` writes it."""
    registry, resources = discover(third_party="none"), Resources(models={"other": (tiny_model(1), tiny_tokenizer())})
    run, tried = BatchRun(copy.deepcopy(tiny_model()), tiny_tokenizer(), resources), set()
    for name in registry.names():
        example = registry.describe(name).example or f"{name}()"
        try:
            resources.check(Chain(example))
            run.bound(Chain(example), [Prompt(value=TEXTS[0], kind="text")])
        except LogitkitError:
            continue
        tried.add(name)
        for heat in (0.0, 1.0):
            together = generated(run, TEXTS, example, temperature=heat, alone=False)
            assert together == generated(run, TEXTS, example, temperature=heat, alone=True), name
            if not heat:
                assert together == [_of_generate(run, text, example) for text in TEXTS], name
    assert set(registry.names()) - tried <= REFUSED


def _of_generate(run: BatchRun, text: str, chain: str) -> str:
    """Return the greedy text of `logitkit.generate`."""
    named = [name for name in Chain(chain).resource_names if name in run.resources.objects]
    torch.manual_seed(0)
    return logitkit.generate(
        run.model,
        run.tokenizer,
        text,
        chain=chain,
        resources={name: run.resources.objects[name] for name in named},
        tokenizers={name: run.resources.tokenizers[name] for name in named},
        max_new_tokens=6,
        do_sample=False,
    ).texts[0]
