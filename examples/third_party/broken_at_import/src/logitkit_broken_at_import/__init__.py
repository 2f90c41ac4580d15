"""A plugin that imports a library which its author did not declare as a dependency."""

import a_library_that_is_not_installed

import logitkit


@logitkit.hookimpl
def logitkit_specs() -> list[logitkit.Spec]:
    """Return one Spec; never called, because the import above fails."""
    return [a_library_that_is_not_installed.spec()]
