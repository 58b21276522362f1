"""`serve` and `kubeconfig`: the Kubernetes endpoint of this state root."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import backend_option, common, option, seconds
from hikube_local.errors import ExitCode, HikubeError, UsageError
from hikube_local.kube.lock import PORT, SOCKET
from hikube_local.kube.roles import Role
from hikube_local.language import tr

if TYPE_CHECKING:  # they need what `library` loads
    from hikube_local.kube.apps import Options as ApplyOptions
    from hikube_local.kube.credentials import Credentials
    from hikube_local.kube.server import Server

CONTEXT = "hikube-local"


def library() -> None:
    """Load what `serve` needs. aiohttp reads the host's CAs as it is loaded, which takes a tenth of a second and is for
    clients alone: they are out of its sight for that moment."""
    hidden = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(hidden, os.devnull))
    try:
        import aiohttp  # noqa: F401
        import cryptography  # noqa: F401
    except ImportError as e:
        raise HikubeError(
            "HK601",
            f"serve needs {e.name}",
            fix="install hikube-local with its extra [serve]: in a checkout, pip install -e '.[serve]'",
        ) from None
    finally:
        for name, value in hidden.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@click.command("serve")
@option("--port", type=click.IntRange(1, 65535), default=PORT, help=f"TCP port at 127.0.0.1 ({PORT}).")
@option("--socket", type=click.Path(path_type=Path), default=None, help="A Unix socket beside it, for its owner alone.")
@option(
    "--role",
    type=click.Choice([str(r) for r in Role]),
    default=str(Role.OPERATOR),
    help="What clients may do: as a tenant's users on Hikube.",
)
@option("--faithful", is_flag=True, help="Accept what Hikube accepts, and fail it later, as Hikube does.")
@option("--exit-when-idle", "idle", default=None, callback=seconds, help="Exit when idle for this long (30m).")
@option("--no-port", is_flag=True, help="Listen on no port: only on the socket in the runtime folder.")
@option("--unit", is_flag=True, help="Print a systemd user unit for `serve`, and exit.")
@backend_option()
@common
def serve(
    app: App,
    port: int,
    socket: Path | None,
    role: str,
    faithful: bool,
    idle: float | None,
    no_port: bool,
    unit: bool,
    backend: str | None,
) -> int:
    """Serve VMInstances and VMDisks to kubectl and other Kubernetes clients, until Ctrl-C; machines keep running."""
    if unit:
        from hikube_local.host.autostart import serving

        words = ["--port", str(port), "--role", role, *(["--faithful"] if faithful else [])]
        for name, value in (("--socket", socket and socket.absolute()), ("--backend", backend)):
            words += [name, str(value)] if value else []
        words += ["--exit-when-idle", f"{idle:g}s"] if idle is not None else []
        words += ["--no-port"] if no_port else []
        words += ["--no-differences"] if app.no_differences else []
        print(serving(app.layout, os.environ.get("HIKUBE_LOCAL_HOME"), words), end="")
        return ExitCode.DONE
    library()
    from hikube_local.kube.server import Options, Server

    options = Options(
        None if no_port else port, idle, Role(role), socket and socket.absolute(), how(app, backend, faithful)
    )

    async def ready() -> None:
        where = f"at {app.layout.runtime / SOCKET}" if no_port else f"https://127.0.0.1:{port}"
        print(tr(f"serving {where} for {app.layout.state}"), file=sys.stderr)
        if socket:
            print(tr(f"and at {socket}"), file=sys.stderr)
        if role != Role.OPERATOR:
            print(tr(f"clients may do what a tenant's {role} may on Hikube"), file=sys.stderr)
        print(tr('use it:  eval "$(hikube-local kubeconfig --env)"; kubectl get vminstances'), file=sys.stderr)
        print(tr("a page:  hikube-local ui"), file=sys.stderr)
        print(tr("stop it: Ctrl-C (machines keep running)"), file=sys.stderr, flush=True)

    return run(app, Server(app.session, credentials(app), options), None if no_port else port, ready)


def credentials(app: App) -> Credentials:
    """Those of this state root, made where there are none."""
    from hikube_local.kube.credentials import ensure

    return ensure(app.layout)


def how(app: App, backend: str | None, faithful: bool) -> ApplyOptions:
    """How the endpoint treats what it is sent."""
    from hikube_local.kube import apps

    return apps.Options(backend, faithful, not app.no_differences)


def run(app: App, server: Server, port: int | None, ready: Callable[[], Awaitable[None]]) -> NoReturn:
    """Serve until a signal; `ready` is called when it listens. The process ends here."""
    from hikube_local.kube import lock

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.stop)
        await server.run(ready)

    with lock.held(app.layout, port):
        try:
            asyncio.run(main())
        except OSError as e:
            fix = "stop the program that uses it, or choose another with --port or --socket"
            raise HikubeError("HK801", f"cannot listen on port {port}: {e.strerror}", fix=fix) from None
    # Work at hand, as a download, is not waited for: the next command goes on with it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ExitCode.DONE)


@click.command("kubeconfig")
@option("--port", type=click.IntRange(1, 65535), default=None, help="The port, where serve does not run yet.")
@option("--env", "env", is_flag=True, help="Write a separate file and print the export line for a shell.")
@option("--merge", is_flag=True, help="Add the context to your own kubeconfig.")
@common
def kubeconfig(app: App, port: int | None, env: bool, merge: bool) -> int:
    """Print a kubeconfig for `serve`, or write it (--env, --merge)."""
    library()
    import yaml

    from hikube_local import files
    from hikube_local.kube import lock

    if env and merge:
        raise UsageError("HK810", "--env and --merge exclude each other", fix="choose one")
    found = credentials(app)
    address = f"https://127.0.0.1:{port or lock.port(app.layout) or PORT}"
    ca = base64.b64encode(found.ca.read_bytes()).decode()
    own = _config(address, ca, found.token, app.namespace)
    if env:
        path = app.layout.serve / "kubeconfig"
        files.write(path, yaml.safe_dump(own, sort_keys=False), 0o600)
        import shlex

        print(f"export KUBECONFIG={shlex.quote(str(path))}")
        return ExitCode.DONE
    if not merge:
        print(yaml.safe_dump(own, sort_keys=False), end="")
        return ExitCode.DONE
    path = Path((os.environ.get("KUBECONFIG") or "~/.kube/config").split(":")[0]).expanduser()
    try:
        there = yaml.safe_load(path.read_text()) if path.exists() else {}
    except (OSError, ValueError, yaml.YAMLError) as e:
        raise HikubeError("HK606", f"{path} cannot be read: {e}", fix="fix it, or use --env") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, yaml.safe_dump(_merged(there if isinstance(there, dict) else {}, own), sort_keys=False), 0o600)
    print(tr(f"context {CONTEXT} is in {path}: kubectl --context {CONTEXT} get vminstances"), file=sys.stderr)
    return ExitCode.DONE


def _config(address: str, ca: str, token: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": address, "certificate-authority-data": ca}}],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": namespace}}],
        "current-context": CONTEXT,
    }


def _merged(there: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What was there, with our three entries in place of older ones; the current context stays the user's."""
    out = {"apiVersion": "v1", "kind": "Config", **there}
    for part in ("clusters", "users", "contexts"):
        rows = [r for r in there.get(part) or [] if not (isinstance(r, dict) and r.get("name") == CONTEXT)]
        out[part] = [*rows, *own[part]]
    out.setdefault("current-context", CONTEXT)
    return out
