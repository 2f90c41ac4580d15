"""Errors of the command line itself, such as an option out of its range, in the wording of all other errors.

typer words them in boxes of several lines, without the value that was given. Its classes of errors and its messages
differ between versions, so they are read here and nowhere else.
"""

from __future__ import annotations

import re
from typing import Any, cast

import typer

# Of click, or of the copy of click in newer typer; both show a help text by the second one.
UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
HELP_IS_SHOWN = "NoArgsIsHelpError"
NOT_ONE_OF = re.compile(r"(?P<value>'.*?') is not (?P<rule>one of .*)")
NOT_VALID = re.compile(r"(?:(?P<value>.+?) is not|Input should be) (?P<rule>an? valid [\w ]+)")
MISSPELT = re.compile(r"No such (?P<kind>command|option):? '?(?P<name>[^\s']*)'?\.?(?P<more>.*)", re.DOTALL)


def usage_error_text(error: Any, command: str = "") -> str:
    """Return an error as one line: *command: parameter must be rule, got value; way out*.

    Args:
        error: a `UsageError` other than a help text.
        command: the command, for an error that does not know its own.

    >>> usage_error_text(UsageError("Got unexpected extra argument (b)"))
    'logitkit: got unexpected extra argument (b); see logitkit --help'
    >>> usage_error_text(UsageError("No such command 'compair'. Did you mean 'compare'?"))
    "no command named 'compair'; did you mean 'compare'?"
    """
    names = _names(error.ctx) or command.split()
    owner, way_out = " ".join(names) or "logitkit", f"see {' '.join(['logitkit', *names, '--help'])}"
    message = " ".join(str(error.message).split()).removeprefix("Value error, ")
    if misspelt := MISSPELT.fullmatch(message):
        return _misspelt(misspelt, getattr(error, "possibilities", None), owner, way_out)
    parameter = getattr(error, "param", None)
    if parameter is None:
        return f"{owner}: {message[:1].lower()}{message[1:].rstrip('.')}; {way_out}"
    named = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.name.upper()
    if "Missing" in type(error).__name__:
        return f"{owner}: {named} must be given, got nothing; {way_out}"
    rule, value = _rule_and_value(error, parameter, message)
    return f"{owner}: {named} must be {rule}, got {value}; {way_out}" if rule else f"{owner}: {named}: {message}"


def _names(context: Any) -> list[str]:
    """Return the names of the command and of the groups above it, without the program's name."""
    names: list[str] = []
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    return names


def _misspelt(found: re.Match[str], possible: Any, owner: str, way_out: str) -> str:
    """Return the error of a command or an option that does not exist."""
    near = re.findall(r"'([^']+)'", found["more"]) or sorted(possible or ())
    where = "" if found["kind"] == "command" else f"{owner}: "
    ending = f"did you mean {' or '.join(map(repr, near))}?" if near else way_out
    return f"{where}no {found['kind']} named {found['name']!r}; {ending}"


def _rule_and_value(error: Any, parameter: Any, message: str) -> tuple[str, str]:
    """Return the rule that a value breaks, and the value; an empty rule where the message has another form."""
    given: list[Any] = getattr(error.__cause__, "errors", list)()  # of pydantic, in newer typer
    value = repr(given[0]["input"]) if given else ""
    if one_of := NOT_ONE_OF.match(message):
        return one_of["rule"].rstrip("."), one_of["value"]
    kind = getattr(parameter, "type", None)
    bounds = [getattr(parameter, name, getattr(kind, name, None)) for name in ("min", "max")]
    limits = " and ".join(
        f"{sign} {bound}" for sign, bound in zip((">=", "<="), bounds, strict=True) if bound is not None
    )
    if valid := NOT_VALID.match(message):
        rule = valid["rule"].replace("a valid integer", "an integer").replace("valid ", "")
        return f"{rule} {limits}".strip(), value or valid["value"]
    if limits:
        return f"a number {limits}", value or message.split(" is not ")[0]
    return "", value
