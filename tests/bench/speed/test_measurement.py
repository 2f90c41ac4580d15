"""Measurements of speed and memory: what they count, and their tables."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
import torch

import logitkit
from fusing import hooks
from logitkit.bench.speed import (
    DecodingVariant,
    ForwardClock,
    PeakMemory,
    VariantTiming,
    example_variant,
    measure,
    profile,
    random_models,
    select_variants,
    static_cache,
    variants,
)
from logitkit.bench.speed.decoding_variants import PLAIN
from logitkit.bench.speed.measurement import PROMPTS, floor, ratio
from logitkit.bench.speed.static_cache import static_form
from logitkit.bench.speed.tables import failures, processor_rows, processor_table, variant_rows, variant_table
from logitkit.errors import ParameterError, UnknownNameError
from logitkit.processors.contrast import CFG
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_ratio_and_floor_by_hand() -> None:
    """The floor adds the 14 s of a variant in forwards to the 2 s of plain decoding outside forwards."""
    plain, variant = (
        VariantTiming(seconds=[10.0], forward_seconds=[8.0]),
        VariantTiming(seconds=[20.0], forward_seconds=[14.0]),
    )
    assert ratio(plain, variant) == 0.5 and floor(plain, variant) == 10 / 16
    assert ratio(plain, plain) == floor(plain, plain) == 1


def test_the_ratio_is_taken_round_by_round() -> None:
    """A machine that slows down between rounds does not change the median ratio."""
    plain, variant = (VariantTiming(seconds=[k * s for s in (1.0, 3.0, 9.0)]) for k in (1, 4))
    assert ratio(plain, variant) == 0.25


def test_every_variant_runs() -> None:
    """Every variant runs on a tiny model, advances the progress, and has a row with ratio, floor and peak."""
    every, advanced = variants(), []
    timings = measure(
        tiny_model(), tiny_tokenizer(), every, batch=2, tokens=3, rounds=1, advance=lambda: advanced.append(1)
    )
    assert len(advanced) == 2 * len(every) and all(t.peak > 0 and len(t.seconds) == 1 for t in timings.values())
    assert timings["cfg(1.5), fused"].note.startswith("fused") and "lazy" in timings["cfg(1.5), lazy"].note
    rows = variant_table(variant_rows(timings, batch=2, tokens=3), batch=2, tokens=3).splitlines()
    assert len(rows) == 2 + len(every) and rows[2].startswith("| plain generate | 1.000 | 1.000 |")
    assert all(row.count("|") == 7 for row in rows)


def test_variants_are_selected_by_part_of_their_name() -> None:
    """Plain decoding is always selected, and a part of no name is an error."""
    assert [variant.name for variant in select_variants(["identity"])] == ["plain generate", "identity chain"]
    assert select_variants([])[0] is PLAIN and len(select_variants([])) == len(variants())
    with pytest.raises(UnknownNameError, match="no decoding variant named 'zz'"):
        select_variants(["zz"])


def test_any_registered_processor_can_be_a_variant() -> None:
    """The example of the Spec of a registered processor is a variant."""
    variant = example_variant("contrastive")
    model, tokenizer = tiny_model(), tiny_tokenizer()
    named = variant.make_resources(model, tokenizer)
    assert variant.run(model, tokenizer, ["a prompt"], {"max_new_tokens": 2}, named).startswith("fused")


def test_the_profile_of_processors() -> None:
    """The profile has the time outside forwards and the host reads of each processor, beside one log_softmax."""
    costs = profile.profile_processors(400, 2, steps=3, names=["cfg", "top_k"])
    assert list(costs) == [profile.UNIT, "cfg", "top_k", "the composite around a chain"]
    assert all(cost.seconds > 0 for cost in costs.values())
    assert costs["cfg"].syncs == 1 and costs["top_k"].syncs == 0
    assert processor_table(processor_rows(costs), vocab=400, batch=2).count("\n") == 5


@pytest.mark.parametrize("batch", [1, 4])
def test_every_processor_has_a_profile(batch: int) -> None:
    """Byte models included, whose scores have the width of their own vocabulary."""
    costs = profile.profile_processors(300, batch, steps=1)
    assert {name: cost.error for name, cost in costs.items() if cost.error} == {}
    assert {*logitkit.names()} < {*costs} and costs["byte_ensemble"].vocab == 257 and costs["cfg"].vocab is None


def test_what_cannot_be_measured_is_named_and_takes_nothing_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant and a processor that raise errors have rows with the error; the others have their figures."""
    broken = DecodingVariant(name="broken", chain="cfg(1.5)", resources=lambda model, tokenizer: {}["no such key"])
    timings = measure(tiny_model(), tiny_tokenizer(), [PLAIN, broken], batch=1, tokens=2, rounds=1, memory=False)
    rows = variant_rows(timings, batch=1, tokens=2)
    assert rows[0]["ratio"] == 1 and rows[1]["ratio"] is None
    assert variant_table(rows, batch=1, tokens=2).endswith(
        "| broken |  |  |  |  | not measured: KeyError: 'no such key' |"
    )
    monkeypatch.setattr(CFG, "__call__", lambda *_: {}["x"])
    costs = processor_rows(profile.profile_processors(300, 1, steps=1, names=["cfg", "top_k"]))
    assert "| cfg: not measured: KeyError: 'x' |  |  |  |" in processor_table(costs, vocab=300, batch=1)
    assert failures({"variants": [{"rows": rows}], "processors": [{"rows": costs}]}) == [
        "broken: KeyError: 'no such key'",
        "cfg: KeyError: 'x'",
    ]


def test_an_error_of_plain_decoding_is_raised() -> None:
    """Without plain decoding there is nothing to compare with."""
    with pytest.raises(ValueError, match="max_new_tokens"):
        measure(tiny_model(), tiny_tokenizer(), [PLAIN], batch=1, tokens=0, rounds=1, memory=False)


def test_static_forms_stand_beside_their_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its speed relative to static plain decoding; a form that is refused by name is no failure."""
    monkeypatch.setattr(static_cache, "BACKEND", "eager")  # inductor compiles for a minute
    chosen = select_variants(["cfg(1.5), lazy", "byte_ensemble"])
    forms = [form for variant in chosen for form in (variant, static_form(variant, "cpu"))]
    timings = measure(tiny_model(), tiny_tokenizer(), forms, batch=1, tokens=2, rounds=2, memory=False)
    plain, lazy, byte_models = variant_rows(timings, batch=1, tokens=2)
    assert plain["static"]["ratio"] == 1 and lazy["static"]["ratio"] > 0 and len(lazy["static"]["seconds"]) == 2
    assert plain["static"]["floor"] is None and plain["floor"] == 1
    assert byte_models["static"]["error"].startswith("ModeError: ByteModel") and not byte_models["error"]
    assert failures({"variants": [{"rows": [plain, lazy, byte_models]}], "processors": []}) == []
    text = variant_table([plain, lazy, byte_models], batch=1, tokens=2).splitlines()
    assert "static: speed / plain | static: tokens/s" in text[0] and all(line.count("|") == 9 for line in text)


def test_static_figures_by_hand() -> None:
    """The static form is compared with static plain decoding: 2 s against 4 s, where the usual form has 10 and 8 s."""
    seconds = {"plain generate": 10.0, "plain generate, static": 2.0, "x": 8.0, "x, static": 4.0}
    rows = variant_rows({name: VariantTiming([each], [1.0]) for name, each in seconds.items()}, batch=4, tokens=5)
    assert [row["name"] for row in rows] == ["plain generate", "x"]
    assert (rows[1]["ratio"], rows[1]["static"]["ratio"]) == (1.25, 0.5)
    assert (rows[1]["tokens_per_second"], rows[1]["static"]["tokens_per_second"]) == (2.5, 5.0)


def test_the_clock_counts_forwards_only() -> None:
    """The clock counts time inside forwards only, and leaves no hook on the model."""
    model = tiny_model()
    before = hooks(model)
    clock = ForwardClock(model)
    model(input_ids=torch.zeros((1, 1), dtype=torch.long))
    spent = clock.seconds
    time.sleep(0.01)
    assert 0 < spent == clock.seconds
    clock.remove()
    assert hooks(model) <= before


def test_peak_memory_by_hand() -> None:
    """Views are not counted, and released tensors are subtracted: 2000 floats at the peak, 1500 at the end."""
    with PeakMemory() as memory:
        first = torch.zeros(1000)
        view = first.view(10, 100)
        second = first + 1
        del second
        gc.collect()
        third = torch.zeros(500)
    assert memory.peak == 8000 and memory.live == 6000
    del first, view, third


def test_a_random_model_of_known_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model has the requested dtype; an unknown dtype or device is refused."""
    monkeypatch.setitem(random_models.RANDOM_SIZES, "random-tiny", random_models.ModelSizes(32, 64, 2, 4, 2))
    monkeypatch.setattr(random_models.models, "load", lambda name, **_: (None, tiny_tokenizer()))
    model, _ = random_models.load("random-tiny", dtype="bfloat16")
    assert model.dtype == torch.bfloat16 and model.config.num_hidden_layers == 2 and not model.training
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(ParameterError, match="dtype must be float32, bfloat16 or float16, got 'int4'"):
        random_models.load("random-tiny", dtype="int4")
    with pytest.raises(ParameterError, match="device must be a device that torch has on this machine, got 'nowhere'"):
        random_models.load("random-tiny", device="nowhere")


def test_a_fused_run_holds_at_most_twice_what_a_plain_one_holds(smollm2: Any) -> None:
    """Fused streams take at most twice the peak memory of plain decoding, model not included.

    The first run of a model also checks how it reads, so it is not the one that is measured.
    """
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    peaks = []
    for variant in select_variants(["cfg(1.5), fused", "uscd(gate=1.0)"]):
        variant.run(*smollm2, PROMPTS[:1], settings)
        with PeakMemory() as memory:
            note = variant.run(*smollm2, PROMPTS[:1], settings)
        assert note.startswith("fused") or variant is PLAIN
        peaks.append(memory.peak)
    assert max(peaks[1:]) <= 2 * peaks[0]
