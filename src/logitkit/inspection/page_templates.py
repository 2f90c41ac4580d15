"""The templates of pages, read from the packages that own them."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def page_templates(*packages: str) -> Environment:
    """Return an environment for templates of HTML pages: values are escaped, and an unknown name is an error.

    Args:
        packages: those whose folder ``templates`` is searched, in this order.

    >>> page_templates("logitkit.inspection").from_string("{{ text }}").render(text="<b>")
    '&lt;b&gt;'
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
