"""What every command shares: settings, the session, and where output goes. Heavy things are made when first used."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hikube_local.errors import HikubeError, NotFound, UsageError
from hikube_local.paths import Layout, layout

if TYPE_CHECKING:
    from hikube_local.api.objects import Object
    from hikube_local.config import Config
    from hikube_local.engine.reconcile import Reconciler
    from hikube_local.engine.session import Session, Store
    from hikube_local.events import Emit
    from hikube_local.images.cache import Cache
    from hikube_local.images.settings import Settings
    from hikube_local.plan.steps import RunOptions


def option(*names: str, **settings: Any) -> Callable:
    """A click option that may also be given as HIKUBE_LOCAL_<OPTION>."""
    long = next(n for n in names if n.startswith("--")).split("/")[0]
    settings.setdefault("envvar", "HIKUBE_LOCAL_" + long[2:].upper().replace("-", "_"))
    return click.option(*names, **settings)


def output_option(*formats: str) -> Callable:
    """-o with the formats that this command knows; `jsonpath=…` stands for what begins so."""

    def check(context: click.Context, parameter: click.Parameter, value: str) -> str:
        begins = tuple(f.removesuffix("…") for f in formats if f.endswith("…"))
        if value and value not in formats and not (begins and value.startswith(begins)):
            raise UsageError("HK810", f"unknown output format {value!r}", fix=f"one of {', '.join(formats)}")
        return value

    words = f"One of: {', '.join(formats)}."
    return option("-o", "--output", default="", metavar="FORMAT", callback=check, help=words)


def validate_option() -> Callable:
    """--validate, as kubectl has it."""
    words = {"true": "strict", "false": "ignore"}
    return option(
        "--validate",
        "unknown",
        type=click.Choice(["strict", "true", "warn", "ignore", "false"]),
        default="strict",
        envvar="HIKUBE_LOCAL_VALIDATE",
        callback=lambda context, parameter, value: words.get(value, value),
        help="Unknown keys: strict (an error), warn, ignore (as Hikube itself does).",
    )


def refresh_option() -> Callable:
    """Whether a look brings the ways in of WholeIP machines along first."""
    help = "Bring the ways in of WholeIP machines to what their guests do now, first."
    return option("--refresh/--no-refresh", default=True, help=help)


def backend_option() -> Callable:
    """What carries the objects; the names are looked up when one is given, since the rest of the program is slow to load."""

    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            from hikube_local.engine.session import backend_names

            if value not in (known := backend_names()):
                raise click.BadParameter(f"{value!r} is not one of {', '.join(known)}", context, parameter)
        return value

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from hikube_local.engine.session import backend_names

        return [name for name in backend_names() if name.startswith(incomplete)]

    help = "What carries the objects: qemu (real machines) or simulator."
    return option("--backend", default=None, callback=check, shell_complete=complete, help=help)


def files_option(help: str = "A file, a folder, a URL or -.") -> Callable:
    """kubectl's -f: manifests, as often as wanted."""
    return option("-f", "--filename", multiple=True, help=help)


def dry_run_option() -> Callable:
    """kubectl's --dry-run[=client|server|none]; what is given here is the same for client and server."""
    return option(
        "--dry-run",
        is_flag=False,
        flag_value="client",
        default="none",
        type=click.Choice(["none", "client", "server", "true", "false"]),
        callback=lambda context, parameter, value: value not in ("none", "false"),
        help="Show what would be done, and do nothing (also =client, =server).",
    )


def ignored(*names: str, flags: tuple[str, ...] = ()) -> Callable:
    """Options of kubectl's or virtctl's that fingers type and that mean nothing on one host."""

    def decorate(command: Callable) -> Callable:
        for name in names:
            command = click.option(name, default=None, hidden=True)(command)
        for name in flags:
            command = click.option(name, is_flag=True, hidden=True)(command)
        return command

    return decorate


def common(command: Callable) -> Callable:
    """The options that every command takes; the command gets an App as its first argument."""

    @option("-n", "--namespace", default=None, help="Kubernetes namespace.")
    @option("--config", default=None, type=click.Path(path_type=Path), help="Configuration file.")
    @option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour in the output.")
    @option(
        "--progress",
        type=click.Choice(["auto", "tty", "plain", "json", "quiet"]),
        default="auto",
        help="How progress is shown: live lines (tty), a line each (plain), JSON, or not (quiet).",
    )
    @option("-q", "--quiet", is_flag=True, default=False, help="Errors and warnings only.")
    @option("--no-differences", is_flag=True, default=False, help="Do not tell how this host differs from Hikube.")
    @option(
        "--debug",
        is_flag=True,
        default=False,
        help="Show tracebacks, each program that is run, each change in libvirt and each step.",
    )
    @functools.wraps(command)
    def wrapped(namespace, config, color, progress, quiet, no_differences, debug, **rest):
        return command(App(namespace, config, color, progress, debug, quiet, no_differences), **rest)

    return wrapped


def seconds(context: click.Context, parameter: click.Parameter, value: Any) -> float | None:
    """A duration such as 5m as seconds."""
    from hikube_local.text import duration

    if value is None or isinstance(value, float):
        return value
    try:
        return duration(str(value))
    except ValueError as e:
        raise click.BadParameter(str(e)) from None


def annotate(found: Iterable[Any]) -> None:
    """In GitHub Actions each finding stands at its line too; on stderr, so that a result on stdout stays one."""
    from hikube_local.text import in_actions, workflow_command

    if in_actions():
        for d in found:
            if str(d.severity) in ("error", "warning"):
                told = workflow_command(str(d.severity), d.place.file, d.place.line, f"{d.message} [{d.code}]")
                print(told, file=sys.stderr)


def complete_machine(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of machines for the shell: read from the store, nothing is parsed."""
    from hikube_local.engine.names import of_kind

    namespace = context.params.get("namespace") or os.environ.get("HIKUBE_LOCAL_NAMESPACE") or "default"
    user, at, part = incomplete.rpartition("@")
    return [f"{user}{at}{n}" for n in of_kind(layout(), "VMInstance", namespace) if n.startswith(part)]


def complete_object(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Kinds, then names of the kind, also as KIND/NAME."""
    from hikube_local.api.objects import KIND_WORDS, PLURAL
    from hikube_local.engine.names import of_kind

    namespace = context.params.get("namespace") or os.environ.get("HIKUBE_LOCAL_NAMESPACE") or "default"
    before = context.params.get(parameter.name or "") or ()
    head, slash, part = incomplete.rpartition("/")
    word = head if slash else (before[0] if before else "")
    kind = KIND_WORDS.get(word.lower())
    if kind is None:
        return [p for p in PLURAL.values() if p.startswith(incomplete)]
    return [f"{head}{slash}{n}" for n in of_kind(layout(), kind, namespace) if n.startswith(part)]


class App:
    """One run of the program."""

    def __init__(
        self,
        namespace: str | None = None,
        config: Path | None = None,
        color: str = "auto",
        progress: str = "auto",
        debug: bool = False,
        quiet: bool = False,
        no_differences: bool = False,
    ) -> None:
        context = click.get_current_context(silent=True)
        origin = context.get_parameter_source("namespace") if context else None
        from_environment = origin is click.core.ParameterSource.ENVIRONMENT
        self.flag_namespace = None if from_environment or not namespace else namespace
        self._environment_namespace = namespace if from_environment else None
        self._config_path, self._color, self.debug = config, color, debug
        self._progress = "quiet" if quiet else progress
        self.quiet = self._progress == "quiet"
        self.no_differences = no_differences or self.quiet

    @cached_property
    def layout(self) -> Layout:
        return layout()

    @cached_property
    def config(self) -> Config:
        from hikube_local.config import read

        return read(self._config_path or self.layout.config, must_exist=self._config_path is not None)

    @property
    def default_namespace(self) -> str:
        """Where an object goes that names no namespace, when -n is not given."""
        return self._environment_namespace or self.config.namespace

    @property
    def namespace(self) -> str:
        return self.flag_namespace or self.default_namespace

    @cached_property
    def session(self) -> Session:
        from hikube_local.engine.session import Session

        return Session(self.layout, self.config)

    @property
    def store(self) -> Store:
        return self.session.store

    @property
    def cache(self) -> Cache:
        """The images that are kept."""
        return self.session.cache

    @property
    def image_settings(self) -> Settings:
        """What the configuration says about images."""
        return self.session.image_settings

    def reconciler(self, emit: Emit, options: RunOptions) -> Reconciler:
        return self.session.reconciler(emit, options)

    def color(self, stream: Any = None) -> bool:
        """Whether escapes may be written to this stream (default: stdout)."""
        stream = stream or sys.stdout
        if self._color != "auto":
            return self._color == "always"
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return False
        return stream.isatty()

    @property
    def progress_mode(self) -> str:
        """How progress is shown: tty, plain, json or quiet."""
        if self._progress != "auto":
            return self._progress
        return "tty" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"

    def refresh(self, objects: Iterable[Object], wanted: bool = True) -> None:
        """Before a look: the ways in of WholeIP machines follow their guests, since no process of ours stays to watch."""
        from hikube_local.api.objects import INSTANCE

        for obj in objects if wanted else ():
            if obj.kind == INSTANCE and obj.instance.whole_ip:
                self.session.statuses.refresh(obj)

    def in_namespace(self, obj: Object) -> str:
        """The words that name the object's namespace to the next command, where it is not the default one."""
        return "" if obj.namespace == self.default_namespace else f" -n {obj.namespace}"

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """A stored object by its name, or HK804 with the nearest name; `namespace`: one that the name itself says."""
        from hikube_local.api.objects import Key
        from hikube_local.text import nearest

        if namespace and self.flag_namespace and namespace != self.flag_namespace:
            what = f"{name} is named in namespace {namespace}, -n says {self.flag_namespace}"
            raise UsageError("HK406", what, fix="leave one of them out")
        where = namespace or self.namespace
        found = self.store.get(Key(kind, where, name))
        if found is None:
            near = nearest(name, self.store.names(kind, where))
            elsewhere = [o.namespace for o in self.store.objects(kind) if o.name == name]
            fix = f"did you mean {near}?" if near else "hikube-local get -A lists what there is"
            if elsewhere:
                fix = f"it is in namespace {elsewhere[0]}: add -n {elsewhere[0]}"
            raise NotFound("HK804", f"there is no {kind.lower()} {name!r} in namespace {where}", fix=fix)
        return found

    def machine(self, word: str) -> Object:
        """The VMInstance that the user named: web, vm/web, vm-instance-web, virtctl's vmi/web/NAMESPACE and web.NAMESPACE,
        each with USER@ before it."""
        from hikube_local.api.objects import INSTANCE, KIND_WORDS

        target = word.rpartition("@")[2]
        kind, slash, rest = target.partition("/")
        # A kind may hold dots, a name cannot.
        prefixed = slash and kind.lower() in KIND_WORDS
        name, _, namespace = (rest if prefixed else target).partition("/")
        if not namespace:
            name, _, namespace = name.partition(".")
        known, name = reference(f"{kind}/{name}" if prefixed else name, INSTANCE)
        if known != INSTANCE:
            raise UsageError("HK810", f"{word} is not a machine", fix="name a VMInstance")
        return self.find(INSTANCE, name, namespace.removesuffix(".hikube") or None)

    def machines(self, names: tuple[str, ...], everything: bool = False, all_namespaces: bool = False) -> list[Object]:
        """The machines named, also as `vm web`; all of the namespace (or of every one) with --all."""
        from hikube_local.api.objects import INSTANCE, KIND_WORDS

        if names and names[0].lower() in KIND_WORDS and (len(names) > 1 or everything):
            names = names[1:]  # alone it is the name of a machine
        if everything:
            if names:
                raise UsageError("HK810", "names and --all exclude each other", fix="leave one of them out")
            return self.store.objects(INSTANCE, None if all_namespaces else self.namespace)
        if not names:
            raise UsageError("HK810", "no machine is named", fix="write its name, or --all")
        return [self.machine(w) for w in names]


def manifests(files: tuple[str, ...], filename: tuple[str, ...], offline: bool = False) -> tuple[str, ...]:
    """The manifests that a command names, as arguments or with -f: at least one; those at a URL are read at once."""
    if not (*files, *filename):
        raise UsageError("HK810", "no manifest is named", fix="name a file, a folder or - for standard input")
    return urls((*files, *filename), offline)


def urls(words: tuple[str, ...], offline: bool = False) -> tuple[str, ...]:
    """`words` with what was read at those that are URLs."""
    return tuple(_fetched(w, offline) if w.startswith(("http://", "https://")) else w for w in words)


def _fetched(url: str, offline: bool) -> str:
    """A manifest at a URL that was typed here: read whole, within the bounds of any other."""
    from hikube_local.images import http
    from hikube_local.manifests import load
    from hikube_local.source import nodes
    from hikube_local.text import mask_url

    if offline:
        raise UsageError("HK810", f"--offline, but the manifest {mask_url(url)} is elsewhere", fix="download it before")
    content = bytearray()
    try:
        with http.get(url, {}) as answer:
            for block in answer.iter_content(1 << 16):
                content += block
                if len(content) > nodes.MAX_BYTES:
                    break  # the reader says that it is too long
    except (http.Again, HikubeError) as e:
        error = e.error if isinstance(e, http.Again) else e
        raise UsageError(
            "HK101", error.what, why=error.why, fix="open the URL in a browser; download it before"
        ) from None
    return load.Fetched.of(mask_url(url), bytes(content))


def reference(word: str, default_kind: str | None = None) -> tuple[str, str]:
    """`vm/web`, `vminstance/web` or, with a default kind, `web` and `vm-instance-web`, as (kind, name)."""
    from hikube_local.api.names import user_names
    from hikube_local.api.objects import INSTANCE, KIND_WORDS

    head, slash, name = word.partition("/")
    if slash:
        kind = KIND_WORDS.get(head.lower())
        if kind is None:
            raise UsageError("HK810", f"unknown kind {head!r} in {word!r}", fix="write vminstance/NAME or vmdisk/NAME")
    elif default_kind is None:
        raise UsageError("HK810", f"{word!r} names no kind", fix=f"write vminstance/{word} or vmdisk/{word}")
    else:
        kind, name = default_kind, word
    return kind, user_names(name) if kind == INSTANCE else name.removeprefix("vm-disk-")


def references(words: tuple[str, ...], default_kind: str | None = None) -> list[tuple[str, str | None]]:
    """kubectl's forms: `vm`, `vm web db`, `vm/web vmdisk/sys`, `vm,vmdisk`; name None means all of the kind."""
    from hikube_local.api.objects import KIND_WORDS

    if not words:
        return []
    kinds = [KIND_WORDS.get(k.lower()) for k in words[0].split(",")]
    if "/" not in words[0] and all(kinds):
        names = [reference(w, kinds[0]) for w in words[1:]]
        return list(names) or [(k, None) for k in kinds if k]
    if "/" not in words[0] and default_kind is None and words[0] != "all":
        known = "vminstances (vm, vmi) and vmdisks (dv)"
        raise UsageError("HK810", f"unknown kind {words[0]!r}", fix=f"the kinds are {known}")
    if words == ("all",):
        from hikube_local.api.objects import DISK, INSTANCE

        return [(INSTANCE, None), (DISK, None)]
    return [reference(w, default_kind) for w in words]


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; without one the answer must have been given with --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("HK809", f"{question} A confirmation is needed.", fix="add --yes")
    if not click.confirm(question, err=True):
        raise HikubeError("HK809", "nothing was done")
