"""The one carrier of a state root: a namespace, and in it libvirtd, dnsmasq and the way out.

As a user a user and network namespace, as root a network and mount namespace. The host's interfaces, routes, firewall
and its own libvirt are never touched.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hikube_local import files
from hikube_local.backends.qemu import helpers
from hikube_local.errors import HikubeError
from hikube_local.host.accelerator import verdict
from hikube_local.host.doctor import path_of
from hikube_local.paths import Layout, make_runtime
from hikube_local.render import tenant
from hikube_local.run import clean_environment, find

ENTER = Path(__file__).with_name("enter.py")
DEBIAN_QEMU_ID = 64055  # libvirt-qemu, when the package that makes that user is not installed


class Carrier:
    """Starts, finds and ends what carries the machines of one state root."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.run = layout.runtime
        self.root = layout.root

    # where things are

    @property
    def holder_lock(self) -> Path:
        return self.run / "ns.lock"

    @property
    def net(self) -> Path:
        return self.run / "net"

    @property
    def socket(self) -> Path:
        return self.run / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        mode = "system" if self.root else "session"
        return f"qemu+unix:///{mode}?socket={self.socket}"

    def log(self, name: str) -> Path:
        return self.run / "log" / f"{name}.log"

    def seen(self, path: Path) -> str:
        """A path of ours as QEMU sees it: as root below the runtime folder, which QEMU's user may enter."""
        if self.root:
            for real, shown in ((self.layout.state, "state"), (self.layout.cache, "cache")):
                with contextlib.suppress(ValueError):
                    return str(self.run / shown / path.relative_to(real))
        return str(path)

    def sockets(self, tap: str) -> Path:
        return self.run / "m" / tap

    def make_sockets(self, tap: str) -> Path:
        folder = files.make_folder(self.sockets(tap), 0o711 if self.root else 0o700)
        if self.root:
            os.chown(folder, self.qemu_ids[0], -1)
            os.chmod(folder, 0o700)
        return folder

    @property
    def qemu_ids(self) -> tuple[int, int]:
        """User and group that QEMU runs as, for root."""
        for name in ("libvirt-qemu", "qemu"):
            with contextlib.suppress(KeyError):
                user = pwd.getpwnam(name)
                with contextlib.suppress(KeyError):
                    return user.pw_uid, grp.getgrnam("kvm").gr_gid
                return user.pw_uid, user.pw_gid
        with contextlib.suppress(KeyError):
            return DEBIAN_QEMU_ID, grp.getgrnam("kvm").gr_gid
        return DEBIAN_QEMU_ID, DEBIAN_QEMU_ID

    # the namespace

    def holder(self) -> int | None:
        """The pid that keeps the namespace, if it is up and wholly set up."""
        pid = helpers.pid_of(self.holder_lock)
        if pid is None or files.read_json(self.run / "ready.json") != _identity(pid):
            return None
        return pid

    def lives(self) -> bool:
        """Whether the namespace is there, or something in it from which it can be taken up again."""
        return self.holder() is not None or self._anchor() is not None

    def id(self) -> str | None:
        """What names this namespace and no other one: taps belong to it."""
        pid = self.holder()
        return _identity(pid)["net"] if pid else None

    def ensure(self) -> int:
        """Bring up what is missing: namespace, way out, libvirtd. Hands back the holder's pid; under the network lock."""
        make_runtime(self.layout)
        mode = 0o711 if self.root else 0o700
        for sub in ("log", "net", "m", "state", "cache"):
            files.make_folder(self.run / sub, mode)
        pid = self.holder()
        if pid is None:
            helpers.end(self.holder_lock)
            anchor = self._anchor()
            pid = self._adopt(anchor) if anchor else self._begin()
        self._slirp(pid)
        self._libvirtd(pid)
        return pid

    def _anchor(self) -> int | None:
        """Something of ours that still lives in a namespace whose holder was killed: libvirtd, or a machine."""
        if pid := helpers.pid_of(self.run / "libvirtd.lock"):
            return pid
        for path in [*self.run.glob("libvirt/qemu/*.pid"), *self.run.glob("libvirt/qemu/run/*.pid")]:
            with contextlib.suppress(OSError, ValueError):
                pid = int(path.read_text())
                if "/qemu-system" in os.readlink(f"/proc/{pid}/exe") and _identity(pid) == files.read_json(
                    self.run / "ready.json"
                ):
                    return pid
        return None

    def _adopt(self, anchor: int) -> int:
        argv = self._inside(anchor, "sleep", "infinity")
        pid, _ = helpers.ensure(
            self.holder_lock, argv, self.log("namespace"), clean_environment(), check=lambda p: _runs(p, "sleep")
        )
        files.write_json(self.run / "ready.json", _identity(pid))
        return pid

    def _begin(self) -> int:
        kinds = (
            ["-m", "-n", "--propagation", "private"] if self.root else ["-U", "-n", "--map-current-user", "--keep-caps"]
        )
        argv = ["unshare", *kinds, "sleep", "infinity"]
        ours = os.stat("/proc/self/ns/net").st_ino

        def inside(pid: int) -> bool:
            with contextlib.suppress(OSError):
                return os.stat(f"/proc/{pid}/ns/net").st_ino != ours and os.readlink(f"/proc/{pid}/exe").endswith(
                    "/sleep"
                )
            return False

        try:
            pid, _ = helpers.ensure(self.holder_lock, argv, self.log("namespace"), clean_environment(), check=inside)
        except HikubeError as e:
            fix = "hikube-local doctor says what this host can do"
            raise HikubeError("HK602", "no network namespace could be made", e.why, fix) from None
        ops: list[dict[str, Any]] = []
        if self.root:
            ops += [{"run": ["mount", *words]} for words in self._mounts()]
        ops += [
            {"run": ["ip", "link", "set", "lo", "up"]},
            {"write": "/proc/sys/net/ipv4/ip_forward", "text": "1"},
            {"write": "/proc/sys/net/ipv4/ip_unprivileged_port_start", "text": "0"},
            {"write": "/proc/sys/net/ipv6/conf/all/disable_ipv6", "text": "1", "may_fail": True},
            {"write": "/proc/sys/net/bridge/bridge-nf-call-iptables", "text": "0", "may_fail": True},
            {"run": ["nft", "-f", "-"], "input": tenant.firewall((), ())},
        ]
        self.batch(pid, ops)
        files.write_json(self.run / "ready.json", _identity(pid))
        return pid

    def _mounts(self) -> list[list[str]]:
        """Folders of ours over libvirt's: never a copy of the host's, which hold its domains, autostart links and hooks."""
        uid, gid = self.qemu_ids
        etc = files.make_folder(self.run / "etc", 0o755)
        files.write(
            etc / "libvirtd.conf",
            'auth_unix_ro = "none"\nauth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\nunix_sock_ro_perms = "0700"\n',
        )
        hide_kvm = Path("/dev/kvm").exists() and not verdict(self.layout.cache).kvm
        conf = f'user = "+{uid}"\ngroup = "+{gid}"\ndynamic_ownership = 1\nremember_owner = 0\n'
        # libvirt's own /dev for each QEMU cannot take over our mount on /dev/kvm.
        files.write(etc / "qemu.conf", conf + ("namespaces = []\n" if hide_kvm else ""))
        files.write(etc / "virtlogd.conf", _VIRTLOGD)
        pairs = [
            (self.layout.state, self.run / "state"),
            (self.layout.cache, self.run / "cache"),
            (etc, Path("/etc/libvirt")),
            (files.make_folder(self.run / "lib", 0o711), Path("/var/lib/libvirt")),
            (files.make_folder(self.layout.cache / "libvirt", 0o711), Path("/var/cache/libvirt")),
            (files.make_folder(self.run / "libvirtlog", 0o711), Path("/var/log/libvirt")),
            (files.make_folder(self.run / "libvirt", 0o711), Path("/run/libvirt")),
        ]
        for _, target in pairs:
            files.make_folder(target, 0o755)
        words = [["--bind", str(a), str(b)] for a, b in pairs]
        words += self._accounts()
        if hide_kvm:
            # libvirt asks QEMU what KVM can do; one that does not work keeps it waiting for minutes (seen: 130 s).
            # A file that QEMU's user may not open says "no KVM" to both, and lets libvirt keep what it learned.
            files.write(etc / "no-kvm", "", 0o600)
            words.append(["--bind", str(etc / "no-kvm"), "/dev/kvm"])
        if Path("/run/dbus").is_dir():
            words.append(["-t", "tmpfs", "tmpfs", "/run/dbus"])
        return words

    def _accounts(self) -> list[list[str]]:
        """libvirt wants its compiled-in user to exist before it reads qemu.conf; seen only inside, the host keeps its own."""
        words = []
        uid, gid = self.qemu_ids
        for name, line in (
            ("passwd", f"libvirt-qemu:x:{uid}:{gid}::/var/lib/libvirt:/usr/sbin/nologin"),
            ("group", f"libvirt-qemu:x:{gid}:"),
        ):
            text = Path("/etc", name).read_text(errors="replace")
            missing = [
                new
                for new in (line, "kvm:x:64056:" if name == "group" else "")
                if new and f"{new.split(':')[0]}:" not in text
            ]
            if missing:
                copy = self.run / "etc" / name
                files.write(copy, text.rstrip("\n") + "\n" + "\n".join(missing) + "\n", 0o644)
                words.append(["--bind", str(copy), f"/etc/{name}"])
        return words

    def batch(self, pid: int, ops: list[dict[str, Any]]) -> list[str]:
        """Carry out operations inside; the first that fails is an error that names it."""
        for op in ops:
            if "run" in op:
                op["run"] = [find(op["run"][0]), *op["run"][1:]]
        done = self._enter(pid, "batch", input=json.dumps(ops).encode())
        results = json.loads(done.stdout) if done.returncode == 0 else []
        if done.returncode:
            raise HikubeError(
                "HK803", "the namespace could not be entered", why=done.stderr.decode("utf-8", "replace")[-300:]
            )
        for op, result in zip(ops, results, strict=False):
            if result["code"] and not op.get("may_fail"):
                words = " ".join(op.get("run") or ["write", op["write"]])
                raise HikubeError(
                    "HK803", f"the tenant network could not be made: {words[:120]}", why=result["out"][-300:]
                )
        return [r["out"] for r in results]

    def _enter(self, pid: int, *words: str, input: bytes) -> subprocess.CompletedProcess[bytes]:
        argv = self.enter_words(pid, *words)
        return subprocess.run(argv, input=input, capture_output=True, timeout=60, env=clean_environment(), cwd="/")

    @staticmethod
    def enter_words(pid: int, *words: str) -> list[str]:
        """The command line that goes inside."""
        return [sys.executable, "-I", "-S", str(ENTER), str(pid), *words]

    # the way out

    def _slirp(self, pid: int) -> None:
        lock, api = self.run / "slirp.lock", self.run / "slirp.sock"
        if not helpers.pid_of(lock):
            api.unlink(missing_ok=True)
        argv = [
            "slirp4netns",
            "--configure",
            "--mtu=65520",
            f"--cidr={tenant.SUPERNET}",
            "--api-socket",
            api,
            str(pid),
            "tap0",
        ]
        helpers.ensure(lock, argv, self.log("slirp4netns"), clean_environment(), check=lambda _: api.exists())
        deadline = time.monotonic() + 10
        while True:
            try:
                self.batch(pid, [{"write": "/proc/sys/net/ipv4/conf/tap0/proxy_arp", "text": "1"}])
                return
            except HikubeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def slirp(self, command: str, **arguments: Any) -> Any:
        """One request to slirp4netns' API: add_hostfwd, list_hostfwd, remove_hostfwd."""
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(self.run / "slirp.sock"))
            s.sendall(json.dumps(request).encode())
            s.shutdown(socket.SHUT_WR)
            answer = b""
            while block := s.recv(65536):
                answer += block
        reply = json.loads(answer)
        if "error" in reply:
            raise HikubeError(
                "HK803", f"slirp4netns refused {command}", why=str(reply["error"].get("desc", reply["error"]))[:200]
            )
        return reply.get("return", reply)

    def forwards(self) -> list[dict[str, Any]]:
        """What is really forwarded now: [{id, proto, host_addr, host_port, guest_addr, guest_port}]."""
        if not helpers.pid_of(self.run / "slirp.lock"):
            return []
        with contextlib.suppress(OSError):
            return self.slirp("list_hostfwd").get("entries", [])
        return []

    # libvirt

    def _environment(self) -> dict[str, str]:
        if self.root:
            return clean_environment(HOME="/root")
        r = str(self.run)
        cache = files.make_folder(self.layout.cache / "libvirt")
        files.write(files.make_folder(self.run / "cfg" / "libvirt") / "virtlogd.conf", _VIRTLOGD)
        return clean_environment(
            HOME=str(Path.home()),
            XDG_RUNTIME_DIR=r,
            XDG_CONFIG_HOME=f"{r}/cfg",
            XDG_DATA_HOME=f"{r}/data",
            XDG_CACHE_HOME=str(cache),
        )

    def _inside(self, pid: int, *words: str | Path) -> list[str | Path]:
        kinds = ["-m", "-n"] if self.root else ["-U", "-n", "--preserve-credentials"]
        return ["nsenter", "-t", str(pid), *kinds, find(str(words[0])), *words[1:]]

    def _libvirtd(self, pid: int) -> None:
        env = self._environment()
        if self.root:
            # A dead one leaves its socket behind; nobody answers there.
            argv = self._inside(pid, "virtlogd", "--pid-file", self.run / "virtlogd.pid")
            helpers.ensure(
                self.run / "virtlogd.lock",
                argv,
                self.log("virtlogd"),
                env,
                check=lambda _: (self.run / "libvirt/virtlogd-sock").exists(),
            )
        # Where PID 1 reaps late (containers), libvirt waits for every QEMU that ended; tini reaps them at once.
        reaper = ["tini", "-s", "--"] if path_of("tini") else []
        argv = self._inside(pid, *reaper, find("libvirtd"), "--pid-file", self.run / "libvirtd.pid")
        if not helpers.pid_of(self.run / "libvirtd.lock"):
            self.socket.unlink(missing_ok=True)
        helpers.ensure(
            self.run / "libvirtd.lock", argv, self.log("libvirtd"), env, ready=30, check=lambda _: _answers(self.socket)
        )

    def libvirt_runs(self) -> bool:
        return helpers.pid_of(self.run / "libvirtd.lock") is not None

    # the end

    def finish(self) -> None:
        """End every helper: the last machine is gone."""
        for lock in sorted(self.run.glob("dnsmasq-*.lock")):
            helpers.end(lock)
        for name in ("libvirtd", "virtlogd", "slirp", "ns"):
            helpers.end(self.run / f"{name}.lock")
        if not self.root:
            self._end_session_virtlogd()
        (self.run / "ready.json").unlink(missing_ok=True)

    def _end_session_virtlogd(self) -> None:
        """A session's libvirtd starts virtlogd by itself, which would linger for two minutes."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.run / "libvirt" / "virtlogd.pid").read_text())
            if os.readlink(f"/proc/{pid}/exe").endswith("/virtlogd"):
                os.kill(pid, 15)


_VIRTLOGD = "max_size = 16777216\nmax_backups = 3\n"


def _identity(pid: int) -> dict[str, str]:
    """The network namespace of a process, told apart from every other one of this and other boots."""
    from hikube_local.host.facts import boot_id

    try:
        return {"net": f"{boot_id()[:8]}-{os.stat(f'/proc/{pid}/ns/net').st_ino}"}
    except OSError:
        return {"net": ""}


def _runs(pid: int, program: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe").endswith(f"/{program}")
    except OSError:
        return False


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(1)
        try:
            s.connect(str(path))
        except OSError:
            return False
        return True
