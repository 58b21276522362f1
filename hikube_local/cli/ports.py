"""`port-forward`, `ports`, `virsh`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import click

from hikube_local import mux
from hikube_local.cli.app import App
from hikube_local.cli.options import common, complete_machine, option, output_option, refresh_option
from hikube_local.errors import ExitCode, HikubeError, UsageError
from hikube_local.language import tr


def _pair(text: str) -> tuple[int, int]:
    """kubectl's [LOCAL:]REMOTE and virtctl's tcp/[LOCAL:]REMOTE; `:REMOTE` takes a free local port (0)."""
    protocol, slash, rest = text.partition("/")
    if slash and protocol.lower() == "udp":
        raise UsageError(
            "HK810", f"{text!r}: UDP is not forwarded", fix="WholeIP opens UDP ports; ssh -w or socat carry it"
        )
    local, colon, remote = (rest if slash and protocol.lower() == "tcp" else text.removesuffix("/tcp")).rpartition(":")
    numbers = []
    for word in (remote, *([local] if local else [])):
        if not word.isascii() or not word.isdigit():
            raise UsageError("HK810", f"{word!r} is not a port", fix="write REMOTE, LOCAL:REMOTE or :REMOTE")
        if not (1 if word is remote else 0) <= int(word) <= 65535:
            raise UsageError("HK810", f"port {word} is outside 1-65535")
        numbers.append(int(word))
    return (numbers[1] if local else 0 if colon else numbers[0]), numbers[0]


@click.command("port-forward")
@option("--stdio", is_flag=True, help="Carry standard input and output (for ssh's ProxyCommand).")
@option("--login", default="", hidden=True, help="With --stdio: the user who logs in (for ssh's ProxyCommand).")
@option("--address", default="127.0.0.1", help="The local address.")
@click.argument("name", shell_complete=complete_machine)
@click.argument("ports", metavar="[LOCAL:]REMOTE...", nargs=-1, required=True)
@common
def port_forward(app: App, stdio: bool, login: str, address: str, name: str, ports: tuple[str, ...]) -> int:
    """Forward local ports to a machine until interrupted; independent of its field `external`."""
    from hikube_local.access import forward
    from hikube_local.engine.session import capabilities

    obj = app.machine(name)
    backend = app.session.require(obj, capabilities.Dials)
    pairs = [_pair(p) for p in ports]
    if stdio:
        if len(pairs) != 1:
            raise UsageError("HK810", "--stdio carries one port")
        mux.carries()
        if login:
            from hikube_local.access import ssh

            with contextlib.suppress(HikubeError, OSError):  # ssh itself says who is not let in
                ssh.log_in(app.session, obj, login, lambda text: print(tr(text), file=sys.stderr))
        return backend.carry(obj, pairs[0][1])
    with contextlib.ExitStack() as held:
        listeners: dict[socket.socket, forward.Target] = {}
        for near, far in pairs:
            s = forward.listen(address, near)
            listeners[s] = backend.within(obj, far) or held.enter_context(backend.connector(obj, far))
            print(tr(f"Forwarding from {address}:{s.getsockname()[1]} -> {far}"), flush=True)
        forward.serve(listeners, lambda text: print(tr(text), file=sys.stderr, flush=True))
    return ExitCode.DONE


@click.command("ports")
@option("-A", "--all-namespaces", is_flag=True, help="Of every namespace.")
@output_option("json")
@refresh_option()
@common
def ports(app: App, all_namespaces: bool, output: str, refresh: bool) -> int:
    """List the open ports of the machines, each with its address on this host."""
    from hikube_local.api.objects import INSTANCE
    from hikube_local.cli import tables

    statuses = app.session.statuses
    rows = []
    objects = app.store.objects(INSTANCE, None if all_namespaces else app.namespace)
    app.refresh(objects, refresh)
    for obj in objects:
        status = statuses.resource(obj)["status"]
        every = [a["address"] for a in status["addresses"] if a["type"] == "ExternalIP" and status.get("bridge")]
        access = status["access"] or [
            {"port": "*", "protocol": p, "address": ip, "hostPort": "*"} for ip in every for p in ("TCP", "UDP", "ICMP")
        ]
        rows += [{"namespace": obj.namespace, "name": obj.name, **a} for a in access]
    if not rows and not output:
        print(tr("No ports are open."), file=sys.stderr)
        return ExitCode.DONE
    cells = [
        [r["namespace"], r["name"], f"{r['port']}/{r['protocol']}", f"{r['address']}:{r['hostPort']}"] for r in rows
    ]
    print(tables.show(rows, output, lambda: tables.table(["NAMESPACE", "NAME", "PORT", "HERE"], cells)))
    return ExitCode.DONE


@click.command(
    "virsh",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def virsh(words: tuple[str, ...]) -> int:
    """virsh, connected to the libvirt that runs the machines."""
    from hikube_local.engine.session import capabilities
    from hikube_local.run import find

    app = App()
    uri = next((uri for b in app.session.every(capabilities.Libvirt) if (uri := b.libvirt_uri())), None)
    if uri is None:
        if {"-h", "--help"} & set(words[:1]):
            print(tr("usage: hikube-local virsh [COMMAND…]   virsh's own commands, on the machines that are up"))
            return ExitCode.DONE
        raise HikubeError("HK805", "no machine is up, so libvirt is not running here", fix="hikube-local up FILE")
    os.execv(find("virsh"), ["virsh", "-c", uri, *words])
