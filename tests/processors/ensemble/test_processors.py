"""Ensembles: fusion by hand, every alignment against a dense slow reference, prompts of their own, clear errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor

import logitkit
from ensembles import PROMPTS, RESOURCES, TOKENIZERS, bound, decode
from fakes import encoder_decoder_model
from foreign import RecomputeForeign, foreign_model, foreign_tokenizer
from logitkit.errors import ModelError, ParameterError
from logitkit.processors.ensemble import (
    PRESETS,
    AlignmentVocabulary,
    Core,
    Ensemble,
    Member,
    align,
    core,
    fuse,
    member_probabilities,
)
from logitkit.processors.tokens import Retokenizer, Vocabulary
from logitkit.registry.laws import tiny_model, tiny_tokenizer

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "num_return_sequences": 2},
}


class Naive(LogitsProcessor):
    """Everything anew at every step: decode, tokenize, read without cache, multiply by the dense map, combine."""

    def __init__(self, call: Any, names: list[str], method: str, combine: Any, topk: int = 0) -> None:
        self.combine, self.topk = combine, topk
        vocabulary = Vocabulary.of(tiny_tokenizer(), 272)
        self.streams, self.maps = [], []
        for name in names:
            model, tokenizer = RESOURCES[name], TOKENIZERS[name]
            fresh = Retokenizer(vocabulary, tokenizer, Vocabulary.of(tokenizer))
            own = [tokenizer(text)["input_ids"] for text in PROMPTS]
            slow = RecomputeForeign(
                model,
                own,
                call.prompts.ids,
                lambda text, f=fresh: f.of_bytes([text])[0],
                lambda t: vocabulary.token_bytes[t] or b"",
            )
            self.streams.append(slow)
            sides = AlignmentVocabulary.of(model, tokenizer), AlignmentVocabulary.of(tiny_model(), tiny_tokenizer())
            self.maps.append(align(method, *sides).matrix.to_dense())

    def top(self, logits: torch.Tensor) -> torch.Tensor:
        if self.topk:
            least = logits.sort(-1, descending=True).values[:, self.topk - 1 : self.topk]
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits.softmax(-1)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = [self.top(stream(input_ids)) @ dense for stream, dense in zip(self.streams, self.maps, strict=True)]
        return self.combine(self.top(scores), said).log()


def mean(main: torch.Tensor, said: list[torch.Tensor]) -> torch.Tensor:
    mixed = main + sum(said)
    return mixed / mixed.sum(-1, keepdim=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", ["exact", "mined", "gac", "embedding"])
def test_equals_the_naive_ensemble(method: str, mode: str) -> None:
    """Two helpers, two tokenizers, three prompts of unequal length: the same tokens as recomputing everything."""
    call = bound(f"ensemble(models=['far', 'piece'], align={method!r})")
    want = decode(bound(""), logits_processor=[Naive(call, ["far", "piece"], method, mean)], **MODES[mode])
    assert torch.equal(decode(call, **MODES[mode]), want)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", ["linear", "rbf", "power", "reciprocal", "sigmoid"])
def test_core_equals_the_naive_one(kernel: str, mode: str) -> None:
    """CoRE over the same slow streams."""
    call = bound(f"core(models=['far', 'piece'], align='gac', kernel={kernel!r}, guard=False)")
    naive = Naive(call, ["far", "piece"], "gac", lambda p, q: core(p, q, kernel=kernel).exp(), topk=10)
    want = decode(bound(""), logits_processor=[naive], **MODES[mode])
    assert torch.equal(decode(call, **MODES[mode]), want)


CORE_SETTINGS: dict[str, dict[str, Any]] = {
    "core(models=['far', 'piece'], guard=False)": {},
    "core(models=['far', 'piece'], kernel='power', sharpness=3.0, main_floor=0.2, topk=0, guard=False)": {
        "kernel": "power",
        "sharpness": 3.0,
        "main_floor": 0.2,
    },
    "core(models=['far'], preset='choice')": {"variant": PRESETS["choice"].variant},
    "core(models=['far'], preset='published')": {"main_floor": 0.0, "variant": PRESETS["published"].variant},
}


@pytest.mark.parametrize("chain", CORE_SETTINGS)
def test_the_processor_returns_the_pure_function_core(chain: str) -> None:
    """The scores of `Core` are exactly those of `core` on the members' probabilities."""
    call = bound(chain)
    ids, scores = call.inputs["input_ids"], 3 * torch.randn(3, 272)
    processor = call.composite.parts[0][1]
    main, helpers = member_probabilities(ids, scores, processor.helpers, topk=processor.topk)
    assert torch.equal(processor(ids, scores), core(main, helpers, **CORE_SETTINGS[chain]))


@pytest.mark.parametrize("how", ["arithmetic", "geometric", "max"])
def test_the_processor_returns_the_pure_function_fuse(how: Any) -> None:
    """The scores of `Ensemble` are exactly those of `fuse` on the members' probabilities."""
    call = bound(f"ensemble(models=['far', 'piece'], align='gac', weights=[1.0, 2.0, 3.0], fuse={how!r})")
    ids, scores = call.inputs["input_ids"], 3 * torch.randn(3, 272)
    processor = call.composite.parts[0][1]
    main, helpers = member_probabilities(ids, scores, processor.helpers)
    want = fuse(main, helpers, [1.0, 2.0, 3.0], how, processor.reachable)
    assert torch.equal(processor(ids, scores), want)


def test_core_keeps_double_precision() -> None:
    """The result for probabilities in fp64 is in fp64, and normalised to its precision."""
    generator = torch.Generator().manual_seed(0)
    main, helper = torch.rand(2, 3, 9, dtype=torch.float64, generator=generator).log_softmax(-1).exp()
    got = core(main, [helper])
    assert got.dtype == torch.float64
    torch.testing.assert_close(got.exp().sum(-1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_fusion_by_hand() -> None:
    """p = [1/2, 1/2, 0], q = [1/8, 0, 7/8], weights 3:1."""
    p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.125, 0.0, 0.875]])

    def fused(how: Any, *reachable: Any) -> torch.Tensor:
        return fuse(p, [q], [3.0, 1.0], how, reachable).exp()[0]

    torch.testing.assert_close(fused("arithmetic"), torch.tensor([13.0, 12.0, 7.0]) / 32)
    torch.testing.assert_close(fused("max"), torch.tensor([12.0, 12.0, 7.0]) / 31)
    torch.testing.assert_close(fused("geometric"), torch.tensor([1.0, 0.0, 0.0]))
    first = 0.5**0.75 * 0.125**0.25
    can = torch.tensor([True, False, True])
    torch.testing.assert_close(fused("geometric", can), torch.tensor([first, 0.5, 0.0]) / (first + 0.5))


def test_a_row_on_which_nothing_is_left_is_the_main_models() -> None:
    """The geometric mean of two sure models of different mind."""
    p, q = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert fuse(p, [q], [1.0, 1.0], "geometric").exp().tolist() == [[1.0, 0.0]]


def test_the_union_by_hand() -> None:
    """UniTE, two likeliest of each: main a and b, helper `the` (t) and c; both are read over a, b, t, c."""
    helper, main = (
        AlignmentVocabulary.of(foreign_model(), foreign_tokenizer()),
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
    )

    def at(side: AlignmentVocabulary, **logits: float) -> torch.Tensor:
        scores = torch.full((1, side.size), -5.0)
        for text, value in logits.items():
            scores[0, side.vocabulary.ids_of[text.encode()][0]] = value
        return scores

    theirs = at(helper, the=3.0, c=2.0, a=1.0, t=0.5)
    member = Member(name="far", read=lambda ids: theirs, alignment=align("unite", helper, main))
    p, (q,) = member_probabilities(torch.zeros(1, 1, dtype=torch.long), at(main, a=2.0, b=1.0, t=0.0), [member], topk=2)
    places = [main.vocabulary.ids_of[letter.encode()][0] for letter in "abtc"]
    torch.testing.assert_close(p[0, places], torch.tensor([2.0, 1.0, 0.0, -5.0]).softmax(-1))
    torch.testing.assert_close(q[0, places], torch.tensor([1.0, -5.0, 0.5, 2.0]).softmax(-1))
    assert float(p.sum()) == pytest.approx(1) and float(q.sum()) == pytest.approx(1)


@pytest.mark.parametrize("mode", MODES)
def test_unite_with_its_whole_vocabulary_is_a_softmax_over_all(mode: str) -> None:
    """With every token in the union, a byte's logit is the helper's own logit of that byte."""
    call = bound("ensemble(models=['far'], align='unite', topk=300)")

    def combine(p: torch.Tensor, _: Any) -> torch.Tensor:
        return p

    naive = Naive(call, ["far"], "exact", combine)
    back = align(
        "unite",
        AlignmentVocabulary.of(RESOURCES["far"], TOKENIZERS["far"]),
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
    ).reverse

    def whole(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        own = naive.streams[0](input_ids)[:, back.clamp_min(0)].masked_fill(back < 0, -torch.inf)
        union = own > -torch.inf
        return (scores.softmax(-1) + own.softmax(-1)).log().masked_fill(~union & (scores == -torch.inf), -torch.inf)

    class Whole(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return whole(input_ids, scores)

    assert torch.equal(decode(call, **MODES[mode]), decode(bound(""), logits_processor=[Whole()], **MODES[mode]))


@pytest.mark.parametrize(
    "chain",
    [
        "ensemble(models=[])",
        "core(models=[])",
        "ensemble(models=['far'], weights=[2.0, 0.0])",
        "ensemble(models=['far'], gate=0.0)",
        "core(models=['far'], main_floor=1.0)",
        "ensemble(models=['other', 'other'])",
        "core(models=['other'], kernel='linear')",
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_add_is_an_exact_no_op(chain: str, mode: str) -> None:
    """No helper, no weight, no gate, only the generating model itself: bit for bit, and no forward."""
    call = bound(chain, other=tiny_model())
    scores = torch.randn(3, 272)
    assert call.composite(call.inputs["input_ids"], scores) is scores
    assert torch.equal(decode(call, **MODES[mode]), decode(bound(""), **MODES[mode]))
    assert set(call.trace.forwards.values()) <= {0}


def test_a_helper_with_the_same_tokenizer_needs_no_map() -> None:
    """The plain mean of two models over one vocabulary; ids beyond the tokenizer included."""
    call = bound("ensemble(models=['other'], weights=[1.0, 3.0])", other=tiny_model(1))
    ids, scores = call.inputs["input_ids"], torch.randn(3, 272)
    helper = call.composite.parts[0][1].helpers[0]
    assert helper.alignment is None
    want = (0.25 * scores.softmax(-1) + 0.75 * helper.read(ids).softmax(-1)).log()
    torch.testing.assert_close(call.composite(ids, scores), want)


def test_the_gate_asks_only_unsure_rows() -> None:
    """A sure row keeps its scores; steps at which all are sure cost no forward."""
    call = bound("ensemble(models=['far'], gate=0.5)")
    scores = torch.zeros(3, 272)
    scores[:, 5] = 20.0
    assert call.composite(call.inputs["input_ids"], scores) is scores and call.trace.forwards == {"far": 0}
    scores[1] = 0.0
    got = call.composite(call.inputs["input_ids"], scores)
    assert torch.equal(got[[0, 2]], scores[[0, 2]]) and not torch.equal(got[1], scores[1])
    assert call.trace.forwards == {"far": 1} and call.trace.fired["ensemble"] == pytest.approx(1 / 6)


def test_probabilities_are_normalised_so_that_sampling_is_right() -> None:
    """What the released code returns as scores are probabilities, which softmax flattens."""
    for chain in ("ensemble(models=['far'], align='exact')", "core(models=['far'], guard=False)"):
        call = bound(chain)
        got = call.composite(call.inputs["input_ids"], 3 * torch.randn(3, 272))
        torch.testing.assert_close(got.exp().sum(-1), torch.ones(3))
        torch.testing.assert_close(got, got.log_softmax(-1))


def test_the_guard_by_hand() -> None:
    """Main says `t`, the ensemble `the`: the main row stays. An end of the main model stays too."""
    foreign = foreign_tokenizer()
    vocabulary = Vocabulary.of(foreign, 320)
    t, the, x = (vocabulary.ids_of[text][0] for text in (b"t", b"the", b"x"))

    def chosen(main: int, helper: int, guard: bool) -> int:
        scores, theirs = torch.zeros(1, 320), torch.full((1, 320), -9.0)
        scores[0, main], theirs[0, helper] = 6.0, 9.0
        made = Core(
            helpers=[Member(name="far", read=lambda ids: theirs)],
            token_bytes=vocabulary.token_bytes,
            end_tokens=[2],
            guard=guard,
            main_floor=0.0,
            filters=False,
        )
        return int(made(torch.zeros(1, 1, dtype=torch.long), scores).argmax())

    assert [chosen(t, the, guard) for guard in (False, True)] == [the, t]
    assert [chosen(the, t, guard) for guard in (False, True)] == [t, the]
    assert [chosen(2, x, guard) for guard in (False, True)] == [x, 2]
    assert [chosen(t, x, guard) for guard in (False, True)] == [x, x]


def test_the_trace_tells_weights_disagreement_and_loss() -> None:
    """Each recorded step carries them, and a notice says what the alignment covers."""
    call = bound("core(models=['far', 'piece'], align='exact', guard=False)", trace=True)
    decode(call)
    notes = call.trace.steps[0].notes
    weights = [notes[f"weight_{name}"] for name in ("main", "far", "piece")]
    assert sum(weights) == pytest.approx(1) and weights[0] >= 0.5 - 1e-6
    assert 0 <= notes["disagreement_far"] <= 1 and 0 <= notes["lost_far"] <= 1 and notes["filtered_far"] >= 0
    assert any("tokens of far by exact: 257 exact, 0 partial, 12 none" in notice for notice in call.trace.notices)


def with_template(tokenizer: Any, template: str) -> Any:
    import copy

    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other


def test_a_chat_is_written_in_each_models_own_template() -> None:
    """The helper's system prompt and markers survive every step; only the continuation is retokenized."""
    main = with_template(tiny_tokenizer(), "{% for m in messages %}[{{ m.content }}]{% endfor %}")
    far = with_template(foreign_tokenizer(), "<begin>Be brief.{% for m in messages %}Q: {{ m.content }} A:{% endfor %}")
    chat = [{"role": "user", "content": "on the"}]
    call = logitkit.chain("ensemble(models=['far'])").bind(
        tiny_model(), main, [chat], tokenizers={"far": far}, far=RESOURCES["far"]
    )
    decode(call)
    reader = call.composite.parts[0][1].helpers[0].read
    assert call.prompts.texts == ("[on the]",)
    assert far.decode(reader._rows[0]).startswith("<begin>Be brief.Q: on the A:") and reader._rows[0][0] == 1
    with pytest.raises(ModelError, match="'far' must have a chat template"):
        logitkit.chain("ensemble(models=['far'])").bind(
            tiny_model(), main, [chat], tokenizers={"far": foreign_tokenizer()}, far=RESOURCES["far"]
        )
    plain = logitkit.chain("ensemble(models=['far'], prompts={'far': 'Q: on the A:'})").bind(
        tiny_model(), main, [chat], tokenizers={"far": foreign_tokenizer()}, far=RESOURCES["far"]
    )
    assert plain.composite.parts[0][1].helpers[0].read.own == (tuple(foreign_tokenizer()("Q: on the A:")["input_ids"]),)


def test_an_alignment_of_ones_own(tmp_path: Any) -> None:
    """By name or by file; for other vocabularies it is refused before any model runs."""
    sides = (
        AlignmentVocabulary.of(RESOURCES["far"], TOKENIZERS["far"]),
        AlignmentVocabulary.of(tiny_model(), tiny_tokenizer()),
    )
    made = align("gac", *sides)
    made.save(tmp_path / "map.safetensors")
    want = decode(bound("ensemble(models=['far'], align='gac')"))
    assert torch.equal(decode(bound("ensemble(models=['far'], align='mine')", mine=made)), want)
    assert torch.equal(decode(bound(f"ensemble(models=['far'], align='{tmp_path}/map.safetensors')")), want)
    with pytest.raises(ModelError, match="alignment must be for these vocabularies, but its helper"):
        bound("core(models=['piece'], align='mine')", mine=made)
    with pytest.raises(ParameterError, match="align must be an Alignment"):
        bound("core(models=['piece'], align='mine')", mine="a text")


def test_without_the_registry() -> None:
    """A helper is any callable."""
    made = Ensemble(helpers=[Member(name="flat", read=lambda ids: torch.zeros(len(ids), 4))], weights=[1.0, 1.0])
    scores = torch.tensor([[0.7, 0.1, 0.1, 0.1]]).log()
    want = torch.tensor([[0.475, 0.175, 0.175, 0.175]])
    torch.testing.assert_close(made(torch.zeros(1, 1, dtype=torch.long), scores).exp(), want)
    assert math.isclose(float(made(torch.zeros(1, 1, dtype=torch.long), scores).exp().sum()), 1, rel_tol=1e-6)


def test_a_main_model_with_an_encoder() -> None:
    """Its rows hold decoder tokens only; the helper reads its own prompt and what they spell."""
    main = encoder_decoder_model()
    call = logitkit.chain("ensemble(models=['far'], align='gac')").bind(
        main, tiny_tokenizer(), PROMPTS[:1], tokenizers=TOKENIZERS, far=RESOURCES["far"]
    )
    decoded = decode(call)
    reader = call.composite.parts[0][1].helpers[0].read
    foreign, tiny = Vocabulary.of(foreign_tokenizer()), Vocabulary.of(tiny_tokenizer(), 272)
    own = foreign_tokenizer()(PROMPTS[0])["input_ids"]
    assert reader._rows[0][: len(own)] == own
    assert foreign.join(reader._rows[0][len(own) :]) == tiny.join(decoded[0, :-1].tolist())


def test_the_example_runs() -> None:
    """examples/ensemble_across_tokenizers.py, on tiny models."""
    import runpy
    from pathlib import Path

    script = Path(__file__).parents[3] / "examples" / "ensemble_across_tokenizers.py"
    main = runpy.run_path(str(script))["main"]
    assert main(tiny_model(), tiny_tokenizer(), RESOURCES["far"], TOKENIZERS["far"])
