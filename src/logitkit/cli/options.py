"""Options that several commands share, and the layout of examples in help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from logitkit.cli.json_output import divert

MOST_TOKENS = 1_000_000  # more than a model reads; a typing error is refused before a model is loaded
AsJson = Annotated[bool, typer.Option("--json", callback=divert, help="Print JSON.")]
Prompt = Annotated[str | None, typer.Argument(help="The prompt. Without it, --file or standard input is read.")]
File = Annotated[Path | None, typer.Option(help="Read the prompt from this file.")]
Model = Annotated[str, typer.Option(help="A known model name, a folder, or a hub id.")]
ChainText = Annotated[str, typer.Option(help="A chain, or a .yaml or .json file that holds a chain.")]
Chat = Annotated[bool, typer.Option("--chat", help="Send the prompt as a chat message.")]
NewTokens = Annotated[int, typer.Option(min=1, max=MOST_TOKENS, help="Maximum number of new tokens.")]
DoSample = Annotated[bool, typer.Option("--do-sample", help="Sample instead of taking the most probable token.")]
Temperature = Annotated[float | None, typer.Option(help="Sampling temperature; implies --do-sample.")]
TopK = Annotated[int | None, typer.Option(help="Sample from the K most probable tokens; implies --do-sample.")]
TopP = Annotated[
    float | None, typer.Option(help="Sample from the smallest set with this probability; implies --do-sample.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed of the sampling.")]
Engine = Annotated[str, typer.Option(help="Where units run: local (this process) or ray (a Ray cluster).")]
Device = Annotated[str, typer.Option(help="Device of the model: cpu, cuda, cuda:1, mps ...")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
SmallModel = Annotated[str, typer.Option("--small", help="The small model: a known name, a folder, or a hub id.")]
LargeModel = Annotated[str, typer.Option("--large", help="The large model; it must have the small model's tokenizer.")]


def examples(*commands: str) -> str:
    r"""Return the examples of a help text, for the parameter ``epilog`` of a command.

    >>> examples("logitkit list")
    'Examples:\n\nlogitkit list'
    """
    return "\n\n".join(["Examples:", *commands])
