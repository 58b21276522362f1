"""`make chaos`: random commands in several processes, with kills, stops, clock jumps and a full disk; then what must hold.

python -m tests.chaos [--seconds N] [--seed S] [--real]
On the simulator, or with `--real` with tiny guests under QEMU. A round is a function of its seed: `--seed S --rounds 1`
does the same again, as far as processes let it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import PAIR, ROOT

NAMES = ("web", "db", "app")
ALLOWED = (0, 1, 2, 3, 130, -signal.SIGKILL)  # how a command may end; 255 is ssh's, 4 is plan's


def manifest(name: str, storage: int, ports: str) -> str:
    text = PAIR.replace("name: sys", f"name: {name}-sys").replace("- sys", f"- {name}-sys").replace("web", name)
    return text.replace("5Gi", f"{storage}Gi").replace("[22, 80]", ports)


@dataclass
class Round:
    """One state root, and what was done to it."""

    seed: int
    home: Path
    real: bool = False
    enter: list[str] = field(default_factory=list)  # words before the program's own
    told: list[str] = field(default_factory=list)
    asked_to_go: set[str] = field(default_factory=set)  # disks whose deletion was asked for
    put: set[str] = field(default_factory=set)  # disks that an `up` that came to its end has made
    commands: int = 0
    kills: int = 0

    def env(self, clock: float = 0.0) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith("HIKUBE_LOCAL")}
        env |= {"HIKUBE_LOCAL_HOME": str(self.home), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'clock'}"}
        return env | ({"CHAOS_CLOCK": str(clock)} if clock else {})

    def start(self, words: list[str], clock: float = 0.0) -> subprocess.Popen[str]:
        self.commands += 1
        self.told.append(" ".join(words) + (f"  (clock {clock:+.0f} s)" if clock else ""))
        argv = [*self.enter, sys.executable, "-m", "hikube_local", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv, env=self.env(clock), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def end(self, process: subprocess.Popen[str], words: list[str], timeout: float = 300) -> tuple[int, str]:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Broken(f"`{' '.join(words)}` did not end in {timeout:.0f} s") from None
        for sign in ("Traceback", "HK999"):
            if sign in out + err:
                raise Broken(f"`{' '.join(words)}`: {sign}\n{out[-1500:]}{err[-3000:]}")
        if process.returncode not in ALLOWED:
            raise Broken(f"`{' '.join(words)}` ended with {process.returncode}\n{err[-1500:]}")
        return process.returncode, out + err

    def run(self, *words: str, clock: float = 0.0, timeout: float = 300) -> tuple[int, str]:
        return self.end(self.start(list(words), clock), list(words), timeout)


class Broken(AssertionError):
    """Something does not hold."""


def _words(r: Round, rng: random.Random, files: Path) -> tuple[list[str], str, str]:
    """(a command, the machine it is about, the disk whose deletion it asks for)."""
    name = rng.choice(NAMES)
    path = files / f"{name}.yaml"
    if rng.random() < 0.5 and not r.real:
        path.write_text(manifest(name, rng.choice((5, 6, 8)), rng.choice(("[22, 80]", "[22]", "[80, 443]"))))
    backend = [] if r.real else ["--backend", "simulator"]
    table = [
        (10, ["up", str(path), *backend, "--timeout", "60s"]),
        (6, ["apply", "-f", str(path), *backend]),
        (4, ["stop", name, "--grace", "1s"]),
        (4, ["start", name]),
        (3, ["restart", name, "--grace", "1s"]),
        (2, ["pause", name]),
        (2, ["unpause", name]),
        (3, ["down", name, "--grace", "1s"]),
        (2, ["delete", f"vm/{name}", "--grace", "1s"]),
        (1, ["down", str(path), "--disks", "--yes", "--grace", "1s"]),
        (4, ["get", "-A", "-o", "json"]),
        (2, ["describe", "vm"]),
        (2, ["plan", str(path)]),
        (1, ["events", "-A"]),
        (1, ["purge", "-A", "--yes"]),
    ]
    if r.real:
        table += [(3, ["snapshot", "create", name]), (3, ["reset", name, "--yes"]), (1, ["snapshot", "list"])]
    words = rng.choices([w for _, w in table], [n for n, _ in table])[0]
    return words, name, f"{name}-sys" if "--disks" in words else ""


def chaos(r: Round, rng: random.Random, steps: int) -> None:
    """Commands side by side, some of which are killed or stopped on the way."""
    files = r.home / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if not (files / f"{name}.yaml").exists():
            (files / f"{name}.yaml").write_text(manifest(name, 5, "[22, 80]"))
    filler = r.home / "filler"
    for _ in range(steps):
        clock = rng.choice((0.0,) * 6 + (3600.0, -3600.0, 86400.0 * 400)) if not r.real else 0.0
        batch = []
        for _ in range(rng.randint(1, 3)):
            words, _, gone = _words(r, rng, files)
            if gone:
                r.asked_to_go.add(gone)
            batch.append((r.start(words, clock), words))
        if not r.real and rng.random() < 0.15:
            _fill(filler)
        time.sleep(rng.random() * (3.0 if r.real else 0.5))
        for process, _ in batch:
            if rng.random() < 0.35 and process.poll() is None:
                r.kills += 1
                r.told.append("  kill -9")
                process.kill()
            elif rng.random() < 0.15 and process.poll() is None:
                process.send_signal(signal.SIGSTOP)
                time.sleep(rng.random() * 0.3)
                process.send_signal(signal.SIGCONT)
        full = filler.exists()
        for process, words in batch:
            code, said = r.end(process, words)
            if code == 0 and words[0] in ("up", "apply"):
                r.put |= {f"{Path(w).stem}-sys" for w in words if w.endswith(".yaml")}
            if full and code not in (0, 130, -9) and "HK604" not in said and "space" not in said:
                r.told.append(f"  on a full disk: {said.strip()[-200:]}")
        filler.unlink(missing_ok=True)


def _fill(path: Path) -> None:
    """Take what is left of the file system: only where it is a small one of our own."""
    if os.statvfs(path.parent).f_blocks * os.statvfs(path.parent).f_frsize > 256 << 20:
        return
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as f:
        while True:
            f.write(bytes(1 << 16))


def holds(r: Round) -> None:
    """What must be so after whatever happened."""
    code, out = r.run("get", "-A", "-o", "json")
    if code:
        raise Broken(f"get: {out[-500:]}")
    items = json.loads(out[out.index("{") : out.rindex("}") + 1])["items"]
    versions = [i["metadata"]["resourceVersion"] for i in items]
    if len(set(versions)) != len(versions):
        raise Broken(f"a revision stands twice: {versions}")
    disks = {i["metadata"]["name"] for i in items if i["kind"] == "VMDisk"}
    if lost := r.put - disks - r.asked_to_go:
        raise Broken(f"disks are gone that nobody asked to delete: {sorted(lost)}")
    backend = [] if r.real else ["--backend", "simulator"]
    for name in NAMES:
        path = r.home / "files" / f"{name}.yaml"
        # A disk never shrinks: the manifest asks for the largest one.
        path.write_text(path.read_text().replace("5Gi", "8Gi").replace("6Gi", "8Gi"))
        for _ in range(2):  # the first one heals what was cut short
            code, said = r.run("up", str(path), *backend, "--timeout", "120s", timeout=400)
            if code == 0:
                break
        if code:
            raise Broken(f"up {name} does not come about: {said[-1500:]}")
    code, said = r.run("up", *[str(r.home / "files" / f"{n}.yaml") for n in NAMES], *backend)
    if code or "nothing changed" not in said:
        raise Broken(f"a second up finds something to do: {said[-800:]}")
    partial = [p for p in (r.home / "state").rglob("*") if p.name.startswith((".partial-", ".trash-", ".new-"))]
    if partial:
        raise Broken(f"left over: {partial[:5]}")
    code, said = r.run("down", "-A", "--disks", "--yes", "--force")
    code, said = r.run("purge", "-A", "--disks", "--yes")
    if code:
        raise Broken(f"purge: {said[-500:]}")


@contextlib.contextmanager
def small_disk(folder: Path):
    """A file system of a few MiB, where this process may mount one (it has a mount namespace of its own)."""
    size = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True)
    try:
        yield size.returncode == 0
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True)


def one(seed: int, real: bool) -> Round:
    rng = random.Random(f"chaos/{seed}")
    with tempfile.TemporaryDirectory(prefix="hk") as name, contextlib.ExitStack() as stack:
        base = Path(name)
        r = Round(seed, base / "home", real)
        r.home.mkdir()
        if real:
            stack.enter_context(_guests(r))
        elif os.geteuid() == 0:
            stack.enter_context(small_disk(r.home))
        try:
            chaos(r, rng, 3 if real else rng.randint(3, 9))
            holds(r)
        except Broken as e:
            print(f"seed {seed}: {e}\n" + "\n".join(f"    {line}" for line in r.told[-40:]), flush=True)
            raise
        finally:
            with contextlib.suppress(Broken, OSError):
                r.run("purge", "-A", "--disks", "--yes")
    return r


@contextlib.contextmanager
def _guests(r: Round):
    """Tiny guests on a host of their own, without an uplink."""
    from hikube_local.events import ignore
    from hikube_local.images import build
    from hikube_local.images.cache import Cache
    from hikube_local.paths import layout
    from tests.e2e.conftest import KEPT, TINY, TINY_URL, Host, ours, second, stock
    from tests.guests import tiny

    cache = Cache(KEPT / "images", 0o711)
    image = tiny.make(cache.path(build.build(cache, "debian-12", ignore).digest), KEPT / "test-guests")
    stock(r.home, TINY_URL, image)
    files = r.home / "files"
    files.mkdir()
    for name in NAMES:
        (files / f"{name}.yaml").write_text(second(TINY, name))
    host = Host()
    r.enter = host.enter
    runtime = layout({"HIKUBE_LOCAL_HOME": str(r.home)}).runtime
    try:
        yield
        r.run("purge", "-A", "--disks", "--yes")
        if left := ours(runtime):
            raise Broken(f"processes are left: {left}")
    finally:
        for pid in ours(runtime):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(runtime, ignore_errors=True)
        host.close()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--real", action="store_true")
    given = parser.parse_args(words)
    if os.geteuid() == 0 and not given.real and "CHAOS_MOUNTS" not in os.environ:
        # Mounts of its own, so that a small file system can be filled.
        again = [sys.executable, "-m", "tests.chaos", *words]
        os.execvpe(
            "unshare", ["unshare", "-m", "--propagation", "private", *again], {**os.environ, "CHAOS_MOUNTS": "1"}
        )
    end = time.monotonic() + given.seconds
    rounds, commands, kills, broken = 0, 0, 0, 0
    while time.monotonic() < end and (not given.rounds or rounds < given.rounds):
        try:
            done = one(given.seed + rounds, given.real)
            commands, kills = commands + done.commands, kills + done.kills
        except Broken:
            broken += 1
        rounds += 1
    print(f"{rounds} rounds, {commands} commands, {kills} kills, {broken} broken; again with: --seed {given.seed}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
