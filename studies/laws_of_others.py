"""Measure which laws the processors of transformers and logits-processor-zoo keep; each failure has its reason.

python -m studies.laws_of_others docs/laws_of_others.md   # pip install logits-processor-zoo first
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from logitkit.errors import PluginError
from logitkit.registry.laws import LAWS, Report, judge, tiny_model, tiny_tokenizer
from logitkit.registry.laws.subjects import Subject, prompts
from logitkit.registry.laws.tiny_models import WIDTH
from studies.known_violations import REASONS


@dataclass(frozen=True, eq=False, kw_only=True)
class Other:
    """A processor of another library, built as a caller would build it.

    Attributes:
        module, name: of its class.
        given: arguments of its constructor, or a function of the prompts' ids and mask that returns them.
        neutral: arguments at which it should change nothing.
    """

    module: str
    name: str
    given: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)

    def make(self, padding: int = 0, **changed: Any) -> Any:
        """Return a new instance for prompts with ``padding`` padding tokens on the left."""
        inputs = prompts(padding)
        given = self.given(inputs) if callable(self.given) else self.given
        return getattr(importlib.import_module(self.module), self.name)(**{**given, **changed})

    def report(self) -> Report:
        """Test all laws."""
        changed = ", ".join(f"{key}={value}" for key, value in self.neutral.items())
        neutral = {changed: lambda: self.make(**self.neutral)} if self.neutral else {}
        subject = Subject(self.name, self.make, neutral=neutral)
        return Report(subject=self.name, results=[judge(law, subject) for law in LAWS])


LIKELY = "D"  # the laws' scores before the last ones find it likeliest in a row
TRANSFORMERS, ZOO = "transformers.generation.logits_process", "logits_processor_zoo.transformers"
END, PAD = tiny_tokenizer().eos_token_id, tiny_tokenizer().pad_token_id


def _width(inputs: Any) -> int:
    """Tokens of the prompts, padding included."""
    return int(inputs["input_ids"].shape[1])


def theirs(name: str, given: Any = None, **neutral: Any) -> Other:
    """One of transformers'."""
    return Other(module=TRANSFORMERS, name=name, given=given or {}, neutral=neutral)


def zoo(name: str, given: Mapping[str, Any], **neutral: Any) -> Other:
    """One of logits-processor-zoo's."""
    return Other(module=ZOO, name=name, given={"tokenizer": tiny_tokenizer(), **given}, neutral=neutral)


def ended_by(token: str) -> Any:
    """The tiny tokenizer with another end token."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.eos_token = token
    return tokenizer


def allowed(batch: int, ids: Any) -> list[int]:
    """Tokens that a constraint leaves."""
    return [17, *range(100, 200)]


# Rows are 28 tokens long, 33 with padding; the settings below are such that a fault shows there.
OTHERS = (
    theirs("TemperatureLogitsWarper", {"temperature": 0.7}, temperature=1.0),
    theirs("TopKLogitsWarper", {"top_k": 5}, top_k=WIDTH),
    theirs("TopPLogitsWarper", {"top_p": 0.9}, top_p=1.0),
    theirs("TopHLogitsWarper", {"top_h": 0.4}),
    theirs("MinPLogitsWarper", {"min_p": 0.05}, min_p=0.0),
    theirs("TypicalLogitsWarper", {"mass": 0.9}),
    theirs("EpsilonLogitsWarper", {"epsilon": 0.001}),
    theirs("EtaLogitsWarper", {"epsilon": 0.001}),
    theirs("RepetitionPenaltyLogitsProcessor", {"penalty": 1.3}, penalty=1.0),
    theirs(
        "EncoderRepetitionPenaltyLogitsProcessor",
        lambda inputs: {"penalty": 1.3, "encoder_input_ids": inputs["input_ids"]},
        penalty=1.0,
    ),
    theirs("NoRepeatNGramLogitsProcessor", {"ngram_size": 1}),
    theirs(
        "EncoderNoRepeatNGramLogitsProcessor",
        lambda inputs: {"encoder_ngram_size": 1, "encoder_input_ids": inputs["input_ids"]},
    ),
    theirs("SequenceBiasLogitsProcessor", {"sequence_bias": [[[65], -5.0], [[66, 67], 5.0]]}),
    theirs("NoBadWordsLogitsProcessor", {"bad_words_ids": [[65], [66, 67]]}),
    theirs(
        "PrefixConstrainedLogitsProcessor",
        {"prefix_allowed_tokens_fn": allowed, "num_beams": 1},
    ),
    theirs("MinLengthLogitsProcessor", {"min_length": 30, "eos_token_id": END}, min_length=0),
    theirs(
        "MinNewTokensLengthLogitsProcessor",
        lambda inputs: {"prompt_length_to_skip": _width(inputs), "min_new_tokens": 8, "eos_token_id": END},
        min_new_tokens=0,
    ),
    theirs("ForcedBOSTokenLogitsProcessor", {"bos_token_id": 256}),
    theirs("ForcedEOSTokenLogitsProcessor", {"max_length": 29, "eos_token_id": END}),
    theirs(
        "ExponentialDecayLengthPenalty",
        lambda inputs: {
            "exponential_decay_length_penalty": (4, 1.1),
            "eos_token_id": END,
            "input_ids_seq_length": _width(inputs),
        },
    ),
    theirs(
        "SuppressTokensAtBeginLogitsProcessor",
        lambda inputs: {"begin_suppress_tokens": [65, 66], "begin_index": _width(inputs)},
    ),
    theirs("SuppressTokensLogitsProcessor", {"suppress_tokens": [65, 66]}),
    theirs("LogitNormalization"),
    theirs("InfNanRemoveLogitsProcessor"),
    theirs(
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
        lambda inputs: {
            "guidance_scale": 1.5,
            "model": tiny_model(),
            "unconditional_ids": inputs["input_ids"][:, -4:],
            "unconditional_attention_mask": inputs["attention_mask"][:, -4:],
        },
    ),
    theirs("WatermarkLogitsProcessor", {"vocab_size": WIDTH, "device": "cpu"}, bias=0.0),
    theirs(
        "SynthIDTextWatermarkLogitsProcessor",
        {
            "ngram_len": 3,
            "keys": [3, 5, 7],
            "sampling_table_size": 64,
            "sampling_table_seed": 0,
            "context_history_size": 16,
            "device": "cpu",
        },
    ),
    zoo("GenLengthLogitsProcessor", {"boost_factor": 1.0}, boost_factor=0.0),
    zoo("CiteFromPromptLogitsProcessor", {"boost_factor": 1.0}, boost_factor=0.0),
    zoo("ForceLastPhraseLogitsProcessor", {"phrase": "So.", "batch_size": 2, "tokenizer": ended_by(LIKELY)}),
    zoo("MultipleChoiceLogitsProcessor", {"choices": ["1", "2"]}),
    zoo("TriggerPhraseLogitsProcessor", {"batch_size": 2, "phrase": "Hm.", "trigger_token_phrase": LIKELY}),
    zoo("PreventHallucinationLogitsProcessor", {"batch_size": 2, "minp": 1.0}),
    zoo("MaxTimeLogitsProcessor", {"max_time": 2e-5}),
)


def table(others: tuple[Other, ...] = OTHERS) -> str:
    """Return a table of how many laws each processor keeps, with the reason for each broken law.

    Raises:
        PluginError: a failure without a reason in `known_violations`, or a reason without a failure.
    """
    reports = {other.name: other.report() for other in others}
    broken = {(name, verdict.law) for name, report in reports.items() for verdict in report.failures}
    written = {(name, law) for name, laws in REASONS.items() if name in reports for law in laws}
    for name, law in sorted(broken ^ written):
        fault = "no reason for" if (name, law) in broken else "a reason for a law that holds:"
        raise PluginError(f"laws of others: every failure must have its reason, got {fault} {name} {law}; see REASONS")
    lines = ["| processor | laws kept | broken laws, with reasons |", "|---|---|---|"]
    for name, report in reports.items():
        tried = [v for v in report.results if not (v.kept and v.reason)]
        whys = "<br>".join(f"`{law}`: {why}" for law, why in REASONS.get(name, {}).items())
        lines.append(f"| `{name}` | {sum(v.kept for v in tried)} of {len(tried)} | {whys} |")
    return "\n".join(lines)


def page() -> str:
    """Return the section of the documentation."""
    parts = [("transformers", TRANSFORMERS), ("logits-processor-zoo", ZOO)]
    text = ["<!-- written by python -m studies.laws_of_others -->", ""]
    for distribution, module in parts:
        own = tuple(other for other in OTHERS if other.module == module)
        text += [f"**{distribution} {version(distribution)}**", "", table(own), ""]
    return "\n".join(text) + f"\n{NOTE}\n"


NOTE = """Each processor was built as callers of `logits_processor=` build it, with settings that make a fault visible.
The law of neutral values is tested where a processor has one. Processors of audio models (Whisper, Bark, Dia,
codebooks) are not tested, because their rows are not text. A processor with state is right in greedy decoding of one
new batch; it is wrong in the situation that the broken law names, such as beams, reuse or padding."""


if __name__ == "__main__":
    try:
        text = page()
    except ModuleNotFoundError as error:
        raise SystemExit(f"laws of others: {error}; pip install logits-processor-zoo") from None
    Path(sys.argv[1]).write_text(text, encoding="utf-8") if len(sys.argv) > 1 else print(text)
