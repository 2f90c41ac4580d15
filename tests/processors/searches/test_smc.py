"""Sequential Monte Carlo against the enumeration of every text: the weights, and the normalising constant.

For every text x, ``Z_hat`` times the weight of x is an unbiased estimate of ``gamma(x)``, and ``Z_hat`` of Z, whatever
the number of particles. Each test draws 800 runs and compares their means with the enumeration, by the standard
error of the runs: 4.9 standard errors for each of about 30 means are a false alarm once in 30,000 tests. Texts with
less than a hundredth of Z are added up, since the mean of a rare event has no normal error.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.processors.searches.tables import (
    PROMPT,
    NoTwice,
    Runs,
    Text,
    assert_shares,
    assert_unbiased,
    every_text,
    four_token_model,
    keeps,
    log_law,
    normalised,
)
from torch import Tensor

import logitkit
from logitkit.errors import ModeError, ParameterError, ScoresError
from logitkit.processors.searches import SMC, effective_size, systematic
from logitkit.processors.searches.targets import Combined, Constrained, Target, Weighted, power_mean, product
from logitkit.registry.laws import tiny_model, tiny_tokenizer

RUNS = 800


def log_weight(rows: Tensor) -> Tensor:
    """Nats: texts with token 1 are favoured by e, and those with token 2 forbidden."""
    tails = rows[:, len(PROMPT) :]
    return (tails == 1).any(-1).float().masked_fill((tails == 2).any(-1), -torch.inf)


def of_models(combine: Callable[[Tensor], Tensor]) -> Callable[[], Target]:
    """Return what makes the target of two models, the second one read by `stream`."""

    def stream(rows: Tensor) -> Tensor:
        with torch.no_grad():
            return four_token_model(1)(rows).logits[:, -1]

    return lambda: Combined(combine, [stream])


HALVES = torch.tensor([0.5, 0.5])


def gammas() -> dict[str, tuple[dict[Text, float], Callable[[], Target] | None]]:
    """Return the unnormalised probability of every text by plain arithmetic, and the target, by name."""
    p, r = log_law(0), log_law(1)
    mean = functools.partial(power_mean, weights=HALVES, exponent=-1.0)
    weighted = {x: math.exp(v + float(log_weight(torch.tensor([[*PROMPT, *x]]))[0])) for x, v in p.items()}
    return {
        "power": ({x: math.exp(3 * v) for x, v in p.items()}, None),
        "product": (
            {x: math.exp(0.5 * v + 0.5 * r[x]) for x, v in p.items()},
            of_models(functools.partial(product, weights=HALVES)),
        ),
        "min": ({x: math.exp(min(v, r[x])) for x, v in p.items()}, of_models(functools.partial(torch.amin, dim=0))),
        "power_mean": ({x: 2 / (math.exp(-v) + math.exp(-r[x])) for x, v in p.items()}, of_models(mean)),
        "constraint": (
            {x: math.exp(v) if keeps(x) else 0.0 for x, v in p.items()},
            lambda: Constrained([NoTwice()]),
        ),
        "log_weight": (weighted, lambda: Weighted(log_weight, "mine")),
    }


def search(name: str, particles: int, ess: float = 0.5) -> SMC:
    """Return the search of a target of `gammas`."""
    made: Any = {"target": name, "make_target": gammas()[name][1]} if name != "power" else {"alpha": 3.0}
    return SMC(particles=particles, ess=ess, **made)


@pytest.mark.parametrize("ess", [0.6, 1.0])
@pytest.mark.parametrize("name", list(gammas()))
def test_the_weights_are_unbiased(name: str, ess: float) -> None:
    gamma = gammas()[name][0]
    particles = 48 if name == "constraint" else 6
    runs = Runs(lambda: search(name, particles, ess), runs=RUNS, particles=particles, seed=1)
    assert_unbiased(runs, gamma)


@pytest.mark.parametrize("name", ["power", "constraint"])
def test_a_sample_of_many_particles_follows_the_target(name: str) -> None:
    """One text each of 800 runs with 32 particles has less than 0.12 total variation from the enumerated target.

    800 exact draws over 40 texts have about 0.07 on average.
    """
    law, _ = normalised(gammas()[name][0])
    runs = Runs(lambda: search(name, 32), runs=RUNS, particles=1, seed=2)
    counts = {x: runs.texts.count(x) / RUNS for x in every_text()}
    assert sum(abs(counts[x] - law[x]) for x in law) / 2 < 0.12


def test_a_mask_alone_gives_another_law() -> None:
    """Where the greedy mask is wrong: masked sampling is further from the conditional law than its sampling error."""
    gamma = gammas()["constraint"][0]
    law, _ = normalised(gamma)
    masked = dict.fromkeys(law, 0.0)
    for x in masked:
        if keeps(x):
            masked[x] = math.exp(_masked_logp(x))
    masked, _ = normalised(masked)
    assert sum(abs(masked[x] - law[x]) for x in law) / 2 > 0.05


def _masked_logp(text: Text) -> float:
    """Return the log-probability of a text under the law of each step, masked and normalised."""
    total = 0.0
    for place, token in enumerate(text):
        row = torch.tensor([[*PROMPT, *text[:place]]])
        with torch.no_grad():
            logp = four_token_model()(row).logits[0, -1].double()
        total += float(logp.masked_fill(~NoTwice().allowed(row)[0], -torch.inf).log_softmax(-1)[token])
    return total


def test_one_particle_of_the_law_itself_is_plain_sampling() -> None:
    """With alpha 1 every weight is 1, Z is 1, and 2,000 single particles follow the law of the model."""
    runs = Runs(lambda: SMC(particles=1, alpha=1.0), runs=2000, particles=1, seed=4)
    assert runs.log_weights.abs().max() == 0 and runs.log_z.abs().max() < 1e-5
    law = {x: math.exp(v) for x, v in log_law().items()}
    counts = {x: runs.texts.count(x) for x in law}
    likely = [x for x in law if 2000 * law[x] >= 5]
    chi = sum((counts[x] - 2000 * law[x]) ** 2 / (2000 * law[x]) for x in likely)
    assert chi < len(likely) + 5.2 * math.sqrt(2 * len(likely)) + 10  # about 1 in 100,000


def test_greedy_decoding_with_one_particle_is_greedy_decoding() -> None:
    call = logitkit.chain("cfg(1.4) | smc(1)").bind(tiny_model(), tiny_tokenizer(), ["a prompt", "two"])
    plain = logitkit.chain("cfg(1.4)").bind(tiny_model(), tiny_tokenizer(), ["a prompt", "two"])
    settings: Any = {"max_new_tokens": 9, "do_sample": False}
    assert torch.equal(call.generate(**settings), plain.generate(**settings))


def test_a_row_that_no_token_continues_keeps_weight_zero() -> None:
    """The second model goes on after 1 with 0 alone, which the first one forbids: texts with 1 before the end fall out.

    Without resampling, their rows stay until the end.
    """

    def second(rows: Tensor) -> Tensor:
        law = torch.tensor([0.0, 0.5, 0.5, 0.0]).log().repeat(len(rows), 1)
        stuck = (rows[:, len(PROMPT) :] == 1).any(-1, keepdim=True)
        return torch.where(stuck, torch.tensor([1.0, 0.0, 0.0, 0.0]).log(), law)

    make: Any = lambda: Combined(functools.partial(torch.amin, dim=0), [second])  # noqa: E731
    runs = Runs(
        lambda: SMC(particles=64, target="min", make_target=make, ess=0.0),
        runs=5,
        particles=64,
        seed=3,
        suppress_tokens=[0],
        max_new_tokens=2,
    )
    assert not runs.log_weights.isnan().any() and runs.log_z.isfinite().all()
    begun = torch.tensor([text[0] == 1 for text in runs.texts]).view_as(runs.log_weights)
    assert begun.any() and (runs.log_weights[begun] == -torch.inf).all()


def test_equal_models_give_back_their_law() -> None:
    """Two equal models: every mean of their probabilities is the law itself, so that Z is 1 and weights stay equal."""
    for target in ("product", "min", "power_mean"):
        call = logitkit.chain(f"smc(4, target='{target}', models=['twin'])").bind(
            tiny_model(), tiny_tokenizer(), "ab", twin=tiny_model()
        )
        call.generate(max_new_tokens=5)
        assert call.trace.search is not None
        assert call.trace.search.log_z[0] == pytest.approx(0, abs=1e-4), target
        assert call.trace.search.notes["resamplings"] == [0]


def test_choices_follow_their_conditional_law() -> None:
    texts = ["no", "yes", "yesterday"]
    chain = logitkit.chain(f"choices({texts}) | smc(1000, target='constraint')")
    assert_shares(chain.bind(tiny_model(), tiny_tokenizer(), "ab"), texts, 1000)


def test_particles_of_one_prefix_draw_different_tokens() -> None:
    call = logitkit.chain("smc(16, alpha=1.0)").bind(tiny_model(), tiny_tokenizer(), "ab")
    ids = call.generate(max_new_tokens=1, num_return_sequences=16)
    assert len({row[-1] for row in ids.tolist()}) > 8


def test_fewer_sequences_are_drawn_by_weight() -> None:
    """num_return_sequences below the particles: equal weights, and the copies of a particle follow its weight."""
    call = logitkit.chain("smc(8, alpha=4.0, ess=0.0)").bind(tiny_model(), tiny_tokenizer(), "ab")
    torch.manual_seed(1)
    every = call.generate(max_new_tokens=4, num_return_sequences=8).tolist()
    assert call.search is not None and call.search.log_weights is not None
    weights = call.search.log_weights[0].exp()
    torch.manual_seed(1)
    some = call.generate(max_new_tokens=4, num_return_sequences=3).tolist()
    torch.testing.assert_close(call.search.log_weights, torch.full((1, 3), -math.log(3)).double())
    for row in every:
        share = sum(float(weight) for weight, each in zip(weights, every, strict=True) if each == row)
        assert abs(some.count(row) - 3 * share) < 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-8, 3), min_size=1, max_size=9),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 12),
)
def test_systematic_resampling_rounds_the_expected_copies(logs: list[float], number: float, count: int) -> None:
    """Each particle is kept floor or ceiling of ``count`` times its weight, and the kept ones are in order."""
    weights = torch.tensor([logs]).double()
    kept = systematic(weights, torch.tensor([number]).double(), count)[0].tolist()
    assert len(kept) == count and kept == sorted(kept)
    for particle, weight in enumerate(weights.softmax(-1)[0].tolist()):
        assert abs(kept.count(particle) - count * weight) < 1 + 1e-9


def test_a_particle_of_weight_zero_is_never_kept() -> None:
    for number in (0.0, 0.5, 1 - 2**-53):
        weights = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
        assert set(systematic(weights, torch.tensor([number]).double(), 5)[0].tolist()) <= {1, 3}


def test_effective_size_of_zero_weights() -> None:
    """By hand: weights 1, 1, 2 have the size 16 / 6; weights of 0 alone have the size 0."""
    got = effective_size(torch.tensor([[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]]).log())
    torch.testing.assert_close(got, torch.tensor([16 / 6, 0.0]))


BAD = {
    "smc(4, target='product')": (ParameterError, "models must be one or more other models"),
    "smc(4, models=['twin'])": (ParameterError, "models must be left out for target 'power'"),
    "smc(4, target='min', models=['twin'], weights=[1.0, 1.0])": (ParameterError, "weights must be left out"),
    "smc(4, target='product', models=['twin'], weights=[1.0])": (ParameterError, "weights must be 2 numbers > 0"),
    "smc(4, target='power_mean', models=['twin'], exponent=0.0)": (ParameterError, "exponent must be"),
    "smc(4, target='constraint')": (ParameterError, "with a constraint step before smc"),
    "smc(4, target='log_weight')": (ParameterError, "log_weight must be the name of a function"),
    "smc(4, log_weight='twin')": (ParameterError, "log_weight must be left out"),
    "smc(4, target='log_weight', log_weight='text')": (ParameterError, "the name of a function"),
    "choices(['a']) | mirostat() | smc(4, target='constraint')": (ModeError, "mirostat must not stand behind"),
}


@pytest.mark.parametrize("chain", BAD)
def test_bad_parameters_are_refused_before_a_model_runs(chain: str) -> None:
    error, words = BAD[chain]
    read = logitkit.chain(chain)
    resources = {name: {"twin": tiny_model(), "text": "no function"}[name] for name in read.resource_names}
    with pytest.raises(error, match=words):
        read.bind(tiny_model(), tiny_tokenizer(), "ab", **resources)


def test_bad_settings_are_refused() -> None:
    call = logitkit.chain("smc(4)").bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ModeError, match="do_sample must be True with 4 particles"):
        call.generate(max_new_tokens=2, do_sample=False)
    with pytest.raises(ModeError, match="num_return_sequences must be at most 4"):
        call.generate(max_new_tokens=2, num_return_sequences=5)


def test_a_target_that_no_particle_meets_is_an_error() -> None:
    call = logitkit.chain("choices(['a long answer']) | smc(4, target='constraint')").bind(
        tiny_model(), tiny_tokenizer(), "ab"
    )
    with pytest.raises(ScoresError, match="prompt 0 must keep a weight above 0, got none that the target allows of at"):
        call.generate(max_new_tokens=3)


@pytest.mark.parametrize("value", [torch.tensor([0.0]), torch.full((4,), torch.nan), torch.full((4,), torch.inf)])
def test_a_function_that_returns_nonsense_is_an_error(value: Tensor) -> None:
    chain = logitkit.chain("smc(4, target='log_weight', log_weight='mine')")
    call = chain.bind(tiny_model(), tiny_tokenizer(), "ab", mine=lambda rows: value)
    with pytest.raises(ScoresError, match="mine must return one number below infinity for each of 4 rows"):
        call.generate(max_new_tokens=2)


def test_embeddings_need_their_tokens() -> None:
    """Embeddings beside tokens are read in their place; alone they are refused."""
    ids = torch.tensor([[1, 2, 1]])
    settings = {"do_sample": True, "max_new_tokens": 4, "pad_token_id": 0, "custom_generate": SMC(particles=3)}
    embeds = tiny_model().get_input_embeddings()(ids)
    with pytest.raises(ModeError, match="smc: prompts must hold tokens, got inputs_embeds alone"):
        tiny_model().generate(inputs_embeds=embeds, **settings)
    rows = []
    for extra in ({}, {"inputs_embeds": embeds}):
        torch.manual_seed(0)
        rows.append(tiny_model().generate(ids, **extra, **settings))
    assert torch.equal(*rows)
