"""Chain files are accepted wherever the command line takes a chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import logitkit
from command_line import logitkit_command
from logitkit.bench.config import example_run, runfile
from logitkit.errors import RunError

CHAIN = "temperature(0.5) | top_k(3)"


@pytest.fixture(params=["yaml", "json", "saved"])
def chain_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that `Chain.to_file` or `Chain.save` wrote."""
    chain = logitkit.chain(CHAIN)
    if request.param == "saved":
        return chain.save(tmp_path, "careful")
    path = tmp_path / f"chain.{request.param}"
    chain.to_file(path)
    return path


def test_run_and_inspect_take_a_file(tiny_checkpoint: str, chain_file: Path, tmp_path: Path) -> None:
    """The result names the chain of the file."""
    settings = ["Once", "--model", tiny_checkpoint, "--max-new-tokens", "4", "--do-sample", "--chain", str(chain_file)]
    assert json.loads(logitkit_command("run", *settings, "--json").stdout)["chain"] == str(logitkit.chain(CHAIN))
    page = tmp_path / "page.html"
    result = logitkit_command("inspect", *settings, "--against", str(chain_file), "-o", str(page))
    assert result.exit_code == 0 and "temperature" in page.read_text(encoding="utf-8"), result.output


def test_run_files_and_flags_of_bench_take_a_file(chain_file: Path, tmp_path: Path) -> None:
    """The run holds the steps of the file, so that its results belong to them and not to a name of a file."""
    example_run(tmp_path)
    name = chain_file.relative_to(tmp_path)
    file = tmp_path / "run.yaml"
    file.write_text(
        f"models: [tiny]\nchains: {{a: {name}, b: {{chain: {name}}}}}\ntasks: {{lambada: {{data: texts.jsonl}}}}\n"
    )
    run = runfile.read(file)
    assert [logitkit.chain(run.chains[each].chain) for each in "ab"] == [logitkit.chain(CHAIN)] * 2
    data = {"models": ["tiny"], "chains": {"x": str(chain_file)}, "tasks": {"lambada": {"data": "texts.jsonl"}}}
    assert runfile.from_data(data, folder=str(tmp_path)).chains["x"].chain == run.chains["a"].chain


def test_a_wrong_file_is_a_mistake_of_the_run(tmp_path: Path) -> None:
    """The mistake has its line, beside the other mistakes of the file."""
    example_run(tmp_path)
    (tmp_path / "broken.yaml").write_text("- name: usdc\n")
    file = tmp_path / "run.yaml"
    file.write_text(
        "models: [tiny]\nchains:\n  a: missing.yaml\n  b: broken.yaml\ntasks: {lambada: {data: texts.jsonl}}\n"
    )
    with pytest.raises(RunError) as caught:
        runfile.read(file)
    first, second = caught.value.mistakes
    assert "line 3" in first and "must be a file that can be read" in first
    assert "line 4" in second and "did you mean 'uscd'?" in second


def test_check_takes_a_file_of_one_processor(chain_file: Path, tmp_path: Path) -> None:
    """A chain of two is refused; a missing file is a wrong command line."""
    logitkit.chain("top_k(3)").to_file(tmp_path / "one.yaml")
    result = logitkit_command("check", str(tmp_path / "one.yaml"), "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["subject"].startswith("top_k")
    refused = logitkit_command("check", str(chain_file))
    assert refused.exit_code == 2 and "check: SUBJECT must be one processor" in refused.stderr
    assert logitkit_command("check", str(tmp_path / "none.yaml")).exit_code == 2
