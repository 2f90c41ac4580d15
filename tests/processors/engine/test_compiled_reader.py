"""Streams of other models beside a compiled `generate`: equal logits, one compilation, bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters
from transformers import CompileConfig, StaticCache

import logitkit
from fakes import absolute_model, encoder_decoder_model, sliding_model
from fusing import PROMPTS
from logitkit.errors import ModelError
from logitkit.processors.engine import Reader, read_prompts
from logitkit.processors.engine.call_settings import CallSettings
from logitkit.processors.engine.compiled_reader import CompiledReader, can_read_compiled
from logitkit.processors.engine.model_forward import forwarded, forwarded_by
from logitkit.processors.engine.shared_vocabulary import SharedIdsModel
from logitkit.processors.engine.static_settings import StaticSettings
from logitkit.processors.transformers_api import CACHE, cache_of
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.laws.tiny_architectures import jamba
from reference.recompute import Recompute

KINDS = {"rotary": tiny_model, "absolute": absolute_model, "sliding": sliding_model}
CHAINS = {
    "contrastive": "contrastive(amateur='other')",
    "dexperts": "dexperts(expert='other', antiexpert='third')",
    "ensemble": "ensemble(models=['other'])",
    "core": "core(models=['other'])",
    "cascade": "cascade(large='other', rule='token_v3', alpha=0.3)",
}
MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sequences": {"do_sample": True, "num_return_sequences": 2},
    "beams": {"num_beams": 2},
}


@pytest.fixture(scope="module", autouse=True)
def many_graphs() -> Iterator[None]:
    """Dynamo counts the graphs of all models together, and refuses a ninth one."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=64):
        yield


def static(**further: Any) -> dict[str, Any]:
    """Return settings of a static cache and a forward that is one graph, traced by dynamo."""
    config = CompileConfig(backend="eager", fullgraph=True, mode=None)
    config._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": config, **further}


def other(seed: int = 71) -> Any:
    """Return a model that no other test compiles."""
    model = tiny_model(seed)
    return type(model)(model.config).eval()


def readers(model: Any, own: list[list[int]], **told: Any) -> tuple[Any, CompiledReader, Recompute]:
    """Return prompts, a reader whose `generate` was told these settings, and the slow reference."""
    prompts = read_prompts(tiny_tokenizer(), tiny_model(), PROMPTS[: len(own)])
    told_settings = CallSettings(tiny_model(), prompts)
    told_settings.tell(told)
    return prompts, CompiledReader(model, own, prompts, settings=told_settings), Recompute(model, own, prompts.ids)


def grown(prompts: Any, tail: list[list[int]], index: list[int]) -> torch.Tensor:
    """Return rows of these prompts with these continuations."""
    return torch.cat([prompts.ids[index], torch.tensor(tail, dtype=torch.long).reshape(len(index), -1)], dim=1)


@pytest.mark.parametrize(("kind", "padded"), [("absolute", True), ("sliding", False)])
def test_each_way_of_growing_equals_recomputation(kind: str, padded: bool) -> None:
    """Single tokens, chunks, swapped and repeated rows, rewinds, and more tokens than `generate` was told."""
    own = [[5, 6, 7], list(range(30, 39 if padded else 33))]
    prompts, reader, slow = readers(KINDS[kind](3), own, **static(max_new_tokens=4))
    steps: list[tuple[list[list[int]], list[int]]] = [
        ([[], []], [0, 1]),
        ([[1], [2]], [0, 1]),
        ([[1, 4], [2, 5]], [0, 1]),
        ([[2, 5, 8], [1, 4, 7]], [1, 0]),  # swapped
        ([[2, 5, 8, 1, 1], [2, 5, 8, 2, 2]], [1, 1]),  # one row twice, and a chunk
        ([[2, 6], [2, 5]], [1, 1]),  # a rewind
        ([[*range(40)], [*range(60, 100)]], [0, 1]),  # beyond the length, and beyond a sliding window
        ([[*range(41)], [*range(60, 101)]], [0, 1]),
        ([[1, 2, 3]], [0]),  # another number of rows
    ]
    for tail, index in steps:
        rows = grown(prompts, tail, index)
        torch.testing.assert_close(reader(rows), slow(rows), rtol=0, atol=1e-4)
        assert isinstance(reader._cache, StaticCache)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_any_order_of_rows_equals_the_dynamic_reader(data: st.DataObject) -> None:
    """State is a function of the tokens alone: any rows in any order give what a reader with a dynamic cache gives."""
    own = [[5, 6, 7], [8, 9]]
    prompts, reader, _ = readers(tiny_model(3), own, **static(max_new_tokens=4))
    plain = Reader(tiny_model(3), own, prompts)
    for _ in range(4):
        index = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=3))
        length = data.draw(st.integers(0, 6))
        tokens = st.lists(st.integers(0, 2), min_size=length, max_size=length)
        rows = grown(prompts, [data.draw(tokens) for _ in index], index)
        torch.testing.assert_close(reader(rows), plain(rows), rtol=0, atol=1e-4)
        count = min(2, length + 1)
        torch.testing.assert_close(reader.positions(rows, count), plain.positions(rows, count), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "greedy") for name in CHAINS), ("contrastive", "sequences"), ("core", "beams")]
)
def test_the_tokens_are_those_of_a_dynamic_cache(name: str, mode: str) -> None:
    """In every way of generating that compiles; the cache of the stream is of the kind that `generate` has."""
    main, models = tiny_model(), {"other": tiny_model(1), "third": tiny_model(2)}
    models = models if name == "dexperts" else {"other": models["other"]}
    tokenizers = dict.fromkeys(models, tiny_tokenizer())
    outputs, kinds = [], []
    prompts = PROMPTS[: 2 if mode == "greedy" else 1]  # two rows in every mode are one shape
    for told in (static(), {}):
        given = {"resources": models, "tokenizers": tokenizers}
        call = logitkit.chain(CHAINS[name]).bind(main, tiny_tokenizer(), prompts, **given)
        torch.manual_seed(0)
        outputs.append(call.generate(max_new_tokens=8, **{"do_sample": False, **MODES[mode], **told}))
        kinds.append({type(reader._cache).__name__ for reader in call.trace.readers.values()})
    assert torch.equal(*outputs)
    assert kinds == [{"StaticCache"}, {"DynamicCache"}]


def test_nothing_is_compiled_after_the_first_call_of_a_shape() -> None:
    """Two models are at most two graphs; other prompts, padded or not, and further calls compile nothing."""
    torch._dynamo.reset()
    counters.clear()
    main, helper, graphs = other(72), other(73), []
    for prompts in (PROMPTS[:2], PROMPTS[1::-1], ["one", "two"], ["a third prompt, of any length", "and 4"]):
        call = logitkit.chain("contrastive(amateur='other')").bind(
            main, tiny_tokenizer(), prompts, resources={"other": helper}
        )
        for _ in range(2):
            call.generate(do_sample=False, max_new_tokens=12, **static(max_cache_len=64))
            graphs.append(counters["stats"]["unique_graphs"])
    assert len(set(graphs)) == 1 and graphs[0] <= 2


def test_the_cache_is_no_longer_than_told() -> None:
    """It holds the own prompt and the new tokens, keeps its memory through rewinds, and doubles for longer rows."""
    prompts, reader, _ = readers(other(74), [[5, 6, 7]], **static(max_new_tokens=4))
    reader(prompts.ids)
    keys = reader._cache.layers[0].keys
    assert keys.shape[2] == 3 + 4
    reader(grown(prompts, [[1, 2]], [0]))
    reader(grown(prompts, [[3]], [0]))
    assert reader._cache.layers[0].keys is keys
    reader(grown(prompts, [[1, 2, 3, 4, 5]], [0]))
    assert reader._cache.layers[0].keys.shape[2] == 2 * (3 + 5)


def test_the_logits_do_not_change_under_later_forwards() -> None:
    """A compiled forward may write over its own output, so the reader keeps a copy."""
    model = other(75)
    prompts, reader, _ = readers(model, [[5, 6, 7]], **static(max_new_tokens=4))
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda *args: seen.append(args[-1].logits))
    kept = [reader(prompts.ids), reader(grown(prompts, [[1]], [0]))]
    before = [one.clone() for one in kept]
    for logits in seen:
        logits.zero_()
    assert all(torch.equal(*pair) for pair in zip(kept, before, strict=True))


def test_ids_that_a_model_lacks_stay_impossible() -> None:
    """The compiled forward of a model with fewer ids gives them no probability, as the eager one does."""
    shared = torch.arange(272) < 260
    model = SharedIdsModel(other(79), shared)
    prompts, reader, _ = readers(model, [[5, 6, 7]], **static(max_new_tokens=4))
    plain = Reader(model, [[5, 6, 7]], prompts)
    for tail in ([[]], [[1]], [[1, 271]]):
        rows = grown(prompts, tail, [0])
        torch.testing.assert_close(reader(rows), plain(rows), rtol=0, atol=1e-4)
        assert bool((reader(rows)[:, 260:] == -torch.inf).all())


def test_threads_share_a_model() -> None:
    """Calls of several threads give the tokens that they give one after the other."""
    main, helper = other(76), other(77)

    def tokens(text: str) -> torch.Tensor:
        call = logitkit.chain("contrastive(amateur='other')").bind(
            main, tiny_tokenizer(), text, resources={"other": helper}
        )
        with torch._dynamo.config.patch(recompile_limit=64):  # a thread does not see what another one has set
            return call.generate(do_sample=False, max_new_tokens=6, **static(max_cache_len=64))

    want, got = [tokens(text) for text in PROMPTS], {}
    threads = [threading.Thread(target=lambda text=text: got.update({text: tokens(text)})) for text in PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[text], one) for text, one in zip(PROMPTS, want, strict=True))


def test_which_models_are_read_compiled() -> None:
    """Models with an encoder, with a state, or compiled by the user keep the reader that they had."""
    compiled, hybrid = other(78), jamba(0, tiny_tokenizer())
    compiled.compile(backend="eager")
    assert all(can_read_compiled(make()) for make in KINDS.values())
    assert not any(can_read_compiled(model) for model in (encoder_decoder_model(), hybrid, compiled))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"cache_implementation": "dynamic"},
        {"cache_implementation": "offloaded_static"},
        static(disable_compile=True),
        static(use_cache=False),
    ],
)
def test_other_settings_leave_the_cache_dynamic(told: dict[str, Any]) -> None:
    """A static cache alone is slower than a dynamic one, and offloading saves memory on purpose."""
    prompts, reader, _ = readers(tiny_model(3), [[5, 6, 7]], **told)
    reader(prompts.ids)
    assert type(reader._cache).__name__ == "DynamicCache"
    assert StaticSettings.of(told.get, told, 3) is None


def test_a_cache_that_the_caller_made_counts() -> None:
    """`generate` compiles for a `StaticCache` that it is given, too; ``max_length`` includes the prompt."""
    given_cache = static(max_length=12, **{CACHE: StaticCache(tiny_model().config, 40)})
    del given_cache["cache_implementation"]
    assert cache_of(given_cache) is not None
    told = StaticSettings.of(given_cache.get, given_cache, 8)
    assert told is not None and told.new_tokens == 4


def test_an_error_of_a_compiled_forward_says_how_to_go_without() -> None:
    """torch gives up on code that it compiled for too many models, and then refuses one graph for another model."""

    def refused(**_: Any) -> Any:
        raise RuntimeError("torch.compile with fullgraph=True found no compiled frames.")

    model = tiny_model()
    with pytest.raises(
        ModelError, match=r"got RuntimeError: .* frames; check .*, or call generate without compile_config"
    ):
        forwarded_by(refused, model, input_ids=torch.tensor([[5]]))
    with pytest.raises(ModelError, match=r"check the model's context length, device and dtype$"):
        forwarded(model, input_ids=torch.tensor([[model.config.vocab_size]]))
