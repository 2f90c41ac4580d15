"""Modes of generating, each tested on a processor against recomputation from scratch.

``check_modes("uscd")`` runs every mode on a Spec's example. `generate` does not tell a processor when beams change
places, when draft tokens are rejected, or which tokens are padding. Therefore the scores and tokens are compared,
prefix by prefix, with `Recomputation`. A mode that neither agrees nor is refused by a logitkit error is a fault.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, pipeline
from transformers.utils import logging as verbosity

from logitkit.errors import LogitkitError, PluginError, UnknownNameError
from logitkit.processors.engine.fusion_obstacles import obstacle
from logitkit.registry.discovery import default_registry
from logitkit.registry.generate_settings import SAMPLING
from logitkit.registry.laws.agreement import (
    TOKENS,
    ScoreRecorder,
    StreamRecorder,
    assert_greedy,
    generate_checked,
    prefixes,
)
from logitkit.registry.laws.compiled_forward import compiled_settings, copy_to_compile, with_room_for_graphs
from logitkit.registry.laws.examples import example_chain
from logitkit.registry.laws.mode_subject import LONG, PROMPTS, ModeSubject
from logitkit.registry.laws.subjects import registry_of
from logitkit.registry.laws.tiny_architectures import is_available
from logitkit.registry.spec import Spec

# Total variation. In bf16, logits with and without a KV cache differ by the rounding of the model, up to this much.
BF16_TOLERANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class ModeResult:
    """The result of one mode with one processor; exactly one of ``right``, ``refused`` and ``fault`` is set.

    Attributes:
        mode: name of the mode.
        right: every score and token agrees with recomputation.
        refused: the logitkit error by which the mode is refused.
        fault: the first line of a disagreement or of another exception.

    >>> ModeResult(mode="beams", right=False, refused="ModeError: mine: cannot run under beams").fault
    ''
    """

    mode: str
    right: bool
    refused: str = ""
    fault: str = ""


def greedy(subject: ModeSubject) -> None:
    """One prompt, greedy."""
    assert_greedy(subject.single, subject.single.bind(), generate_checked(subject.single))


def sampling(subject: ModeSubject) -> None:
    """One prompt, sampled."""
    generate_checked(subject.single, do_sample=True)


def beams(subject: ModeSubject) -> None:
    """Beam search."""
    generate_checked(subject.single, num_beams=3)


def beam_sampling(subject: ModeSubject) -> None:
    """Beam search with sampling."""
    generate_checked(subject.single, num_beams=3, do_sample=True)


def several_sequences(subject: ModeSubject) -> None:
    """Two sampled sequences for each prompt."""
    generate_checked(subject.single, num_return_sequences=2, do_sample=True)


def left_padding(subject: ModeSubject) -> None:
    """Two prompts of unequal length, greedy and with beams."""
    assert_greedy(subject.batch, subject.batch.bind(), generate_checked(subject.batch))
    generate_checked(subject.batch, num_beams=2)


def long_and_short(subject: ModeSubject) -> None:
    """A long prompt beside a short one, greedy; second prompts of the example are short."""
    scratch = subject.recomputation(2, prompts=[LONG, PROMPTS[0]])
    assert_greedy(scratch, scratch.bind(), generate_checked(scratch))


def assisted(subject: ModeSubject) -> None:
    """Assisted decoding with a draft model, whose tokens may be rejected."""
    _with_drafts(subject, assistant_model=subject.draft)


def prompt_lookup(subject: ModeSubject) -> None:
    """Assisted decoding with drafts copied from the prompt."""
    _with_drafts(subject, prompt_lookup_num_tokens=3)


def early_exit(subject: ModeSubject) -> None:
    """Assisted decoding with drafts of the model's own first layer."""
    _with_drafts(subject, assistant_early_exit=1)


def universal_assisted(subject: ModeSubject) -> None:
    """Assisted decoding with a draft model that has another tokenizer."""
    draft, tokenizer = subject.strangers
    _with_drafts(subject, assistant_model=draft, assistant_tokenizer=tokenizer, tokenizer=subject.tokenizer)


def _with_drafts(subject: ModeSubject, **settings: Any) -> None:
    """Compare greedy texts alone: the scores that the chain returns for rejected drafts have no counterpart."""
    call = subject.single.bind()
    output = call.generate(max_new_tokens=TOKENS, do_sample=False, **settings)
    assert_greedy(subject.single, call, call.ids(output))
    assert call.trace.calls, "the chain was never called"


def streaming(subject: ModeSubject) -> None:
    """Streamed tokens are those of the returned sequence."""
    streamer = StreamRecorder()
    ids = generate_checked(subject.single, streamer=streamer)
    assert torch.equal(torch.cat(streamer.pieces), ids[0]), "the streamed tokens differ from the returned tokens"


def static_compiled(subject: ModeSubject) -> None:
    """A static cache and the model's forward as one compiled graph (traced by dynamo; not compiled to C++)."""
    scratch = subject.recomputation(1, copy_to_compile(subject.model))
    with_room_for_graphs(lambda: generate_checked(scratch, **compiled_settings()))
    assert hasattr(scratch.model, "_compiled_call"), "nothing was compiled"


def fused_static(subject: ModeSubject) -> None:
    """A static cache, two sampled sequences for each of two prompts; second streams of the model are fused."""
    call = subject.batch.bind()
    generate_checked(subject.batch, call, cache_implementation="static", do_sample=True, num_return_sequences=2)
    if obstacle(call.model, call.composite.streams, call.prompts, {"cache_implementation": "static"}.get) is None:
        assert call.trace.fusion.state == "fused", f"second streams were {call.trace.fusion}"


def architecture(subject: ModeSubject) -> None:
    """Models of another architecture: two prompts of unequal length, greedy and with beams."""
    scratch = subject.batch if subject.architecture.pads else subject.single
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Position ids are not supported")  # PEFT, at every prompt tuning
        assert_greedy(scratch, scratch.bind(), generate_checked(scratch))
        generate_checked(scratch, num_beams=2)


def bf16(subject: ModeSubject) -> None:
    """A model in bf16, compared on the model's own scores, which differ from recomputed ones by rounding."""
    scratch = subject.recomputation(2, copy.deepcopy(subject.model).to(torch.bfloat16))
    call, before, after = scratch.bind(), ScoreRecorder(), ScoreRecorder()
    call.processors.insert(0, before)
    call.generate(max_new_tokens=TOKENS, do_sample=False, logits_processor=LogitsProcessorList([after]))
    for (rows, batch), (_, returned) in zip(before.seen, after.seen, strict=True):
        for prefix, scores, actual in zip(prefixes(scratch, call, rows), batch, returned, strict=True):
            if not scratch.ended(prefix[1]):
                expected = scratch.compute(*prefix, scores).exp()
                distance = 0.5 * float((actual.softmax(-1) - expected).abs().sum())
                what = f"the scores after {prefix[1]} are {distance:.2f} (total variation) from recomputation"
                assert distance < BF16_TOLERANCE, what


def reuse(subject: ModeSubject) -> None:
    """One Call used three times: greedy, beams, greedy."""
    call = subject.batch.bind()
    first = generate_checked(subject.batch, call)
    generate_checked(subject.batch, call, num_beams=2)
    assert torch.equal(generate_checked(subject.batch, call), first), "a used Call gives another text"


def text_generation_pipeline(subject: ModeSubject) -> None:
    """The ``text-generation`` pipeline of transformers with ``call.processors`` and the text of ``call.inputs``."""
    call = subject.single.bind()
    text = subject.tokenizer.decode(call.inputs["input_ids"][0])
    settings = {key: value for key, value in call.generate_kwargs.items() if key not in SAMPLING}
    settings |= {"do_sample": False, "max_new_tokens": TOKENS, "return_tensors": True}
    tokenizer = copy.deepcopy(subject.tokenizer)  # a pipeline pads its tokenizer on the left from now on
    pipe = pipeline("text-generation", model=subject.model, tokenizer=tokenizer)
    (output,) = pipe(text, logits_processor=call.processors, **settings)
    assert_greedy(subject.single, call, torch.tensor([output["generated_token_ids"]]))
    assert call.trace.calls, "the chain was never called"


MODES: dict[str, Callable[[ModeSubject], None]] = {
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
        early_exit,
        universal_assisted,
        streaming,
        static_compiled,
        fused_static,
        bf16,
        reuse,
        text_generation_pipeline,
        long_and_short,  # last: a byte tree that read a long prompt is too deep for the copies of other modes
    )
}
WAYS = tuple(MODES)  # measured on a Llama
OF_ARCHITECTURES = {
    "encoder_decoder": "t5",
    "encoder_decoder_with_absolute_positions": "bart",
    "recurrent_hybrid": "jamba",
    "vision_language": "llava",
    "lora": "lora",
    "prompt_tuning": "prompt_tuning",
}
MODES |= dict.fromkeys(OF_ARCHITECTURES, architecture)


def check_modes(subject: Spec | str, modes: Sequence[str] | None = None) -> list[ModeResult]:
    """Test modes of generating on a processor's example.

    Args:
        subject: a registered name, or a Spec.
        modes: names in `MODES`; None: all whose models can be built, which for LoRA and prompt tuning needs PEFT.

    Returns:
        A result for each mode, in the order of `MODES`.

    Raises:
        UnknownNameError, PluginError: an unknown name, or an example that cannot be read.

    >>> [result.mode for result in check_modes("top_k", ["greedy", "beams"]) if result.right]
    ['greedy', 'beams']
    """
    registry = registry_of(subject) if isinstance(subject, Spec) else default_registry()
    spec = subject if isinstance(subject, Spec) else registry.describe(subject)
    for mode in modes or ():
        if mode not in MODES:
            raise UnknownNameError("mode of generating", mode, MODES)
    example_chain(spec, registry)  # an unreadable example is an error of the Spec, not a fault of each mode
    make = functools.cache(functools.partial(ModeSubject, spec, registry))
    architectures = {mode: OF_ARCHITECTURES.get(mode, "llama") for mode in MODES}
    return [
        _result(mode, functools.partial(make, architecture=architecture))
        for mode, architecture in architectures.items()
        if (modes is None and is_available(architecture)) or mode in (modes or ())
    ]


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Silence the log of transformers, which remarks on its own calls and on kernels that tiny models do not need.

    Assisted decoding passes its draft model deprecated arguments, pipelines do not know the classes of models, and
    Mamba layers miss their kernels. No remark is about the processor.
    """
    level = verbosity.get_verbosity()
    verbosity.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        verbosity.set_verbosity(level)


def _result(mode: str, make: Callable[[], ModeSubject]) -> ModeResult:
    """Test one mode; a PluginError is a fault of the processor, any other logitkit error a refusal."""
    try:
        with _without_remarks():
            MODES[mode](make())
    except PluginError as error:
        return ModeResult(mode=mode, right=False, fault=str(error).split("\n")[0])
    except LogitkitError as error:
        return ModeResult(mode=mode, right=False, refused=f"{type(error).__name__}: {error}")
    except Exception as error:
        return ModeResult(mode=mode, right=False, fault=f"{type(error).__name__}: {error}".split("\n")[0])
    return ModeResult(mode=mode, right=True)
