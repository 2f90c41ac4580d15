"""``logitkit schema``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import logitkit_command
from logitkit.registry import chain_schema


def test_it_prints_or_writes_the_schema(tmp_path: Path) -> None:
    """JSON alone on standard output, or a file and a line that names it."""
    printed = logitkit_command("schema")
    assert printed.exit_code == 0 and json.loads(printed.stdout) == chain_schema()
    out = tmp_path / "chain.schema.json"
    written = logitkit_command("schema", "--out", str(out))
    assert written.exit_code == 0 and not written.stdout and out.name in "".join(written.stderr.split())
    assert json.loads(out.read_text()) == chain_schema()


@pytest.mark.parametrize("place", [".", "schema.txt", "/dev/null/schema.json"])
def test_a_place_that_cannot_be_written_is_refused(place: str) -> None:
    """A folder, another ending, a file in the place of a folder."""
    refused = logitkit_command("schema", "--out", place)
    said = " ".join(refused.output.split())
    assert refused.exit_code == 2 and "schema: --out must be " in said
