"""Docstrings as the site takes them: roles, ``:func:`norm```, are links, and examples are blocks of code."""

import re
from functools import partial

import griffe

import jaxnorms

_ROLE = re.compile(r":(?:func|class):`(?:~?)([\w.]+)`")
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites the docstring of every object that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            linked = _ROLE.sub(partial(_link, module=obj.module.path), obj.docstring.value)
            obj.docstring.value = _EXAMPLE.sub(lambda example: f"```pycon\n{example.group()}\n```", linked)


def _link(match: re.Match, module: str) -> str:
    """A name is one of the package, one with its module, or one of the module that names it."""
    name = match.group(1)
    home = "jaxnorms" if name in jaxnorms.__all__ else module
    return f"[`{name}`][{name if name.startswith('jaxnorms.') else f'{home}.{name}'}]"
