"""``logitkit inspect``: what a chain did to the distribution at every token of a continuation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from logitkit.cli import options
from logitkit.cli.inputs import check_output, generate_settings, load_model, read_chain, read_prompt, utf8_text
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import print_line, print_table
from logitkit.errors import ParameterError
from logitkit.files import check_readable, replace_file

if TYPE_CHECKING:
    from logitkit.inspection.comparison import Comparison
    from logitkit.inspection.measurement import Inspection

EXAMPLES = (
    'logitkit inspect "Once upon a time" --chain "cfg(1.5)" -o page.html',
    'logitkit inspect "Once upon a time" --chain "cfg(1.5)" --against "" -o page.html',
    'logitkit inspect "Once upon a time" "The old lighthouse" --chain "top_k(5)" --csv tokens.csv',
    'logitkit inspect "Once upon a time" --chain "temperature(0.5)" --text',
)


class OwnFile(NamedTuple):
    """A kind of file that the command writes.

    Attributes:
        noun: its name in messages.
        suffixes: endings of its name.
        mark: text near its beginning; a file without the mark is somebody else's and is not replaced.
    """

    noun: str
    suffixes: tuple[str, ...]
    mark: str


PAGE = OwnFile("page", (".html", ".htm"), 'content="logitkit inspect"')
TABLE = OwnFile("table", (".csv",), '"prompt_number","chain","token_number"')


# Over 40 lines: each option of the command is a parameter.
def inspect(
    prompt: Annotated[
        list[str] | None,
        typer.Argument(help="The prompts. Without them, --file, --prompts or standard input is read."),
    ] = None,
    file: Annotated[list[Path] | None, typer.Option(help="Read a prompt from this file; once for each prompt.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Read the prompts from this file, one a line.")] = None,
    model: options.Model = "smollm2-135m",
    chain: options.ChainText = "",
    against: Annotated[
        str | None,
        typer.Option(help="A second chain, shown beside the first; an empty text is plain decoding."),
    ] = None,
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
        Path | None,
        typer.Option(
            "--out", "-o", help="HTML file to write. Default: inspect.html; with --text, --csv or --json, no HTML file."
        ),
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="CSV file to write, with one line per token.")] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Print to the terminal; a page is written only with --out.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Write a page that shows, token by token, how far a chain moved the distribution, and its cost."""
    chains = [read_chain(each) for each in (chain, against) if each is not None]
    texts = _read_prompts(prompt or [], file or [], prompts)
    page = None if out is None and (text or csv or as_json) else _own_file("--out", out or Path("inspect.html"), PAGE)
    table = _own_file("--csv", csv, TABLE) if csv else None
    settings = generate_settings(
        max_new_tokens=max_new_tokens, do_sample=do_sample, temperature=temperature, top_k=top_k, top_p=top_p
    )
    loaded, tokenizer = load_model("inspect", model, device=device, dtype=dtype)
    from logitkit.inspection import compare, csv_table, html_page, json_data, terminal_view
    from logitkit.inspection import inspect as inspect_chain

    shown: list[Inspection | Comparison] = []
    for number, each in enumerate(texts, 1):
        message = [{"role": "user", "content": each}] if chat else each
        label = f"prompt {number} of {len(texts)}" if len(texts) > 1 else "tokens"
        act: Any = inspect_chain if against is None else compare
        shown.append(act(loaded, tokenizer, message, *chains, top=top, seed=seed, label=label, **settings))
        if text and len(texts) > 1:
            print_line(f"{label}: {each}")
        for part in terminal_view(shown[-1]) if text else ():
            print_table(part)
    for path, content in ((page, html_page), (table, csv_table)):
        if path is not None:
            with replace_file(path) as temporary:
                temporary.write_text(content(*shown), encoding="utf-8", newline="")
            print_line(f"{path}: {_contents(shown)}", stderr=True)
    if as_json:
        print_json(json_data(*shown))


def _contents(shown: list[Inspection | Comparison]) -> str:
    """Return what a file holds, such as ``3 prompts under 2 chains, 384 tokens``."""
    inspections: list[Any] = [side for item in shown for side in getattr(item, "sides", (item,))]
    tokens = sum(len(inspection.moves) for inspection in inspections)
    if len(inspections) == 1:
        return f"{tokens} tokens"
    prompts, chains = len(shown), len(inspections) // len(shown)
    return f"{prompts} prompt{'s' * (prompts > 1)} under {chains} chain{'s' * (chains > 1)}, {tokens} tokens"


def _read_prompts(arguments: list[str], files: list[Path], lines: Path | None) -> list[str]:
    """Return the prompts from the arguments, from files that hold one each, from lines, or from standard input.

    Raises:
        ParameterError: they are given in two of these ways, or one of them is missing, empty or no UTF-8.
    """
    given = [name for name, value in (("--file", files), ("--prompts", lines)) if value]
    if len(given) + bool(arguments) > 1:
        way_out = f"drop {given[0]}, or the arguments" if arguments else "drop one of them"
        raise ParameterError("inspect", "the prompt", "given once", " and ".join(given), way_out)
    if lines is not None:
        texts = [line for line in utf8_text("inspect", "--prompts", lines).split("\n") if line.strip()]
        if not texts:
            raise ParameterError("inspect", "--prompts", "a file with a line of text", str(lines))
        return [read_prompt("inspect", text, None) for text in texts]
    if files:
        return [read_prompt("inspect", None, file) for file in files]
    return [read_prompt("inspect", text, None) for text in arguments] or [read_prompt("inspect", None, None)]


def _own_file(option: str, path: Path, kind: OwnFile) -> Path:
    """Return the path of a file that the command writes.

    Raises:
        ParameterError: the file cannot be written, see `check_output`, or it exists and was not written by
            ``logitkit inspect``.
    """
    check_output("inspect", option, path, *kind.suffixes)
    if path.exists() and kind.mark not in _beginning(path):
        raise ParameterError("inspect", option, f"a new file, or a {kind.noun} that inspect wrote", str(path))
    return path


def _beginning(path: Path) -> str:
    """Return the first characters of a file; none of a file that cannot be read, such as a pipe."""
    try:
        check_readable(path)
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(1000)
    except OSError:
        return ""
