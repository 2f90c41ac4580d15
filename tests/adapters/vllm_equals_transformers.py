"""Compare the texts of vLLM and transformers under the same chains: greedy decoding on a real model.

vLLM 0.32 and logitkit require different versions of transformers, so the script uses two environments. Run it with
the python of the vLLM environment:

    model=$(logitkit models path smollm2-135m)
    python tests/adapters/vllm_equals_transformers.py --transformers .venv/bin/python --model $model

The script prints a line for each chain. It ends with status 1 if a text differs at a place where the probabilities
of the two likeliest tokens differ by more than rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
PROMPTS = [
    "The mill stood by the old bridge. In the evening, the mill",
    "Once upon a time there was a",
    "def add(a, b):\n    return",
    "The three largest cities of France are",
    "A recipe for bread: take flour, water,",
]
CORPUS = ["In a village of La Mancha there lived a gentleman of those who keep a lance in the rack."] * 3
CHAINS = [
    "",
    "ngram_style(table='TABLE', weight=0.3)",
    "ngram_context(weight=0.3)",
    "repetition_penalty(1.3) | no_repeat_ngram(3)",
    "min_new_tokens(12) | suppress_tokens([28, 30])",
    "bad_words([[260], [253, 1165]])",
    "temperature(0.7) | top_k(5) | min_p(0.1)",
    "ngram_style(table='TABLE', weight=0.2, rule='mixture') | typical_p(0.8)",
]
TOKENS, TIE = 24, 1e-3


def expected(model: str, table: str) -> None:
    """Print the tokens of transformers, with the gap between the two likeliest tokens at each place, as JSON."""
    import torch

    import logitkit
    from logitkit import models

    loaded, tokenizer = models.load(model)
    table_of(tokenizer, table)
    found = {}
    for chain in CHAINS:
        rows = []
        for prompt in PROMPTS:
            call = logitkit.chain(chain.replace("TABLE", table)).bind(loaded, tokenizer, prompt)
            out = call.generate(
                max_new_tokens=TOKENS, do_sample=False, output_scores=True, return_dict_in_generate=True
            )
            best = torch.stack([scores[0].log_softmax(-1).topk(2).values for scores in out.scores])
            row = out.sequences[0, call.prompts.width :].tolist()
            rows.append({"ids": row, "gaps": (best[:, 0] - best[:, 1]).tolist()})
        found[chain] = rows
    print(json.dumps(found))


def table_of(tokenizer: Any, path: str) -> None:
    """Write an n-gram table of the small corpus."""
    from logitkit.processors.ngram import NgramTable

    NgramTable.train(CORPUS, tokenizer).save(path)


def main() -> None:
    """Compare the two engines and exit with the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transformers", help="python of the environment where logitkit is installed as usual")
    parser.add_argument("--model", required=True)
    parser.add_argument("--expected", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.expected:
        expected(given.model, given.expected)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = str(Path(folder) / "table.safetensors")
        command = [given.transformers, __file__, "--model", given.model, "--expected", table]
        want = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
        sys.exit(1 if differences(given.model, table, want) else 0)


def differences(model: str, table: str, want: dict[str, list[dict[str, Any]]]) -> int:
    """Generate with vLLM, all prompts and chains in one batch; print and count differences, then check refusals."""
    from vllm import LLM, SamplingParams
    from vllm.exceptions import VLLMValidationError

    from logitkit.adapters.vllm import ChainProcessor, extra_args

    llm = LLM(
        model,
        dtype="float32",
        max_model_len=256,
        max_num_seqs=16,
        gpu_memory_utilization=0.3,  # on a CPU: the share of the memory, however busy the machine is
        enforce_eager=True,
        logits_processors=[ChainProcessor],
    )
    tokenizer = llm.get_tokenizer()
    asked, settings = [], []
    for chain in CHAINS:
        arguments = extra_args(chain.replace("TABLE", table), tokenizer)
        for prompt in PROMPTS:
            asked.append(prompt)
            settings.append(SamplingParams(temperature=0.0, max_tokens=TOKENS, extra_args=arguments))
    got = iter(llm.generate(asked, settings, use_tqdm=False))
    wrong = 0
    for chain in CHAINS:
        told = [compare(next(got).outputs[0].token_ids, row) for row in want[chain]]
        wrong += told.count("differs")
        print(f"{chain or 'plain'}: {', '.join(told)}")
    pairs = [pair for chain in CHAINS[1:] for pair in zip(want[chain], want[""], strict=True)]
    moved = sum(row["ids"] != plain["ids"] for row, plain in pairs)
    print(f"{moved} of {len(pairs)} texts are not those of plain decoding")
    for chain in ("cfg(1.5)", "byte_boundary()", "cascade(large='other')", "top_p(2)", "usdc()"):
        try:
            llm.generate(PROMPTS[0], SamplingParams(extra_args={"logitkit": chain}), use_tqdm=False)
            print(f"{chain}: was not refused")
            wrong += 1
        except VLLMValidationError as error:
            print(f"{chain}: refused, {error}")
    again = llm.generate(PROMPTS[1], SamplingParams(temperature=0.0, max_tokens=TOKENS), use_tqdm=False)
    alive = compare(again[0].outputs[0].token_ids, want[""][1])
    print(f"after refusals, without a chain: {alive}")
    return wrong + (alive == "differs")


def compare(got: Any, row: dict[str, Any]) -> str:
    """Return whether tokens are equal to the expected ones, different, or different at a tie."""
    for place, token in enumerate(row["ids"]):
        if place >= len(got) or got[place] != token:
            return "a tie" if row["gaps"][place] < TIE else "differs"
    return "equal" if len(got) == len(row["ids"]) else "differs"


if __name__ == "__main__":
    main()
