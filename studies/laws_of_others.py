"""Measure which laws the processors of transformers and logits-processor-zoo keep; each failure has its reason.

pip install logits-processor-zoo
python -m studies.laws_of_others docs/laws_of_others.md
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from logitkit.errors import PluginError
from logitkit.registry.laws import LAWS, Report, judge, tiny_model, tiny_tokenizer
from logitkit.registry.laws.subjects import Subject, prompts
from logitkit.registry.laws.tiny_models import WIDTH
from studies import command
from studies.known_violations import REASONS
from studies.tables import markdown_table


@dataclass(frozen=True, eq=False, kw_only=True)
class Other:
    """A processor of another library, built as a caller would build it.

    Attributes:
        module, name: module and name of its class.
        arguments: arguments of its constructor, or a function of the prompts' ids and mask that returns them.
        neutral: arguments at which the processor should change nothing.
    """

    module: str
    name: str
    arguments: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] = field(default_factory=dict)
    neutral: Mapping[str, Any] = field(default_factory=dict)

    def make(self, padding: int = 0, **changed: Any) -> Any:
        """Return a new instance for prompts with ``padding`` padding tokens on the left."""
        inputs = prompts(padding)
        arguments = self.arguments(inputs) if callable(self.arguments) else self.arguments
        return getattr(importlib.import_module(self.module), self.name)(**{**arguments, **changed})

    def report(self) -> Report:
        """Test all laws."""
        changed = ", ".join(f"{key}={value}" for key, value in self.neutral.items())
        neutral = {changed: lambda: self.make(**self.neutral)} if self.neutral else {}
        subject = Subject(self.name, self.make, neutral=neutral)
        return Report(subject=self.name, results=[judge(law, subject) for law in LAWS])


LIKELY = "D"  # the most probable token of a row under the scores of the laws, before the last step
TRANSFORMERS, ZOO = "transformers.generation.logits_process", "logits_processor_zoo.transformers"
END, PAD = tiny_tokenizer().eos_token_id, tiny_tokenizer().pad_token_id


def _width(inputs: Any) -> int:
    """Return the number of tokens of the prompts, including padding."""
    return int(inputs["input_ids"].shape[1])


def of_transformers(name: str, arguments: Any = None, **neutral: Any) -> Other:
    """Return a processor of transformers."""
    return Other(module=TRANSFORMERS, name=name, arguments=arguments or {}, neutral=neutral)


def of_zoo(name: str, arguments: Mapping[str, Any], **neutral: Any) -> Other:
    """Return a processor of logits-processor-zoo."""
    return Other(module=ZOO, name=name, arguments={"tokenizer": tiny_tokenizer(), **arguments}, neutral=neutral)


def ended_by(token: str) -> Any:
    """Return the tiny tokenizer with another end token."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.eos_token = token
    return tokenizer


def allowed(batch: int, ids: Any) -> list[int]:
    """Return the tokens that a constraint allows."""
    return [17, *range(100, 200)]


# Rows have 28 tokens, 33 with padding; the settings below make a fault visible at this length.
OTHERS = (
    of_transformers("TemperatureLogitsWarper", {"temperature": 0.7}, temperature=1.0),
    of_transformers("TopKLogitsWarper", {"top_k": 5}, top_k=WIDTH),
    of_transformers("TopPLogitsWarper", {"top_p": 0.9}, top_p=1.0),
    of_transformers("TopHLogitsWarper", {"top_h": 0.4}),
    of_transformers("MinPLogitsWarper", {"min_p": 0.05}, min_p=0.0),
    of_transformers("TypicalLogitsWarper", {"mass": 0.9}),
    of_transformers("EpsilonLogitsWarper", {"epsilon": 0.001}),
    of_transformers("EtaLogitsWarper", {"epsilon": 0.001}),
    of_transformers("RepetitionPenaltyLogitsProcessor", {"penalty": 1.3}, penalty=1.0),
    of_transformers(
        "EncoderRepetitionPenaltyLogitsProcessor",
        lambda inputs: {"penalty": 1.3, "encoder_input_ids": inputs["input_ids"]},
        penalty=1.0,
    ),
    of_transformers("NoRepeatNGramLogitsProcessor", {"ngram_size": 1}),
    of_transformers(
        "EncoderNoRepeatNGramLogitsProcessor",
        lambda inputs: {"encoder_ngram_size": 1, "encoder_input_ids": inputs["input_ids"]},
    ),
    of_transformers("SequenceBiasLogitsProcessor", {"sequence_bias": [[[65], -5.0], [[66, 67], 5.0]]}),
    of_transformers("NoBadWordsLogitsProcessor", {"bad_words_ids": [[65], [66, 67]]}),
    of_transformers(
        "PrefixConstrainedLogitsProcessor",
        {"prefix_allowed_tokens_fn": allowed, "num_beams": 1},
    ),
    of_transformers("MinLengthLogitsProcessor", {"min_length": 30, "eos_token_id": END}, min_length=0),
    of_transformers(
        "MinNewTokensLengthLogitsProcessor",
        lambda inputs: {"prompt_length_to_skip": _width(inputs), "min_new_tokens": 8, "eos_token_id": END},
        min_new_tokens=0,
    ),
    of_transformers("ForcedBOSTokenLogitsProcessor", {"bos_token_id": 256}),
    of_transformers("ForcedEOSTokenLogitsProcessor", {"max_length": 29, "eos_token_id": END}),
    of_transformers(
        "ExponentialDecayLengthPenalty",
        lambda inputs: {
            "exponential_decay_length_penalty": (4, 1.1),
            "eos_token_id": END,
            "input_ids_seq_length": _width(inputs),
        },
    ),
    of_transformers(
        "SuppressTokensAtBeginLogitsProcessor",
        lambda inputs: {"begin_suppress_tokens": [65, 66], "begin_index": _width(inputs)},
    ),
    of_transformers("SuppressTokensLogitsProcessor", {"suppress_tokens": [65, 66]}),
    of_transformers("LogitNormalization"),
    of_transformers("InfNanRemoveLogitsProcessor"),
    of_transformers(
        "UnbatchedClassifierFreeGuidanceLogitsProcessor",
        lambda inputs: {
            "guidance_scale": 1.5,
            "model": tiny_model(),
            "unconditional_ids": inputs["input_ids"][:, -4:],
            "unconditional_attention_mask": inputs["attention_mask"][:, -4:],
        },
    ),
    of_transformers("WatermarkLogitsProcessor", {"vocab_size": WIDTH, "device": "cpu"}, bias=0.0),
    of_transformers(
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
    of_zoo("GenLengthLogitsProcessor", {"boost_factor": 1.0}, boost_factor=0.0),
    of_zoo("CiteFromPromptLogitsProcessor", {"boost_factor": 1.0}, boost_factor=0.0),
    of_zoo("ForceLastPhraseLogitsProcessor", {"phrase": "So.", "batch_size": 2, "tokenizer": ended_by(LIKELY)}),
    of_zoo("MultipleChoiceLogitsProcessor", {"choices": ["1", "2"]}),
    of_zoo("TriggerPhraseLogitsProcessor", {"batch_size": 2, "phrase": "Hm.", "trigger_token_phrase": LIKELY}),
    of_zoo("PreventHallucinationLogitsProcessor", {"batch_size": 2, "minp": 1.0}),
    of_zoo("MaxTimeLogitsProcessor", {"max_time": 2e-5}),
)


def table(others: tuple[Other, ...] = OTHERS) -> str:
    """Return a table of how many laws each processor keeps, with the reason for each broken law.

    Raises:
        PluginError: a failure without a reason in `known_violations`, or a reason without a failure.
    """
    reports = {other.name: other.report() for other in others}
    broken = {(name, result.law) for name, report in reports.items() for result in report.failures}
    written = {(name, law) for name, laws in REASONS.items() if name in reports for law in laws}
    for name, law in sorted(broken ^ written):
        fault = "no reason for" if (name, law) in broken else "a reason for a law that holds:"
        raise PluginError(f"laws of others: every failure must have its reason, got {fault} {name} {law}; see REASONS")
    rows = []
    for name, report in reports.items():
        tried = [v for v in report.results if not (v.kept and v.reason)]
        reasons = "<br>".join(f"`{law}`: {reason}" for law, reason in REASONS.get(name, {}).items())
        rows.append([f"`{name}`", f"{sum(v.kept for v in tried)} of {len(tried)}", reasons])
    return markdown_table(["processor", "laws kept", "broken laws, with reasons"], rows)


def page(earlier: str = "") -> str:
    """Return the section of the documentation.

    Args:
        earlier: the section as it was; a library that is not installed keeps its table of this text, marked as such.

    Raises:
        PackageNotFoundError: a library is not installed and ``earlier`` has no table of it.
    """
    text = ["<!-- written by python -m studies.laws_of_others -->", ""]
    for distribution, module in (("transformers", TRANSFORMERS), ("logits-processor-zoo", ZOO)):
        own = tuple(other for other in OTHERS if other.module == module)
        try:
            text += [f"**{distribution} {version(distribution)}**", "", table(own), ""]
        except PackageNotFoundError:
            kept = re.search(rf"^(\*\*{distribution} .*\*\*)\n[^|]*((?:\|.*\n)+)", earlier, re.MULTILINE)
            if kept is None:
                raise
            text += [kept[1], "", EARLIER, "", kept[2]]
    return "\n".join(text) + f"\n{NOTE}\n"


EARLIER = """This table is of an earlier measurement, because the library was not installed for this one. Laws that were
added or extended since then were not tested here."""
NOTE = """Each processor was built as callers of `logits_processor=` build it, with settings that make a fault visible.
The law of neutral values is tested where a processor has one. Processors of audio models (Whisper, Bark, Dia,
codebooks) are not tested, because their rows are not text. A processor with state is right in greedy decoding of one
new batch; it is wrong in the situation that the broken law names, such as beams, reuse or padding."""


def main(
    out: Annotated[Path | None, typer.Argument(help="File of the section; without it, the section is printed.")] = None,
) -> None:
    """Measure all processors and write the section of the documentation."""
    try:
        text = page(out.read_text(encoding="utf-8") if out is not None and out.exists() else "")
    except ModuleNotFoundError as error:
        raise SystemExit(f"laws of others: {error}; pip install logits-processor-zoo") from None
    if out is None:
        typer.echo(text)
    else:
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    command.run(main)
