"""The tenants of a carrier: bridges, taps, leases, names, firewall and forwards, brought to what the store says."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import socket
from collections.abc import Callable
from typing import Any

from hikube_local import files
from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Object
from hikube_local.backends.qemu import helpers
from hikube_local.backends.qemu.carrier import Carrier
from hikube_local.errors import HikubeError
from hikube_local.plan.steps import Forward
from hikube_local.render import tenant
from hikube_local.render.tenant import Tenant
from hikube_local.run import clean_environment, run
from hikube_local.store.db import Store, scope
from hikube_local.text import sanitize


class Tenants:
    """Addresses are kept in the store; everything else follows from them and from the objects."""

    def __init__(self, carrier: Carrier, store: Store) -> None:
        self.carrier, self.store = carrier, store

    # addresses

    def number(self, namespace: str) -> int:
        """The namespace's subnet, kept once chosen."""

        def change(own: dict[str, Any], everything: dict[str, dict[str, Any]]) -> dict[str, Any]:
            taken = [v["subnet"] for k, v in everything.items() if k.startswith("tenant/")]
            return own or {"subnet": tenant.choose_subnet(namespace, taken)}

        return self.store.allocate(f"tenant/{namespace}", change)["subnet"]

    def ip(self, obj: Object) -> str:
        """The machine's address inside its tenant, kept once chosen."""
        own = self.store.allocation(scope(obj.key))
        if "ip" in own:
            return own["ip"]
        n = self.number(obj.namespace)

        def change(own: dict[str, Any], everything: dict[str, dict[str, Any]]) -> dict[str, Any]:
            taken = [v["ip"] for v in everything.values() if "ip" in v]
            return own if "ip" in own else {**own, "ip": tenant.choose_ip(obj.namespace, obj.name, n, taken)}

        return self.store.allocate(scope(obj.key), change)["ip"]

    def forwards(self, obj: Object, keep: bool, say: Callable[[str], None]) -> frozenset[Forward]:
        """The ways in that the machine should have; addresses and ports are tried before they are kept."""
        ports = obj.instance.ports
        if not ports:
            return frozenset()
        own = self.store.allocation(scope(obj.key))
        kept = own.get("forwards", {})
        live = {(f["host_addr"], f["host_port"]) for f in self.carrier.forwards()}
        address = kept.get("address") or self._free_address(obj)
        chosen = tenant.assign_ports(
            ports, kept.get("ports", {}), lambda p: (address, p) in live or bindable(address, p) is None
        )
        if keep and kept != {"address": address, "ports": chosen}:
            self.store.note(scope(obj.key), forwards={"address": address, "ports": chosen})
            for port, host_port in chosen.items():
                if int(port) != host_port:
                    say(f"port {port} stands at {address}:{host_port}: {why_not(address, int(port))}")
        missing = [p for p in ports if str(p) not in chosen]
        if missing:
            raise HikubeError("HK803", f"no host port is free for port {missing[0]}")
        return frozenset(Forward(int(p), address, h) for p, h in chosen.items())

    def _free_address(self, obj: Object) -> str:
        taken = {v["forwards"]["address"] for v in self.store.allocations().values() if "forwards" in v}
        wildcard = {p for p in obj.instance.ports if bindable("127.77.255.253", p) == errno.EADDRINUSE}
        for address in tenant.loopback_candidates(self.carrier.layout.id, obj.namespace, obj.name):
            free = all(bindable(address, p) != errno.EADDRINUSE for p in obj.instance.ports if p not in wildcard)
            if address not in taken and free:
                return address
        raise HikubeError("HK803", "no loopback address of 127.77.0.0/16 is free")

    # what is there

    def all(self) -> list[Tenant]:
        """Every tenant with its machines, from the store."""
        by_namespace: dict[str, list[tuple[str, str, str]]] = {}
        allocations = self.store.allocations()
        for obj in self.store.objects(INSTANCE):
            own = allocations.get(scope(obj.key), {})
            if obj.backend == "qemu" and "ip" in own:
                row = (obj.name, own["ip"], names.mac(obj.namespace, obj.name))
                by_namespace.setdefault(obj.namespace, []).append(row)
        return [
            Tenant(ns, allocations[f"tenant/{ns}"]["subnet"], tuple(rows)) for ns, rows in sorted(by_namespace.items())
        ]

    def open_ports(self) -> list[tuple[str, int]]:
        """What another tenant may reach: the listed ports of each machine."""
        allocations = self.store.allocations()
        return [
            (own["ip"], port)
            for obj in self.store.objects(INSTANCE)
            if "ip" in (own := allocations.get(scope(obj.key), {}))
            for port in obj.instance.ports
        ]

    def is_up(self, obj: Object) -> bool:
        """Whether the machine's tenant has its bridge, its dnsmasq and its tap."""
        pid = self.carrier.holder()
        bridge = names.bridge(obj.namespace)
        if pid is None or not helpers.pid_of(self.carrier.run / f"dnsmasq-{bridge}.lock"):
            return False
        if not helpers.pid_of(self.carrier.run / "slirp.lock") or not self.carrier.libvirt_runs():
            return False
        tap = names.tap(self.carrier.layout.id, obj.namespace, obj.name)
        made = files.read_json(self.carrier.net / "taps.json") or {}
        return made.get(tap) == self.carrier.id()

    def ensure(self, obj: Object) -> None:
        """Bring up the machine's tenant: bridge, tap, leases, names, firewall. Under the network lock."""
        carrier = self.carrier
        self.ip(obj)
        pid = carrier.ensure()
        tenants = self.all()
        mine = next(t for t in tenants if t.namespace == obj.namespace)
        tap = names.tap(carrier.layout.id, obj.namespace, obj.name)
        user = pwd.getpwuid(os.geteuid()).pw_name if not carrier.root else str(carrier.qemu_ids[0])
        gateway = f"{tenant.gateway(mine.number)}/24"
        carrier.batch(
            pid,
            [
                {
                    "run": ["ip", "link", "add", mine.bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0"],
                    "may_fail": True,
                },
                {"run": ["ip", "link", "set", mine.bridge, "mtu", "1500"]},
                {"run": ["ip", "addr", "replace", gateway, "dev", mine.bridge]},
                {"run": ["ip", "link", "set", mine.bridge, "up"]},
                {"run": ["ip", "tuntap", "add", tap, "mode", "tap", "user", user, "vnet_hdr"], "may_fail": True},
                {"run": ["ip", "link", "set", tap, "master", mine.bridge, "up"]},
            ],
        )
        here = carrier.id()
        made = files.read_json(carrier.net / "taps.json") or {}
        files.write_json(carrier.net / "taps.json", {t: n for t, n in made.items() if n == here} | {tap: here})
        self.refresh(pid, tenants)

    def refresh(self, pid: int, tenants: list[Tenant]) -> None:
        """Names, leases and firewall as the store has them; dnsmasq reads its files again."""
        net = self.carrier.net
        wanted = {net / "all.hosts": tenant.all_hosts(tenants)}
        for t in tenants:
            wanted[net / f"{t.bridge}.dhcp"] = tenant.dhcp_hosts(t)
            wanted[net / f"{t.bridge}.hosts"] = tenant.own_hosts(t)
        changed = False
        for path, text in wanted.items():
            if not path.exists() or path.read_text() != text:
                files.write(path, text, 0o644)
                changed = True
        up = [t for t in tenants if self._bridge_exists(pid, t)]
        self.carrier.batch(pid, [{"run": ["nft", "-f", "-"], "input": tenant.firewall(up, self.open_ports())}])
        for t in up:
            conf = net / f"{t.bridge}.conf"
            files.write(conf, tenant.dnsmasq_conf(t, str(net)), 0o644)
            # In the foreground and without closing standard input, which carries its lock.
            words = [self._dnsmasq(), "--no-daemon", f"--conf-file={conf}"]
            words += [f"--user={pwd.getpwuid(os.geteuid()).pw_name}"]
            argv = self.carrier.enter_words(pid, "exec", *words)
            lock = self.carrier.run / f"dnsmasq-{t.bridge}.lock"
            dns, fresh = helpers.ensure(
                lock, argv, self.carrier.log(f"dnsmasq-{t.bridge}"), clean_environment(), check=_is("dnsmasq")
            )
            if changed and not fresh:
                os.kill(dns, signal.SIGHUP)

    @staticmethod
    def _dnsmasq() -> str:
        from hikube_local.run import find

        return find("dnsmasq")

    def _bridge_exists(self, pid: int, t: Tenant) -> bool:
        out = self.carrier.batch(pid, [{"run": ["ip", "-o", "link", "show", t.bridge], "may_fail": True}])
        return t.bridge in out[0] and "does not exist" not in out[0]

    def drop(self, obj: Object) -> None:
        """The machine is gone: its tap, its name, its lease."""
        pid = self.carrier.holder()
        if pid is None:
            return
        tap = names.tap(self.carrier.layout.id, obj.namespace, obj.name)
        self.carrier.batch(pid, [{"run": ["ip", "link", "del", tap], "may_fail": True}])
        made = files.read_json(self.carrier.net / "taps.json") or {}
        made.pop(tap, None)
        files.write_json(self.carrier.net / "taps.json", made)

    # forwards

    def observed(self, ip: str) -> frozenset[Forward]:
        return frozenset(
            Forward(f["guest_port"], f["host_addr"], f["host_port"], f["proto"])
            for f in self.carrier.forwards()
            if f["guest_addr"] == ip
        )

    def set_forwards(self, ip: str, wanted: frozenset[Forward]) -> None:
        """Open what is missing and close what is too much, on the running machine."""
        for f in self.carrier.forwards():
            if (
                f["guest_addr"] == ip
                and Forward(f["guest_port"], f["host_addr"], f["host_port"], f["proto"]) not in wanted
            ):
                self.carrier.slirp("remove_hostfwd", id=f["id"])
        for w in sorted(wanted - self.observed(ip), key=lambda f: f.port):
            self.carrier.slirp(
                "add_hostfwd",
                proto=w.protocol,
                host_addr=w.address,
                host_port=w.host_port,
                guest_addr=ip,
                guest_port=w.port,
            )


def _is(name: str) -> Callable[[int], bool]:
    """Whether the process became this program (it was started through another one)."""

    def check(pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/exe").endswith("/" + name)
        except OSError:
            return False

    return check


def bindable(address: str, port: int) -> int | None:
    """None when the port can be bound at this address, else the errno that says why not."""
    with socket.socket() as s:
        # As slirp4netns binds it: connections that ended a moment ago (TIME_WAIT) hold nothing, a listener does.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError as e:
            return e.errno
    return None


def why_not(address: str, port: int) -> str:
    """Why a port cannot be had, with the one who holds it or the setting that would allow it."""
    reason = bindable(address, port)
    if reason == errno.EACCES:
        return "this user may not bind it (sudo sysctl net.ipv4.ip_unprivileged_port_start=0 would allow it)"
    if reason == errno.EADDRINUSE:
        done = run(["ss", "-H", "-ltnp", f"sport = :{port}"], check=False, timeout=10)
        return f"it is taken on this host: {sanitize(' '.join(done.stdout.decode('utf-8', 'replace').split()))[:160]}"
    return "it was taken when it was chosen"
