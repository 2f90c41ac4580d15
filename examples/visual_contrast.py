"""Visual contrastive decoding, arXiv:2311.16922: prefer what a model says because of the image, not despite it.

Run it with a folder or hub id of a vision-language model, and an image:
``python examples/visual_contrast.py llava-hf/llava-interleave-qwen-0.5b-hf photo.jpg``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

import logitkit


def main(model: Any, tokenizer: Any, encoding: Mapping[str, Any], *, strength: float = 1.0) -> list[str]:
    """Return the answers to prompts with images, contrasted with the answers for noisy images.

    Args:
        model: a vision-language model.
        tokenizer: its tokenizer.
        encoding: prompts and images as the processor of the model encodes them.
        strength: 0 leaves the answers as they are.
    """
    images = encoding["pixel_values"]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    chain = f"min_p(0.1) | cfg(scale={1 + strength}, negative_inputs='distorted')"
    call = logitkit.chain(chain).bind(model, tokenizer, encoding, distorted={"pixel_values": images + noise})
    return call.texts(call.generate(max_new_tokens=24, do_sample=False))


if __name__ == "__main__":
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.image_utils import load_image

    name, picture = sys.argv[1:]
    processor = AutoProcessor.from_pretrained(name)
    content = [{"type": "image"}, {"type": "text", "text": "What is in the picture?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    encoded = processor(text=prompt, images=load_image(picture), return_tensors="pt")
    for answer in main(AutoModelForImageTextToText.from_pretrained(name), processor.tokenizer, encoded):
        print(answer)
