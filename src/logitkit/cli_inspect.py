"""``logitkit inspect``: look at every token of a continuation under a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from logitkit.completion import load, read_chain, read_prompt, sampling
from logitkit.errors import ParameterError


def inspect(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; without it, --file or standard input.")] = None,
    file: Annotated[Path | None, typer.Option(help="Read the prompt from this file.")] = None,
    model: Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")] = "smollm2-135m",
    chain: Annotated[str, typer.Option(help="A chain, or a .yaml or .json file of one.")] = "",
    chat: Annotated[bool, typer.Option("--chat", help="Send the prompt as a chat message.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 64,
    do_sample: Annotated[
        bool, typer.Option("--do-sample", help="Sample instead of taking the likeliest token.")
    ] = False,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Sample from this much mass.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    top: Annotated[int, typer.Option(min=1, max=100, help="Likeliest tokens to keep, before and after.")] = 8,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page to write; inspect.html unless --text is asked for.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Show it in the terminal; a page only with --out.")] = False,
) -> None:
    """Write one page that shows, token by token, how far a chain moved the distribution and what it cost."""
    read, given = read_chain(chain), read_prompt("inspect", prompt, file)
    target = _page_path(out) if out or not text else None
    loaded, tokenizer = load(model)

    from logitkit import inspect_page, inspect_terminal, inspection

    asked = [{"role": "user", "content": given}] if chat else given
    settings = sampling(do_sample, temperature, top_k, top_p, max_new_tokens)
    found = inspection.inspect(loaded, tokenizer, asked, read, top=top, seed=seed, **settings)
    if text:
        for part in inspect_terminal.shown(found):
            Console(highlight=False).print(part)
    if target is not None:
        target.write_text(inspect_page.page(found), encoding="utf-8")
        Console(stderr=True, highlight=False).print(
            f"{target}: {len(found.moves)} tokens", soft_wrap=True, markup=False
        )


def _page_path(out: Path | None) -> Path:
    """Where the page goes.

    Raises:
        ParameterError: no file name of a page, no such folder, or a file that is not a page of ours.
    """
    path = out or Path("inspect.html")
    if path.suffix not in (".html", ".htm") or path.is_dir() or not path.absolute().parent.is_dir():
        raise ParameterError("inspect", "--out", "a file *.html in a folder that exists", str(path))
    mark = 'content="logitkit inspect"'
    if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace")[:1000]:
        raise ParameterError("inspect", "--out", "a new file, or a page that inspect wrote", str(path))
    return path
