"""The equalities that transformers asserts of its own `generate` hold under chains, on twelve architectures.

Each test compares two ways of generating that must give the same tokens. A chain that kept state, read padding, or
missed a rewind would break one of them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import CONFIGS, DECODERS, architecture
from transformers import CompileConfig

import logitkit
from logitkit.registry.laws import tiny_tokenizer

CHAINS = ["", "cfg(1.5, negative='a fish') | top_k(40)", "repetition_penalty(1.2) | min_p(0.01)"]
SHORT, LONG = "fox", "the old man went to the sea"
TOKENS = 10

every_architecture = pytest.mark.parametrize("name", CONFIGS)
every_decoder = pytest.mark.parametrize("name", DECODERS)
every_chain = pytest.mark.parametrize("chain", CHAINS)


def bound(name: str, chain: str, prompts: Any) -> Any:
    """A chain bound to a tiny model of an architecture."""
    return logitkit.chain(chain).bind(architecture(name), tiny_tokenizer(), prompts)


def texts(name: str, chain: str, prompts: Any = LONG, **settings: Any) -> list[str]:
    """The greedy continuations."""
    call = bound(name, chain, prompts)
    return list(call.texts(call.generate(**{"max_new_tokens": TOKENS, "do_sample": False, **settings})))


@every_architecture
@every_chain
def test_a_batch_equals_single_prompts(name: str, chain: str) -> None:
    """Padding of the shorter prompt changes nothing."""
    alone = [text for prompt in (SHORT, LONG) for text in texts(name, chain, prompt)]
    assert texts(name, chain, [SHORT, LONG]) == alone


@every_architecture
@every_chain
def test_no_cache_equals_cache(name: str, chain: str) -> None:
    """Reading each prefix again gives the same tokens as the KV cache."""
    assert texts(name, chain, use_cache=False) == texts(name, chain)


@every_architecture
@every_chain
def test_fused_equals_lazy_streams(name: str, chain: str) -> None:
    """Where second streams are fused, the tokens are those of separate forwards."""
    assert texts(name, chain) == texts(name, chain, streams="lazy")


@every_decoder
@every_chain
def test_prompt_lookup_equals_greedy(name: str, chain: str) -> None:
    """Drafts copied from the prompt are accepted or rejected without a trace."""
    prompt = "the sea the sea the sea the"
    assert texts(name, chain, prompt, prompt_lookup_num_tokens=3) == texts(name, chain, prompt)


@every_decoder
@every_chain
def test_assisted_equals_greedy(name: str, chain: str) -> None:
    """Drafts of another model are accepted or rejected without a trace."""
    assert texts(name, chain, assistant_model=architecture(name, 1)) == texts(name, chain)


@every_decoder
@every_chain
def test_continuing_equals_one_go(name: str, chain: str) -> None:
    """Six tokens at once equal three tokens, and three more with the same call's rows."""
    call = bound(name, chain, LONG)
    settings = {"do_sample": False, "logits_processor": call.processors, **call.generate_kwargs}
    settings = {
        key: value for key, value in settings.items() if key in ("do_sample", "logits_processor", "pad_token_id")
    }
    model = architecture(name)
    whole = model.generate(**call.inputs, max_new_tokens=6, **settings)
    half = model.generate(**call.inputs, max_new_tokens=3, **settings)
    again = model.generate(half, attention_mask=torch.ones_like(half), max_new_tokens=3, **settings)
    assert again.tolist() == whole.tolist()


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2", "phi"])
@every_chain
def test_a_static_cache_equals_a_dynamic_one(name: str, chain: str) -> None:
    """The kind of the KV cache changes nothing."""
    settings = {"cache_implementation": "static", "disable_compile": True}
    assert texts(name, chain, **settings) == texts(name, chain)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("chain", CHAINS[:2])
def test_a_compiled_forward_equals_an_eager_one(name: str, chain: str) -> None:
    """One graph without a break, over a static cache, gives the tokens of the eager forward over a dynamic cache."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    config = CompileConfig(backend="eager", fullgraph=True, mode=None)
    config._compile_all_devices = True  # transformers compiles on accelerators alone unless told
    call = logitkit.chain(chain).bind(architecture(name, 3), tiny_tokenizer(), [SHORT, LONG])
    settings = {"max_new_tokens": TOKENS, "do_sample": False}
    compiled = call.generate(cache_implementation="static", compile_config=config, **settings)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    eager = logitkit.chain(chain).bind(architecture(name, 3), tiny_tokenizer(), [SHORT, LONG])
    assert torch.equal(compiled, eager.generate(streams="lazy", **settings))


@every_architecture
@every_chain
def test_one_beam_equals_greedy(name: str, chain: str) -> None:
    """A search with one beam is greedy decoding."""
    assert texts(name, chain, num_beams=1, num_return_sequences=1) == texts(name, chain)


@every_decoder
@every_chain
def test_left_padding_equals_no_padding(name: str, chain: str) -> None:
    """Padding in an encoding that is given, masked, changes nothing."""
    tokenizer = tiny_tokenizer()
    ids = torch.tensor([[tokenizer.pad_token_id] * 5 + tokenizer(LONG)["input_ids"]])
    encoded = {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) >= 5).long()[None]}
    assert texts(name, chain, encoded) == texts(name, chain)


@every_architecture
@every_chain
def test_scores_give_the_transition_scores(name: str, chain: str) -> None:
    """The processed scores of a greedy text, normalised, are the log-probabilities of its tokens."""
    call = bound(name, chain, LONG)
    output = call.generate(max_new_tokens=4, do_sample=False, output_scores=True, return_dict_in_generate=True)
    got = architecture(name).compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    tokens = output.sequences[:, -len(output.scores) :]
    want = [
        scores.log_softmax(-1).gather(1, tokens[:, place, None])[0, 0] for place, scores in enumerate(output.scores)
    ]
    torch.testing.assert_close(got[0], torch.stack(want), rtol=1e-4, atol=1e-5)
    assert all(int(scores.argmax()) == int(tokens[0, place]) for place, scores in enumerate(output.scores))


@every_architecture
@every_chain
def test_returned_sequences_are_independent(name: str, chain: str) -> None:
    """Beam search over a batch gives each prompt the beams of the prompt alone."""
    settings = {"num_beams": 3, "num_return_sequences": 2}
    alone = [text for prompt in (SHORT, LONG) for text in texts(name, chain, prompt, **settings)]
    assert texts(name, chain, [SHORT, LONG], **settings) == alone
