"""Chains in MLX-LM, as the logits processor of one generation.

    model, wrapper = mlx_lm.load("path/to/model")
    tokenizer = AutoTokenizer.from_pretrained("path/to/model")
    given = arguments("ngram_style(table='book.safetensors') | min_p(0.05)", tokenizer, "It was")
    mlx_lm.generate(model, wrapper, **given, max_tokens=32)

MLX-LM gives a processor token ids and scores, so a chain runs whose processors need nothing else; any other is refused
before anything is generated. The scores pass through the memory of the host at each step. Version read: mlx-lm 0.32.2
(generate.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from logitkit.adapters import tokens_only
from logitkit.errors import ModeError
from logitkit.registry.chain import Chain

ENGINE = "mlx-lm"


def arguments(
    chain: str | Chain, tokenizer: Any, prompt: tokens_only.Prompt, *, do_sample: bool = False
) -> dict[str, Any]:
    """Return the arguments of one ``mlx_lm.generate`` or ``stream_generate``: the prompt, the chain and the sampler.

    A processor is made for one prompt, so each generation needs arguments of its own. The tokens are those that
    transformers' ``generate`` gives for the same logits, greedily; sampled ones are drawn by MLX from the distribution
    of the chain. With a ``draft_model``, MLX-LM hides the prompt from processors, and a ``prompt_cache`` hides what it
    holds: both end the generation with a ModeError.

    Args:
        chain: text or Chain.
        tokenizer: of the model, from transformers; it makes the token ids of the prompt.
        prompt: a text, token ids, or the messages of a chat.
        do_sample: sample from the distribution of the chain; False: take its likeliest token.

    Raises:
        ModeError: a processor needs a model.
        ModelError: an n-gram table of another tokenizer, or a chat and a tokenizer without a template.
        ParameterError, PromptError: an empty prompt, or a chat that the template refuses.
        ChainError, UnknownNameError, FileFormatError: a chain that cannot be read.
    """
    read = Chain(chain)
    tokens_only.check(read, ENGINE)
    ids = tokens_only.prompt_ids(ENGINE, tokenizer, prompt)
    processor = ChainProcessor(read, tokenizer, ids)
    return {"prompt": ids, "logits_processors": [processor], "sampler": _draw if do_sample else _likeliest}


class ChainProcessor:
    """A chain of one generation, as MLX-LM calls it.

    Args:
        chain: a chain of processors that need token ids and scores alone.
        tokenizer: of the model; its end token is that of the model.
        prompt: token ids of the prompt.
    """

    def __init__(self, chain: Chain, tokenizer: Any, prompt: list[int]) -> None:
        ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self._bound, self._prompt = tokens_only.bound(chain, ENGINE, tokenizer, prompt, ends=ends), np.array(prompt)

    def __call__(self, tokens: Any, logits: Any) -> Any:
        """Return the scores of the next token under the chain.

        Args:
            tokens: integer array of MLX [tokens], prompt and continuation.
            logits: array of MLX [1, vocabulary].

        Returns:
            float32 array of MLX [1, vocabulary].

        Raises:
            ModeError: the tokens do not begin with the prompt.
        """
        import mlx.core as mx

        ids = np.array(tokens, dtype=np.int64)
        if not np.array_equal(ids[: len(self._prompt)], self._prompt):
            raise ModeError(
                f"{ENGINE}: the tokens must begin with the prompt, got {len(ids)} other tokens; leave draft_model "
                "and prompt_cache out, with which processors do not see it"
            )
        rows = torch.from_numpy(ids)[None]
        scores = torch.from_numpy(np.array(logits.astype(mx.float32)))
        return mx.array(self._bound(rows, scores).numpy())


def _draw(logprobs: Any) -> Any:
    """Draw a token of each row of log-probabilities."""
    import mlx.core as mx

    return mx.random.categorical(logprobs)


def _likeliest(logprobs: Any) -> Any:
    """Return the likeliest token of each row of log-probabilities."""
    import mlx.core as mx

    return mx.argmax(logprobs, axis=-1)
