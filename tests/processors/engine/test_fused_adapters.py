"""Second streams of a model with adapters of PEFT are fused as those of the model under them."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch

from fusing import PROMPTS, bound, decode
from logitkit.processors.engine.model_forward import forwarding_model
from logitkit.registry.laws import tiny_model

peft = pytest.importorskip("peft")
LOOPS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "static sampling": {"cache_implementation": "static", "do_sample": True},
    "beams": {"num_beams": 2},
}


def adapted(config: Any) -> Any:
    """Return a tiny Llama with random adapters."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads attributes that transformers renamed
        torch.manual_seed(0)
        return peft.get_peft_model(copy.deepcopy(tiny_model(41)), config).eval()


def lora() -> Any:
    """Return LoRA adapters that are not zero."""
    return peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], r=4, init_lora_weights=False)


@pytest.mark.parametrize("loop", LOOPS)
def test_lora_streams_are_fused(loop: str) -> None:
    """The tokens equal those of separate forwards, and not those of the model without adapters."""
    model = adapted(lora())
    call = bound("cfg(2.0)", model)
    fused = decode(call, "auto", **LOOPS[loop])
    assert call.trace.fusion.state == "fused" and call.trace.forwards == {"negative prompt": 0}
    assert torch.equal(fused, decode(bound("cfg(2.0)", model), "lazy", **LOOPS[loop]))
    assert not torch.equal(fused, decode(bound("cfg(2.0)", tiny_model(41)), "lazy", **LOOPS[loop]))


def test_disabled_and_merged_adapters() -> None:
    """A fused run computes with the adapters as they are at the time of the call."""
    model = adapted(lora())
    plain, merged = (decode(bound("cfg(2.0)", one), "lazy") for one in (tiny_model(41), model))
    with model.disable_adapter():
        assert torch.equal(decode(bound("cfg(2.0)", model), "fused"), plain)
    assert torch.equal(decode(bound("cfg(2.0)", model), "fused"), merged)


def test_settings_of_the_adapted_model_count() -> None:
    """The generation settings of the outer model reach the model under the adapters, as in PEFT's own generate."""
    model = adapted(lora())
    model.generation_config = copy.deepcopy(model.generation_config)
    model.generation_config.max_new_tokens = 3
    call = bound("cfg(2.0)", model, PROMPTS)
    assert call.generate(streams="fused", do_sample=False).shape[1] == call.prompts.width + 3


def test_adapters_that_change_the_inputs_stay_with_peft() -> None:
    """Prompt tuning adds virtual tokens in its own forward."""
    tuned = adapted(peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    assert forwarding_model(tuned) is tuned
    with_lora = adapted(lora())
    assert forwarding_model(with_lora) is with_lora.get_base_model()
