"""The sweep equals the deferral rules, and the report holds what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from logitkit.errors import FileFormatError
from logitkit.processors.cascade import TOKEN_RULES, TokenRule, rules
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from reference.speculation import random_distributions
from studies.cascade_curves import app
from studies.cascade_sweep import ALPHAS, sweep


@pytest.mark.parametrize("rule", TOKEN_RULES)
@pytest.mark.parametrize("seed", range(5))
def test_the_sweep_equals_the_rules(rule: TokenRule, seed: int) -> None:
    """Bits, deferral rate and last word of the sweep equal those of the rules, computed token by token."""
    small, large = (logp.float() for logp in random_distributions(seed, rows=12, width=30))
    tokens = torch.randint(0, 29, (12,), generator=torch.Generator().manual_seed(seed))
    tokens[-1] = large[-1].argmax()
    for alpha, (bits, resampled, written) in zip(ALPHAS, sweep(small, large, tokens, 1)[rule], strict=True):
        accepted = rules.accepted_tokens(rule, small, large, alpha=alpha)
        pi = rules.mixture(small, large, accepted)
        assert bits == pytest.approx(float(-pi.gather(-1, tokens[:, None]).sum()) / math.log(2), rel=1e-4)
        assert resampled == pytest.approx(float(rules.resampled_mass(small, accepted).mean()), abs=1e-5)
        greedy_logps = [rules.tempered(logp[-1:], 0) for logp in (small, large)]
        greedy = rules.cascade_distribution(
            rule,
            small[-1:],
            large[-1:],
            alpha=alpha,
            sampling_small=greedy_logps[0],
            sampling_large=greedy_logps[1],
        )
        assert written == (int(greedy.argmax()) == int(tokens[-1]))


def test_from_passages_to_a_report(tmp_path: Path) -> None:
    """Collect resumes where it stopped; the report has every rule; at alpha = 1 nothing is deferred or gained."""
    for seed in (0, 1):
        tiny_model(seed).save_pretrained(tmp_path / str(seed))
        tiny_tokenizer().save_pretrained(tmp_path / str(seed))
    passages = ["the cat sat on the mat", "a dog ran home fast", "one two three four", "so it goes on"]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in passages))
    work = tmp_path / "work.jsonl"
    models, more = [str(tmp_path / "0"), str(tmp_path / "1")], [str(tmp_path / "data.jsonl"), str(work)]
    for items in ("2", "4"):
        done = CliRunner().invoke(app, ["collect", *models, *more, "--items", items])
        assert done.exit_code == 0, done.output
    assert [json.loads(line)["passage"] for line in work.read_text().splitlines()] == [0, 1, 2, 3]
    done = CliRunner().invoke(app, ["report", str(work), str(tmp_path / "out"), "--name", "tiny"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "tiny.json").read_text())
    assert set(found["tokens"]["rules"]) == set(TOKEN_RULES)
    for rows in found["tokens"]["rules"].values():
        assert rows[-1]["rate"] == 0 and rows[-1]["bits"] == pytest.approx(found["tokens"]["small"], rel=1e-4)
    assert "| learned |" in done.output and "| online |" in done.output
    done = CliRunner().invoke(app, ["collect", *models, *more, "--tail", "3"])
    assert isinstance(done.exception, FileFormatError) and "got one of" in str(done.exception)
    tail = ["--through-bytes", "--tail", "7", "--items", "2"]
    done = CliRunner().invoke(app, ["collect", *models, more[0], str(tmp_path / "bytes.jsonl"), *tail])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "bytes.jsonl").read_text().splitlines()]
    assert [row["tokens"] for row in rows] == [7, 7] and [row["last"] for row in rows] == [4, 5]  # " mat", " fast"
