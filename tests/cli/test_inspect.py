"""``logitkit inspect``."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import logitkit_command


def test_the_command_replaces_its_own_page(tiny_checkpoint: str, tmp_path: Path) -> None:
    """``--out`` writes a page and replaces a page of an earlier call; ``--text`` alone writes no file."""
    out = tmp_path / "page.html"
    arguments = ["inspect", "Once", "--model", tiny_checkpoint, "--chain", "temperature(0.5)", "--max-new-tokens", "4"]
    for _ in range(2):
        result = logitkit_command(*arguments, "-o", out)
        assert result.exit_code == 0, result.output
    assert out.read_text().count('<details class="token"') == 4
    result = logitkit_command(*arguments, "--text")
    assert result.exit_code == 0 and "Where the chain moved the distribution most" in result.stdout
    assert not Path("inspect.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-o", "page.txt"], "inspect: --out must be a file *.html in a folder that exists, got 'page.txt'"),
        (["a", "-o", "/no/such/folder/a.html"], "in a folder that exists"),
        (["a", "-o", "FOREIGN"], "inspect: --out must be a new file, or a page that inspect wrote"),
        (["a", "--chain", "cfg(scale=-1)"], "cfg: scale must be a finite number >= 0, got -1"),
        (["a", "--file", "b"], "inspect: the prompt must be given once"),
        ([""], "inspect: the prompt must be text"),
    ],
)
def test_bad_input_is_refused_before_a_model_loads(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command ends with exit status 2 and one message, and loads no model."""
    monkeypatch.setattr("logitkit.cli.inspect.load_model", lambda name: pytest.fail("a model was loaded"))
    (tmp_path / "foreign.html").write_text("<p>somebody's page</p>")
    result = logitkit_command("inspect", *(a.replace("FOREIGN", f"{tmp_path}/foreign.html") for a in arguments))
    assert result.exit_code == 2 and message in result.output.replace("\n", ""), result.output
