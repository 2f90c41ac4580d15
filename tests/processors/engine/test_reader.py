"""A reader equals a forward over every whole prefix, in every mode of `generate`."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList

from fakes import absolute_model, encoder_decoder_model, sliding_model
from logitkit.errors import ModelError, PromptError
from logitkit.processors.engine import Binding, read_prompts
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.recompute import Guided, Recompute

CAUSAL = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
PROMPTS = ["one prompt", "a second, longer prompt", "three"]
NEGATIVES = ["not", "something else entirely, and long", "no no"]
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True},
    "beams": {"num_beams": 4},
    "beam_sample": {"num_beams": 4, "do_sample": True},
    "num_return_sequences": {"do_sample": True, "num_return_sequences": 3},
    "no_cache": {"use_cache": False},
    "static_cache": {"cache_implementation": "static"},
}


def streams(model: Any, texts: list[str] = PROMPTS, negatives: list[str] = NEGATIVES) -> tuple[Any, Any, Any]:
    """Return the prompts, a reader under the negative prompts, and the slow reference of that reader."""
    tokenizer = tiny_tokenizer()
    prompts = read_prompts(tokenizer, model, texts)
    own = [tokenizer(text)["input_ids"] for text in negatives]
    reader = Binding(model, tokenizer, prompts).reader(own)
    return prompts, reader, Recompute(model, own, prompts.ids, in_encoder=prompts.in_encoder)


def run(model: Any, prompts: Any, processor: Any, **mode: Any) -> torch.Tensor:
    """Generate 12 tokens with one processor in the list."""
    torch.manual_seed(0)
    settings = {"max_new_tokens": 12, "do_sample": False, "attention_mask": prompts.mask} | mode
    return model.generate(prompts.ids, logits_processor=LogitsProcessorList([processor]), **settings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CAUSAL)
def test_equals_recomputation_in_every_mode(kind: str, mode: str) -> None:
    """Logits agree within 1e-4, and tokens are equal, with padding, beams, samples, sequences, static cache."""
    model = CAUSAL[kind]()
    prompts, reader, slow = streams(model)
    probe = Guided(reader, slow)
    got = run(model, prompts, probe, **MODES[mode])
    assert probe.worst < 1e-4
    assert torch.equal(got, run(model, prompts, Guided(slow), **MODES[mode]))


@pytest.mark.parametrize("mode", ["assistant", "prompt_lookup"])
@pytest.mark.parametrize("kind", CAUSAL)
def test_equals_recomputation_under_assisted_decoding(kind: str, mode: str) -> None:
    """Prefixes are repeated and shortened, the draft model calls the processor, and the tokens are the greedy ones."""
    model = CAUSAL[kind]()
    prompts, reader, slow = streams(model, ["abcabcabcabc"], ["not this"])
    helper = {"assistant_model": CAUSAL[kind](1)} if mode == "assistant" else {"prompt_lookup_num_tokens": 3}
    probe = Guided(reader, slow)
    got = run(model, prompts, probe, **helper)
    assert probe.worst < 1e-4
    assert torch.equal(got, run(model, prompts, Guided(slow)))
    assert probe.lengths != sorted(set(probe.lengths)), "this mode should have rewound or repeated a prefix"


@pytest.mark.parametrize("mode", [m for m in MODES if m != "no_cache"])
def test_equals_recomputation_with_an_encoder(mode: str) -> None:
    """The encoder of a T5 reads the second prompt, and the decoder follows the rows."""
    model = encoder_decoder_model()
    prompts, reader, slow = streams(model)
    probe = Guided(reader, slow)
    got = run(model, prompts, probe, **MODES[mode])
    assert probe.worst < 1e-4
    assert torch.equal(got, run(model, prompts, Guided(slow), **MODES[mode]))


def test_equals_recomputation_with_a_compiled_static_cache() -> None:
    """The generating model runs compiled with a static cache, and the reader has a dynamic cache."""
    from transformers import CompileConfig

    model = tiny_model(3)
    prompts, reader, slow = streams(model)
    compiled = CompileConfig(backend="aot_eager", fullgraph=True)
    compiled._compile_all_devices = True  # transformers compiles on accelerators only, unless told so
    probe = Guided(reader, slow)
    got = run(model, prompts, probe, cache_implementation="static", compile_config=compiled)
    assert probe.worst < 1e-4
    assert torch.equal(got, run(model, prompts, Guided(slow)))


@pytest.mark.parametrize("how", ["in place", "wrapped", "forward"])
def test_a_compiled_model_as_second_stream(how: str) -> None:
    """A model that its owner compiled for any length gives the same logits; the backend of the test is eager."""
    torch.compiler.reset()
    main, compiled = tiny_model(), copy.deepcopy(tiny_model(3))
    plain = compiled
    if how == "in place":
        compiled.compile(dynamic=True, backend="eager")
    elif how == "wrapped":
        compiled = torch.compile(compiled, dynamic=True, backend="eager")
    else:
        compiled.forward = torch.compile(compiled.forward, dynamic=True, backend="eager")
    prompts = read_prompts(tiny_tokenizer(), main, PROMPTS)
    own = [tiny_tokenizer()(text)["input_ids"] for text in NEGATIVES]
    reader = Binding(main, tiny_tokenizer(), prompts).reader(own, compiled)
    probe = Guided(reader, Recompute(plain, own, prompts.ids))
    run(main, prompts, probe, num_beams=2)
    assert probe.worst < 1e-4 and reader.forwards > 2
    torch.compiler.reset()


def test_two_generates_with_one_reader() -> None:
    """The second call gives the same tokens with at most as many forwards."""
    model = tiny_model()
    prompts, reader, _ = streams(model)
    first = run(model, prompts, Guided(reader))
    spent = reader.forwards
    assert torch.equal(run(model, prompts, Guided(reader)), first)
    assert reader.forwards <= 2 * spent


def test_plain_decoding_costs_one_forward_of_one_token_a_step() -> None:
    """Each of 12 steps feeds one token a row, after one forward over the prompts."""
    model = tiny_model()
    prompts, reader, _ = streams(model)
    run(model, prompts, Guided(reader))
    own = max(len(tiny_tokenizer()(text)["input_ids"]) for text in NEGATIVES)
    assert (reader.forwards, reader.tokens) == (12, 3 * (own + 11))


def test_a_rarely_called_reader_reads_the_missed_tokens_in_one_chunk() -> None:
    """After seven steps without a call, one forward reads eight tokens."""
    prompts, reader, slow = streams(tiny_model())
    rows = torch.cat([prompts.ids, torch.randint(0, 256, (3, 20))], dim=1)
    for length in (2, 10):
        ids = rows[:, : prompts.width + length]
        torch.testing.assert_close(reader(ids), slow(ids), rtol=0, atol=1e-4)
    assert reader.forwards == 2


def test_a_short_rewind_needs_no_forward() -> None:
    """Logits of the last positions are kept, since assisted decoding requests them again."""
    prompts, reader, slow = streams(tiny_model())
    rows = torch.cat([prompts.ids, torch.randint(0, 256, (3, 6))], dim=1)
    for length in (1, 2, 3, 4, 2, 3, 4):
        ids = rows[:, : prompts.width + length]
        torch.testing.assert_close(reader(ids), slow(ids), rtol=0, atol=1e-4)
    assert reader.forwards == 4


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_order_of_any_prefixes(data: st.DataObject) -> None:
    """Random rows that are dropped, repeated, permuted, extended and shortened have the logits of a whole forward."""
    kind = data.draw(st.sampled_from(sorted(CAUSAL)))
    prompts, reader, slow = streams(CAUSAL[kind]())
    tails = torch.randint(0, 3, (4, 30), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 9))))
    for _ in range(data.draw(st.integers(1, 6))):
        length = data.draw(st.integers(0, 30))
        chosen = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=4))
        ids = torch.stack([torch.cat([prompts.ids[p], tails[t, :length]]) for p, t in chosen])
        torch.testing.assert_close(reader(ids), slow(ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("mode", ["beams", "prompt_lookup", "reuse"])
def test_guidance_of_transformers_is_wrong_in_these_modes(mode: str) -> None:
    """Guidance of transformers keeps state by call and row, so beams, lookup and reuse give other tokens than ours."""
    from transformers.generation.logits_process import UnbatchedClassifierFreeGuidanceLogitsProcessor

    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts, reader, slow = streams(model, ["abcabcabcabc"], ["not this"])
    beams = 4 if mode == "beams" else 1
    negative = torch.tensor(tokenizer(["not this"] * beams)["input_ids"])
    theirs = UnbatchedClassifierFreeGuidanceLogitsProcessor(2.0, model, unconditional_ids=negative)
    settings = {"beams": {"num_beams": 4}, "prompt_lookup": {"prompt_lookup_num_tokens": 3}, "reuse": {}}[mode]
    if mode == "reuse":
        run(model, prompts, theirs)
    right = run(model, prompts, Guided(slow), **settings)
    assert not torch.equal(run(model, prompts, theirs, **settings), right)
    assert torch.equal(run(model, prompts, Guided(reader), **settings), right)


def test_equal_requests_share_one_reader() -> None:
    """Two requests for the same model and prompts return one reader."""
    model, tokenizer = tiny_model(), tiny_tokenizer()
    binding = Binding(model, tokenizer, read_prompts(tokenizer, model, PROMPTS))
    own = binding.own_prompts()
    assert binding.reader(own) is binding.reader([list(ids) for ids in own])
    assert binding.reader(own) is not binding.reader(own, tiny_model(1))


def test_memory_is_freed_with_the_call() -> None:
    """Deleting the reader frees it, since nothing else holds a reference."""
    model = tiny_model()
    prompts, reader, _ = streams(model)
    run(model, prompts, Guided(reader))
    gone = weakref.ref(reader)
    del reader
    gc.collect()
    assert gone() is None


def test_an_interrupted_forward_drops_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an interruption the next call reads from scratch and is right."""
    prompts, reader, slow = streams(tiny_model())
    rows = torch.cat([prompts.ids, torch.randint(0, 256, (3, 6))], dim=1)
    reader(rows[:, :-1])

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reader, "_forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            reader(rows)
    torch.testing.assert_close(reader(rows), slow(rows), rtol=0, atol=1e-4)


def test_a_row_from_an_unknown_prompt_is_refused() -> None:
    """The error names the way out: bind the chain to these prompts."""
    prompts, reader, _ = streams(tiny_model())
    with pytest.raises(PromptError, match="bind the chain to these prompts"):
        reader(prompts.ids + 1)


def test_a_model_without_a_cache_is_refused() -> None:
    """The error is raised when the reader is built."""
    model, tokenizer = tiny_model(), tiny_tokenizer()

    class Uncached(torch.nn.Module):
        config, device = model.config, model.device

        def forward(self, input_ids: torch.Tensor) -> None: ...

    with pytest.raises(ModelError, match="must take"):
        Binding(model, tokenizer, read_prompts(tokenizer, model, PROMPTS)).reader([[1], [2], [3]], Uncached())


def test_a_reader_cannot_be_pickled() -> None:
    """The error names the way out: pickle the chain."""
    _, reader, _ = streams(tiny_model())
    with pytest.raises(ModelError, match="pickle the chain"):
        pickle.dumps(reader)


@given(seed=st.integers(0, 1000), counts=st.lists(st.integers(1, 6), min_size=2, max_size=6))
@settings(deadline=None, max_examples=15)
def test_positions_equal_reading_each_prefix(seed: int, counts: list[int]) -> None:
    """Any number of last positions at any length, in any order of calls, up to the position after the prompt."""
    model = tiny_model()
    prompts, reader, slow = streams(model)
    rows = torch.randint(0, 256, (3, 8), generator=torch.Generator().manual_seed(seed))
    for count in counts:
        length = (7 * count + seed) % 8
        ids = torch.cat([prompts.ids, rows[:, :length]], dim=1)
        count = min(count, length + 1)
        want = [slow(ids[:, : ids.shape[1] - back]) for back in reversed(range(count))]
        got = reader.positions(ids, count)
        torch.testing.assert_close(got, torch.stack(want, dim=1), atol=1e-4, rtol=0)
        torch.testing.assert_close(reader(ids), want[-1], atol=1e-4, rtol=0)


def test_positions_after_a_draft_need_one_forward() -> None:
    """One forward gives five positions after four drafted tokens, and a rejected draft is removed from the cache."""
    prompts, reader, _ = streams(tiny_model())
    rows = torch.randint(0, 256, (3, 9))
    reader.positions(torch.cat([prompts.ids, rows[:, :4]], dim=1), 5)
    reader.positions(torch.cat([prompts.ids, rows[:, :2], rows[:, 5:]], dim=1), 5)
    assert reader.forwards == 2
    assert reader.tokens == 3 * (reader.width + 4) + 3 * 5


def test_positions_with_an_encoder() -> None:
    """Positions are those of the decoder tokens."""
    model = encoder_decoder_model()
    _, reader, slow = streams(model)
    ids = torch.cat([torch.full((3, 1), 258), torch.randint(0, 256, (3, 4))], dim=1)
    want = torch.stack([slow(ids[:, :length]) for length in (3, 4, 5)], dim=1)
    torch.testing.assert_close(reader.positions(ids, 3), want, atol=1e-4, rtol=0)
