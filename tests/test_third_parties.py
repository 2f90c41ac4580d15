"""Third-party plugins: written from the template, installed, listed, checked, run and measured."""

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

PLUGINS = ROOT / "examples" / "third_party"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the project."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def offers(listed: str) -> dict[str, str]:
    """Return each name of ``logitkit list --json`` with the plugin that offers the name."""
    return {spec["name"]: spec["plugin"] for spec in json.loads(listed)}


def test_a_new_plugin_is_written_installed_and_run(
    wheel: Path, tmp_path: Path, smollm2_path: Path, capsys: Any
) -> None:
    """The template installs, its tests pass, and an edited formula runs in a chain; the test prints durations."""
    fresh, mine = Fresh(tmp_path / "env", wheel), tmp_path / "logitkit-quiet-words"
    formula = mine / "src" / "logitkit_quiet_words" / "processor.py"
    durations: list[tuple[str, float]] = []

    def step(*command: str, cwd: Path = tmp_path) -> str:
        begin = time.perf_counter()
        if command[0] == "pip":
            fresh.install(*command[2:], cwd=cwd)
            output = ""
        else:
            done = fresh(*command, cwd=cwd)
            assert done.returncode == 0, done.stdout + done.stderr
            output = done.stdout
        durations.append((" ".join(command), time.perf_counter() - begin))
        return output

    assert "pytest" in step("logitkit", "new-plugin", "quiet_words")
    step("pip", "install", "-e", ".", cwd=mine)
    assert "passed" in step("python", "-m", "pytest", "-q", cwd=mine)  # the template passes its own tests unchanged
    text = formula.read_text()
    assert text.count("(1 + strength) * scores.log_softmax(-1)") == 1
    edited = "scores - strength * scores.softmax(-1)"  # takes effect at once, because the install is editable
    formula.write_text(text.replace("(1 + strength) * scores.log_softmax(-1)", edited))
    listed = offers(step("logitkit", "list", "--json"))
    assert listed["quiet_words"] == "logitkit-quiet-words 0.1.0" and set(logitkit.names()) < set(listed)
    assert " NO " not in step("logitkit", "check", "quiet_words")
    chain = "quiet_words(strength=0.5) | top_p(0.9)"
    settings = ["--model", str(smollm2_path), "--max-new-tokens", "8", "--chain", chain]
    written = step("logitkit", "run", "Once upon a time", *settings)
    assert written.strip()
    with capsys.disabled():
        print("\n" + "\n".join(f"{seconds:6.1f} s  {command}" for command, seconds in durations))
        print(f"{sum(seconds for _, seconds in durations):6.1f} s  in total; the text: {written!r}")


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fresh, Path]:
    """A fresh environment with the plugins of examples/third_party; a folder with their sources and a checkpoint."""
    folder = tmp_path_factory.mktemp("environment")
    shutil.copytree(PLUGINS, folder / "plugins", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    fresh = Fresh(folder / "env", wheel)
    fresh.install(*(str(path.parent) for path in sorted((folder / "plugins").glob("*/pyproject.toml"))))
    tiny_model().save_pretrained(folder / "checkpoint")
    tiny_tokenizer().save_pretrained(folder / "checkpoint")
    return fresh, folder


def test_broken_plugins_are_reported_and_do_not_affect_others(environment: tuple[Fresh, Path]) -> None:
    """Working plugins are listed with their versions; ``doctor`` names each broken plugin, its fault and the remedy."""
    fresh, folder = environment
    listed = {
        spec["name"]: spec["plugin"] for spec in json.loads(fresh("logitkit", "list", "--json", cwd=folder).stdout)
    }
    assert set(listed) == {*logitkit.names(None), "blend", "occurrence_penalty"} and listed["top_p"] == "logitkit"
    assert listed["occurrence_penalty"] == "logitkit-occurrence-penalty 1.2.0"
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
    asked = fresh("logitkit", "show", "another_nucleus", cwd=folder)  # a name of a broken plugin
    assert asked.returncode == 1 and "plugin 'taken_name' (from logitkit-taken-name 0.3)" in asked.stderr
    strict = fresh("logitkit", "list", cwd=folder, LOGITKIT_STRICT="1")
    assert strict.returncode == 1 and "plugin 'broken_at_import'" in strict.stderr
    assert "occurrence_penalty" not in fresh("logitkit", "list", cwd=folder, LOGITKIT_PLUGINS="none").stdout


def test_a_third_party_processor_is_checked_run_and_measured(environment: tuple[Fresh, Path]) -> None:
    """The laws, the benchmark, a chain with a built-in processor, and the tests of the plugin pass."""
    fresh, folder = environment
    done = fresh("logitkit", "check", "occurrence_penalty", "--json", cwd=folder)
    assert done.returncode == 0 and json.loads(done.stdout)["failures"] == 0, done.stdout + done.stderr
    few = ["--model", "checkpoint", "--tokens", "2", "--rounds", "1", "--batch", "2", "--no-processors", "--no-memory"]
    done = fresh("logitkit", "bench", "speed", *few, "--only", "occurrence_penalty", cwd=folder)
    assert "| occurrence_penalty(penalty=0.5) |" in done.stdout, done.stdout + done.stderr
    chain = "occurrence_penalty(2.0) | top_p(0.9)"
    settings = ["--model", "checkpoint", "--max-new-tokens", "4", "--json", "--chain", chain]
    done = fresh("logitkit", "run", "a prompt", *settings, cwd=folder)
    assert json.loads(done.stdout)["tokens"] == 4, done.stderr
    done = fresh("python", "-m", "pytest", "-q", cwd=folder / "plugins" / "occurrence_penalty")
    assert done.returncode == 0, done.stdout


def test_a_plugin_with_a_second_stream_passes_its_own_tests(environment: tuple[Fresh, Path]) -> None:
    """The tests of the plugin pass, and ``logitkit run`` fuses its second prompt."""
    fresh, folder = environment
    done = fresh("python", "-m", "pytest", "-q", cwd=folder / "plugins" / "second_stream")
    assert done.returncode == 0, done.stdout
    chain = "blend(weight=0.3, before='A sad story. ')"
    settings = ["--model", "checkpoint", "--max-new-tokens", "4", "--json", "--chain", chain]
    done = fresh("logitkit", "run", "a prompt", *settings, cwd=folder)
    assert json.loads(done.stdout)["trace"]["fusion"]["state"] == "fused", done.stderr
