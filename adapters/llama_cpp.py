"""Chains in llama-cpp-python, as the logits processor of one completion.

    llm = Llama("smollm2.gguf", n_ctx=2048)
    completion = arguments("ngram_style(table='book.safetensors') | min_p(0.05)", llm, tokenizer, "It was")
    llm.create_completion(**completion, max_tokens=32)

llama-cpp-python gives a processor token ids and scores, so a chain runs whose processors need nothing else; any other
is refused before anything is generated. Version read: 0.3.36 (llama.py: _init_sampler, generate, _create_completion).

llama-cpp-python calls its processors from C, where an exception is printed and forgotten, and it drops all of them when
``logit_bias`` is given. Both end the completion here with an error: the stopping criteria run in Python at each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from logitkit.adapters import tokens_only
from logitkit.errors import ModeError, ModelError
from logitkit.registry.chain import Chain

ENGINE = "llama-cpp-python"
# Settings with which the engine's own samplers leave the scores of the chain as they are.
NEUTRAL = {
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
PROBED = 64  # tokens by which vocabularies are compared


def arguments(
    chain: str | Chain,
    llm: Any,
    tokenizer: Any,
    prompt: tokens_only.Prompt,
    *,
    do_sample: bool = False,
) -> dict[str, Any]:
    """Return the arguments of one ``llm.create_completion``: the prompt, the chain, and neutral settings for the rest.

    A processor is made for one prompt, so each completion needs arguments of its own. The tokens are those that
    transformers' ``generate`` gives for the same logits, greedily; sampled ones are drawn by llama.cpp from the
    distribution of the chain, with the seed of the completion.

    Args:
        chain: text or Chain.
        llm: the ``llama_cpp.Llama``.
        tokenizer: of the same model, from transformers; it makes the token ids of the prompt.
        prompt: a text, token ids, or the messages of a chat.
        do_sample: sample from the distribution of the chain; False: take its likeliest token.

    Raises:
        ModeError: a processor needs a model, or ``llm`` has a draft model, whose drafts would be read as text.
        ModelError: the tokenizer is not that of the model; an n-gram table of another tokenizer.
        ParameterError: an empty prompt.
        PromptError: a chat that the template refuses.
        ChainError, UnknownNameError, FileFormatError: a chain that cannot be read.
    """
    read = Chain(chain)
    tokens_only.check(read, ENGINE)
    if getattr(llm, "draft_model", None) is not None:
        raise ModeError(f"{ENGINE}: draft_model must be None under a chain, got one; its drafts would be read as text")
    _check_vocabulary(llm, tokenizer)
    ids = tokens_only.prompt_ids(ENGINE, tokenizer, prompt)
    processor = ChainProcessor(read, tokenizer, ids, ends=[llm.token_eos()])
    return {
        "prompt": ids,
        "logits_processor": [processor],
        "stopping_criteria": processor.check,
        "temperature": 1.0 if do_sample else 0.0,
        **NEUTRAL,
    }


class ChainProcessor:
    """A chain of one completion, as llama-cpp-python calls it.

    Args:
        chain: a chain of processors that need token ids and scores alone.
        tokenizer: of the model.
        prompt: token ids of the prompt.
        ends: end tokens of the model.
    """

    def __init__(self, chain: Chain, tokenizer: Any, prompt: Sequence[int], *, ends: Sequence[int]) -> None:
        self._bound = tokens_only.bound(chain, ENGINE, tokenizer, prompt, ends=ends)
        self._error: BaseException | None = None
        self._read = 0  # tokens of the row at the last call

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the scores of the next token under the chain.

        Args:
            input_ids: int [tokens], prompt and continuation.
            scores: float32 [vocabulary].

        Returns:
            float32 [vocabulary]; the given scores after an error, which `check` raises.
        """
        self._read = len(input_ids)
        if self._error is None:
            try:
                rows = torch.from_numpy(np.array(input_ids, dtype=np.int64))[None]
                row = torch.from_numpy(np.array(scores, dtype=np.float32))[None]
                return self._bound(rows, row)[0].numpy()
            except BaseException as error:  # also Ctrl-C, which C would print and forget
                self._error = error
        return scores

    def check(self, input_ids: Any, logits: Any) -> bool:
        """Raise what went wrong in the call for this row; return False, since a chain ends no completion.

        Args:
            input_ids: int [tokens], the row of the last call.
            logits: not used.

        Raises:
            ModeError: the engine took a token without the chain.
        """
        if self._error is not None:
            raise self._error
        if self._read != len(input_ids):
            raise ModeError(
                f"{ENGINE}: the chain must be called for every token, got none for token {len(input_ids)}; leave "
                "logit_bias out, with which all processors are dropped"
            )
        return False


def _check_vocabulary(llm: Any, tokenizer: Any) -> None:
    """Refuse a tokenizer whose ids mean other texts to the model.

    Raises:
        ModelError: names an id and both texts.
    """
    size = llm.n_vocab()
    if size < len(tokenizer):
        raise ModelError(f"{ENGINE}: the tokenizer must be that of the model, got {len(tokenizer)} tokens for {size}")
    words = [(index, tokenizer.decode([index]).strip()) for index in range(0, len(tokenizer), len(tokenizer) // PROBED)]
    for index, word in words:
        if word.isascii() and word.isalpha():
            other = llm.detokenize([index]).decode("utf-8", errors="replace").strip()
            if other != word:
                raise ModelError(
                    f"{ENGINE}: the tokenizer must be that of the model, got token {index} {word!r}, in the model "
                    f"{other!r}"
                )
