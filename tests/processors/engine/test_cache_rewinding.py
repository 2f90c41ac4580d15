"""A cache is rewound exactly when the states that the next forward needs are left in it."""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, MistralConfig

from logitkit.processors.engine.cache_rewinding import can_crop, longest_cached_prefix

WINDOW = 4


def window_cache(*, records: bool) -> Any:
    """Return an empty cache of one layer with a window of 4 tokens."""
    config = MistralConfig(sliding_window=WINDOW, num_hidden_layers=1)
    cache = DynamicCache(config=config)
    if records:
        cache.activate_past_recording()
    return cache


def feed(cache: Any, count: int) -> Any:
    """Feed tokens whose key is their position."""
    start = cache.get_seq_length()
    keys = torch.arange(start, start + count, dtype=torch.float32)[None, None, :, None]
    cache.update(keys, keys, 0)
    return cache


def held(cache: Any) -> list[int]:
    """Return the positions of the states in the cache."""
    return cache.layers[0].keys.flatten().int().tolist()


@pytest.mark.parametrize(
    ("fed", "cropped", "removed", "want"),
    [
        (6, 1, 1, False),  # 3 states of 5 tokens: a state less is less than the window needs
        (6, 1, 0, True),
        (6, 0, 4, True),  # 6 states of 6 tokens: the 2 that are left are all there are
        (3, 0, 2, True),  # the window is not full
        (3, 0, 0, True),
    ],
)
def test_windows_that_record_their_past_by_hand(fed: int, cropped: int, removed: int, want: bool) -> None:
    """The next forward needs the last 3 states of a window of 4, or all states where fewer tokens remain."""
    cache = feed(window_cache(records=True), fed)
    if cropped:
        cache.crop(-cropped)
    assert can_crop(cache, removed) == want


def test_a_rewind_that_leaves_the_window_less_one_is_exact() -> None:
    """The states 2 to 5 of 6 tokens are held: dropping one leaves 3, which is enough, and dropping two is not."""
    cache = feed(window_cache(records=True), 6)
    cache.crop(-1)
    assert held(feed(cache, 1)) == [2, 3, 4, 5]
    assert can_crop(cache, 1) and not can_crop(cache, 2)


@pytest.mark.parametrize(("fed", "want"), [(3, True), (4, False), (9, False)])
def test_windows_without_a_record(fed: int, want: bool) -> None:
    """Without a record, a window is rewound until it has been full once; 4 tokens fill it."""
    cache = feed(window_cache(records=False), fed)
    assert can_crop(cache, 1) == want and can_crop(cache, 0)


def crops_exactly(cache: Any, removed: int) -> bool:
    """Crop a copy; return whether it then holds the last states that a window needs of the tokens that remain."""
    copied, left = copy.deepcopy(cache), cache.get_seq_length() - removed
    try:
        copied.crop(-removed)
    except RuntimeError:
        return False
    needed = list(range(max(0, left - WINDOW + 1), left))
    return held(copied)[-len(needed) or len(held(copied)) :] == needed


@pytest.mark.parametrize("records", [True, False])
def test_every_history_of_a_window(records: bool) -> None:
    """After every history of up to three chunks with crops between them, the verdict is what a real crop shows."""
    for sizes in itertools.product((1, 3, 4, 6), (0, 1, 3), (0, 1, 2), (0, 1, 3), (0, 1, 5)):
        cache = window_cache(records=records)
        for size, back in itertools.zip_longest(sizes[::2], sizes[1::2], fillvalue=0):
            if size:
                feed(cache, size)
            if 0 < back < cache.get_seq_length() and can_crop(cache, back):
                cache.crop(-back)
        for removed in range(1, cache.get_seq_length()):
            assert can_crop(cache, removed) == crops_exactly(cache, removed), (sizes, removed)


def test_recurrent_caches_and_caches_that_cannot_be_cropped() -> None:
    """A recurrent state and a cache without `crop` are left alone, and need no crop when nothing is removed."""
    for croppable, linear, want in [(True, [False, True], False), (False, [False], False), (True, [False], True)]:
        cache = SimpleNamespace(is_croppable=croppable, is_linear=linear, layers=[])
        assert can_crop(cache, 1) == want and can_crop(cache, 0)


def test_the_window_of_a_decoder_with_an_encoder() -> None:
    """The states of the decoder decide, not those of the encoder's output."""
    own = feed(window_cache(records=True), 6)
    own.crop(-1)
    encoder = feed(window_cache(records=True), 6)
    assert not can_crop(EncoderDecoderCache(own, encoder), 1)
    assert can_crop(EncoderDecoderCache(feed(window_cache(records=True), 6), own), 1)


def test_longest_cached_prefix_by_hand() -> None:
    """Rows share 2, 1 and no tokens with a cached row of their prompt; a row of an unknown prompt gives -1."""
    cached_index, cached = torch.tensor([0, 1, 1]), torch.tensor([[5, 6, 7], [5, 6, 8], [9, 9, 9]])
    tail = torch.tensor([[5, 6, 8, 1], [9, 0, 0, 0]])
    keep, source = longest_cached_prefix(torch.tensor([0, 1]), tail, cached_index, cached)
    assert (keep, source.tolist()) == (1, [0, 2])
    keep, source = longest_cached_prefix(torch.tensor([1, 1]), tail, cached_index, cached)
    assert (keep, source.tolist()) == (1, [1, 2])
    assert longest_cached_prefix(torch.tensor([0, 2]), tail, cached_index, cached)[0] == -1
    assert longest_cached_prefix(torch.tensor([0]), torch.tensor([[1, 6, 7]]), cached_index, cached)[0] == 0
