"""`ui`: the page of this state root in a browser."""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from urllib.parse import quote

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import backend_option, common, complete_machine, option
from hikube_local.errors import ExitCode, HikubeError
from hikube_local.kube.lock import PORT
from hikube_local.language import tr


@click.command("ui")
@click.argument("name", default="", metavar="[NAME]", shell_complete=complete_machine)
@option(
    "--print", "printed", is_flag=True, help="Print the link and open nothing: for ssh -L, and hosts without a screen."
)
@option("--tls", is_flag=True, help="At serve's TLS port; a browser warns of its certificate.")
@option("--port", type=click.IntRange(1, 65535), default=PORT, help=f"Port of `serve`, if none runs yet ({PORT}).")
@backend_option()
@common
def ui(app: App, name: str, printed: bool, tls: bool, port: int, backend: str | None) -> int:
    """Show the machines in a browser: boot, console, screen, usage, events.

    It uses the `serve` that runs, or runs one until Ctrl-C; machines keep running. The link can be used once, within 60 s.
    """
    from hikube_local.cli import serve
    from hikube_local.kube import lock

    serve.library()
    to = ""
    if name:
        obj = app.machine(name)
        to = f"&to={quote(f'/machines/{obj.namespace}/{obj.name}')}"
    if (there := lock.running(app.layout)) is not None:
        _show(_asked(app, there, tls) + to, printed)
        return ExitCode.DONE
    from hikube_local.kube.server import Options, Server

    server = Server(app.session, serve.credentials(app), Options(port=port, apps=serve.how(app, backend, False)))

    async def ready() -> None:
        print(tr(f"serving https://127.0.0.1:{port} for {app.layout.state}"), file=sys.stderr)
        print(tr("stop it: Ctrl-C (machines keep running)"), file=sys.stderr, flush=True)
        # A browser may take its time to answer; whoever looks is served meanwhile.
        link = await server.link(tls) + to
        asyncio.get_running_loop().run_in_executor(None, _show, link, printed)

    return serve.run(app, server, port, ready)


def _asked(app: App, port: int, tls: bool) -> str:
    """A link from the endpoint that runs."""
    import requests

    from hikube_local.cli.serve import credentials

    own = credentials(app)
    try:
        with requests.Session() as http:
            http.trust_env = False
            http.verify = str(own.ca)
            http.headers["Authorization"] = f"Bearer {own.token}"
            answer = http.post(f"https://127.0.0.1:{port}/hikube/v1/page", json={"tls": tls}, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["url"])
    except (requests.RequestException, ValueError, KeyError) as e:
        fix = "stop it (Ctrl-C where it runs) and try again: it may be of another version"
        raise HikubeError("HK609", f"serve on port {port} gives no link: {e}", fix=fix) from None


def _show(link: str, printed: bool) -> None:
    """In a browser where there is a screen; else it is printed."""
    screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"
    if not printed and screen and webbrowser.open(link):
        print(tr("opened in your browser; if nothing shows: hikube-local ui --print"), file=sys.stderr, flush=True)
        return
    print(tr("open this link within 60 s; it can be used once:"), file=sys.stderr, flush=True)
    print(link, flush=True)
