"""``logitkit inspect``: what a chain did to the distribution at every token of a continuation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logitkit.cli import options
from logitkit.cli.inputs import generate_settings, load_model, read_chain, read_prompt
from logitkit.cli.rendering import print_line, print_table
from logitkit.errors import ParameterError
from logitkit.files import check_readable, replace_file

EXAMPLES = (
    'logitkit inspect "Once upon a time" --chain "cfg(1.5)" -o page.html',
    'logitkit inspect "Once upon a time" --chain "temperature(0.5)" --text',
)


# Over 40 lines: each option of the command is a parameter.
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
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    top: Annotated[
        int, typer.Option(min=1, max=100, help="Number of most probable tokens listed before and after the chain.")
    ] = 8,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="HTML file to write; by default inspect.html, none with --text.")
    ] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Print to the terminal; a page is written only with --out.")
    ] = False,
) -> None:
    """Write a page that shows, token by token, how far a chain moved the distribution, and its cost."""
    bound_chain, prompt_text = read_chain(chain), read_prompt("inspect", prompt, file)
    path = _page_path(out) if out or not text else None
    loaded, tokenizer = load_model("inspect", model, device=device, dtype=dtype)
    from logitkit.inspection import html_page, terminal_view
    from logitkit.inspection import inspect as inspect_chain

    settings = generate_settings(
        max_new_tokens=max_new_tokens, do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p
    )
    message = [{"role": "user", "content": prompt_text}] if chat else prompt_text
    inspection = inspect_chain(loaded, tokenizer, message, bound_chain, top=top, seed=seed, **settings)
    if text:
        for part in terminal_view(inspection):
            print_table(part)
    if path is not None:
        with replace_file(path) as temporary:
            temporary.write_text(html_page(inspection), encoding="utf-8")
        print_line(f"{path}: {len(inspection.moves)} tokens", stderr=True)


def _page_path(out: Path | None) -> Path:
    """Return the path of the page.

    Raises:
        ParameterError: the name does not end in .html or .htm, the folder does not exist, or the file exists and was
            not written by ``logitkit inspect``.
    """
    path = out or Path("inspect.html")
    if path.suffix not in (".html", ".htm") or path.is_dir() or not path.absolute().parent.is_dir():
        raise ParameterError("inspect", "--out", "a file *.html in a folder that exists", str(path))
    mark = 'content="logitkit inspect"'
    if path.exists() and mark not in _beginning(path):
        raise ParameterError("inspect", "--out", "a new file, or a page that inspect wrote", str(path))
    return path


def _beginning(path: Path) -> str:
    """Return the first characters of a file; none of a file that cannot be read, such as a pipe."""
    try:
        check_readable(path)
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(1000)
    except OSError:
        return ""
