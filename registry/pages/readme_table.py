"""The table of processors in the README, in plain words, and the README of the package index.

python -m logitkit.registry.pages.readme_table README.md README.package.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from logitkit.registry.discovery import discover
from logitkit.registry.spec import ExtraForwards, Spec

BEGIN, END = "<!-- processors: begin -->", "<!-- processors: end -->"
SOURCE = "https://logitkit.example/source"  # as in project.urls of pyproject.toml

# What each built-in processor is for, for readers who do not know the methods.
PURPOSES: Mapping[str, str] = {
    "adaptive_p": "prefers tokens of a target probability, and corrects for those already chosen",
    "ban_phrases": "keeps phrases of yours out of every output, whichever tokens spell them",
    "beams": "looks for the likeliest texts, in groups that differ from each other",
    "best_of": "writes several texts and keeps the likeliest, the surest, the most frequent, or the one you like best",
    "byte_boundary": "completes a prompt that ends inside a word or another token",
    "byte_ensemble": "combines models with different tokenizers, one byte at a time",
    "cad": "lets a passage in the prompt count more than what the model has memorised",
    "cascade": "writes with a small model, and takes a token from a large one where the small one is likely wrong",
    "cfg": "follows the prompt more closely, or keeps away from a prompt that you do not want",
    "canonical": "writes every text in the tokens that the tokenizer itself would write",
    "choices": "answers with one of the texts that you list",
    "contrastive_search": "takes likely tokens that are unlike the text so far, by hidden states",
    "contrastive": "prefers what the model knows better than a weaker model",
    "core": "combines models with different tokenizers, and trusts those that agree and are certain",
    "crossover": "takes a token from another model where the two disagree most, within a budget",
    "deepen": "combines models with different tokenizers through the tokens that they share",
    "dexperts": "gives a large model the change that tuning made to a small one",
    "dola": "prefers what the whole model knows better than its earlier layers",
    "dry": "avoids loops: lowers tokens that continue a text which is already there",
    "dynamic_temperature": "samples surely where the model is sure, and freely where it is not",
    "ensemble": "averages models with different tokenizers",
    "entropy_temperature": "samples nearly greedily where the model is sure",
    "frequency_penalty": "writes a token the less, the more often it occurs in the new text",
    "speculate": "writes the same text as without it, with fewer forwards of the other models of the chain",
    "goose": "writes the same text as without it in fewer forwards, by trees of drafts without a draft model",
    "grammar": "writes JSON of your schema, or text of your regular expression or grammar",
    "length_target": "ends texts near a number of tokens",
    "adadec": "looks ahead where the model is unsure, and takes the token with the likeliest text behind it",
    "attribute": "prefers an attribute of the text, such as a length or a label",
    "mbr": "writes several texts and keeps the one that agrees best with the others",
    "mirostat": "keeps the surprise of the text near a target while sampling",
    "mti": "corrects a reasoning model where it is uncertain, by what it would say after a short warning text",
    "anchor": "keeps a long conversation to a goal that you state",
    "ngram_context": "repeats the wording of the prompt, to copy and cite from it",
    "ngram_style": "writes in the style of a text of yours; nothing is trained",
    "p_less": "samples among tokens at least as probable as the chance that two draws agree; nothing to set",
    "presence_penalty": "writes tokens less that occur in the new text",
    "quadratic": "brings likely tokens closer to each other, and unlikely ones further down",
    "retokenize": "averages over several ways to cut the prompt into tokens, and says how much they differ",
    "rewind": "never writes phrases that you list: goes back to where one began, and writes something else",
    "router": "writes with a small model, and lets a trained network choose the tokens of a large one",
    "smc": "samples whole texts from a distribution of yours: sharper, of several models, or under a constraint",
    "tail_free": "samples without the tail, cut where the sorted probabilities stop bending",
    "thinking_budget": "ends a block of thinking after a number of tokens",
    "top_a": "samples among tokens of at least a multiple of the squared largest probability",
    "top_n_sigma": "samples among tokens whose logits are close to the largest, whatever the temperature",
    "uscd": "makes the examples in the prompt count more where the model is uncertain",
    "xtc": "removes the most probable tokens at random steps, for texts that are less predictable",
}

EXTRA_WORK: Mapping[ExtraForwards, str] = {
    "none": "none",
    "prompt": "once for each prompt",
    "gated": "at some tokens",
    "every_step": "at every token",
    "every_byte": "at every byte",
    "rows": "none; more rows in each",
}


def table() -> str:
    """Return the built-in processors as a Markdown table; those of transformers share a line."""
    registry = discover(third_party="none")
    specs = [registry.describe(name) for name in registry.names(kind=None)]
    lines = ["| name | what it does | further models | runs of a model besides the usual one | source |"]
    lines.append("|---|---|---|---|---|")
    for spec in sorted((s for s in specs if s.family != "transformers"), key=lambda s: (s.family, s.name)):
        models = "yes" if spec.needs_models else "no"
        purpose, work = PURPOSES[spec.name], EXTRA_WORK[spec.extra_forwards]
        lines.append(f"| `{spec.name}` | {purpose} | {models} | {work} | {_sources(spec)} |")
    names = ", ".join(f"`{spec.name}`" for spec in specs if spec.family == "transformers")
    lines.append(
        f"| {names} | those of transformers, in the order in which you write them | no | none | transformers |"
    )
    return "\n".join(lines)


def _sources(spec: Spec) -> str:
    """Return the papers of a method as links."""
    return re.sub(r"arXiv:([\d.]+)", r"[\1](https://arxiv.org/abs/\1)", spec.source)


def for_package_index(readme: str) -> str:
    """Return the README with its links to files of the repository as absolute addresses.

    >>> for_package_index("[docs](docs/index.md), [top](#top), ![page](docs/a.png)")
    '[docs](https://logitkit.example/source/docs/index.md), [top](#top), ![page](https://logitkit.example/source/docs/a.png)'
    """
    return re.sub(r"\]\((?!https?://|#)", f"]({SOURCE}/", readme)


def filled(text: str) -> str:
    """Return a text with the table between its two marks."""
    head, _, after = text.partition(BEGIN)
    _, _, tail = after.partition(END)
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


if __name__ == "__main__":
    page, package = map(Path, sys.argv[1:])
    page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
    package.write_text(for_package_index(page.read_text(encoding="utf-8")), encoding="utf-8")
