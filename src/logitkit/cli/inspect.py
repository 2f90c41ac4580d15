"""``logitkit inspect``: look at every token of a continuation under a chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from logitkit.cli import options
from logitkit.errors import ParameterError
from logitkit.inspection.completion import load, read_chain, read_prompt, sampling


def inspect(
    prompt: options.Prompt = None,
    file: options.File = None,
    model: options.Model = "smollm2-135m",
    chain: options.ChainText = "",
    chat: options.Chat = False,
    max_new_tokens: options.NewTokens = 64,
    do_sample: options.DoSample = False,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: options.Seed = 0,
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

    from logitkit.inspection import inspection
    from logitkit.inspection import page as inspect_page
    from logitkit.inspection import terminal as inspect_terminal

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
