"""Quality and cost of every cascade rule on real text: one reading of it by each of two models.

The text is teacher-forced: at every position both laws are known, so the law pi of each rule at each alpha
is known too, and with it (a) the bits per token of the text under pi and (b) whether greedy decoding under
the rule writes the last word of a LAMBADA passage: it does exactly when pi's likeliest token is the right one
at each token of that word. Random deferral at the same rate is exact: an expectation, not a sample.
Crossover and sequence-level deferral are read off the same positions. Intervals are bootstrap intervals
over passages. Models with different tokenizers are read through bytes: a token is a byte then.

    python -m studies.cascade_curves collect SMALL LARGE lambada.jsonl work.jsonl --items 200
    python -m studies.cascade_curves collect SMALL LARGE lambada.jsonl work.jsonl --through-bytes --tail 60
    python -m studies.cascade_curves report work.jsonl results/
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track
from torch import Tensor

from logitkit import models
from logitkit.errors import FileFormatError, ModelError
from logitkit.processors.byte_level.model import ByteModel
from logitkit.processors.byte_level.tokenizer import byte_tokenizer
from logitkit.processors.cascade import TOKEN_RULES, Stage, generate_outputs, rules, uncertainty
from logitkit.processors.engine.divergences import js_bits

ALPHAS = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
LONGEST = 250  # tokens of a passage; the small model may have a short context
TOLERANCE = 1e-4  # of laws of bytes
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@torch.no_grad()
def laws(model: Any, ids: Tensor, count: int) -> Tensor:
    """Log-probabilities before each of the last ``count`` tokens, fp32 ``[count, vocab]``."""
    output = model(input_ids=ids[None].to(model.device), use_cache=False, logits_to_keep=count + 1)
    return output.logits[0, :-1].float().log_softmax(-1).cpu()  # type: ignore[no-any-return]


def sweep(small: Tensor, large: Tensor, tokens: Tensor, last: int) -> dict[str, Any]:
    """Every rule at every alpha on one passage.

    Args:
        small, large: log-probabilities before each of ``tokens``, ``[tokens, vocab]``.
        tokens: the text.
        last: how many tokens the last word has.

    Returns:
        For each rule a list over alphas of [bits of the text, mean deferral, whether the last word is written].
    """
    word = [law[-last:] for law in (small, large)]
    cold = dict(zip(("sampling_small", "sampling_large"), (rules.tempered(law, 0) for law in word), strict=True))
    outside = Outside(small, large)
    mine, theirs = (law.exp().gather(-1, tokens[:, None])[:, 0] for law in (small, large))
    found: dict[str, Any] = {}
    for rule in TOKEN_RULES:
        found[rule] = []
        for alpha in ALPHAS:
            deferred = outside(rule, alpha)
            stands = outside.stands(rule, alpha, mine, theirs, deferred)
            bits = -torch.log2(mine * stands + theirs * deferred).sum()
            greedy = rules.cascade_distribution(rule, *word, alpha=alpha, **cold)
            written = bool((greedy.argmax(-1) == tokens[-last:]).all())
            found[rule].append([float(bits), float(deferred.mean()), written])
    return found


class Outside:
    """The mass of q outside A for any alpha, from one sorting of each law: `rules.resampled_mass` for a whole sweep."""

    def __init__(self, small: Tensor, large: Tensor) -> None:
        q, p = small.exp(), large.exp()
        self.best_small, self.best_large = q.amax(-1), p.amax(-1)
        self.variation, self.js = (q - p).clamp_min(0).sum(-1), js_bits(small, large)
        self.by_small = q.sort(-1).values
        self.by_large, order = p.sort(-1)
        self.below_small, self.below_large = self.by_small.cumsum(-1), q.gather(-1, order).cumsum(-1)

    def threshold(self, rule: str, alpha: float) -> Tensor:
        """The probability from which a token is trusted, ``[tokens]``, under the rules that judge tokens."""
        return (1 - alpha) * self.best_large if rule == "token_v3" else self.best_large - alpha

    def __call__(self, rule: str, alpha: float) -> Tensor:
        """The mass that is drawn again, ``[tokens]``."""
        whole = {
            "chow": self.best_small < 1 - alpha,
            "diff": self.best_small < self.best_large - alpha,
            "opt": self.best_small < self.best_large - alpha * self.variation - 1e-6,
            "js": self.js > alpha,
        }
        if alpha == 1.0:
            return torch.zeros_like(self.best_small)
        if rule in whole:
            return whole[rule].float()
        values, below = (self.by_small, self.below_small) if rule == "token_v1" else (self.by_large, self.below_large)
        count = torch.searchsorted(values, self.threshold(rule, alpha)[:, None])
        return torch.where(count > 0, below.gather(-1, (count - 1).clamp_min(0)), 0)[:, 0]

    def stands(self, rule: str, alpha: float, mine: Tensor, theirs: Tensor, deferred: Tensor) -> Tensor:
        """Whether the small draw of the text's own token stands, ``[tokens]``."""
        if alpha == 1.0 or not rule.startswith("token"):
            return 1 - deferred
        return ((mine if rule == "token_v1" else theirs) >= self.threshold(rule, alpha)).float()


def positions(small: Tensor, large: Tensor, tokens: Tensor) -> dict[str, list[float]]:
    """What crossover looks at, and what either model makes of each token."""
    own = {"small": small, "large": large}
    told: dict[str, Any] = {"js": js_bits(small, large), "entropy": uncertainty(small)}
    for name, law in own.items():
        told[f"{name}_bits"] = -law.gather(-1, tokens[:, None])[:, 0] / math.log(2)
        told[f"{name}_hit"] = (law.argmax(-1) == tokens).float()
    return {name: [round(value, 5) for value in values.tolist()] for name, values in told.items()}


@app.command()
def collect(
    small: Annotated[str, typer.Argument(help="The small model: a known name, a folder, or a hub id.")],
    large: Annotated[str, typer.Argument(help="The large model, with the same tokenizer.")],
    data: Annotated[Path, typer.Argument(help="JSON lines with a text each, such as LAMBADA.")],
    work: Annotated[Path, typer.Argument(help="Where the measurements go; a line a passage, resumed if it is there.")],
    items: Annotated[int, typer.Option(min=1, help="Passages.")] = 200,
    dtype: Annotated[str, typer.Option(help="Of the large model.")] = "float32",
    through_bytes: Annotated[bool, typer.Option(help="Read both as models over bytes.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="Tokens (or bytes) at the end that count; 0: all.")] = 0,
    longest: Annotated[int, typer.Option(min=2, help="Tokens (or bytes) of a passage.")] = LONGEST,
) -> None:
    """Read the passages with both models."""
    if not data.is_file():
        raise FileFormatError(f"collect: data must be a file, got {data}")
    asked = {"small": small, "large": large, "through_bytes": through_bytes, "tail": tail}
    lines = work.read_text().splitlines() if work.is_file() else []
    if lines and (found := json.loads(lines[0])["asked"]) != asked:
        raise FileFormatError(f"collect: work must be a file of {asked}, got one of {found}; name another")
    passages = [json.loads(line)["text"] for line in data.read_text().splitlines()[:items]]
    (first, tokenizer), (second, other) = models.load(small), models.load(large)
    if not through_bytes and tokenizer.get_vocab() != other.get_vocab():
        raise ModelError(f"collect: {large} must have the tokenizer of {small}; pass --through-bytes")
    second = second.to(getattr(torch, dtype))
    if through_bytes:
        first, second = (ByteModel(*pair, tolerance=TOLERANCE) for pair in ((first, tokenizer), (second, other)))
        tokenizer = byte_tokenizer()
    with work.open("a") as out:
        for place, text in track(list(enumerate(passages))[len(lines) :], description="passages"):
            context, _, word = text.rpartition(" ")
            ids, head = (torch.tensor(tokenizer(part)["input_ids"]) for part in (text, context))
            if len(ids) > longest or not torch.equal(ids[: len(head)], head) or len(head) == len(ids):
                out.write(json.dumps({"asked": asked, "passage": place, "left_out": len(ids)}) + "\n")
                continue
            last = len(ids) - len(head)
            count = max(last, min(tail, len(ids) - 1)) if tail else len(ids) - 1
            ended = ids[-count:]
            q, p = laws(first, ids, count), laws(second, ids, count)
            stage = Stage(model=first, tokenizer=tokenizer, generate_kwargs={"max_new_tokens": 5, "eos_token_id": None})
            outputs = generate_outputs(stage, [context])
            line = {
                "asked": asked,
                "passage": place,
                "last": last,
                "tokens": count,
                "rules": sweep(q, p, ended, last),
                "positions": positions(q, p, ended),
                "said": outputs.texts[0],
                "word": word,
                "logps": outputs.logps[0].tolist(),
            }
            out.write(json.dumps(line) + "\n")
            out.flush()


@app.command()
def report(
    work: Annotated[Path, typer.Argument(help="What collect wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of the tables and plots.")],
    name: Annotated[str, typer.Option(help="Of the files.")] = "cascade",
) -> None:
    """Write tables and plots."""
    from studies.cascade_report import write

    rows = [json.loads(line) for line in work.read_text().splitlines()]
    typer.echo(
        write([row for row in rows if "rules" in row], ALPHAS, out, name, left_out=sum("left_out" in r for r in rows))
    )


if __name__ == "__main__":
    app()
