"""Ways of generating, each tried on a processor: right, which is equal to recomputation from scratch, or refused.

``check_modes("uscd")`` tries them all on a Spec's example. `generate` tells a processor nothing of beams that change
places, drafts that are taken back, padding or caches; so what it does is compared, prefix by prefix, with
`Recomputation`. What neither equals it nor is refused by a named error is a fault.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CompileConfig, LogitsProcessorList, pipeline
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging as verbosity

from logitkit.errors import LogitkitError, PluginError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.registry.call import SAMPLING
from logitkit.registry.chain import Chain
from logitkit.registry.discovery import default_registry
from logitkit.registry.laws.agreement import TOKENS, Watch, generated, is_greedy, prefixes
from logitkit.registry.laws.recomputation import Recomputation
from logitkit.registry.laws.subjects import TEXTS, example_of, resources_of
from logitkit.registry.laws.tiny_models import (
    encoder_decoder_model,
    foreign_model,
    foreign_tokenizer,
    tiny_model,
    tiny_tokenizer,
)
from logitkit.registry.registry import Plugin, Registry
from logitkit.registry.spec import Spec

PROMPTS = [TEXTS[0], f"a longer one: {TEXTS[1]}"]  # of unequal length, so that one is padded
ROUGH = 0.1  # total variation; in bf16 a cache and a fresh reading differ by that much or less


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One way of generating with one processor: right, or refused by an error of ours, or neither."""

    mode: str
    right: bool
    refused: str = ""
    fault: str = ""


class World:
    """A Spec's example on tiny models, beside its recomputation.

    What cuts prompts (has a ``prepare``) generates on a model whose tokens are longer than a byte, or there would be
    nothing to cut.

    Args:
        chain, spec: the example, and whose it is.
        encoded: whether the models read their prompts in an encoder.
    """

    def __init__(self, chain: Chain, spec: Spec, *, encoded: bool = False) -> None:
        strange = hasattr(spec.factory, "prepare")
        model = foreign_model() if strange else tiny_model()
        others: dict[str, Any] = {}
        if encoded:
            model = encoder_decoder_model(foreign=strange)
            others = {"other": encoder_decoder_model(1), "third": encoder_decoder_model(2)}
        resources = {**resources_of(spec, model), **others}
        self.chain, self.tokenizers = chain, resources.pop("tokenizers", None)
        self.model = resources.pop("model", model)
        self.tokenizer = resources.pop("tokenizer", foreign_tokenizer() if strange else tiny_tokenizer())
        self.resources = {name: value for name, value in resources.items() if f"'{name}'" in str(chain)}
        self.minds_scale = "ignores_the_scale_of_a_row" in spec.laws
        self.draft = foreign_model(3) if strange else tiny_model(3)
        if isinstance(self.model, ByteModel):
            self.draft = ByteModel(self.draft, tiny_tokenizer())
        self.one, self.batch = self.truth(1), self.truth(2)

    def truth(self, count: int, model: Any = None) -> Recomputation:
        """From scratch, on the first so many prompts."""
        return Recomputation(
            for_one(self.chain) if count == 1 else self.chain,
            model or self.model,
            self.tokenizer,
            PROMPTS[:count],
            resources=self.resources,
            tokenizers=self.tokenizers,
            minds_scale=self.minds_scale,
        )


def for_one(chain: Chain) -> Chain:
    """The chain for the first prompt alone: of texts given once a prompt, the first."""

    def first(value: Any) -> Any:
        once_a_prompt = isinstance(value, list) and len(value) == len(TEXTS) and isinstance(value[0], str)
        return value[0] if once_a_prompt else value

    steps = [
        {"name": name, "params": {key: first(value) for key, value in given.items()}} for name, given in chain.steps
    ]
    return Chain(steps, registry=chain.registry)


def greedy(world: World) -> None:
    """One prompt, the likeliest token."""
    is_greedy(world.one, world.one.bind(), generated(world.one))


def sampling(world: World) -> None:
    """One prompt, drawn."""
    generated(world.one, do_sample=True)


def beams(world: World) -> None:
    """Beams that change places."""
    generated(world.one, num_beams=3)


def beam_sampling(world: World) -> None:
    """Beams that are drawn."""
    generated(world.one, num_beams=3, do_sample=True)


def several_sequences(world: World) -> None:
    """Two texts a prompt, drawn."""
    generated(world.one, num_return_sequences=2, do_sample=True)


def left_padding(world: World) -> None:
    """Two prompts of unequal length, greedy and with beams."""
    is_greedy(world.batch, world.batch.bind(), generated(world.batch))
    generated(world.batch, num_beams=2)


def assisted(world: World) -> None:
    """A draft model whose tokens are taken back."""
    _drafted(world, assistant_model=world.draft)


def prompt_lookup(world: World) -> None:
    """Drafts out of the prompt."""
    _drafted(world, prompt_lookup_num_tokens=3)


def _drafted(world: World, **settings: Any) -> None:
    """Greedy texts are those without a draft; what the chain said of drafts is compared nowhere else."""
    call = world.one.bind()
    is_greedy(world.one, call, call.ids(call.generate(max_new_tokens=TOKENS, do_sample=False, **settings)))
    assert call.trace.calls, "the chain was never asked"


class _Stream(BaseStreamer):
    """Keeps what streams by, the prompt first."""

    def __init__(self) -> None:
        self.pieces: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        self.pieces.append(value.reshape(-1))

    def end(self) -> None:
        pass


def streaming(world: World) -> None:
    """Tokens as they come."""
    stream = _Stream()
    ids = generated(world.one, streamer=stream)
    assert torch.equal(torch.cat(stream.pieces), ids[0]), "other tokens streamed than came back"


def static_compiled(world: World) -> None:
    """A cache of fixed size, and the model's forward compiled as one graph (traced here, not turned into C++)."""
    settings: dict[str, Any] = {"backend": "eager", "fullgraph": True, "mode": None}
    config: Any = CompileConfig(**settings)
    config._compile_all_devices = True
    truth = world.truth(1, _to_compile(world.model))
    generated(truth, cache_implementation="static", compile_config=config)
    assert hasattr(truth.model, "_compiled_call"), "nothing was compiled"


@functools.cache
def _to_compile(model: Any) -> Any:
    """A copy whose compiled forward stays with it, so that it is traced once for all processors."""
    return copy.deepcopy(model)


def encoder_decoder(world: World) -> None:
    """A model that reads its prompt in an encoder; two prompts, greedy and with beams."""
    is_greedy(world.batch, world.batch.bind(), generated(world.batch))
    generated(world.batch, num_beams=2)


def bf16(world: World) -> None:
    """A model in bf16: the same as from scratch but for its own rounding."""
    truth = world.truth(2, copy.deepcopy(world.model).to(torch.bfloat16))
    call, before, after = truth.bind(), Watch(), Watch()
    call.processors.insert(0, before)
    call.generate(max_new_tokens=TOKENS, do_sample=False, logits_processor=LogitsProcessorList([after]))
    for (rows, given), (_, answers) in zip(before.seen, after.seen, strict=True):
        for prefix, scores, answer in zip(prefixes(truth, call, rows), given, answers, strict=True):
            if not truth.ended(prefix[1]):
                want = truth.answer(*prefix, scores).exp()
                apart = 0.5 * float((answer.softmax(-1) - want).abs().sum())
                assert apart < ROUGH, f"the answer after {prefix[1]} is {apart:.2f} (total variation) from scratch"


def reuse(world: World) -> None:
    """One Call for three ways in a row."""
    call = world.batch.bind()
    first = generated(world.batch, call)
    generated(world.batch, call, num_beams=2)
    assert torch.equal(generated(world.batch, call), first), "a used Call gives another text"


def text_generation_pipeline(world: World) -> None:
    """Transformers' ``pipeline("text-generation")`` with ``call.processors``, given the text of ``call.inputs``."""
    call = world.one.bind()
    text = world.tokenizer.decode(call.inputs["input_ids"][0])
    settings = {key: value for key, value in call.generate_kwargs.items() if key not in SAMPLING}
    settings |= {"do_sample": False, "max_new_tokens": TOKENS, "return_tensors": True}
    level = verbosity.get_verbosity()
    verbosity.set_verbosity(logging.CRITICAL)  # it tells of classes it does not know, and of settings it gives twice
    try:
        pipe = pipeline("text-generation", model=world.model, tokenizer=world.tokenizer)
        (done,) = pipe(text, logits_processor=call.processors, **settings)
    finally:
        verbosity.set_verbosity(level)
    is_greedy(world.one, call, torch.tensor([done["generated_token_ids"]]))
    assert call.trace.calls, "the chain was never asked"


MODES: dict[str, Callable[[World], None]] = {
    mode.__name__: mode
    for mode in (
        greedy,
        sampling,
        beams,
        beam_sampling,
        several_sequences,
        left_padding,
        assisted,
        prompt_lookup,
        streaming,
        static_compiled,
        encoder_decoder,
        bf16,
        reuse,
        text_generation_pipeline,
    )
}


def check_modes(subject: Spec | str) -> list[Cell]:
    """Try every way of generating on a processor's example.

    Args:
        subject: a registered name, or a Spec.
    """
    registry = default_registry()
    if isinstance(subject, Spec):
        registry = Registry([Plugin(name=subject.name, origin=subject.plugin, specs=(subject,))])
    spec = subject if isinstance(subject, Spec) else registry.describe(subject)
    chain = example_of(spec, registry)
    world = functools.cache(functools.partial(World, chain, spec))
    return [_cell(mode, functools.partial(world, encoded=mode == "encoder_decoder")) for mode in MODES]


def _cell(mode: str, world: Callable[[], World]) -> Cell:
    """Try one."""
    try:
        MODES[mode](world())
    except PluginError as error:  # it broke down
        return Cell(mode=mode, right=False, fault=str(error).split("\n")[0])
    except LogitkitError as error:
        return Cell(mode=mode, right=False, refused=f"{type(error).__name__}: {error}")
    except Exception as error:
        return Cell(mode=mode, right=False, fault=f"{type(error).__name__}: {error}".split("\n")[0])
    return Cell(mode=mode, right=True)
