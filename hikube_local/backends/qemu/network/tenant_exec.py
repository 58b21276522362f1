"""A command of the host as a pod of a tenant: one more address on its bridge, gone with the command."""

from __future__ import annotations

import json
import os
from typing import NoReturn

from hikube_local import files, osdep
from hikube_local.api import names
from hikube_local.backends.qemu.network.tenants import Tenants
from hikube_local.backends.qemu.network.user_network import LOST
from hikube_local.errors import HikubeError
from hikube_local.paths import Layout
from hikube_local.render.addresses import PODS
from hikube_local.render.tenant import MTU, search_list
from hikube_local.run import find


def run(tenants: Tenants, namespace: str, command: list[str]) -> NoReturn:
    """Become it; its exit code is the command's own. HK805 where the tenant's network is not up."""
    sandbox = tenants.sandbox
    if not sandbox.has_tenant_network:
        raise HikubeError("HK806", "there is no tenant network to run it in", why=LOST)
    pid = sandbox.holder()
    if pid is None or names.bridge(namespace) not in sandbox.batch(pid, [{"run": ["ip", "-br", "link"]}])[0]:
        fix = "hikube-local get -A shows where machines are; -n names the namespace"
        raise HikubeError("HK805", f"namespace {namespace} has no network: none of its machines is running", fix=fix)
    find(command[0])
    number, range = tenants.number(namespace), tenants.range()
    host = next((h for h in PODS if _taken(sandbox.layout, namespace, h)), None)
    if host is None:
        raise HikubeError("HK803", f"{len(PODS)} commands run in namespace {namespace} already", fix="end one of them")
    outer = f"hkp{names.bridge(namespace)[3:10]}{host}"
    gateway, ip = range.gateway(number), find("ip")
    about = {
        "outside": [
            [ip, "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", "CHILD"],
            [ip, "link", "set", outer, "master", names.bridge(namespace), "up"],
        ],
        "inside": [
            [ip, "link", "set", "lo", "up"],
            [ip, "addr", "add", f"{range.address(number, host)}/24", "dev", "eth0"],
            [ip, "link", "set", "eth0", "mtu", str(MTU), "up"],
            [ip, "route", "add", "default", "via", gateway],
        ],
        # ndots as Kubernetes gives it to pods.
        "resolv": f"search {' '.join(search_list(namespace))}\nnameserver {gateway}\noptions ndots:5\n",
        "cwd": os.getcwd(),
    }
    words = sandbox.enter_words(pid, "pod", json.dumps(about), *command)
    os.execv(words[0], words)


def _taken(layout: Layout, namespace: str, host: int) -> bool:
    """Take this address, if nobody has it: the lock is inherited, so it lasts as long as the command."""
    path = files.make_folder(layout.locks) / f"pod.{namespace}.{host}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        osdep.lock(fd, wait=False)
    except OSError:
        os.close(fd)
        return False
    os.set_inheritable(fd, True)
    return True
