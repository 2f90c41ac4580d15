"""Quality and cost of every cascade rule on real text, from one reading of the text by each of two models.

The text is teacher-forced: both models' distributions are known at every position, and with them the cascade's
distribution under each rule at each alpha. Reported are the bits per token of the text under the cascade, and whether
greedy decoding under the cascade writes the last word of a LAMBADA passage. Greedy decoding writes the word exactly if
the cascade's most probable token is right at each token of the word. Random deferral at the same rate is computed as an
exact expectation. Crossover and sequence-level deferral use the same positions. Intervals are bootstrap intervals over
passages. Models with different tokenizers are read as byte-level models; a token is then a byte.

    python -m studies.cascade_curves collect SMALL LARGE lambada.jsonl work.jsonl --items 200
    python -m studies.cascade_curves collect SMALL LARGE lambada.jsonl work.jsonl --through-bytes --tail 60
    python -m studies.cascade_curves report work.jsonl results/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from logitkit import models
from logitkit.models.placement import placement
from logitkit.processors.byte_level import ByteModel, byte_tokenizer
from logitkit.processors.cascade import Stage, generate_outputs
from logitkit.processors.model_facts import vocabulary_size
from logitkit.processors.tokens import TokenAgreement
from logitkit.progress import progress_bar
from studies import command
from studies.cascade_report import write
from studies.cascade_sweep import ALPHAS, positions, sweep
from studies.records import append_record, read_records, resumed_records

LONGEST = 250  # tokens of a passage; the small model may have a short context
TOLERANCE = 1e-4  # tolerance of the distributions of byte-level models
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelPair:
    """Two models that read the same tokens.

    Attributes:
        small, large: the models.
        tokenizer: their common tokenizer.
    """

    small: Any
    large: Any
    tokenizer: Any

    @classmethod
    def load(cls, small: str, large: str, *, dtype: str, through_bytes: bool) -> ModelPair:
        """Load two models.

        Args:
            small, large: names of the models.
            dtype: dtype of the large model.
            through_bytes: load both as byte-level models.

        Raises:
            ModelError: the tokenizers differ and ``through_bytes`` is False.
            ParameterError: the dtype is unknown.
        """
        like = placement("collect", "cpu", dtype)
        (first, tokenizer), (second, other) = models.load(small), models.load(large)
        if not through_bytes:
            agreement = TokenAgreement.of((first, tokenizer), (second, other))
            agreement.check("collect", large, way_out="pass --through-bytes")
        second = second.to(like.dtype)
        if not through_bytes:
            return cls(small=first, large=second, tokenizer=tokenizer)
        first, second = (ByteModel(*pair, tolerance=TOLERANCE) for pair in ((first, tokenizer), (second, other)))
        return cls(small=first, large=second, tokenizer=byte_tokenizer())


@torch.no_grad()
def log_probabilities(model: Any, ids: Tensor, count: int) -> Tensor:
    """Return the log-probabilities (nats) before each of the last ``count`` tokens, fp32 ``[count, vocab]``."""
    output = model(input_ids=ids[None].to(model.device), use_cache=False, logits_to_keep=count + 1)
    return output.logits[0, :-1].float().log_softmax(-1).cpu()  # type: ignore[no-any-return]


def measure_passage(pair: ModelPair, text: str, *, tail: int, longest: int) -> dict[str, Any]:
    """Return the measurements of one passage; only its length if it is left out.

    A passage is left out if it is longer than ``longest``, or if its last word has no token of its own.

    Args:
        pair: the models.
        text: the passage.
        tail: number of tokens at the end that are measured; 0 measures all.
        longest: largest number of tokens of a passage.
    """
    context, _, word = text.rpartition(" ")
    ids, head = (torch.tensor(pair.tokenizer(part)["input_ids"]) for part in (text, context))
    if len(ids) > longest or not torch.equal(ids[: len(head)], head) or len(head) == len(ids):
        return {"left_out": len(ids)}
    last = len(ids) - len(head)
    count = max(last, min(tail, len(ids) - 1)) if tail else len(ids) - 1
    both = (pair.small, pair.large)
    width = min(vocabulary_size(model) for model in both)  # one tokenizer may be padded to two widths
    small, large = (log_probabilities(model, ids, count)[:, :width].log_softmax(-1) for model in both)
    stage = Stage(
        model=pair.small, tokenizer=pair.tokenizer, generate_kwargs={"max_new_tokens": 5, "eos_token_id": None}
    )
    outputs = generate_outputs(stage, [context])
    return {
        "last": last,
        "tokens": count,
        "rules": sweep(small, large, ids[-count:], last),
        "positions": positions(small, large, ids[-count:]),
        "answer": outputs.texts[0],
        "word": word,
        "logps": outputs.logps[0].tolist(),
    }


@app.command()
def collect(
    small: Annotated[str, typer.Argument(help="The small model: a known name, a folder, or a hub id.")],
    large: Annotated[str, typer.Argument(help="The large model, with the same tokenizer.")],
    data: Annotated[Path, typer.Argument(help="A file of JSON lines, each with a text, such as LAMBADA.")],
    work: Annotated[Path, typer.Argument(help="File of measurements, one line per passage; it is resumed.")],
    items: Annotated[int, typer.Option(min=1, help="Number of passages.")] = 200,
    dtype: Annotated[str, typer.Option(help="Dtype of the large model.")] = "float32",
    through_bytes: Annotated[bool, typer.Option(help="Read both models as byte-level models.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="Tokens (or bytes) at the end that are measured; 0: all.")] = 0,
    longest: Annotated[int, typer.Option(min=2, help="Largest number of tokens (or bytes) of a passage.")] = LONGEST,
) -> None:
    """Measure the passages with both models."""
    settings = {"small": small, "large": large, "through_bytes": through_bytes, "tail": tail}
    done = len(resumed_records(work, settings, "collect"))
    passages = [row["text"] for row in read_records(data)[:items]]
    pair = ModelPair.load(small, large, dtype=dtype, through_bytes=through_bytes)
    with progress_bar("passages", total=max(0, len(passages) - done)) as bar:
        for place, text in list(enumerate(passages))[done:]:
            results = measure_passage(pair, text, tail=tail, longest=longest)
            append_record(work, {"settings": settings, "passage": place, **results})
            bar.advance()


@app.command()
def report(
    work: Annotated[Path, typer.Argument(help="The file of measurements that collect wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder for the tables and plots.")],
    name: Annotated[str, typer.Option(help="Name of the files, without a suffix.")] = "cascade",
) -> None:
    """Write the tables and plots of a file of measurements."""
    records = read_records(work)
    rows = [record for record in records if "rules" in record]
    typer.echo(write(rows, ALPHAS, out, name, left_out=sum("left_out" in record for record in records)))


if __name__ == "__main__":
    command.run(app)
