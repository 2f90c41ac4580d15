"""What strangers do: write a plugin in minutes, install it beside ours, find it, check it, run it, measure it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import logitkit
from fresh import ROOT, Fresh, build_wheel
from logitkit.registry.laws import tiny_model, tiny_tokenizer

THEIRS = ROOT / "examples" / "third_party"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as it would be published."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def offers(listed: str) -> dict[str, str]:
    """What ``list --json`` says: each name, and whose it is."""
    return {spec["name"]: spec["plugin"] for spec in json.loads(listed)}


def test_a_strangers_path(wheel: Path, tmp_path: Path, smollm2_path: Path, capsys: Any) -> None:
    """From nothing to text under a formula of one's own; what each step took is printed."""
    fresh, mine = Fresh(tmp_path / "env", wheel), tmp_path / "logitkit-quiet-words"
    formula = mine / "src" / "logitkit_quiet_words" / "processor.py"
    took: list[tuple[str, float]] = []

    def step(*command: str, cwd: Path = tmp_path) -> str:
        begun = time.perf_counter()
        if command[0] == "pip":
            fresh.install(*command[2:], cwd=cwd)
            said = ""
        else:
            done = fresh(*command, cwd=cwd)
            assert done.returncode == 0, done.stdout + done.stderr
            said = done.stdout
        took.append((" ".join(command), time.perf_counter() - begun))
        return said

    assert "pytest" in step("logitkit", "new-plugin", "quiet_words")
    step("pip", "install", "-e", ".", cwd=mine)
    assert "passed" in step("python", "-m", "pytest", "-q", cwd=mine)  # green as it was written
    text = formula.read_text()
    assert text.count("(1 + strength) * scores.log_softmax(-1)") == 1
    edited = "scores - strength * scores.softmax(-1)"  # quieten what is loud, at once: the install is editable
    formula.write_text(text.replace("(1 + strength) * scores.log_softmax(-1)", edited))
    listed = offers(step("logitkit", "list", "--json"))
    assert listed["quiet_words"] == "logitkit-quiet-words 0.1.0" and set(logitkit.names()) < set(listed)
    assert " NO " not in step("logitkit", "check", "quiet_words")
    chain = "quiet_words(strength=0.5) | top_p(0.9)"
    settings = ["--model", str(smollm2_path), "--max-new-tokens", "8", "--chain", chain]
    written = step("logitkit", "run", "Once upon a time", *settings)
    assert written.strip()
    with capsys.disabled():
        print("\n" + "\n".join(f"{seconds:6.1f} s  {command}" for command, seconds in took))
        print(f"{sum(seconds for _, seconds in took):6.1f} s  in all; it wrote {written!r}")


@pytest.fixture(scope="module")
def beside(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fresh, Path]:
    """A fresh environment with the plugins of examples/third_party, and a folder of their sources and a checkpoint."""
    folder = tmp_path_factory.mktemp("beside")
    shutil.copytree(THEIRS, folder / "theirs", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    fresh = Fresh(folder / "env", wheel)
    fresh.install(*(str(path.parent) for path in sorted((folder / "theirs").glob("*/pyproject.toml"))))
    tiny_model().save_pretrained(folder / "checkpoint")
    tiny_tokenizer().save_pretrained(folder / "checkpoint")
    return fresh, folder


def test_the_host_survives_the_broken_and_says_so(beside: tuple[Fresh, Path]) -> None:
    """Theirs is listed with its version; the two others are told with theirs, and what to do."""
    fresh, folder = beside
    listed = {
        spec["name"]: spec["plugin"] for spec in json.loads(fresh("logitkit", "list", "--json", cwd=folder).stdout)
    }
    assert set(listed) == {*logitkit.names(), "blend", "frequency_penalty"} and listed["top_p"] == "logitkit"
    assert listed["frequency_penalty"] == "logitkit-frequency-penalty 1.2.0"
    done = fresh("logitkit", "doctor", "--json", cwd=folder)
    faults = {row["name"]: row["fault"] for row in json.loads(done.stdout) if row["fault"]}
    assert done.returncode == 1 and set(faults) == {"broken_at_import", "taken_name"}
    assert faults["broken_at_import"] == (
        "plugin 'broken_at_import' (from logitkit-broken-at-import 0.3) is broken: ModuleNotFoundError: "
        "No module named 'a_library_that_is_not_installed'; correct it, upgrade it, or pip uninstall it"
    )
    assert faults["taken_name"] == (
        "plugin 'taken_name' (from logitkit-taken-name 0.3) is broken: the name 'top_p' must be offered by one plugin, "
        "got warpers (logitkit) and taken_name (logitkit-taken-name 0.3); "
        "uninstall one, or choose with LOGITKIT_PLUGINS"
    )
    asked = fresh("logitkit", "show", "another_nucleus", cwd=folder)  # a name of the broken one
    assert asked.returncode == 2 and "plugin 'taken_name' (from logitkit-taken-name 0.3)" in asked.stderr
    strict = fresh("logitkit", "list", cwd=folder, LOGITKIT_STRICT="1")
    assert strict.returncode == 2 and "plugin 'broken_at_import'" in strict.stderr
    assert "frequency_penalty" not in fresh("logitkit", "list", cwd=folder, LOGITKIT_PLUGINS="none").stdout


def test_theirs_is_checked_run_and_measured_like_ours(beside: tuple[Fresh, Path]) -> None:
    """The laws, a chain with one of ours, the bench, and its own tests."""
    fresh, folder = beside
    done = fresh("logitkit", "check", "frequency_penalty", "--json", cwd=folder)
    assert done.returncode == 0 and json.loads(done.stdout)["failures"] == 0, done.stdout + done.stderr
    few = ["--model", "checkpoint", "--tokens", "2", "--rounds", "1", "--batch", "2", "--no-processors", "--no-memory"]
    done = fresh("logitkit", "bench", "speed", *few, "--only", "frequency_penalty", cwd=folder)
    assert "| frequency_penalty(penalty=0.5) |" in done.stdout, done.stdout + done.stderr
    chain = "frequency_penalty(2.0) | top_p(0.9)"
    settings = ["--model", "checkpoint", "--max-new-tokens", "4", "--json", "--chain", chain]
    done = fresh("logitkit", "run", "a prompt", *settings, cwd=folder)
    assert json.loads(done.stdout)["tokens"] == 4, done.stderr
    done = fresh("python", "-m", "pytest", "-q", cwd=folder / "theirs" / "frequency_penalty")
    assert done.returncode == 0, done.stdout


def test_a_plugin_with_a_second_stream_passes_its_own_tests(beside: tuple[Fresh, Path]) -> None:
    """The laws, every mode of generating, and a loop without a cache; and `run` fuses its second prompt."""
    fresh, folder = beside
    done = fresh("python", "-m", "pytest", "-q", cwd=folder / "theirs" / "second_stream")
    assert done.returncode == 0, done.stdout
    chain = "blend(weight=0.3, before='A sad story. ')"
    settings = ["--model", "checkpoint", "--max-new-tokens", "4", "--json", "--chain", chain]
    done = fresh("logitkit", "run", "a prompt", *settings, cwd=folder)
    assert json.loads(done.stdout)["trace"]["fusion"]["state"] == "fused", done.stderr
