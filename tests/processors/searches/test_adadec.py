"""AdaDec against a reading of every branch from the beginning, and the fit of its threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import logitkit
from logitkit.errors import DataError, FileFormatError, ModelError, ParameterError
from logitkit.processors.engine.trace import Trace
from logitkit.processors.searches import AdaDec, BoundSearch, EntropyThreshold, Sampling
from logitkit.processors.searches.entropy_threshold import logistic_fit
from logitkit.registry import Chain
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_models import encoder_decoder_model
from logitkit.registry.reference_entropies import reference_entropies

PAD = 258


def law_behind(row: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return tiny_model()(torch.tensor([row])).logits[0, -1].float().log_softmax(-1)  # type: ignore[no-any-return]


def reference(row: list[int], *, threshold: float, top: int, depth: int, tokens: int, ends: list[int]) -> list[int]:
    """The row after AdaDec, without a cache: every branch is read token by token from the beginning."""
    limit = len(row) + tokens
    while len(row) < limit and not (len(row) > limit - tokens and row[-1] in ends):
        logp = law_behind(row)
        entropy = -(logp.exp() * logp).sum()
        if entropy < threshold:
            row = [*row, int(logp.argmax())]
            continue
        best = (-float("inf"), -1)
        for token in logp.topk(top).indices.tolist():
            branch, total = [*row, token], float(logp[token])
            while len(branch) < min(limit, len(row) + 1 + depth) and branch[-1] not in ends:
                behind = law_behind(branch)
                branch, total = [*branch, int(behind.argmax())], total + float(behind.max())
            mean = total / (len(branch) - len(row))
            if mean > best[0]:
                best = (mean, token)
        row = [*row, best[1]]
    return row


@pytest.mark.parametrize(("threshold", "top", "depth"), [(0.0, 3, 4), (4.5, 4, 2), (4.8, 3, 1), (9.0, 3, 2)])
def test_tokens_are_those_of_the_reference(threshold: float, top: int, depth: int) -> None:
    """In a batch with padding; branches end at end tokens and at the limit of the length."""
    ids = torch.randint(0, 256, (3, 7), generator=torch.Generator().manual_seed(top))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    ends = list(range(0, 256, 9))
    trace = Trace()
    search = BoundSearch(AdaDec(threshold=threshold, top=top, depth=depth), trace=trace)
    options: dict[str, Any] = {"max_new_tokens": 7, "do_sample": False, "eos_token_id": ends, "pad_token_id": PAD}
    got = tiny_model().generate(ids, attention_mask=mask, custom_generate=search, **options)
    plain = tiny_model().generate(ids, attention_mask=mask, **options)
    for number in range(3):
        row = ids[number][mask[number].bool()].tolist()
        new = reference(row, threshold=threshold, top=top, depth=depth, tokens=7, ends=ends)[len(row) :]
        tail = got[number, 7:].tolist()
        assert tail[: len(new)] == new and set(tail[len(new) :]) <= {PAD}
    assert trace.search is not None
    notes = trace.search.notes
    assert notes["look-ahead forwards"] <= depth * notes["compared tokens"]
    if threshold == 0.0:
        assert notes["compared tokens"] == notes["new tokens"] and notes["changed tokens"] > 0
    if threshold == 9.0:  # more than the entropy of 272 equal tokens
        assert torch.equal(got, plain) and trace.search.forwards == got.shape[1] - 7


def test_a_look_ahead_is_depth_forwards_of_top_rows() -> None:
    """Three new tokens, each compared: 3 forwards of one row, and as many of the branches as the limit leaves."""
    trace = Trace()
    bound = BoundSearch(AdaDec(threshold=0.0, top=4, depth=2), trace=trace)
    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": PAD}
    tiny_model().generate(torch.tensor([[1, 2, 3]]), custom_generate=bound, max_new_tokens=3, **settings)
    report = trace.search
    assert report is not None and report.peak_rows == 4
    assert report.notes["look-ahead forwards"] == 2 + 1 + 0  # a token before the limit has one, the last one none
    assert report.forwards == 3 + 3 and report.tokens == (3 + 1 + 1) + 4 * 3


def test_neutral_settings() -> None:
    """top=1 and an infinite threshold are plain decoding; without a comparison the draws are those of sampling."""
    ids = torch.randint(0, 256, (2, 5), generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"max_new_tokens": 6, "pad_token_id": PAD}
    plain = tiny_model().generate(ids, do_sample=False, **options)
    for search in (AdaDec(threshold=0.0, top=1), AdaDec(threshold=float("inf"))):
        assert torch.equal(tiny_model().generate(ids, custom_generate=search, do_sample=False, **options), plain)
    rows = []
    for search in (Sampling(), AdaDec(threshold=float("inf"))):
        bound = BoundSearch(search)
        bound.seeds = range(2)
        rows.append(
            tiny_model().generate(ids, custom_generate=bound, do_sample=True, num_return_sequences=2, **options)
        )
    assert torch.equal(*rows)


def test_tokens_of_probability_0_are_not_compared() -> None:
    """Two tokens are left, and four are asked for: the row stays within the two."""
    kept = [65, 66]
    options: dict[str, Any] = {"suppress_tokens": [token for token in range(272) if token not in kept]}
    search = AdaDec(threshold=0.0, top=4, depth=3)
    got = tiny_model().generate(
        torch.tensor([[1, 2]]), custom_generate=search, do_sample=False, max_new_tokens=8, **options
    )
    assert set(got[0, 2:].tolist()) <= set(kept)


@pytest.mark.parametrize("steps", ["cfg(1.5)", "top_k(6)", "frequency_penalty(1.0)", "choices(['abcd', 'xyzw'])"])
def test_behind_steps(steps: str) -> None:
    """The branches are read under the steps; an encoder-decoder looks ahead too."""
    settings: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    found = logitkit.generate(tiny_model(), tiny_tokenizer(), ["ab", "c"], f"{steps} | adadec(0.0, top=2)", **settings)
    assert len(found.texts) == 2
    if steps.startswith("choices"):
        assert set(found.texts) <= {"abcd", "xyzw"}
    model = encoder_decoder_model()
    far = logitkit.generate(model, tiny_tokenizer(), ["ab", "c"], "adadec(inf)", **settings)
    assert far.texts == logitkit.generate(model, tiny_tokenizer(), ["ab", "c"], **settings).texts
    logitkit.generate(model, tiny_tokenizer(), ["ab", "c"], "adadec(0.0, depth=2)", **settings)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 6), st.booleans()), min_size=2, max_size=30))
def test_the_regression_is_that_of_a_general_minimiser(examples: list[tuple[float, bool]]) -> None:
    """Separable examples and examples of one kind too; the penalty keeps the slope finite."""
    x = torch.tensor([value for value, _ in examples]).double()
    y = torch.tensor([right for _, right in examples]).long()
    if not 0 < int(y.sum()) < len(y):
        return

    def loss(at: Any) -> float:
        z = at[0] * x + at[1]
        return float((torch.nn.functional.softplus(z) - y * z).sum() + at[0] ** 2 / 2)

    slope, intercept = logistic_fit(x, y)
    best = minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    assert loss((slope, intercept)) <= best.fun + 1e-7


def test_a_threshold_by_hand() -> None:
    """100 right tokens at 0 nats and 100 wrong ones at 2: the best division lies at an entropy between them."""
    entropy = torch.tensor([0.0, 2.0] * 100)
    fitted = EntropyThreshold.fit(entropy, entropy == 0, model="m")
    assert 0 < fitted.nats < 2
    assert (fitted.accuracy, fitted.above, fitted.right, fitted.tokens) == (1.0, 0.5, 0.5, 200)
    # Where almost all tokens of an entropy of 0 are wrong, even those are compared.
    entropy = torch.tensor([0.0] * 10 + [0.0, 0.1, 0.2, 0.3] * 40)
    right = torch.tensor([True] * 10 + [False] * 160)
    right[20::8] = True
    assert EntropyThreshold.fit(entropy, right, model="m").nats >= 0


def test_the_threshold_is_reproducible_and_finds_a_known_one() -> None:
    """Tokens whose chance of being right is the logistic function of 3 - 2 H, so that it is 1/2 at 1.5 nats."""
    generator = torch.Generator().manual_seed(0)
    entropy = 3 * torch.rand(20_000, generator=generator)
    right = torch.rand(20_000, generator=generator) < (3 - 2 * entropy).sigmoid()
    fitted = EntropyThreshold.fit(entropy, right, model="m", seed=4)
    assert fitted == EntropyThreshold.fit(entropy, right, model="m", seed=4)
    assert fitted.nats == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize(
    ("entropy", "right", "words"),
    [
        ([], [], "got 0 and 0"),
        ([1.0, 2.0, 3.0], [True, True, True], "got 3 and 0"),
        ([1.0] * 10 + [5.0] * 10, [False] * 10 + [True] * 10, "wrong more often where the entropy is larger"),
    ],
)
def test_references_that_fit_no_threshold(entropy: list[float], right: list[bool], words: str) -> None:
    with pytest.raises(DataError, match=words):
        EntropyThreshold.fit(torch.tensor(entropy), torch.tensor(right, dtype=torch.bool), model="m")


def test_a_file_is_read_without_running_code(tmp_path: Path) -> None:
    """JSON in, JSON out; anything else is one error that names the file."""
    fitted = EntropyThreshold(
        nats=1.25, accuracy=0.9, above=0.2, right=0.7, tokens=40, model="ab", chain="top_p(p=0.9)"
    )
    path = tmp_path / "threshold.json"
    fitted.save(path)
    assert EntropyThreshold.load(path) == fitted
    content = json.loads(path.read_text())
    wrong: list[Any] = [content | {"kind": "router head"}, content | {"version": 2}, content | {"nats": -1.0}]
    wrong += [content | {"nats": "1"}, content | {"nats": True}, content | {"more": 1}, {}, [1]]
    wrong += [{name: value for name, value in content.items() if name != "model"}]
    for each in wrong:
        path.write_text(json.dumps(each))
        with pytest.raises(
            FileFormatError, match=r"adadec: threshold must be.*train-adadec wrote, got .*threshold\.json"
        ):
            EntropyThreshold.load(path)
    path.write_text(json.dumps(content).replace("1.25", "NaN"))
    with pytest.raises(FileFormatError):
        EntropyThreshold.load(path)
    path.write_bytes(b"\x80\x04cbuiltins\nprint\n")
    with pytest.raises(FileFormatError):
        EntropyThreshold.load(path)
    with pytest.raises(FileFormatError):
        EntropyThreshold.load(tmp_path / "absent.json")


def test_a_chain_takes_a_number_a_file_and_an_object(tmp_path: Path) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    entropy, right = reference_entropies(Chain(""), model, tokenizer, "ab", "cde")
    row = tokenizer("abcde")["input_ids"]
    for place in range(3):
        logp = law_behind(row[: 2 + place]).double()
        assert float(entropy[place]) == pytest.approx(float(-(logp.exp() * logp).sum()), abs=1e-5)
        assert bool(right[place]) == (int(logp.argmax()) == row[2 + place])
    cold, _ = reference_entropies(Chain("temperature(0.5)"), model, tokenizer, "ab", "cde")
    assert bool((cold < entropy).all())
    from logitkit.processors.engine.weights_fingerprint import model_fingerprint

    path = tmp_path / "threshold.json"
    shares = {"accuracy": 0.9, "above": 0.2, "right": 0.7}
    fitted = EntropyThreshold(nats=4.7, tokens=9, model=model_fingerprint(model), **shares)
    fitted.save(path)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    by_number = logitkit.generate(model, tokenizer, "ab", "adadec(4.7)", **options).texts
    by_file = [{"name": "adadec", "params": {"threshold": str(path)}}]
    assert logitkit.generate(model, tokenizer, "ab", by_file, **options).texts == by_number
    call = logitkit.chain("adadec('mine')").bind(model, tokenizer, "ab", mine=fitted)
    assert call.texts(call.generate(**options)) == by_number
    with pytest.raises(ModelError, match="adadec: the threshold must have been fitted for this model"):
        logitkit.chain(by_file).bind(tiny_model(1), tokenizer, "ab")
    with pytest.raises(ModelError, match="adadec: threshold 'mine' must be an EntropyThreshold, got str"):
        logitkit.chain("adadec('mine')").bind(model, tokenizer, "ab", mine="1.5")


def test_refused() -> None:
    for threshold in (-1.0, float("nan"), True):
        with pytest.raises(ParameterError, match="adadec: threshold must be"):
            logitkit.chain([{"name": "adadec", "params": {"threshold": threshold}}]).bind(
                tiny_model(), tiny_tokenizer(), "ab"
            )
    with pytest.raises(ParameterError, match="threshold must be given"):
        logitkit.chain("adadec()")
    with pytest.raises(FileFormatError, match=r"adadec: threshold must be a number of nats, or a file"):
        logitkit.chain("adadec('absent.json')").bind(tiny_model(), tiny_tokenizer(), "ab")
    with pytest.raises(ParameterError, match="depth must be a whole number >= 1"):
        AdaDec(threshold=1.0, depth=0)
    assert logitkit.chain("adadec(inf)") == logitkit.chain(logitkit.chain("adadec(inf)").as_data())
