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

from engine_cases import CHAINS, PROMPTS, TOKENS, compare, expected

os.environ |= {"HF_HUB_OFFLINE": "1", "VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_LOGGING_LEVEL": "ERROR"}


def main() -> None:
    """Compare the two engines and exit with the status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transformers", help="python of the environment where logitkit is installed as usual")
    parser.add_argument("--model", required=True)
    parser.add_argument("--expected", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.expected:
        print(json.dumps(expected(given.model, given.expected)))
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
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

    wrong = int(not issubclass(ChainProcessor, LogitsProcessor))
    print(f"interface of the V2 model runner: {'absent' if wrong else 'present'}")
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


if __name__ == "__main__":
    main()
