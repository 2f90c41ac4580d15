"""``logitkit run``: continue a prompt under a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from logitkit.cli import options
from logitkit.cli.conversation import Conversation, check_template, converse
from logitkit.cli.inputs import generate_settings, load_model, read_chain, read_prompt
from logitkit.cli.json_output import print_json
from logitkit.cli.rendering import escape_markup, largest_changes, print_table

if TYPE_CHECKING:
    from logitkit.inspection.completion import Completion

EXAMPLES = (
    'logitkit run "Once upon a time" --chain "cfg(1.5)"',
    'logitkit run "Name three rivers." --chat --temperature 0.7 --seed 3',
    'echo "The capital of Fra" | logitkit run --chain "byte_boundary()" --trace',
    "logitkit run --chat",
)
NEW_TOKENS, CHAT_TOKENS = 64, 256  # defaults: of a continuation, and of an answer in a conversation


# Over 40 lines: each option of the command is a parameter.
def run(
    prompt: options.Prompt = None,
    file: options.File = None,
    model: options.Model = "smollm2-135m",
    chain: options.ChainText = "",
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Send the prompt as a chat message; without a prompt, begin a conversation."),
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=options.MOST_TOKENS,
            help=f"Maximum number of new tokens; by default {NEW_TOKENS}, in a chat {CHAT_TOKENS}.",
        ),
    ] = None,
    do_sample: options.DoSample = False,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    num_beams: Annotated[int, typer.Option(min=1, help="Number of beams; 1 is no beam search.")] = 1,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    trace: Annotated[
        bool, typer.Option("--trace", help="Show the tokens at which the chain changed the distribution most.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Continue a prompt under a chain. The text appears while it is generated.

    With --chat and no prompt, each line of standard input is a message of one conversation: /reset forgets it, /quit
    or Ctrl-D ends it, Ctrl-C stops an answer.
    """
    bound_chain, conversation = read_chain(chain), chat and prompt is None and file is None
    text = "" if conversation else read_prompt("run", prompt, file)
    settings = generate_settings(
        max_new_tokens=max_new_tokens or (CHAT_TOKENS if conversation else NEW_TOKENS),
        do_sample=do_sample,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
    )
    settings["num_beams"] = num_beams
    if bound_chain.searches and not settings["do_sample"]:
        del settings["do_sample"]  # the option was not given, and a search draws its own tokens
    loaded, tokenizer = load_model("run", model, device=device, dtype=dtype)
    if chat:
        check_template(model, tokenizer)
    shared: Any = {"seed": seed, "stream": not as_json, "record": trace}
    if conversation:
        talk = Conversation(model=loaded, tokenizer=tokenizer, chain=bound_chain, settings=settings, **shared)
        _converse(talk, as_json=as_json)
        return
    from logitkit.inspection.completion import complete

    message = [{"role": "user", "content": text}] if chat else text
    completion = complete(loaded, tokenizer, message, bound_chain, **shared, **settings)
    if as_json:
        print_json(completion.as_data())
    else:
        _print_summary(completion, tokenizer, trace=trace)


def _converse(conversation: Conversation, *, as_json: bool) -> None:
    """Carry on a conversation, with the cost below each answer; as JSON print all answers at its end."""
    answers: list[dict[str, Any]] = []

    def after(completion: Completion) -> None:
        if as_json:
            answers.append({"message": conversation.messages[-2]["content"], **completion.as_data()})
        else:
            _print_summary(completion, conversation.tokenizer, trace=conversation.record)

    converse(conversation, after=after)
    if as_json:
        print_json(answers)


def _print_summary(completion: Completion, tokenizer: Any, *, trace: bool) -> None:
    """Print notices, cost, gates and, on request, the largest changes on standard error."""
    record, console = completion.trace, Console(stderr=True, highlight=False)
    for notice in record.notices:
        console.print(f"[dim]{escape_markup(notice)}[/]")
    facts = [f"{completion.tokens} tokens", f"{completion.tokens_per_second:.1f} tokens/s"]
    facts += [f"{completion.forwards_per_token:.2f} forward passes per token"]
    facts += [f"{name} acted at {share:.0%} of tokens" for name, share in record.fired.items()]
    console.print(f"[dim]{escape_markup(', '.join(facts))}[/]", soft_wrap=not console.is_terminal)
    if record.search is not None:
        search = record.search
        facts = [f"{search.search}: {search.forwards} forwards", f"{search.tokens} tokens read"]
        facts += [f"{search.peak_rows} rows at once", f"{search.peak_cache_bytes / 1e6:.1f} MB of KV cache"]
        if search.peak_device_bytes is not None:
            facts += [f"{search.peak_device_bytes / 1e6:.0f} MB on the GPU"]
        numbers = {name: value for name, value in search.notes.items() if isinstance(value, (int, float))}
        facts += [f"{name} {value if isinstance(value, int) else f'{value:.3g}'}" for name, value in numbers.items()]
        console.print(f"[dim]{escape_markup(', '.join(facts))}[/]", soft_wrap=not console.is_terminal)
    if record.fusion.state != "none" and record.readers:
        console.print(f"[dim]second stream {escape_markup(str(record.fusion))}[/]", soft_wrap=not console.is_terminal)
    if trace:
        print_table(largest_changes(record.steps, tokenizer), stderr=True)
