"""TaskSpecs of the benchmark."""

from __future__ import annotations

from logitkit.registry.hookspecs import hookimpl
from logitkit.registry.task_spec import TaskSpec

TASKS = [
    TaskSpec(
        name="sentences",
        summary="Score the last word of 60 short sentences; needs no data, for a first benchmark.",
        source="written for logitkit",
        target="logitkit.bench.tasks.scored_tasks:Sentences",
        mode="loglikelihood",
    ),
    TaskSpec(
        name="cut_sentences",
        summary="Score the rest of the last word of the same sentences, after its first two letters.",
        source="written for logitkit",
        target="logitkit.bench.tasks.scored_tasks:CutSentences",
        mode="loglikelihood",
    ),
    TaskSpec(
        name="humaneval",
        summary="Complete a Python function from its docstring; judged by unit tests (pass@k).",
        source="arXiv:2107.03374, MIT",
        target="logitkit.bench.tasks.code_tasks:HumanEval",
        data="HumanEval.jsonl.gz",
        hub="openai/openai_humaneval",
        executes=True,
    ),
    TaskSpec(
        name="mbpp",
        summary="Write a Python function from a sentence and a test; judged by unit tests (pass@k, sanitized).",
        source="arXiv:2108.07732, CC-BY-4.0",
        target="logitkit.bench.tasks.code_tasks:MBPP",
        data="sanitized-mbpp.json",
        hub="google-research-datasets/mbpp:sanitized",
        executes=True,
    ),
    TaskSpec(
        name="humaneval_infilling",
        summary="Fill in a random span of a Python function; judged by unit tests (pass@k).",
        source="arXiv:2207.14255, MIT",
        target="logitkit.bench.tasks.code_tasks:Infilling",
        data="HumanEval-RandomSpanInfillingLight.jsonl.gz",
        hub="loubnabnl/humaneval_infilling:HumanEval-RandomSpanInfillingLight",
        executes=True,
    ),
    TaskSpec(
        name="humaneval_span",
        summary="Score a random span of a Python function after the code before it, in bits per byte.",
        source="arXiv:2207.14255, MIT",
        target="logitkit.bench.tasks.scored_tasks:Span",
        mode="loglikelihood",
        data="HumanEval-RandomSpanInfillingLight.jsonl.gz",
        hub="loubnabnl/humaneval_infilling:HumanEval-RandomSpanInfillingLight",
    ),
    TaskSpec(
        name="gsm8k",
        summary="Solve a word problem; judged by the last number of the answer.",
        source="arXiv:2110.14168, MIT",
        target="logitkit.bench.tasks.text_tasks:GSM8K",
        data="gsm8k-test.jsonl",
        hub="openai/gsm8k:main",
    ),
    TaskSpec(
        name="arc",
        summary="Choose the answer to a science question by log-likelihood (ARC-Challenge).",
        source="arXiv:1803.05457, CC-BY-SA-4.0",
        target="logitkit.bench.tasks.scored_tasks:Choice",
        mode="loglikelihood",
        data="ARC-Challenge-Dev.jsonl",
        hub="allenai/ai2_arc:ARC-Challenge",
    ),
    TaskSpec(
        name="lambada",
        summary="Score the last word of a passage: its log-likelihood, and whether greedy decoding writes it.",
        source="arXiv:1606.06031",
        target="logitkit.bench.tasks.scored_tasks:Cloze",
        mode="loglikelihood",
        data="lambada_test.jsonl",
        hub="EleutherAI/lambada_openai:default",
    ),
    TaskSpec(
        name="passages",
        summary="Score the second part of passages after the first part, in bits per byte.",
        source="any text; Sherlock Holmes (Project Gutenberg 1661) by default",
        target="logitkit.bench.tasks.scored_tasks:Passages",
        mode="loglikelihood",
        data="1661-0.txt",
        encoding="cp1252",
    ),
    TaskSpec(
        name="style",
        summary="Continue prompts of another style; judged by style perplexity under a held-out half of the corpus.",
        source="arXiv:2601.16224, section 2.3",
        target="logitkit.bench.tasks.text_tasks:StyleTransfer",
        data="pg996_don_quixote.txt",
    ),
    TaskSpec(
        name="free_text",
        summary="Continue the beginnings of passages; judged by distinct n-grams and own perplexity.",
        source="any text; Sherlock Holmes (Project Gutenberg 1661) by default",
        target="logitkit.bench.tasks.text_tasks:FreeText",
        data="1661-0.txt",
        encoding="cp1252",
    ),
    TaskSpec(
        name="phantom_edits",
        summary="Replace the bracketed words of passages; counts words that keep their text in other tokens.",
        source="arXiv:2601.14658; any text; Sherlock Holmes (Project Gutenberg 1661) by default",
        target="logitkit.bench.tasks.phantom_edits:PhantomEdits",
        data="1661-0.txt",
        encoding="cp1252",
    ),
]


@hookimpl
def logitkit_tasks() -> list[TaskSpec]:
    """Return tasks of code, mathematics, multiple choice, cloze, style, free text and replaced words."""
    return TASKS
