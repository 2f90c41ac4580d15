"""`speculate` behind registered chains: texts, forwards, gates, other architectures, bytes, and the laws."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.fakes import absolute_model, seeded, sliding_model
from torch import Tensor
from transformers import MambaConfig, MambaForCausalLM, StoppingCriteria

import logitkit
from logitkit.errors import NoEffectWarning, ParameterError
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.registry.laws import foreign_model, foreign_tokenizer, tiny_model, tiny_tokenizer
from logitkit.registry.laws.search_laws import SEARCH_LAWS, SearchSubject
from logitkit.registry.laws.tiny_models import encoder_decoder_model

PROMPTS = ["A prompt", "the other prompt of mine", "xy"]


@functools.cache
def near(seed: int, make: Callable[[], Any] = tiny_model, share: float = 0.2) -> Any:
    """Return a copy of a model with noise on its weights: it often agrees with the model."""
    model, generator = copy.deepcopy(make()), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights += share * weights.std() * torch.randn(weights.shape, generator=generator)
    return model


STEPS = {
    **{f"cascade {rule}": f"cascade('large', rule='{rule}', alpha={alpha})"
       for rule, alpha in [("chow", 0.1), ("diff", 0.3), ("opt", 0.3), ("token_v1", 0.5), ("token_v2", 0.5),
                           ("token_v3", 0.3), ("js", 0.3), ("random", 0.5)]},
    "router": "router('large', head='entropy', threshold=0.5)",
    "crossover": "crossover('large')",
    "ensemble": "ensemble(['large'])",
    "another tokenizer": "ensemble(['foreign'], align='mined')",
    "core": "core(['large'])",
    "core of tokenizers": "core(['foreign'], align='mined')",
    "dexperts": "dexperts('large', 'small', alpha=0.5)",
    "contrastive": "contrastive('large', beta=0.1)",
    "second prompt": "ensemble(['large']) | cfg(1.3, negative='abc')",
    "gate": "ensemble(['large'], gate={'measure': 'entropy', 'above': 3.0})",
    "history": "cascade('large', rule='token_v3', alpha=0.4) | mirostat(tau=3.0)",
    "penalties": "ensemble(['large']) | dry() | frequency_penalty(1.0)",
    "constraint": "cascade('large', rule='js') | choices(['yes', 'no', 'maybe so'])",
}  # fmt: skip


def bound(chain: str, prompts: Any = PROMPTS) -> Any:
    """Bind a chain to the models that it names."""
    models = {"large": near(1), "small": near(2), "foreign": foreign_model()}
    tokenizers = {"large": tiny_tokenizer(), "foreign": foreign_tokenizer()}
    named = {name: model for name, model in models.items() if f"'{name}'" in chain}
    return logitkit.chain(chain).bind(
        tiny_model(),
        tiny_tokenizer(),
        prompts,
        tokenizers={n: tokenizers[n] for n in named if n in tokenizers},
        **named,
    )


def ids_of(call: Any, seed: int = 0, **further: Any) -> Tensor:
    torch.manual_seed(seed)
    ids: Tensor = call.ids(call.generate(**{"max_new_tokens": 10, **further}))
    return ids


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_greedy_texts_are_those_of_the_chain(steps: str) -> None:
    """A batch of prompts of several lengths, two of them of a few random letters."""
    generator = torch.Generator().manual_seed(1)
    random = ["".join("abc "[int(n)] for n in torch.randint(4, (9,), generator=generator)) for _ in range(2)]
    call, plain = bound(f"{steps} | speculate(3)", [*PROMPTS, *random]), bound(steps, [*PROMPTS, *random])
    assert torch.equal(ids_of(call, do_sample=False), ids_of(plain, do_sample=False))


@pytest.mark.parametrize("steps", [STEPS[name] for name in ("cascade token_v3", "another tokenizer", "history")])
def test_sampled_texts_do_not_depend_on_the_number_of_drafts(steps: str) -> None:
    """The text of a prompt does not depend on the other prompts of the batch."""
    want = ids_of(bound(f"{steps} | speculate(1)"), do_sample=True)
    assert torch.equal(ids_of(bound(f"{steps} | speculate(5)"), do_sample=True), want)
    alone = ids_of(bound(f"{steps} | speculate(2)", PROMPTS[:1]), do_sample=True)
    assert torch.equal(alone[:, -10:], want[:1, -10:])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cascade token_v3", "core of tokenizers", "penalties"])
def test_many_prompts(name: str) -> None:
    """100 random prompts, token by token."""
    generator = torch.Generator().manual_seed(2)
    for number in range(5):
        texts = [
            "".join(chr(97 + int(n)) for n in torch.randint(26, (1 + 2 * number,), generator=generator))
            for _ in range(20)
        ]
        call = bound(f"{STEPS[name]} | speculate({1 + number % 5})", texts)
        assert torch.equal(ids_of(call, do_sample=False), ids_of(bound(STEPS[name], texts), do_sample=False))


def test_other_models_read_all_drafts_in_one_chunk() -> None:
    """One forward of each other model a round; the models agree on most tokens."""
    for steps, names in ((STEPS["cascade js"], ["large"]), (STEPS["another tokenizer"], ["foreign"])):
        call = bound(f"{steps} | speculate(4)", "A prompt")
        ids_of(call, do_sample=False, max_new_tokens=20)
        notes = call.trace.search.notes
        for name in names:
            assert notes["rounds"] <= call.trace.forwards[name] <= notes["rounds"] + 1  # and the prompt
    assert notes["drafts"] >= notes["accepted drafts"]
    call = bound(f"{STEPS['cascade js']} | speculate(4)", "A prompt")
    ids_of(call, do_sample=False, max_new_tokens=20)
    assert call.trace.search.notes["new tokens a round"] > 1.5 and call.trace.forwards["large"] < 14


def test_a_shut_gate_reads_nothing() -> None:
    """Drafts that no step wants checked by the other model cost no forward of it."""
    call = bound("ensemble(['large'], gate={'measure': 'entropy', 'above': 99.0}) | speculate()")
    ids = ids_of(call, do_sample=False)
    assert call.trace.forwards == {"large": 0} and call.trace.fired == {"ensemble": 0.0}
    assert torch.equal(ids, ids_of(bound("temperature(1.0) | best_of(n=1)"), do_sample=False))
    assert call.trace.search.notes["accepted drafts"] == call.trace.search.notes["drafts"]


def test_a_chain_without_another_model_is_plain_decoding() -> None:
    """It warns, since the text is right and the search saves nothing."""
    with pytest.warns(NoEffectWarning, match="speculate changes nothing: no step before it names another model"):
        call = bound("cfg(1.4) | speculate()")
    got = ids_of(call, do_sample=True)
    assert torch.equal(got, ids_of(bound("cfg(1.4) | best_of(n=1)"), do_sample=True))
    assert call.trace.search.forwards == 10 and call.trace.search.notes["drafts"] == 0


def test_refused() -> None:
    with pytest.raises(ParameterError, match="draft_length must be a whole number >= 1, got 0"):
        logitkit.chain("speculate(0)")


class Asked(StoppingCriteria):
    """Counts the rows that it is asked about."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any) -> torch.BoolTensor:
        self.rows.append(input_ids[0].tolist())
        return torch.zeros(len(input_ids), dtype=torch.bool)  # type: ignore[return-value]


def test_stopping_criteria_see_written_tokens_alone() -> None:
    """Each text once, in order, as in plain decoding."""
    asked = Asked()
    call = bound(f"{STEPS['cascade js']} | speculate(3)", "A prompt")
    row = ids_of(call, do_sample=False, stopping_criteria=[asked])[0].tolist()
    assert asked.rows == [row[: len(row) - behind] for behind in range(9, -1, -1)]


@pytest.mark.parametrize("sampling", [False, True])
def test_rows_end_inside_drafts(sampling: bool) -> None:
    """End tokens and stop strings, for rows that end at different places."""
    steps = STEPS["cascade js"]
    settings: dict[str, Any] = {"do_sample": sampling, "max_new_tokens": 16, "pad_token_id": 0}
    for further in ({"eos_token_id": [*range(1, 256, 5)]}, {"stop_strings": ["a", "e", "\n"], "eos_token_id": None}):
        got = ids_of(bound(f"{steps} | speculate(6)"), **settings, **further)
        want = ids_of(bound(f"{steps} | speculate(1)"), **settings, **further)
        assert torch.equal(got, want)
        if not sampling:
            assert torch.equal(got, ids_of(bound(steps), **settings, **further))


@pytest.mark.parametrize("kind", ["absolute", "sliding", "recurrent", "encoder-decoder", "static"])
def test_other_architectures(kind: str) -> None:
    """A window of 8 tokens, a state that cannot be rewound, prompts that an encoder reads, and a static cache."""
    mamba = MambaConfig(vocab_size=272, hidden_size=16, num_hidden_layers=2, state_size=4, initializer_range=0.5)
    makes: dict[str, Callable[[], Any]] = {
        "absolute": absolute_model,
        "sliding": sliding_model,
        "recurrent": lambda: seeded(lambda: MambaForCausalLM(mamba), 0),
        "encoder-decoder": encoder_decoder_model,
        "static": tiny_model,
    }
    model, chain = makes[kind](), "cascade('large', rule='js', alpha=0.2)"
    large = near(3, tiny_model if kind == "recurrent" else makes[kind])
    settings = {"max_new_tokens": 14, "do_sample": False}
    settings |= {"cache_implementation": "static"} if kind == "static" else {}
    ids = []
    for text in (chain, f"{chain} | speculate(3)"):
        call = logitkit.chain(text).bind(model, tiny_tokenizer(), PROMPTS, large=large)
        ids.append(call.ids(call.generate(**settings)))
    assert torch.equal(*ids)


def test_models_over_bytes() -> None:
    """Models with unlike tokenizers are combined byte by byte."""
    chain, ids = "ensemble(['foreign'], align='bytes')", []
    for text in (chain, f"{chain} | speculate(3)"):
        call = logitkit.chain(text).bind(
            ByteModel(tiny_model(), tiny_tokenizer()),
            byte_tokenizer(),
            "A prompt",
            foreign=foreign_model(),
            tokenizers={"foreign": foreign_tokenizer()},
        )
        ids.append(call.ids(call.generate(max_new_tokens=4, do_sample=False)))
    assert torch.equal(*ids)


def test_several_sequences_and_selectors() -> None:
    """Each copy of a prompt draws its own tokens; a selector gets the log-probabilities under the chain."""
    steps = STEPS["cascade js"]
    call = bound(f"{steps} | speculate()")
    ids = ids_of(call, do_sample=True, num_return_sequences=3)
    assert len(ids) == 9 and len({tuple(row) for row in ids.tolist()}) == 9
    best = bound(f"{steps} | speculate() | best_of(n=3, by='likelihood')")
    assert len(ids_of(best, do_sample=True)) == 3


@pytest.mark.parametrize("law", SEARCH_LAWS)
def test_laws_with_another_model(law: str) -> None:
    """The example of the Spec is the search alone; here a cascade stands before it."""
    subject = SearchSubject(logitkit.describe("speculate"))
    chain = logitkit.chain("cascade('other', rule='js', alpha=0.2) | speculate(3)")
    subject.example = dataclasses.replace(subject.example, chain=chain, resources={"other": near(1)})
    SEARCH_LAWS[law](subject)
