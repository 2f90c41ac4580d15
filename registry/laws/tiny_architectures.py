"""Random tiny models of further architectures, on which the modes of generating are measured.

Every function takes the number of the model, from which its weights are seeded, and a tokenizer with single-byte
tokens (`tiny_tokenizer` or `foreign_tokenizer`).
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPVisionConfig,
    JambaConfig,
    JambaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from logitkit.registry.laws.tiny_models import (
    FOREIGN_WIDTH,
    encoder_decoder_model,
    foreign_model,
    llama_config,
    seeded,
    special_ids,
    tiny_model,
    tiny_tokenizer,
)

IMAGE_TEXT = "\x01" * 4  # the text in place of an image: one token for each of its four patches


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Models of one kind, and what a test of generating with them needs.

    Attributes:
        model: returns the generating model; called with a number and a tokenizer.
        another: returns a further model for the resources of a chain; called in the same way.
        prefix: text before each prompt, in place of an image.
        images: whether the generating model reads one image with each prompt.
        pads: whether `generate` reads a padded row as it reads the row alone; PEFT counts padding as positions.
        needs: the package without which the models cannot be built.
    """

    model: Callable[[int, Any], Any]
    another: Callable[[int, Any], Any]
    prefix: str = ""
    images: bool = False
    pads: bool = True
    needs: str = "transformers"

    def inputs(self, count: int) -> dict[str, Tensor]:
        """Return the inputs of the generating model besides tokens, for ``count`` prompts."""
        if not self.images:
            return {}
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        return {"pixel_values": images[:count]}


def llama(number: int, tokenizer: Any) -> Any:
    """Return a two-layer Llama; `tiny_model` or `foreign_model`."""
    if tokenizer is tiny_tokenizer():
        return tiny_model(number)
    return foreign_model(number) if number else foreign_model()


def t5(number: int, tokenizer: Any) -> Any:
    """Return an encoder-decoder with relative positions."""
    return encoder_decoder_model(number, foreign=tokenizer is not tiny_tokenizer())


def bart(number: int, tokenizer: Any) -> Any:
    """Return an encoder-decoder with absolute positions."""
    side_sizes: dict[str, Any] = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
    sizes: dict[str, Any] = {
        f"{side}_{what}": size for side in ("encoder", "decoder") for what, size in side_sizes.items()
    }
    config = BartConfig(
        vocab_size=FOREIGN_WIDTH,
        d_model=32,
        max_position_embeddings=256,
        init_std=0.3,
        dropout=0.0,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
        **sizes,
        **special_ids(tokenizer),
    )
    return seeded(number, lambda: BartForConditionalGeneration(config))


def jamba(number: int, tokenizer: Any) -> Any:
    """Return a causal model with a recurrent (Mamba) layer and an attention layer."""
    config = JambaConfig(
        vocab_size=FOREIGN_WIDTH,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=4,
        expert_layer_offset=3,
        num_experts=2,
        mamba_d_state=4,
        mamba_dt_rank=4,
        initializer_range=0.3,
        **special_ids(tokenizer),
    )
    return seeded(number, lambda: JambaForCausalLM(config))


def llava(number: int, tokenizer: Any) -> Any:
    """Return a Llama that reads an image of four patches in place of `IMAGE_TEXT`.

    Its logit of the image token is 0, so that greedy decoding and beams never write a place without an image.
    """
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        projection_dim=16,
    )
    config = LlavaConfig(
        text_config=llama_config(FOREIGN_WIDTH, tokenizer),
        vision_config=vision,
        image_token_index=tokenizer(IMAGE_TEXT[0], add_special_tokens=False)["input_ids"][0],
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    model = seeded(number, lambda: LlavaForConditionalGeneration(config))
    with torch.no_grad():
        model.lm_head.weight[config.image_token_index] = 0.0
    return model


def with_lora(number: int, tokenizer: Any) -> Any:
    """Return a Llama with LoRA weights that are not merged, wrapped by PEFT."""
    peft = importlib.import_module("peft")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=64, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    return _wrapped(number, tokenizer, peft, config)


def with_prompt_tuning(number: int, tokenizer: Any) -> Any:
    """Return a Llama with four virtual tokens before each prompt, wrapped by PEFT."""
    peft = importlib.import_module("peft")
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    return _wrapped(number, tokenizer, peft, config)


def _wrapped(number: int, tokenizer: Any, peft: Any, config: Any) -> Any:
    """Return a Llama wrapped by PEFT; a copy, since PEFT changes the model that it wraps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads attributes that transformers renamed
        return seeded(number, lambda: peft.get_peft_model(copy.deepcopy(llama(number, tokenizer)), config))


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(model=llama, another=llama),
    "t5": Architecture(model=t5, another=t5),
    "bart": Architecture(model=bart, another=bart),
    "jamba": Architecture(model=jamba, another=jamba),
    "llava": Architecture(model=llava, another=llava, prefix=IMAGE_TEXT, images=True),
    "lora": Architecture(model=with_lora, another=llama, needs="peft"),
    "prompt_tuning": Architecture(model=with_prompt_tuning, another=llama, pads=False, needs="peft"),
}


def is_available(architecture: str) -> bool:
    """Return whether the package is installed that an architecture needs.

    >>> is_available("llama")
    True
    """
    return importlib.util.find_spec(ARCHITECTURES[architecture].needs) is not None
