"""Second streams under searches: one forward a step for all rows, of their own or in the model's own forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from logitkit.errors import ModeError
from logitkit.processors.engine.cache_memory import cache_bytes
from logitkit.registry.laws import tiny_model, tiny_tokenizer

PROMPTS = ["one prompt", "a second, longer prompt", "x"]
NEW = 8
SEARCHES = ["smc(5)", "smc(4, alpha=3.0, ess=1.0)", "beams(width=4, groups=2)", "best_of(n=3)", "smc(1, alpha=1.0)"]
STEPS = {
    "padded": "cfg(1.6, negative='a negative prompt that is longer than the prompts')",
    "short": "cfg(1.6)",
    "two streams": "cfg(1.5) | uscd(gate=1.0, lame='lame')",
    "gated": "uscd(gate=0.5)",
    "behind": "mti(threshold=0.5)",
    "model": "contrastive(amateur='small')",
}


def bound(chain: str, prompts: Any = PROMPTS) -> Any:
    """Bind a chain to the tiny model."""
    given = {"small": tiny_model(1)} if "small" in chain else {}
    return logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), prompts, **given)


def rows(call: Any, streams: str, **settings: Any) -> torch.Tensor:
    """Return the ids of all rows."""
    torch.manual_seed(0)
    return call.generate(streams=streams, **{"max_new_tokens": NEW, "eos_token_id": None, **settings})


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("steps", ["padded", "short", "two streams"])
def test_fused_and_lazy_rows_are_equal(steps: str, search: str) -> None:
    """The same rows; fused, the streams run no forward of their own, and lazy one a step for all rows."""
    fused, lazy = bound(f"{STEPS[steps]} | {search}"), bound(f"{STEPS[steps]} | {search}")
    got = rows(fused, "fused")
    assert torch.equal(got, rows(lazy, "lazy"))
    assert fused.trace.fusion.state == "fused" and set(fused.trace.forwards.values()) == {0}
    assert set(lazy.trace.forwards.values()) == {NEW}
    assert lazy.trace.search.forwards == NEW


def test_forwards_are_those_that_ran() -> None:
    """A hook counts: prompts that are read apart are forwards of their own, also in the report."""
    for streams in ("fused", "lazy"):
        call, count = bound("cfg(2.0) | smc(4)"), []
        hook = call.model.register_forward_hook(lambda *_, count=count: count.append(1))
        rows(call, streams)
        hook.remove()
        assert len(count) == call.trace.search.forwards + sum(call.trace.forwards.values())


def test_a_stream_of_another_model_is_read_once_a_step() -> None:
    """All particles of all prompts are rows of one forward of the amateur."""
    call = bound(f"{STEPS['model']} | smc(6)")
    rows(call, "auto")
    assert list(call.trace.forwards.values()) == [NEW] and call.trace.fusion.state == "lazy"


def test_a_gated_stream_is_read_only_where_the_gate_opens() -> None:
    """A gate that never opens costs no forward; one that opens may join the stream to the model's forward."""
    shut = bound("uscd(gate=0.0) | smc(4)")
    rows(shut, "auto")
    assert set(shut.trace.forwards.values()) == {0}
    call, lazy = bound(f"{STEPS['gated']} | smc(4)"), bound(f"{STEPS['gated']} | smc(4)")
    assert torch.equal(rows(call, "auto"), rows(lazy, "lazy"))


@pytest.mark.parametrize("search", ["smc(4)", "beams(width=3)"])
def test_a_text_behind_the_rows_rides_in_their_forward(search: str) -> None:
    """A negative text is read behind each row, in the forward of the rows or in one of its own."""
    fused, lazy = (bound(f"{STEPS['behind']} | {search}") for _ in range(2))
    assert torch.equal(rows(fused, "fused"), rows(lazy, "lazy"))
    assert sum(fused.trace.forwards.values()) < sum(lazy.trace.forwards.values())


def test_rows_that_end_early_and_resampling() -> None:
    """Rows that have ended are kept, copied and dropped alike in fused and in lazy runs."""
    ends = list(range(0, 272, 7))
    settings = {"eos_token_id": ends, "pad_token_id": 0, "num_return_sequences": 4}
    for search in ("smc(6, alpha=2.0, ess=1.0)", "beams(width=5)"):
        got = rows(bound(f"cfg(1.6) | {search}"), "fused", **settings)
        assert torch.equal(got, rows(bound(f"cfg(1.6) | {search}"), "lazy", **settings))


@pytest.mark.parametrize("search", ["goose(budget=8)", "contrastive_search(0.6, top=3)"])
def test_searches_with_forwards_of_their_own_are_not_fused(search: str) -> None:
    call = bound(f"cfg(1.6) | {search}", "one prompt")
    rows(call, "auto")
    assert call.trace.fusion.state == "lazy" and "custom_generate" in call.trace.fusion.reason
    with pytest.raises(ModeError, match="streams cannot be 'fused', custom_generate"):
        rows(call, "fused")


def per_token(model: Any) -> int:
    """Return the bytes of keys and values of one token: 4 bytes a number."""
    config = model.config
    width = config.hidden_size // config.num_attention_heads
    return 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * width


def test_peak_memory_by_hand() -> None:
    """Two tokens of the prompt and seven that are read of eight, in five rows; the second prompt has one token less."""
    one = per_token(tiny_model())
    plain = bound("smc(5)", "ab")
    rows(plain, "auto")
    assert plain.trace.search.peak_cache_bytes == 5 * (2 + 7) * one
    second = len(tiny_tokenizer()("xyz")["input_ids"])
    for streams in ("fused", "lazy"):
        call = bound("cfg(1.5, negative='xyz') | smc(5)", "ab")
        rows(call, streams)
        width = max(2, second) if streams == "fused" else 2
        last = NEW - 1 if streams == "fused" else NEW - 2  # a lazy stream is read after the forward of the rows
        other = max(2, second) + last if streams == "fused" else second + last
        assert call.trace.search.peak_cache_bytes == 5 * (width + NEW - 1 + other) * one, streams


def test_memory_of_other_searches() -> None:
    """Beams hold a row each; trees hold their room; a run without a cache holds nothing."""
    one = per_token(tiny_model())
    call = bound("beams(width=3)", "ab")
    rows(call, "auto")
    assert call.trace.search.peak_cache_bytes == 3 * (2 + 7) * one
    call = bound("goose(budget=8)", "ab")
    rows(call, "auto", do_sample=False)
    assert call.trace.search.peak_cache_bytes == 64 * one  # the smallest room
    call = bound("smc(3)", "ab")
    rows(call, "auto", use_cache=False)
    assert call.trace.search.peak_cache_bytes == 0


def test_memory_is_counted_once() -> None:
    """Views of one tensor share its memory; an encoder-decoder cache holds two caches."""
    from transformers import DynamicCache, EncoderDecoderCache

    states = torch.zeros(2, 2, 3, 4)
    one, other = DynamicCache(), DynamicCache()
    one.update(states, states, 0)
    other.update(states.clone(), states.clone(), 0)
    both = EncoderDecoderCache(one, other)
    assert cache_bytes(other) == 2 * states.numel() * 4
    assert cache_bytes(both) == cache_bytes(one) + cache_bytes(other)
