"""Options that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Prompt = Annotated[str | None, typer.Argument(help="The prompt; without it, --file or standard input.")]
File = Annotated[Path | None, typer.Option(help="Read the prompt from this file.")]
Model = Annotated[str, typer.Option(help="A known model, a folder, or a hub id.")]
ChainText = Annotated[str, typer.Option(help="A chain, or a .yaml or .json file of one.")]
Chat = Annotated[bool, typer.Option("--chat", help="Send the prompt as a chat message.")]
NewTokens = Annotated[int, typer.Option(min=1)]
DoSample = Annotated[bool, typer.Option("--do-sample", help="Sample instead of taking the likeliest token.")]
Temperature = Annotated[float | None, typer.Option(help="Sampling temperature.")]
TopK = Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens.")]
TopP = Annotated[float | None, typer.Option(help="Sample from this much mass.")]
Seed = Annotated[int, typer.Option(help="Seed of the sampling.")]
