"""The command line's frame: verbs are loaded when they are called, errors become words and exit codes."""

from __future__ import annotations

import importlib
import io
import os
import re
import sys
import threading
from collections.abc import Iterable, Sequence

import click

from hikube_local import __version__, language
from hikube_local.cli.verbs import ALIASES, EXAMPLES, MEANT, SECTIONS, WORDS, Interrupted
from hikube_local.errors import ExitCode, unexpected
from hikube_local.language import tr

# Global flags that may stand before the verb, and whether they take a value.
GLOBAL = {
    "-n": True,
    "--namespace": True,
    "-A": False,
    "--all-namespaces": False,
    "-o": True,
    "--output": True,
    "--config": True,
    "--context": True,
    "--host": True,
    "--color": True,
    "--progress": True,
    "--lang": True,
    "--debug": False,
    "--timings": False,
    "-q": False,
    "--quiet": False,
    "--no-differences": False,
    "-l": True,
    "--selector": True,
}


class Lazy(click.Group):
    """A group whose commands are imported when they are needed; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(WORDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        verb = WORDS.get(name)
        if verb is None:
            return None
        module = importlib.import_module(f"hikube_local.cli.{verb.module}")
        own = name.replace("-", "_")
        command = getattr(module, own if hasattr(module, own) else verb.name.replace("-", "_"))
        if (shown := EXAMPLES.get(name, () if name in ALIASES else verb.examples)) and not command.epilog:
            command.epilog = "\b\nExamples:\n" + "\n".join(f"  hikube-local {line}" for line in shown)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, verbs in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(verb.name, verb.help) for verb in verbs if not verb.hidden])
        also = ", ".join(f"{alias} ({verb.name})" for alias, verb in ALIASES.items())
        formatter.write_paragraph()
        formatter.write_text(f"Also: {also}. `hikube-local help COMMAND` shows its options and examples.")

    def resolve_command(self, ctx: click.Context, args: list[str]):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as e:
            from hikube_local.text import nearest

            meant = MEANT.get(args[0].lower())
            safe = [word for word, verb in WORDS.items() if not verb.removes and not verb.hidden]
            near = meant.name if meant else nearest(args[0], safe)
            more = f"Did you mean {near!r}?" if near else "`hikube-local help` lists the commands."
            raise click.UsageError(f"{tr(e.message)} {tr(more)}", e.ctx) from None


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="hikube-local")
def cli() -> None:
    """Run Hikube's virtual machine manifests on this machine, with QEMU and libvirt.

    Start with: hikube-local doctor, then hikube-local up FILE. Have manifests already? hikube-local validate FOLDER.
    """


class Translated(click.HelpFormatter):
    """Help in the language of the process; what a command is called and takes stays as it is typed."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, tr("Usage:") + " " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        super().write_heading(tr(heading))

    def write_text(self, text: str) -> None:
        """A paragraph that is to stay as it is (click's \\b) holds examples."""
        parts = [part if part.startswith("\b") else tr(" ".join(part.split())) for part in text.split("\n\n")]
        super().write_text("\n\n".join(parts).replace("Examples:", tr("Examples:")))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        def told(words: str) -> str:
            about, gap, extra = words.partition("  [")
            return tr(about) + gap + extra

        super().write_dl([(first, told(second)) for first, second in rows], col_max, col_spacing)


def _after(option: str, words: Sequence[str]) -> str:
    """The value of an option, before the words are taken apart; empty where it is not given."""
    for at, word in enumerate(words):
        if word == option:
            return words[at + 1] if at + 1 < len(words) else ""
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""


def reorder(argv: list[str]) -> list[str]:
    """Global flags before the verb, moved behind it (`hikube-local -n dev get vm`)."""
    lead: list[str] = []
    at = 0
    while at < len(argv) and argv[at].startswith("-") and argv[at] not in ("--", "-"):
        word = argv[at]
        flag = word.split("=", 1)[0] if word.startswith("--") else word[:2]
        if flag not in GLOBAL:
            break
        lead.append(word)
        at += 1
        if GLOBAL[flag] and word == flag and at < len(argv):
            lead.append(argv[at])
            at += 1
    rest = argv[at:]
    verb = WORDS.get(rest[0]) if rest else None
    if verb is not None and verb.raw:
        return rest
    depth = 2 if verb is not None and verb.group else 1
    return [*rest[:depth], *lead, *rest[depth:]]


def run(argv: list[str]) -> int:
    """Run the program and hand back its exit code."""
    if not argv:
        argv = ["--help"]
    own = argv[: argv.index("--")] if "--" in argv else argv  # what follows is somebody else's
    debug = "--debug" in own or os.environ.get("HIKUBE_LOCAL_DEBUG", "").lower() not in ("", "0", "false", "no")
    if debug:
        from hikube_local import log

        log.to_stderr()
    if timed := "--timings" in own:
        from hikube_local import timings

        imported = timings.since_start()
        timings.begin()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        defaults = _defaults(argv)
        kept = next(iter(defaults.values()), {}).get("lang", "")
        language.use(_after("--lang", own) or os.environ.get("HIKUBE_LOCAL_LANG", "") or str(kept))
        if language.language() != "en":
            click.Context.formatter_class = Translated
        ordered = reorder(argv)
        code = cli.main(
            ordered, prog_name="hikube-local", standalone_mode=False, default_map=defaults, obj=tuple(ordered)
        )
        sys.stdout.flush()
        return int(code) if isinstance(code, int) else ExitCode.DONE
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        print(_not_understood(e), file=sys.stderr)
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        if words := _interrupted(reorder(argv)):
            print(tr(words), file=sys.stderr)
        if threading.active_count() > 1:
            os._exit(ExitCode.INTERRUPTED)  # what is still at work ends as by kill -9, which heals
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return ExitCode.FAILED
    except Exception as e:
        if debug:
            raise
        from hikube_local.text import sanitize

        error = unexpected(e)
        print(sanitize(error.render()), file=sys.stderr)
        if "--stdio" in own:
            from hikube_local import mux

            mux.tell(sanitize(error.render()))
        return int(error.exit_code)
    finally:
        if timed:
            timings.show(imported, sys.stderr)


def _not_understood(error: click.ClickException) -> str:
    """click's own errors, in the language of the process; the usage is so already."""
    shown = io.StringIO()
    error.show(shown)
    lines = shown.getvalue().splitlines()
    return "\n".join(_told(line) if line.startswith(("Error: ", "Try ")) else line for line in lines)


def _told(line: str) -> str:
    """Two sentences where it proposes something: each is a text of its own."""
    first, *rest = re.split(r" (?=\(?Did you mean )", line)
    return " ".join([tr(first), *map(tr, rest)])


def _interrupted(argv: list[str]) -> str:
    """What an interrupt left, in the words of the command that was interrupted."""
    verb = WORDS.get(argv[0]) if argv else None
    if verb is None or verb.interrupted is Interrupted.STOPS:
        if verb is not None and verb.name == "test" and "--keep" not in argv:
            return "interrupted: the machines are removed"
        return "interrupted: run it again to continue" if argv[:2] == ["images", "pull"] else "interrupted"
    if verb.interrupted is Interrupted.ENDS:
        return ""
    return f"interrupted: run the same command again to continue: hikube-local {argv[0]}"


def _defaults(argv: list[str]) -> dict[str, dict]:
    """`options:` of the configuration file as defaults of every verb (flag beats variable beats file)."""
    from pathlib import Path

    from hikube_local.paths import layout

    named = _after("--config", argv) or os.environ.get("HIKUBE_LOCAL_CONFIG")
    path = Path(named) if named else layout().config
    if not path.exists():
        return {}
    from hikube_local.config import read

    options = {k.replace("-", "_"): v for k, v in read(path).options.items() if k != "adopt"}  # typed each time
    # `version` is also a flag of the program itself.
    own = [word for word, verb in WORDS.items() if not verb.group and word not in ("version", "help")]
    return dict.fromkeys(own, options) if options else {}
