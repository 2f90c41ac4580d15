"""The members of an ensemble: helper models with alignments to the main vocabulary.

A member with the main tokenizer needs no alignment. To add a way of translation, add a method to
`logitkit.processors.alignment.align`, or pass a member whose ``read`` returns logits in the main vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from logitkit.errors import ParameterError
from logitkit.processors.alignment.alignment import Alignment
from logitkit.processors.alignment.alignment_vocabulary import AlignmentVocabulary
from logitkit.processors.alignment.dispatch import align
from logitkit.processors.engine.binding import Binding
from logitkit.processors.engine.byte_models import byte_helpers
from logitkit.processors.ensemble.end_alignment import EndAlignment
from logitkit.processors.ensemble.helper_models import HelperModel, PromptTexts, find_helper_models, report_no_effect
from logitkit.processors.ensemble.member_probabilities import Member


def find_members(
    binding: Binding,
    owner: str,
    models: Sequence[str],
    alignments: str | Sequence[str],
    prompts: Mapping[str, PromptTexts] | None = None,
) -> list[Member]:
    """Return the named models as members, each with a reader and an alignment; the trace reports the coverage.

    No model runs.

    Args:
        binding: the call.
        owner: name of the processor, for errors.
        models: names passed to `bind`, known models, hub ids or folders.
        alignments: one for all models, or one for each: a method of `align`, a name passed to `bind`, or a
            ``.safetensors`` file. ``bytes``, for all models only: the generating model is a `ByteModel`, and each
            other model becomes one.
        prompts: own prompts of some models, by the model's name.

    Raises:
        FileFormatError: the file of an alignment is missing or damaged.
        ModelError: an alignment for other vocabularies; see also `find_helper_models`.
        ParameterError: another number of alignments than models; ``unite`` or ``bytes`` for some models only.
        UnknownNameError: no model, alignment or method of that name.
    """
    each = [alignments] * len(models) if isinstance(alignments, str) else list(alignments)
    if len(each) != len(models):
        raise ParameterError(owner, "align", f"one alignment, or {len(models)} (one a model)", alignments)
    if "bytes" in each:
        return _byte_members(binding, owner, models, each, prompts)
    members = []
    for helper, source in zip(find_helper_models(binding, owner, models, prompts), each, strict=True):
        ends = _alignment(binding, owner, helper, source) if helper.needs_alignment else None
        alignment = None if ends is None else ends.alignment
        members.append(
            Member(name=helper.name, read=helper.read, alignment=alignment, ends=ends, is_main=helper.is_main)
        )
    united = [member.alignment.method == "unite" for member in members if member.alignment is not None]
    if any(united) and not all(united):
        raise ParameterError(owner, "align", "'unite' for all models or for none", alignments)
    return members


def _byte_members(
    binding: Binding, owner: str, models: Sequence[str], each: Sequence[str], prompts: Mapping[str, PromptTexts] | None
) -> list[Member]:
    """Return the named models as byte models, which share the vocabulary of the generating `ByteModel`."""
    if set(each) != {"bytes"}:
        raise ParameterError(owner, "align", "'bytes' for all models or for none", list(each))
    if prompts:
        raise ParameterError(owner, "prompts", "left out with align='bytes': all models read the same bytes", prompts)
    own, helpers = binding.own_prompts(), byte_helpers(binding, owner, models)
    report_no_effect(binding, owner, all(model is binding.model for _, model in helpers))
    return [
        Member(name=name, read=binding.reader(own, model, label=name), is_main=model is binding.model)
        for name, model in helpers
    ]


def _alignment(binding: Binding, owner: str, helper: HelperModel, source: str) -> EndAlignment:
    """Return the alignment of a helper: passed to `bind`, read from a file, or built; its coverage is a notice."""
    helper_vocabulary = AlignmentVocabulary.of(helper.model, helper.tokenizer)
    main_vocabulary = AlignmentVocabulary.of(binding.model, binding.tokenizer)
    if source in binding.resources:
        alignment = binding.resource(source)
        if not isinstance(alignment, Alignment):
            raise ParameterError(owner, "align", "an Alignment", alignment)
        alignment.check(helper_vocabulary, main_vocabulary, owner)
    elif source.endswith(".safetensors"):
        alignment = Alignment.load(Path(source))
        alignment.check(helper_vocabulary, main_vocabulary, owner)
    else:
        folder = None if binding.cache is None else binding.cache / "alignments"
        alignment = align(source, helper_vocabulary, main_vocabulary, cache=folder)
    coverage = ", ".join(f"{count} {kind}" for kind, count in alignment.coverage().items())
    binding.trace.notices.append(f"{owner}: tokens of {helper.name} by {alignment.method}: {coverage}")
    return EndAlignment(alignment.to(binding.model.device), helper_vocabulary, main_vocabulary, binding.settings)
