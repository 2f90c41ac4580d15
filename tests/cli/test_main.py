"""The command line: what a newcomer types, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import logitkit
from logitkit.cli import app
from logitkit.registry import discovery
from logitkit.registry.laws import tiny_model, tiny_tokenizer
from logitkit.registry.registry import Plugin, Registry

EXAMPLE = 'def f(x):\n    """Add one.\n\n    >>> f(1)\n    2\n    """\n'


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of the tiny model."""
    path = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return str(path)


def logit(*arguments: str, **more: Any) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(arguments), **more)


def test_list_names_every_processor() -> None:
    """As a table and as JSON."""
    assert all(name in logit("list").stdout for name in ("uscd", "cfg", "top_p"))
    assert [spec["name"] for spec in json.loads(logit("list", "--json").stdout)] == logitkit.names()


def test_show_reads_like_a_man_page() -> None:
    """Formula, parameters with rule, default and neutral value, cost, source."""
    page = logit("show", "uscd").stdout
    assert "rho: a finite number >= 0 (default 0.7, off at 0)" in page
    assert "form: one of 'diff', 'ratio' (default 'diff')" in page
    assert "arXiv:2409.05923" in page and "FORMULA" in page
    assert json.loads(logit("show", "uscd", "--json").stdout)["parameters"]["properties"]["rho"]["neutral"] == 0


def test_check_runs_the_laws() -> None:
    """On a name and on a class of anyone's; the exit status tells."""
    done = logit("check", "cfg", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["failures"] == 0
    broken = logit("check", "transformers:InfNanRemoveLogitsProcessor")
    assert broken.exit_code == 1 and "keeps_masked_tokens_masked" in broken.stdout


def test_doctor_shows_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its traceback, and exit status 1."""
    assert logit("doctor").exit_code == 0
    broken = Registry([Plugin(name="bad", origin="dist-bad 1.2", error=ImportError("gone"))])
    monkeypatch.setattr("logitkit.cli.main.default_registry", lambda: broken)
    done = logit("doctor")
    assert done.exit_code == 1 and "ImportError: gone" in done.stdout and "dist-bad 1.2" in done.stdout
    assert json.loads(logit("doctor", "--json").stdout)[0]["error"]


def test_run_streams_a_continuation(folder: str) -> None:
    """The same text as logitkit.generate."""
    done = logit("run", "Once", "--model", folder, "--chain", "cfg(2.0)", "--max-new-tokens", "8")
    assert done.exit_code == 0, done.output
    want = logitkit.generate(tiny_model(), tiny_tokenizer(), "Once", chain="cfg(2.0)", max_new_tokens=8).texts[0]
    assert want in done.stdout


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_run_takes_its_prompt_from_anywhere(folder: str, source: str, tmp_path: Path) -> None:
    """And tells as JSON what happened."""
    (tmp_path / "prompt.txt").write_text(EXAMPLE)
    given = {"argument": [EXAMPLE], "file": ["--file", str(tmp_path / "prompt.txt")], "stdin": []}[source]
    settings = ["--model", folder, "--chain", "uscd(gate=1.0)", "--max-new-tokens", "4", "--trace", "--json"]
    done = logit("run", *given, *settings, input=EXAMPLE if source == "stdin" else None)
    told = json.loads(done.stdout)
    assert told["tokens"] == 4 and told["forwards_per_token"] == 1.0
    assert told["trace"]["fusion"]["state"] == "fused"
    assert told["trace"]["fired"] == {"uscd": 1.0} and len(told["trace"]["steps"]) == 4
    assert "omits 1 piece" in told["trace"]["notices"][0]


def test_run_reads_a_chain_file_and_samples(folder: str, tmp_path: Path) -> None:
    """Beams, sampling flags and a YAML chain."""
    chain = tmp_path / "chain.yaml"
    chain.write_text("- name: cfg\n  params: {scale: 2.0}\n")
    settings = ["--model", folder, "--chain", str(chain), "--max-new-tokens", "4", "--json"]
    for more in (["--num-beams", "2"], ["--temperature", "0.7", "--top-p", "0.9", "--seed", "3"]):
        done = logit("run", "Once", *settings, *more)
        assert done.exit_code == 0 and json.loads(done.stdout)["chain"] == "cfg(scale=2.0)", done.output


def test_run_shows_where_the_chain_moved(folder: str) -> None:
    """--trace prints the largest divergences."""
    done = logit("run", "Once", "--model", folder, "--chain", "cfg(2.0)", "--max-new-tokens", "4", "--trace")
    assert "JS, bits" in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "usdc"], "no processor named 'usdc'; did you mean 'uscd'?"),
        (["run", "a", "--chain", "uscd(rho="], "never closed"),
        (["run", "a", "--chain", "uscd(rho=-1)"], "uscd: rho must be a finite number >= 0, got -1"),
        (["run", "a", "--file", "b"], "the prompt must be given once"),
        (["run", "--file", "/nowhere"], "--file must be a file that exists"),
        (["run", "a", "--model", "no-such-model"], "no model named 'no-such-model'"),
        (["check", "transformers:Nothing"], "must be importable"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str) -> None:
    """Exit status 2, no traceback."""
    done = logit(*arguments)
    assert done.exit_code == 2 and says in done.output and "Traceback" not in done.output


def test_a_broken_plugin_does_not_break_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing goes on with what works."""
    monkeypatch.setattr(discovery, "entry_points", lambda group: [])
    assert discovery.discover().names() == logitkit.names()


@pytest.mark.model
def test_demo_on_the_real_model() -> None:
    """A real prompt, plain and with USCD, side by side; what was dropped and what it cost."""
    done = logit("demo")
    assert done.exit_code == 0, done.output
    for said in ("longest_run", "omits 1 piece", "gate fired", "forwards/token", "tokens/second"):
        assert said in done.output


def test_bench_speed_prints_markdown_and_writes_it(folder: str, tmp_path: Path) -> None:
    """One table a batch size, the ways asked for beside plain decoding."""
    out = tmp_path / "speed.md"
    settings = ["--model", folder, "--tokens", "2", "--rounds", "1", "--batch", "1", "--batch", "2"]
    done = logit("bench", "speed", *settings, "--only", "cfg", "--no-processors", "--out", str(out))
    assert done.exit_code == 0 and out.read_text() == done.stdout
    assert done.stdout.count("| plain generate | 1.000 | 1.000 |") == 2 and "| cfg(1.5), fused |" in done.stdout


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "zz"], "no decoding variant named 'zz'"),
        (["--device", "nowhere"], "bench: device must be one that torch has here, got 'nowhere'"),
        (["--dtype", "int4"], "bench: dtype must be float32, bfloat16 or float16, got 'int4'"),
        (["--model", "zz"], "no model named 'zz'"),
        (["--out", "/no/such/folder/x.md"], "bench: --out must be a file in a folder that exists"),
    ],
)
def test_bench_speed_refuses_before_it_measures(given: list[str], said: str) -> None:
    """One line, exit status 2."""
    done = logit("bench", "speed", *given)
    assert done.exit_code == 2 and said in done.stderr.replace("\n", " ")
