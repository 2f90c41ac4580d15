"""The contrast processors on SmolLM2-135M and real prompts."""

from __future__ import annotations

from typing import Any

import torch

import logitkit
from reference.recompute import Guided, Recompute

PROMPTS = [
    'def add(a, b):\n    """Add two numbers.\n\n    >>> add(1, 2)\n    3\n    """\n',
    "The capital of France is",
    "def last(items):\n    '''Return the last item of a list of any length.\n\n    >>> last([1, 2])\n    2\n    '''\n",
]


def test_uscd_at_zero_is_plain_decoding(smollm2: Any) -> None:
    """At rho = 0 USCD generates exactly the token ids of plain decoding."""
    model, tokenizer = smollm2
    plain = logitkit.generate(model, tokenizer, PROMPTS, max_new_tokens=8, do_sample=False)
    neutral = logitkit.generate(model, tokenizer, PROMPTS, chain="uscd(rho=0.0)", max_new_tokens=8, do_sample=False)
    assert torch.equal(plain.ids, neutral.ids)


def test_cfg_is_transformers_own_where_that_is_right(smollm2: Any) -> None:
    """For one prompt, greedy decoding with ``cfg`` equals ``guidance_scale`` of transformers."""
    model, tokenizer = smollm2
    ours = logitkit.generate(model, tokenizer, PROMPTS[0], chain="cfg(1.5)", max_new_tokens=16, do_sample=False)
    inputs = tokenizer(PROMPTS[0], return_tensors="pt")
    theirs = model.generate(**inputs, guidance_scale=1.5, max_new_tokens=16, do_sample=False)
    assert torch.equal(ours.ids, theirs)


def test_the_lame_stream_equals_recomputation(smollm2: Any) -> None:
    """The lame stream of a padded, sampled batch differs by less than 1e-3 from recomputing every prefix."""
    model, tokenizer = smollm2
    call = logitkit.chain("uscd(gate=1.0)").bind(model, tokenizer, PROMPTS)
    reader = call.composite.parts[0][1].lame
    probe = Guided(reader, Recompute(model, [list(ids) for ids in reader.own], call.prompts.ids), scale=1.5)
    torch.manual_seed(0)
    model.generate(**call.inputs, logits_processor=[probe], max_new_tokens=6, do_sample=True)
    assert probe.worst < 1e-3


def test_uscd_on_a_batch_is_uscd_on_each(smollm2: Any) -> None:
    """A padded batch gives the same texts as single prompts, and a prompt without examples is decoded plainly."""
    model, tokenizer = smollm2
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    batch = logitkit.generate(model, tokenizer, PROMPTS, chain="uscd()", **settings)
    alone = [logitkit.generate(model, tokenizer, text, chain="uscd()", **settings).texts[0] for text in PROMPTS]
    assert batch.texts == alone
    assert batch.texts[1] == logitkit.generate(model, tokenizer, PROMPTS[1], **settings).texts[0]
    assert 0 < batch.trace.fired["uscd"] < 1


def test_fused_streams_equal_lazy_ones(smollm2: Any) -> None:
    """Fused streams give the same tokens as lazy streams, and logits within 1e-4 at every step of a padded batch."""
    model, tokenizer = smollm2
    chain = logitkit.chain("cfg(1.5, negative='a negative prompt') | uscd(gate=1.0)")
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
    fused, lazy = (chain.bind(model, tokenizer, PROMPTS) for _ in range(2))
    want = lazy.generate(streams="lazy", **settings)
    probes = [
        Guided(fused_part.streams[0], lazy_part.streams[0], scale=1.0)
        for (_, fused_part), (_, lazy_part) in zip(fused.composite.parts, lazy.composite.parts, strict=True)
    ]
    fused.composite.parts += tuple(("probe", probe) for probe in probes)
    assert torch.equal(fused.generate(streams="fused", **settings), want)
    assert all(probe.worst < 1e-4 for probe in probes), [probe.worst for probe in probes]
    assert set(fused.trace.forwards.values()) == {0}
