"""A plugin whose author forgot to declare a dependency."""

import a_library_that_is_not_installed

import logitkit


@logitkit.hookimpl
def logitkit_specs() -> list[logitkit.Spec]:
    """Offer something, were it ever reached."""
    return [a_library_that_is_not_installed.spec()]
