"""Samples behind a prompt that is cut inside a token, compared with the enumerated conditional distribution.

    python tests/reference/byte_samples.py

prints the table of `byte_boundary`, the hard mask and transformers' token healing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from scipy.stats import chisquare
from tokenizers.processors import TemplateProcessing

import logitkit
from logitkit.processors.engine.padded_rows import left_padded
from logitkit.processors.tokens import Vocabulary
from reference.byte_covers import Enumeration, random_model, random_tokenizer

SAMPLES = 20_000
Distribution = dict[tuple[int, ...], float]


def conditional(slow: Enumeration, kept: tuple[int, ...], removed: bytes) -> Distribution:
    """Return P(sequence | the text begins with the removed bytes) for each canonical sequence that spells them."""
    complete: Distribution = {}
    pending: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    while pending:
        ids, logp = pending.pop()
        begun = slow.vocabulary.join(ids)
        for token in slow.spelled:
            reached = begun + (slow.vocabulary.token_bytes[token] or b"")
            longer = (*ids, token)
            if (removed.startswith(reached) or reached.startswith(removed)) and slow.live((*kept, *longer)):
                total = logp + float(slow.next((*kept, *ids))[token])
                if len(reached) >= len(removed):
                    complete[longer] = total
                else:
                    pending.append((longer, total))
    masses = torch.tensor(list(complete.values()), dtype=torch.float64).softmax(-1).tolist()
    return dict(zip(complete, masses, strict=True))


def conditional_of(call: Any) -> Distribution:
    """Return `conditional` for a call of one prompt that starts with a begin token."""
    kept = tuple(call.prompts.ids[0].tolist()[1:])
    return conditional(Enumeration(call.model, call.tokenizer), kept, call.prompts.removed[0])


def begun_tokenizer(seed: int) -> Any:
    """Return a random tokenizer that adds a begin token and can pad, as token healing needs."""
    tokenizer = random_tokenizer(seed, merges=10)
    begin = tokenizer.bos_token, tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[begin])
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def masked(call: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return the hard mask: a processor that allows the tokens that agree with the removed bytes."""
    vocabulary = Vocabulary.of(call.tokenizer, call.model.config.vocab_size)

    def processor(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        out = torch.full_like(scores, -torch.inf)
        for row, ids in enumerate(input_ids[:, call.prompts.width :].tolist()):
            left = call.prompts.removed[0][len(vocabulary.join(ids)) :]
            for token, text in enumerate(vocabulary.token_bytes):
                if text and (not left or text.startswith(left) or left.startswith(text)):
                    out[row, token] = scores[row, token]
        return out

    return processor


def draws(call: Any, want: Distribution, **settings: Any) -> list[int]:
    """Return how often ``generate`` draws each sequence of the distribution; other sequences are not counted."""
    return tally(_sampled(call.model, max(map(len, want)), **call.inputs, **settings)[:, call.prompts.width :], want)


def healed(call: Any, prompt: str, want: Distribution) -> list[int]:
    """Return the same counts for transformers' token healing, from the whole prompt."""
    encoded = call.tokenizer(prompt, return_tensors="pt")
    out = _sampled(call.model, max(map(len, want)), **encoded, token_healing=True, tokenizer=call.tokenizer)
    special = set(call.tokenizer.all_special_ids)
    kept = sum(token not in special for token in call.prompts.ids[0].tolist())
    rows = [[token for token in row if token not in special][kept:] for row in out.tolist()]
    return tally(left_padded([row[::-1] for row in rows], pad=-1)[0].flip(1), want)


def _sampled(model: Any, tokens: int, **settings: Any) -> torch.Tensor:
    """Return seeded samples at temperature 1, ``[SAMPLES, length]``."""
    torch.manual_seed(0)
    fixed = {"do_sample": True, "top_k": 0, "max_new_tokens": tokens, "num_return_sequences": SAMPLES}
    out: torch.Tensor = model.generate(**fixed, **settings)
    return out


def tally(tails: torch.Tensor, want: Distribution) -> list[int]:
    """Return how many tails begin with each sequence; no sequence begins with another, so a tail counts once."""
    rows, counts = torch.unique(tails, dim=0, return_counts=True)
    found = dict.fromkeys(want, 0)
    for row, count in zip(rows.tolist(), counts.tolist(), strict=True):
        for ids in want:
            if tuple(row[: len(ids)]) == ids:
                found[ids] += count
                break
    return list(found.values())


def verdict(counts: list[int], want: Distribution) -> tuple[int, float]:
    """Return the number of samples that do not spell the prompt, and the chi-square p-value of the others."""
    inside = sum(counts)
    return SAMPLES - inside, float(chisquare(counts, [inside * mass for mass in want.values()]).pvalue)


def main() -> None:
    """Print the table as Markdown."""
    tokenizer = begun_tokenizer(11)
    model = random_model(tokenizer, 11)
    print(f"{SAMPLES:,} samples of a random model behind a cut prompt; chi-square against the enumerated probabilities")
    print("\n| prompt | sequences that spell its end | method | outside | chi-square p of the others |")
    print("|---|---|---|---|---|")
    for prompt in ("ab a", "b bb a b", "aab", "ab ab"):
        call = logitkit.chain("byte_boundary()").bind(model, tokenizer, prompt)
        want = conditional_of(call)
        methods = {
            "byte_boundary": lambda c=call, w=want: draws(c, w, logits_processor=c.processors),
            "hard mask": lambda c=call, w=want: draws(c, w, logits_processor=[masked(c)]),
            "transformers token_healing": lambda c=call, p=prompt, w=want: healed(c, p, w),
        }
        for method, count in methods.items():
            outside, p = verdict(count(), want)
            print(f"| `{prompt}` | {len(want)} | {method} | {outside:,} | {p:.2g} |")


if __name__ == "__main__":
    main()
