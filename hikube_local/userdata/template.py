"""A jinja template as cloud-init renders it (templater.py), with stand-ins for what only the machine knows.

A stranger's template is rendered in a process of its own, whose processor time and memory are bounded.
"""

from __future__ import annotations

import re
import sys
import tempfile

from hikube_local.errors import HikubeError
from hikube_local.run import Limits, run

LONGEST = 1 << 20  # characters of a template that is rendered
LONGEST_RESULT = 4 << 20  # and of what it comes to
_LOOPS = re.compile(r"\{%[-+]?\s*(?:for|macro|call|include|import|extends)\b")


def refused(text: str) -> tuple[int, str] | None:
    """(line, why) where jinja refuses the template, in which case all of it is lost; None where it does not.

    The first line (`## template: jinja`) is none of jinja's.
    """
    from jinja2 import TemplateSyntaxError

    try:
        _environment().parse(text.partition("\n")[2])
    except TemplateSyntaxError as e:
        return e.lineno + 1, str(e.message or "not valid jinja")[:200]
    except (RecursionError, ValueError, OverflowError) as e:
        return 1, str(e)[:200]
    return None


def rendered(text: str) -> str | None:
    """What it comes to with a word for each value that only the machine knows; None where it is not tried.

    Templates with more than one loop are not, nor is one that takes too long or too much memory.
    """
    if len(text) > LONGEST or len(_LOOPS.findall(text)) > 1:
        return None
    with tempfile.NamedTemporaryFile() as file:
        file.write(text.encode("utf-8", "replace"))
        file.flush()
        argv = [sys.executable, "-P", "-m", "hikube_local.userdata.template", file.name]
        try:
            done = run(argv, limits=Limits(cpu=5, memory=512 << 20, file_size=0), check=False, timeout=60)
        except HikubeError:
            return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _render(path: str) -> int:
    """The bounded process of `rendered`: jinja's sandbox bounds neither numbers nor texts."""
    with open(path, encoding="utf-8", newline="") as f:
        text = f.read()
    out, size = [], 0
    for block in _environment().from_string(text.partition("\n")[2]).generate():
        out.append(block)
        size += len(block)
        if size > LONGEST_RESULT:
            return 1
    sys.stdout.buffer.write("".join(out).encode("utf-8", "replace"))
    return 0


def _environment():
    from jinja2 import ChainableUndefined
    from jinja2.sandbox import SandboxedEnvironment

    class Word(ChainableUndefined):
        """Of any type, and never empty: a plain word."""

        def __str__(self) -> str:
            return "value"

        def __call__(self, *args: object, **kwargs: object) -> Word:  # type: ignore[override]
            return self

    return SandboxedEnvironment(undefined=Word, trim_blocks=True, extensions=["jinja2.ext.do"])


if __name__ == "__main__":
    sys.exit(_render(sys.argv[1]))
