"""What every command shares: settings, the session, and where output goes. Heavy things are made when first used."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hikube_local.cli.references import reference
from hikube_local.errors import HikubeError, NotFound, UsageError
from hikube_local.language import tr
from hikube_local.paths import Layout, layout

if TYPE_CHECKING:
    from hikube_local.api.objects import Object
    from hikube_local.config import Config
    from hikube_local.contexts import Context
    from hikube_local.engine.reconcile import Reconciler
    from hikube_local.engine.session import Session, Store
    from hikube_local.events import Emit
    from hikube_local.images.cache import Cache
    from hikube_local.images.settings import Settings
    from hikube_local.plan.steps import RunOptions


def annotate(found: Iterable[Any]) -> None:
    """In GitHub Actions each finding stands at its line too; on stderr, so that a result on stdout stays one."""
    from hikube_local.text import in_actions, workflow_command

    if in_actions():
        for d in found:
            if str(d.severity) in ("error", "warning"):
                told = workflow_command(str(d.severity), d.place.file, d.place.line, f"{tr(d.message)} [{d.code}]")
                print(told, file=sys.stderr)


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
        timings: bool = False,
        context: str | None = None,
        host: str | None = None,
        adopt: bool = False,
    ) -> None:
        command = click.get_current_context(silent=True)
        origin = command.get_parameter_source("namespace") if command else None
        from_environment = origin is click.core.ParameterSource.ENVIRONMENT
        self.flag_namespace = None if from_environment or not namespace else namespace
        self._environment_namespace = namespace if from_environment else None
        self._config_path, self._color, self.debug, self.timings = config, color, debug, timings
        self._progress = "quiet" if quiet else progress
        self.quiet = self._progress == "quiet"
        self._no_differences = no_differences or self.quiet
        self._context, self._host, self._adopt = context, host, adopt

    @cached_property
    def context(self) -> Context:
        """Where this command acts: as it says itself, as the environment says, or as `context use` chose."""
        from hikube_local import contexts

        if self._host and self._said("box") and self._said("context"):
            raise UsageError("HK810", "--context and --host exclude each other", fix="choose one")
        if self._host and not self._said("context"):  # what was typed counts before what the environment says
            return contexts.of_host(self._host)
        return contexts.named(layout(), self._context or contexts.used(layout()))

    @staticmethod
    def _said(parameter: str) -> bool:
        """Whether it was typed."""
        command = click.get_current_context(silent=True)
        found = command.get_parameter_source(parameter) if command else None
        return found is click.core.ParameterSource.COMMANDLINE

    @property
    def no_differences(self) -> bool:
        """Of a tenant of Hikube nothing differs from Hikube."""
        return self._no_differences or self.context.kind == "kube"

    @cached_property
    def layout(self) -> Layout:
        """What is kept here of this machine's objects, or of another context."""
        return self.context.beside(layout())

    @cached_property
    def config(self) -> Config:
        from hikube_local.config import read

        return read(self._config_path or self.layout.config, must_exist=self._config_path is not None)

    @property
    def default_namespace(self) -> str:
        """Where an object goes that names no namespace, when -n is not given."""
        return self.context.namespace or self._environment_namespace or self.config.namespace

    @property
    def namespace(self) -> str:
        if self.flag_namespace:
            self._within(self.flag_namespace)
        return self.flag_namespace or self.default_namespace

    @cached_property
    def session(self) -> Session:
        if self.context.local:
            from hikube_local.engine.session import Session

            return Session(self.layout, self.config)
        from hikube_local.engine.elsewhere import Elsewhere

        return Elsewhere(self.layout, self.config, self.context, self._leads, self.say_where, self._adopt)

    @property
    def _leads(self) -> tuple[str, ...]:
        """The options that lead another command to the same place."""
        once = self.context.once
        return ("--host", f"ssh://{self.context.host}") if once else ("--context", self.context.name)

    @staticmethod
    def say_where(text: str) -> None:
        print(tr(text), file=sys.stderr)

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

    def refresh_ssh_config(self) -> None:
        """Where `ssh-config --install` was run: it follows the machines that there are."""
        if self.layout.ssh_config.exists():
            from hikube_local.cli.ssh import refresh

            refresh(self)

    def in_namespace(self, obj: Object) -> str:
        """The words that name the object's namespace to the next command, where it is not the default one."""
        where = f" {' '.join(self._leads)}" if self._host or self._context else ""
        return where + ("" if obj.namespace == self.default_namespace else f" -n {obj.namespace}")

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """A stored object by its name, or HK804 with the nearest name; `namespace`: one that the name itself says."""
        from hikube_local.api.objects import Key
        from hikube_local.text import nearest

        if namespace and self.flag_namespace and namespace != self.flag_namespace:
            what = f"{name}: namespace {namespace} does not match -n {self.flag_namespace}"
            raise UsageError("HK406", what, fix="leave one of them out")
        where = namespace or self.namespace
        self._within(where)
        found = self.store.get(Key(kind, where, name))
        if found is None:
            near = nearest(name, self.store.names(kind, where))
            elsewhere = [o.namespace for o in self.store.objects(kind) if o.name == name]
            fix = f"did you mean {near}?" if near else "hikube-local get -A lists what there is"
            if elsewhere:
                fix = f"it is in namespace {elsewhere[0]}: add -n {elsewhere[0]}"
            raise NotFound("HK804", f"there is no {kind.lower()} {name!r} in namespace {where}", fix=fix)
        return found

    def _within(self, namespace: str) -> None:
        """HK406 for another namespace than the one that a tenant's context is about."""
        pinned = self.context.namespace if self.context.kind == "kube" else ""
        if pinned and namespace != pinned:
            what = f"the context {self.context.name} is about namespace {pinned}, not {namespace}"
            raise UsageError("HK406", what, fix="leave -n out, or make a context for that namespace")

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
            raise UsageError("HK810", "no machine given", fix="give its name, or --all")
        return [self.machine(w) for w in names]


def confirm(question: str, yes: bool) -> None:
    """Ask on a terminal; without one the answer must have been given with --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("HK809", f"{question} A confirmation is needed.", fix="add --yes")
    if not click.confirm(tr(question), err=True):
        raise HikubeError("HK809", "nothing was done")
