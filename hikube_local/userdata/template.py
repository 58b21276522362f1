"""A jinja template as cloud-init renders it (templater.py), with stand-ins for what only the machine knows; pure."""

from __future__ import annotations

import re

LONGEST = 1 << 20  # characters of a template that is rendered
_LOOPS = re.compile(r"\{%[-+]?\s*(?:for|macro|call|include|import|extends)\b")


def refused(text: str) -> tuple[int, str] | None:
    """(line, why) where jinja refuses the template, in which case all of it is lost; None where it does not.

    The first line (`## template: jinja`) is none of jinja's.
    """
    from jinja2 import TemplateSyntaxError

    try:
        _environment().parse(text.partition("\n")[2])
    except TemplateSyntaxError as e:
        return e.lineno + 1, str(e.message or "it is no jinja")[:200]
    except (RecursionError, ValueError, OverflowError) as e:
        return 1, str(e)[:200]
    return None


def rendered(text: str) -> str | None:
    """What it comes to with a word for each value that only the machine knows; None where it is not tried.

    Templates with more than one loop are not: how long they run is nobody's to say.
    """
    if len(text) > LONGEST or len(_LOOPS.findall(text)) > 1:
        return None
    try:
        return _environment().from_string(text.partition("\n")[2]).render()
    except Exception:  # whatever a stranger's template does
        return None


def _environment():
    from jinja2 import ChainableUndefined
    from jinja2.sandbox import SandboxedEnvironment

    class Word(ChainableUndefined):
        """Of any type, and never empty: a plain word."""

        def __str__(self) -> str:
            return "value"

        def __call__(self, *args: object, **kwargs: object) -> Word:
            return self

    return SandboxedEnvironment(undefined=Word, trim_blocks=True, extensions=["jinja2.ext.do"])
