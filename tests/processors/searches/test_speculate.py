"""Drafts that other models check change the number of their forwards, and never the law of a token."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tests.fakes import absolute_model, seeded, sliding_model
from tests.processors.searches.tables import END, LENGTH, PROMPT, ended, every_text, four_token_model
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, MambaConfig, MambaForCausalLM, StoppingCriteria

import logitkit
from logitkit.errors import NoEffectWarning, ParameterError
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.processors.cascade.verification import acceptance_probability, residual_distribution
from logitkit.processors.engine import Prompts, Trace
from logitkit.processors.engine.composite import Composite
from logitkit.processors.engine.processor_list import ChainInGenerate
from logitkit.processors.searches import BoundSearch, Speculate, draw, uniform
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


class Mean(LogitsProcessor):
    """A step that names another model: the mean of both models, half and half; `large` reads whole rows."""

    def __init__(self, large: Any) -> None:
        self.large = large

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        with torch.no_grad():
            other = self.large(input_ids).logits[:, -1].softmax(-1)
        return (0.5 * scores.softmax(-1) + 0.5 * other).log()  # type: ignore[return-value]


def listed(step: LogitsProcessor, prompts: Tensor) -> LogitsProcessorList:
    """Return a chain of one step, as `generate` gets it."""
    own = Prompts(
        ids=prompts,
        mask=torch.ones_like(prompts),
        texts=("",) * len(prompts),
        messages=(None,) * len(prompts),
        adds_specials=False,
    )
    return LogitsProcessorList([ChainInGenerate(Composite([("mean", step)], prompts=own, trace=Trace()))])


def written(step: LogitsProcessor, prompts: Tensor, seeds: Sequence[int], draft_length: int, **further: Any) -> Tensor:
    """Return what the search samples behind prompts of the model of four tokens."""
    search = BoundSearch(Speculate(draft_length=draft_length, model_steps=[0]))
    search.seeds = seeds
    chosen: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": LENGTH, **further}
    return four_token_model().generate(  # type: ignore[no-any-return]
        prompts,
        attention_mask=torch.ones_like(prompts),
        custom_generate=search,
        logits_processor=listed(step, prompts),
        **chosen,
    )


def obvious(step: LogitsProcessor, prompt: Tensor, seed: int, length: int = LENGTH) -> list[int]:
    """The same, token by token, without a cache: at each place one draft, which is kept or replaced."""
    row, seeds = prompt[None], torch.tensor([seed])
    for place in range(length):
        with torch.no_grad():
            logits = four_token_model()(row).logits[:, -1]
        q, p = logits.log_softmax(-1), step(row, logits).log_softmax(-1)
        token = draw(q, uniform(seeds, 0, place))
        if float(uniform(seeds, 0, place, 1)) >= float(acceptance_probability(q, p)[0, token]):
            token = draw(residual_distribution(q, p).log(), uniform(seeds, 0, place, 2))
        row = torch.cat([row, token[:, None]], dim=1)
        if int(token) == END:
            break
    tokens: list[int] = row[0, len(prompt) :].tolist()
    return tokens


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=4),
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(0, 2**30),
)
def test_tokens_are_those_of_one_draft_at_a_time(prompts: list[list[int]], count: int, length: int, seed: int) -> None:
    """Neither the number of drafts nor the other rows of the batch change a token."""
    ids, step = torch.tensor(prompts), Mean(four_token_model(1))
    seeds = [seed + 7 * number for number in range(len(ids))]
    got = written(step, ids, seeds, count, max_new_tokens=length)
    for row, prompt, own in zip(got, ids, seeds, strict=True):
        assert list(ended(row[3:].tolist())) == obvious(step, prompt, own, length)


def test_by_hand() -> None:
    """Draft a or b with 1/2 each, where p(a) = 1/4: half of the drafts a stay, the others become b.

    Of 400 texts 100 begin with a; four standard errors are 35, a false alarm 1 in 15,000.
    """

    class Table(LogitsProcessor):
        def __init__(self, p: float) -> None:
            self.p = p

        def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
            return torch.tensor([[self.p, 1 - self.p, 0.0, 0.0]]).log().expand_as(scores)  # type: ignore[return-value]

    ids = torch.tensor([PROMPT]).expand(400, -1)
    own = Prompts(ids=ids, mask=torch.ones_like(ids), texts=("",) * 400, messages=(None,) * 400, adds_specials=False)
    steps = [("even", Table(0.5)), ("target", Table(0.25))]
    trace = Trace()
    search = BoundSearch(Speculate(draft_length=1, model_steps=[1]), trace=trace)
    search.seeds = range(400)
    processors = LogitsProcessorList([ChainInGenerate(Composite(steps, prompts=own, trace=trace))])
    found = four_token_model().generate(
        ids, custom_generate=search, logits_processor=processors, do_sample=True, top_k=0, max_new_tokens=2
    )
    assert abs(int((found[:, 2] == 0).sum()) - 100) < 35
    assert trace.calls == trace.search.notes["rounds"]  # type: ignore[union-attr]  # drafts are no steps of the chain


@pytest.mark.parametrize("count", [1, 3])
def test_samples_have_the_law_of_the_chain(count: int) -> None:
    """Chi-squared of 3,000 texts over all texts of three tokens; a false alarm has probability 0.001."""
    step, runs = Mean(four_token_model(1)), 3000
    found = written(step, torch.tensor([PROMPT]).expand(runs, -1), range(1000, 1000 + runs), count)
    counts = dict.fromkeys(every_text(), 0)
    for row in found[:, len(PROMPT) :].tolist():
        counts[ended(row)] += 1
    expected = []
    for text in counts:
        logp = 0.0
        for place, token in enumerate(text):
            row = torch.tensor([[*PROMPT, *text[:place]]])
            with torch.no_grad():
                logits = four_token_model()(row).logits[:, -1]
            logp += float(step(row, logits).log_softmax(-1)[0, token])
        expected.append(runs * math.exp(logp))
    common = [number for number, value in enumerate(expected) if value >= 5]
    observed = [[*counts.values()][number] for number in common]
    wanted = [expected[number] for number in common]
    rest = runs - sum(observed), runs - sum(wanted)
    assert chisquare([*observed, rest[0]], [*wanted, rest[1]]).pvalue > 0.001


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
    """Nor on the other prompts of the batch."""
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


def test_log_probabilities_are_those_of_the_chain() -> None:
    """The sum over the tokens of a row is that of plain decoding."""
    found = []

    class Kept(BoundSearch):
        def _found(self, run: Any) -> Any:
            found.append(super()._found(run))
            return found[-1]

    for draft_length in (1, 4):
        search = Kept(Speculate(draft_length=draft_length, model_steps=[0]))
        ids = torch.tensor([PROMPT, (1, 2)])
        search.seeds = [3, 4]
        settings: dict[str, Any] = {"do_sample": True, "top_k": 0, "max_new_tokens": 6}
        four_token_model().generate(
            ids,
            attention_mask=torch.ones_like(ids),
            custom_generate=search,
            logits_processor=listed(Mean(four_token_model(1)), ids),
            **settings,
        )
    torch.testing.assert_close(found[0].logp, found[1].logp)
    for row, logp in zip(found[0].ids.tolist(), found[0].logp.tolist(), strict=True):
        want, text = 0.0, ended(row[2:])
        for place, token in enumerate(text):
            prefix = torch.tensor([[*row[:2], *text[:place]]])
            with torch.no_grad():
                logits = four_token_model()(prefix).logits[:, -1]
            want += float(Mean(four_token_model(1))(prefix, logits).log_softmax(-1)[0, token])  # type: ignore[arg-type]
        assert math.isclose(logp, want, abs_tol=1e-4)


@pytest.mark.parametrize("law", SEARCH_LAWS)
def test_laws_with_another_model(law: str) -> None:
    """The example of the Spec is the search alone; here a cascade stands before it."""
    subject = SearchSubject(logitkit.describe("speculate"))
    chain = logitkit.chain("cascade('other', rule='js', alpha=0.2) | speculate(3)")
    subject.example = dataclasses.replace(subject.example, chain=chain, resources={"other": near(1)})
    SEARCH_LAWS[law](subject)
