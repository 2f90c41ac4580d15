"""CoRE: by hand for each kernel and two presets, and against the released code in plain Python."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitkit.processors.ensemble import PRESETS, Core, Variant, consensus, core
from logitkit.processors.ensemble.consistency import SHARPNESS, token_consistency

KERNELS = sorted(SHARPNESS)
PUBLISHED = {"main_floor": 0.0, "variant": Variant(mean_one=False)}
RELEASED = {"main_floor": 0.5, "variant": Variant()}
MAIN, HELPER = torch.tensor([[0.5, 0.5, 0.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.5, 0.0]])
# The mean is [1/4, 1/2, 1/4, 0], so both models disagree with it by [1/4, 0, 1/4, 0], and both have entropy ln 2.
AT_QUARTER = {
    "linear": 0.75,
    "rbf": (math.exp(-0.5) - math.exp(-2)) / (1 - math.exp(-2)),
    "power": 0.75**5,
    "reciprocal": 0.0,  # the least of the row: stretched to 0
    "sigmoid": 1 - 1 / (1 + math.exp(1.25)),
}
AT_ZERO = dict.fromkeys(KERNELS, 1.0) | {"sigmoid": 1 - 1 / (1 + math.exp(2.5))}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("support", ["own", "union"])
def test_worked_example_as_published(kernel: Any, support: Any) -> None:
    """By hand: the entropies are equal, so the weights are the agreements; only the helper's tokens are filtered.

    The helper's agreement is s + s0 + s. The main model's is the same over the union of the tokens, and s + s0 over
    its own two tokens. The result is w0 [1/2, 1/2, 0, 0] + w1 [0, s0/2, s/2, 0], normalised.
    """
    far, near = AT_QUARTER[kernel], AT_ZERO[kernel]
    helper_agreement = 2 * far + near
    main_agreement = far + near if support == "own" else helper_agreement
    want = torch.tensor([[main_agreement] * 2 + [0.0, 0.0]]) + helper_agreement * torch.tensor([[0.0, near, far, 0.0]])
    got = core(MAIN, [HELPER], kernel=kernel, support=support, **PUBLISHED).exp()
    torch.testing.assert_close(got, want / want.sum(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_example_as_released(kernel: Any) -> None:
    """By hand, with scores of mean 1 over the three supported tokens: (s, s0, s) times n / (2 s + s0).

    n is the number of tokens whose score is not 0: three, or one for ``reciprocal``.
    """
    far, near = AT_QUARTER[kernel], AT_ZERO[kernel]
    scale = (3 if far else 1) / (2 * far + near)
    want = torch.tensor([[1.0, 1 + scale * near, scale * far, 0.0]])
    got = core(MAIN, [HELPER], kernel=kernel, **RELEASED).exp()
    torch.testing.assert_close(got, want / want.sum(), rtol=0, atol=2e-6)


def test_entropy_and_the_main_floor_by_hand() -> None:
    """A helper of half the entropy has twice the weight in the paper, and at most the main model's in the code.

    The entropies are 2 ln 2 (uniform over four tokens) and ln 2 (over two). The mean is [3/8, 3/8, 1/8, 1/8]; both
    models differ from it by 1/8 everywhere, so with the linear kernel the agreement of both is 7/2.
    """
    main, helper = torch.full((1, 4), 0.25), torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    paper = consensus(main, [helper], kernel="linear", **PUBLISHED)
    torch.testing.assert_close(paper.weights[:, 0], torch.tensor([1 / 3, 2 / 3]))
    want = torch.tensor([[1 / 3 * 0.25 + 2 / 3 * 0.5 * 7 / 8] * 2 + [1 / 12] * 2])
    torch.testing.assert_close(paper.logp.exp(), want / want.sum(), rtol=0, atol=2e-6)
    code = consensus(main, [helper], kernel="linear", **RELEASED)
    torch.testing.assert_close(code.weights[:, 0], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(code.logp.exp(), torch.tensor([[0.375, 0.375, 0.125, 0.125]]), rtol=0, atol=2e-6)
    torch.testing.assert_close(code.disagreement, torch.tensor([[0.25]]))


def test_multiple_choice_weighs_by_certainty_alone() -> None:
    """With the preset ``choice``, the weights are 1/H and tokens are not filtered."""
    main, helper = torch.full((1, 4), 0.25), torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    setting = PRESETS["choice"]
    got = core(main, [helper], main_floor=0.0, variant=setting.variant)
    want = torch.tensor([[1 / 3 * 0.25 + 2 / 3 * 0.5] * 2 + [1 / 12] * 2])
    torch.testing.assert_close(got.exp(), want, rtol=0, atol=2e-6)


# The released code's steps a to i in plain arithmetic, for the models below: probabilities of tokens 0 to 3.
THREE_MODELS = ([0.6, 0.4, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0.2, 0, 0, 0.7, 0])  # the last one lost 0.1 in translation
ELEVEN = {
    ("published", "linear"): [0.3110, 0.3168, 0.1523, 0.2198],
    ("published", "rbf"): [0.3864, 0.3417, 0.1186, 0.1533],
    ("published", "power"): [0.5582, 0.3689, 0.0400, 0.0329],
    ("published", "sigmoid"): [0.3008, 0.3203, 0.1608, 0.2181],
    ("published", "reciprocal"): [0.5204, 0.4079, 0.0717, 0.0],
    ("released", "linear"): [0.3979, 0.3407, 0.1060, 0.1554],
    ("released", "rbf"): [0.4272, 0.3555, 0.0966, 0.1207],
    ("released", "power"): [0.5190, 0.3833, 0.0610, 0.0366],
    ("released", "sigmoid"): [0.3939, 0.3416, 0.1091, 0.1553],
    ("released", "reciprocal"): [0.4837, 0.4338, 0.0825, 0.0],
    ("choice", "rbf"): [0.3671, 0.3173, 0.1115, 0.2042],
}


@pytest.mark.parametrize(("preset", "kernel"), ELEVEN)
def test_three_models_under_every_preset(preset: Any, kernel: Any) -> None:
    """By hand for ``linear``: p* = [.8, .9, .5, .7, 0] / 3; the main model differs from it by [1/3, .1, 1/6, .7/3, 0].

    Its support is its own two tokens: s = [2/3, .9]; the first helper's is tokens 0 to 2: [.7333, .8, .6667]; the
    second's 0, 1 and 3: [.9333, .7, .5333]. With the entropies .6730, .6931 and .5297 the model scores are 2.328, 3.174
    and 4.091, which sum to 9.592; the main model's weight is .2427 as published and 1/2 as released.
    """
    setting, (main, *helpers) = PRESETS[preset], (torch.tensor([p]) for p in THREE_MODELS)
    options: dict[str, Any] = {"main_floor": setting.main_floor, "variant": setting.variant, "support": setting.support}
    got = core(main, helpers, kernel=kernel, **options).exp()
    torch.testing.assert_close(got[0, :4], torch.tensor(ELEVEN[preset, kernel]), rtol=0, atol=6e-5)
    weights = consensus(main, helpers, kernel="linear", **options).weights[:, 0]
    want = {"published": [0.2427, 0.3309, 0.4264], "released": [0.5, 0.2185, 0.2815], "choice": [0.5, 0.2166, 0.2834]}
    torch.testing.assert_close(weights, torch.tensor(want[preset]), rtol=0, atol=6e-5)


def test_every_preset_says_its_support() -> None:
    """All presets take the support of the released code; `Core` passes it on, and an option replaces it."""
    assert {name: preset.support for name, preset in PRESETS.items()} == dict.fromkeys(PRESETS, "own")
    assert PRESETS["released"].replaced(support="union").support == "union"
    assert Core(helpers=[], guard=False).formula["support"] == "own"
    assert Core(helpers=[], guard=False, support="union").formula["support"] == "union"


def released(main: list[float], helpers: list[list[float]], kernel: str, floor: float, own: bool) -> list[float]:
    """Return one row of the released code's generation branch, in plain Python with the departures of `core`."""
    models = [main, *helpers]
    width = len(main)
    speaks = [sum(p) > 1e-12 for p in models]
    mean = [sum(p[v] for p in models) / sum(speaks) for v in range(width)]
    delta = [[abs(p[v] - mean[v]) * on for v in range(width)] for p, on in zip(models, speaks, strict=True)]
    raw = {
        "linear": lambda d: 1 - d,
        "rbf": lambda d: (math.exp(-2 * d) - math.exp(-2)) / (1 - math.exp(-2)),
        "power": lambda d: (1 - d) ** 5,
        "reciprocal": lambda d: 1 / (1 + d),
        "sigmoid": lambda d: 1 - 1 / (1 + math.exp(-5 * (d - 0.5))),
    }[kernel]
    score = [[raw(d) for d in row] for row in delta]
    if kernel == "reciprocal":
        low, high = min(map(min, score)), max(map(max, score))
        score = [
            [(s - low >= 1e-6) * (s - low) / (high - low) if high - low > 1e-6 else 1.0 for s in row] for row in score
        ]
    union = [any(p[v] > 1e-12 for p in models) for v in range(width)]
    supports = [[p[v] + main[v] > 1e-12 for v in range(width)] if own else union for p in models]
    score = [[s * on for s, on in zip(row, support, strict=True)] for row, support in zip(score, supports, strict=True)]
    weight = []
    for p, row, on in zip(models, score, speaks, strict=True):
        total = sum(p) or 1
        entropy = -sum(x / total * math.log(x / total) for x in p if x > 0)
        weight.append(on * sum(row) / max(entropy, 1e-3))
    weight[0] = max(weight[0], floor / (1 - floor) * sum(weight[1:])) or 1.0
    share = [w / sum(weight) for w in weight]
    mixed = [share[0] * x + 1e-6 * x for x in main]
    for p, row, w in zip(helpers, score[1:], share[1:], strict=True):
        scale = sum(s > 0 for s in row) / (sum(row) or 1)
        mixed = [m + w * x * s * scale for m, x, s in zip(mixed, p, row, strict=True)]
    return [m / sum(mixed) for m in mixed]


def row(data: st.DataObject, width: int, whole: bool) -> list[float]:
    """Draw a distribution with zeros; unless ``whole``, it may sum to less than 1, also to 0."""
    counts = data.draw(st.lists(st.integers(0, 5), min_size=width, max_size=width))
    counts[0] += whole and not any(counts)
    lost = 0 if whole else data.draw(st.integers(0, 4))
    total = sum(counts) + lost
    return [count / total if total else 0.0 for count in counts]


@given(st.data(), st.sampled_from(KERNELS), st.sampled_from([0.0, 0.3, 0.5]), st.sampled_from(["own", "union"]))
@settings(max_examples=100, deadline=None)
def test_equals_the_reference(data: st.DataObject, kernel: Any, floor: float, support: Any) -> None:
    """For any helpers, with zeros and lost probability, each row of a batch is the reference's, and sums to 1."""
    width, count, rows = 5, data.draw(st.integers(1, 3)), 3
    main = [row(data, width, True) for _ in range(rows)]
    helpers = [[row(data, width, False) for _ in range(rows)] for _ in range(count)]
    inputs = (torch.tensor(p, dtype=torch.float64) for p in (main, helpers))
    got = core(*inputs, kernel=kernel, support=support, **{**RELEASED, "main_floor": floor}).exp()
    for number in range(rows):
        helper_rows = [helper[number] for helper in helpers]
        want = torch.tensor(released(main[number], helper_rows, kernel, floor, support == "own"), dtype=torch.float64)
        if all(p in (main[number], [0.0] * width) for p in helper_rows):
            want = torch.tensor(main[number], dtype=torch.float64)
        torch.testing.assert_close(got[number], want, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.sum(-1), torch.ones(rows, dtype=torch.float64))


@pytest.mark.parametrize("preset", [PUBLISHED, RELEASED])
@pytest.mark.parametrize("kernel", KERNELS)
def test_edge_cases_have_no_nan(kernel: Any, preset: dict[str, Any]) -> None:
    """One-hot rows, a helper without probability and no overlap give no NaN; under full agreement the row is kept."""
    one, other, spread = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0]), torch.tensor([0.2, 0.3, 0.5])
    nothing = torch.zeros(3)
    main = torch.stack([spread, one, one, spread, one])
    helper = torch.stack([spread, one, other, nothing, spread])
    got = core(main, [helper, helper], kernel=kernel, **preset).exp()
    assert not got.isnan().any()
    for number in (0, 1, 3):
        assert torch.equal(got[number].log(), main[number].log().exp().log())
    torch.testing.assert_close(got.sum(-1), torch.ones(5))


def test_a_tie_goes_to_the_main_model() -> None:
    """Of two one-hot models at weight 1/2 each, the main model's choice wins; the released code takes the lower id."""
    main, helper = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert core(main, [helper], kernel="linear").argmax() == 1


def test_without_helpers_the_result_is_the_main_model() -> None:
    """Without helpers, the result is the logarithm of the main model's probabilities, bit for bit."""
    assert torch.equal(core(MAIN, []), MAIN.log())


@given(st.sampled_from(KERNELS), st.floats(0, 1), st.floats(0, 1))
def test_consistency_falls(kernel: Any, first: float, second: float) -> None:
    """Consistency starts at 1 (for the sigmoid, nearly), falls with disagreement and is never negative."""
    delta = torch.tensor([[[0.0, min(first, second), max(first, second)]]])
    score = token_consistency(delta, kernel)[0, 0]
    assert score[0] >= score[1] >= score[2] >= 0 and abs(float(score[0]) - AT_ZERO[kernel]) < 1e-6


def test_core_keeps_double_precision() -> None:
    """The result for probabilities in fp64 is in fp64, and normalised to its precision."""
    generator = torch.Generator().manual_seed(0)
    main, helper = torch.rand(2, 3, 9, dtype=torch.float64, generator=generator).log_softmax(-1).exp()
    got = core(main, [helper])
    assert got.dtype == torch.float64
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_a_helper_below_the_support_has_no_weight() -> None:
    """A helper whose whole probability is at most ``threshold`` leaves the main model's row unchanged."""
    main, helper = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.1, 0.0, 0.0]])
    assert torch.equal(core(main, [helper], threshold=0.2), main.log())
    assert not torch.equal(core(main, [helper], threshold=0.05), main.log())


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_rows_stay_no_rows(kernel: Any) -> None:
    """Zero rows of probabilities give zero rows of log-probabilities."""
    assert core(torch.zeros(0, 4), [torch.zeros(0, 4)], kernel=kernel).shape == (0, 4)
