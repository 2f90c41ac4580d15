"""The choice between fused and lazy streams, its reason, and its change during a call."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import logitkit
from fakes import encoder_decoder_model
from fusing import PROMPTS, bound, decode
from logitkit.errors import ModeError, ParameterError
from logitkit.processors.engine import fused_streams as fusion
from logitkit.processors.engine import read_prompts
from logitkit.processors.engine.fused_streams import FusedStreams
from logitkit.processors.engine.fusion_obstacles import obstacle
from logitkit.processors.engine.inputs_reader import InputsReader
from logitkit.processors.engine.streams import as_stream
from logitkit.processors.transformers_api import CACHE
from logitkit.registry.laws import tiny_model, tiny_tokenizer


def test_auto_fuses_where_possible() -> None:
    """The default `streams="auto"` fuses a second prompt, and the report says so."""
    got = logitkit.generate(tiny_model(), tiny_tokenizer(), PROMPTS, chain="cfg(2.0)", max_new_tokens=4)
    assert (got.trace.fusion.state, got.trace.fusion.rows_per_row) == ("fused", 2)
    assert got.trace.summary()["fusion"]["state"] == "fused"
    assert str(got.trace.fusion) == "fused: each forward computes 2 rows for each row of generate"


LAZY = {
    "no cache": ("cfg(2.0)", {"use_cache": False}, "use_cache=False"),
    "attentions": ("cfg(2.0)", {"output_hidden_states": True}, "output_hidden_states=True"),
    "much longer": (f"cfg(2.0, negative='{'n' * 300}')", {}, "a second prompt of 300 tokens beside 10"),
}


@pytest.mark.parametrize("case", LAZY)
def test_lazy_with_its_reason(case: str) -> None:
    """Each setting under which streams stay lazy is named as the reason."""
    chain, mode, why = LAZY[case]
    call = bound(chain, prompts=["one prompt"])
    decode(call, "auto", **mode)
    assert call.trace.fusion.state == "lazy" and call.trace.fusion.reason.startswith(why)
    assert all(count for count in call.trace.forwards.values())


@pytest.mark.parametrize("chain", ["cfg(1.0)", "uscd()"])
def test_a_chain_without_second_streams(chain: str) -> None:
    """A neutral strength and a missing lame prompt request no second stream, and the trace says so."""
    call = bound(chain, prompts=["one prompt"])
    decode(call, "auto")
    assert str(call.trace.fusion) == "none: no processor declares a second stream"
    assert not any(call.trace.forwards.values())


def test_neutral_settings_do_not_prevent_fusing() -> None:
    """None and the default values of plain decoding are no obstacle."""
    call = bound("cfg(2.0)", prompts=["one prompt"])
    decode(call, "auto", **{CACHE: None, "num_beams": 1, "use_cache": True, "cache_implementation": None})
    assert call.trace.fusion.state == "fused"


def test_streams_of_other_models_stay_lazy() -> None:
    """Streams of another model and streams with an encoder run their own forwards."""
    call = logitkit.chain("contrastive('weak')").bind(tiny_model(), tiny_tokenizer(), PROMPTS, weak=tiny_model(1))
    decode(call, "auto")
    assert str(call.trace.fusion) == "lazy: the streams belong to other models" and call.trace.forwards["weak"] == 12
    call = logitkit.chain("cfg(2.0)").bind(encoder_decoder_model(), tiny_tokenizer(), PROMPTS)
    decode(call, "auto")
    assert str(call.trace.fusion) == "lazy: the prompt is read in an encoder"


SEPARATE = "the text behind the rows is read behind the generating model's own cache"


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        ("mti()", SEPARATE),
        ("mti(gate={'measure': 'entropy', 'above': 0.5})", SEPARATE),
        ("dola(layers=[1]) | mti()", SEPARATE),
        ("contrastive('weak') | mti()", f"the streams belong to other models and {SEPARATE}"),
    ],
)
def test_the_reason_of_streams_that_no_forward_can_compute(chain: str, reason: str) -> None:
    """A text behind the rows is no stream of another model, and the trace says which streams are."""
    weak: dict[str, Any] = {"weak": tiny_model(1)} if "weak" in chain else {}
    call = logitkit.chain(chain).bind(tiny_model(), tiny_tokenizer(), PROMPTS, **weak)
    decode(call, "auto", max_new_tokens=4)  # before the costs of the two forms of a text are compared
    assert str(call.trace.fusion) == f"lazy: {reason}"


def test_layers_are_no_second_stream() -> None:
    """DoLa reads states of the generating model's own forward."""
    call = bound("dola(layers=[1])", prompts=["one prompt"])
    decode(call, "auto")
    assert str(call.trace.fusion) == "none: no processor declares a second stream"


def test_functions_and_inputs_are_named_as_what_they_are() -> None:
    """A plain function and a reader of images are no streams of other models."""
    images = InputsReader(tiny_model(), [[7]], read_prompts(tiny_tokenizer(), tiny_model(), "a"), inputs={})
    streams = [as_stream(lambda rows: rows), images]
    prompts = read_prompts(tiny_tokenizer(), tiny_model(), "a")
    reason = obstacle(tiny_model(), streams, prompts, lambda _: None)
    assert reason == "the streams are functions and the second prompt holds more than tokens"


def test_own_streams_are_fused_beside_those_of_other_models() -> None:
    """In a chain with both, the second prompt is fused and the other model runs its own forwards."""
    chain = logitkit.chain("contrastive('weak') | cfg(2.0)")
    call, alone = (chain.bind(tiny_model(), tiny_tokenizer(), PROMPTS, weak=tiny_model(1)) for _ in range(2))
    assert torch.equal(decode(call, "fused"), decode(alone, "lazy"))
    assert (call.trace.fusion.state, call.trace.fusion.rows_per_row) == ("fused", 2)
    assert call.trace.forwards == {"weak": 12, "negative prompt": 0}


def test_short_second_prompts_of_a_long_prompt_are_read_apart_where_that_is_cheaper() -> None:
    """A fused row is padded to the longest prompt; on a tiny model, reading the padding costs more than a forward."""
    call = bound("cfg(2.0)", prompts=["a long prompt " * 30])
    assert torch.equal(decode(call, "auto"), decode(bound("cfg(2.0)", prompts=["a long prompt " * 30]), "lazy"))
    assert call.trace.fusion.state == "lazy"
    assert call.trace.fusion.reason.startswith("419 padded tokens a row in the cache cost more than ")
    decode(call, "fused")
    assert call.trace.fusion.state == "fused" and call.trace.forwards == {"negative prompt": 12}  # those of before


def test_the_static_cache_of_a_long_prompt_is_fused() -> None:
    """A static cache is read at its full length, padded or not."""
    call = bound("cfg(2.0)", prompts=["a long prompt " * 30])
    decode(call, "auto", cache_implementation="static")
    assert call.trace.fusion.state == "fused"


def test_a_wrapper_that_generates_with_its_inner_model_stays_lazy() -> None:
    """`generate` of the inner model never calls the forward of the wrapper, and the report says so."""

    class Adapter(torch.nn.Module):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config, self.device = inner, inner.config, inner.device
            self.generation_config, self.generate = inner.generation_config, inner.generate

        def forward(self, **inputs: Any) -> Any:
            return self.inner(**inputs)

    call = bound("cfg(2.0)", Adapter(tiny_model()))
    assert torch.equal(decode(call, "auto"), decode(bound("cfg(2.0)"), "lazy"))
    assert str(call.trace.fusion) == "lazy: generate calls no forward of this model itself"


def test_fusing_that_is_requested_and_impossible_is_an_error() -> None:
    """The error names the reason; an unknown value of `streams` is an error too."""
    with pytest.raises(ModeError, match="streams cannot be 'fused', use_cache=False; leave streams out"):
        decode(bound("cfg(2.0)"), "fused", use_cache=False)
    with pytest.raises(ParameterError, match="streams must be 'auto', 'fused' or 'lazy', got 'both'"):
        decode(bound("cfg(2.0)"), "both")


@pytest.mark.parametrize(("cost", "separates"), [(3.0, True), (1.05, False)])
@pytest.mark.parametrize("sampling", [False, True])
def test_a_gate_that_rarely_fires(
    monkeypatch: pytest.MonkeyPatch, cost: float, separates: bool, sampling: bool
) -> None:
    """After 24 fused steps the streams become lazy if separate forwards are cheaper; the tokens stay the same."""
    monkeypatch.setattr(fusion, "fused_cost", lambda *_: cost)
    monkeypatch.setattr(FusedStreams, "_least_share", lambda _: 0)  # the first request fuses the stream
    chain, longer = "uscd(gate=0.15, lame='x')", {"max_new_tokens": 60, "do_sample": sampling}
    lazy = bound(chain, prompts=["one prompt"])
    want = decode(lazy, "lazy", **longer)
    assert 0.1 < lazy.trace.fired["uscd"] < 0.5  # the gate fires at some steps, so that both kinds of forwards run
    call = bound(chain, prompts=["one prompt"])
    assert torch.equal(decode(call, "auto", **longer), want)
    report = call.trace.fusion
    assert (report.state, report.fused_steps) == (("lazy", 24) if separates else ("fused", None))
    assert report.fused_cost == cost
    assert f"a fused step costs {cost:.2f} plain steps" in report.reason
    assert (call.trace.forwards["lame prompt"] > 1) is separates  # the first one reads the prompt
    assert call.trace.fired == lazy.trace.fired


def test_requested_fusing_stays_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `streams="fused"` the costs are not compared."""
    monkeypatch.setattr(fusion, "fused_cost", lambda *_: 9.0)
    call = bound("uscd(gate=0.15, lame='x')", prompts=["one prompt"])
    decode(call, "fused", max_new_tokens=60)
    assert (call.trace.fusion.state, call.trace.fusion.rows_per_row) == ("fused", 2)


def test_a_stream_requested_at_every_step_stays_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The costs are not measured."""
    monkeypatch.setattr(fusion, "fused_cost", lambda *_: pytest.fail("measured"))
    call = bound("cfg(2.0)", prompts=["one prompt"])
    decode(call, "auto", max_new_tokens=60)
    assert call.trace.fusion.state == "fused"


def test_the_cost_is_measured_once() -> None:
    """Each of two forwards is timed three times for a model and a batch size."""
    model, forwards = tiny_model(7), []
    hook = model.register_forward_pre_hook(lambda *_: forwards.append(1))
    first = fusion.fused_cost(model, 2, 2)
    assert first > 0 and fusion.fused_cost(model, 2, 2) == first and len(forwards) == 6
    hook.remove()
