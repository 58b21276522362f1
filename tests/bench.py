"""`make bench`: timings as ratios to the bare tool in the same run; nothing here is asserted.

Root is needed for the boots (a namespace of our own plays the host).
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

from hikube_local.disks import qcow2
from hikube_local.events import ignore
from hikube_local.images import build, fetch
from hikube_local.images.cache import Cache
from tests.bench_box import into_a_guest, over_ssh
from tests.bench_network import throughput
from tests.bench_page import looked_at
from tests.bench_serve import serving as serving_kubernetes
from tests.components.server import serving
from tests.conftest import PAIR, Program

ROUNDS = 5
# Commands that wait for no guest; those of READS are given a manifest.
READS = {"plan": lambda m: [m], "validate": lambda m: [m], "render": lambda m: [m, "--to", "-"]}
QUICK = [["version"], ["help"], ["get", "-A"], ["get", "vm", "web", "-o", "json"], ["describe", "vm"], ["events"]]
QUICK += [["explain", "vminstance"], ["images", "list"], ["snapshot", "list"], ["ssh-config"], *([w] for w in READS)]


def median(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


SMALLEST = "import click; click.Command('x', callback=lambda: None)([])"


def in_turn(ours: Callable[[], object], bare: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The medians of both: what the machine does meanwhile meets the one as the other."""
    pairs = [(median(ours, 1), median(bare, 1)) for _ in range(rounds)]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)


def row(name: str, ours: float, bare: float | None = None, what: str = "") -> None:
    ratio = f"{ours / bare:7.2f} x {what} ({bare:.3f} s)" if bare else ""
    print(f"{name:<42}{ours:8.3f} s  {ratio}", file=sys.__stdout__, flush=True)


def command_line(work: Path) -> None:
    empty = median(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
    program = Program(work / "cli")
    row("--help", median(lambda: program("--help")), empty, "an empty Python")
    row("completion bash", median(lambda: program("completion", "bash")), empty, "an empty Python")
    path = program.file("m.yaml", PAIR)
    program("up", path, "--backend", "simulator")
    installed = str(Path(sys.executable).with_name("hikube-local"))  # as people start it
    clicked = [sys.executable, "-c", SMALLEST]
    for words in (["up", str(path)], ["get"]):  # at most 2.5 each
        name = f"{words[0]} with nothing to do (simulator)" if words[1:] else "get (simulator)"
        both = in_turn(
            lambda words=words: subprocess.run(
                [installed, *words], check=True, capture_output=True, env=program.env, cwd=program.folder
            ),
            lambda: subprocess.run(clicked, check=True),
            15,
        )
        row(name, *both, "the smallest program with click")
    for words in QUICK:  # at most 0.3 s each on an idle machine, where the empty Python takes 0.02 s
        row(
            " ".join(words),
            median(lambda words=words: program(*words, *(READS[words[0]](path) if words[0] in READS else [])), 3),
            empty,
            "an empty Python",
        )
    many = program.file(
        "many.yaml", "---\n".join(PAIR.split("---\n")[0].replace("name: sys", f"name: d{i}") for i in range(1000))
    )
    data = program.file("user-data", "#cloud-config\npackage_update: true\nruncmd:\n" + "  - echo hi\n" * 200)
    row("cloudinit check, 200 lines", median(lambda: program("cloudinit", "check", data), 3), empty, "an empty Python")
    row("validate 1,000 documents", median(lambda: program("validate", many), 3), empty, "an empty Python")
    words = [
        "/usr/bin/env",
        *(f"{k}={v}" for k, v in program.env.items()),
        sys.executable,
        "-c",
        "import resource,subprocess,sys; subprocess.run(sys.argv[1:], stdout=-3, stderr=-3); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
        sys.executable,
        "-m",
        "hikube_local",
        "up",
        str(path),
    ]
    memory = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout) // 1024
    print(f"{'memory of `up`':<42}{memory:8d} MiB", file=sys.__stdout__)


def disks(work: Path) -> None:
    n = iter(range(10_000))
    for size in (1 << 30, 1 << 40):
        folders = [work / f"o{size}-{i}" for i in range(50)]  # as a disk's: it is there, with its object in it
        for folder in folders:
            folder.mkdir()
        os.sync()
        free = iter(folders)

        def ours(size: int = size, free: Iterator[Path] = free) -> None:
            qcow2.create(next(free), size, None, qcow2.Facts())

        def bare(size: int = size) -> None:
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", work / f"b{next(n)}", str(size)], check=True)

        row(f"an empty disk of {size >> 30} GiB", *in_turn(ours, bare, len(folders)), "qemu-img create")


def fetching(work: Path) -> None:
    raw = work / "big.raw"
    raw.write_bytes(os.urandom(1 << 20) * 1024)
    with serving() as served:
        served.files["/big"] = raw.read_bytes()
        n = iter(range(10_000))

        def ours() -> None:
            folder = work / f"cache{next(n)}"
            fetch.fetch(Cache(folder), f"{served.url}/big", ignore, "x")
            shutil.rmtree(folder)

        def bare() -> None:
            curl = subprocess.Popen(["curl", "-s", f"{served.url}/big"], stdout=subprocess.PIPE)
            with open(work / "copy", "wb") as out:
                tee = subprocess.Popen(["tee", work / "copy2"], stdin=curl.stdout, stdout=subprocess.PIPE)
                subprocess.run(["sha256sum"], stdin=tee.stdout, stdout=out, check=True)

        row("fetch and verify 1 GiB on loopback", median(ours, 3), median(bare, 3), "curl | tee | sha256sum")
        # Half of it text, half of it holes, as a raw image of a small system is.
        boot = b"\xeb\x63" + bytes(508) + b"\x55\xaa"
        raw.write_bytes(boot + base64.b64encode(os.urandom(72 << 20)) + bytes(104 << 20))
        packed = work / "big.raw.xz"
        subprocess.run(["xz", "-0", "-k", "-f", raw], check=True)
        served.files["/big"] = packed.read_bytes()

        def sparse() -> None:
            with open(work / "sparse", "wb") as out:
                xz = subprocess.Popen(["xz", "-dc", "-T0", packed], stdout=subprocess.PIPE)
                subprocess.run(
                    ["dd", "conv=sparse,fsync", "bs=64k", "status=none"], stdin=xz.stdout, stdout=out, check=True
                )

        row("fetch a raw.xz image of 200 MiB", *in_turn(ours, sparse, 3), "xz -dc -T0 | dd conv=sparse,fsync")
        subprocess.run(["xz", "-0", "-T2", "--block-size=4MiB", "-k", "-f", raw], check=True)
        served.files["/big"] = packed.read_bytes()
        row("the same, of many blocks", *in_turn(ours, sparse, 3), "xz -dc -T0 | dd conv=sparse,fsync")


def boots(work: Path) -> None:
    from tests.e2e.conftest import KEPT, TINY, TINY_URL, Host, Real, second, stock
    from tests.guests import tiny

    cache = Cache(KEPT / "images", 0o711)
    image = tiny.make(cache.path(build.build(cache, "debian-12", ignore).digest), KEPT / "test-guests")
    host = Host()
    program = Real(work / "real", host)
    try:
        stock(program.home, TINY_URL, image)
        path = program.file("m.yaml", TINY)
        program("up", path)
        program("stop", "web", "--force")

        def ours() -> None:
            program("start", "web", "--wait")
            program("stop", "web", "--force")

        def bare() -> None:
            overlay = work / "bare.qcow2"
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, overlay], check=True)
            argv = [
                "qemu-system-x86_64",
                "-machine",
                "q35,accel=tcg",
                "-cpu",
                "max",
                "-m",
                "512",
                "-nodefaults",
                "-display",
                "none",
                "-serial",
                "stdio",
                "-drive",
                f"file={overlay},if=virtio,format=qcow2",
                "-nic",
                "user,model=virtio-net-pci",  # a guest without one boots sooner
            ]
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            seen = b""
            while b"login: " not in seen:
                seen += os.read(process.stdout.fileno(), 4096)
            process.kill()
            process.wait()

        cold = median(ours, 3)
        row("start to ready, and off (tiny guest, TCG)", cold, median(bare, 3), "a bare QEMU command line")
        program("start", "web", "--wait")
        empty = median(lambda: subprocess.run([sys.executable, "-c", ""], check=True))
        for words in (["get"], ["describe", "vm", "web"], ["plan", path], ["up", path]):
            name = f"{words[0]} (a machine that runs)"
            row(name, median(lambda words=words: program(*words)), empty, "an empty Python")
        program("snapshot", "create", "web", "bench")
        row(
            "back to a checkpoint (tiny guest)",
            median(lambda: program("snapshot", "restore", "web", "bench", "--yes"), 3),
            cold,
            "its start",
        )
        program("stop", "web", "--force")
        throughput(program, host, image, work / "throughput", TINY, second)
    finally:
        program.close()
        host.close()


LAB = """\
    # An RSA key takes 3 to 15 s under emulation, as luck has it.
    ssh_genkeytypes: [ed25519]
    write_files:
      - {path: /srv/x, content: hello}
    runcmd: [ls /srv]
"""


def lab(work: Path) -> None:
    """A cold `test` beside the shortest command that boots the same image and seed; warm and reset beside cold."""
    from hikube_local.manifests.validate import Known, validate
    from hikube_local.render import seed
    from tests.e2e.conftest import DEBIAN, KEPT, Host, Real, stock_recipe

    cache = Cache(KEPT / "images", 0o711)
    image = cache.path(build.build(cache, "debian-12", ignore).digest)
    host = Host()
    program = Real(work / "lab", host)
    try:
        stock_recipe(program.home, image)
        path = program.file("m.yaml", DEBIAN + LAB)
        objects = [i.object for i in validate([str(path)], None, "default", Known({})).objects]
        given = seed.portable(next(o for o in objects if o.kind == "VMInstance"))
        iso = work / "seed.iso"
        iso.write_bytes(seed.volume(given))

        def bare() -> None:
            overlay = work / "lab.qcow2"
            subprocess.run(
                ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, overlay, "4G"], check=True
            )
            argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]
            argv += ["-smp", "1", "-m", "2048", "-nodefaults", "-display", "none", "-serial", "stdio"]
            argv += ["-drive", f"file={overlay},if=virtio,cache=unsafe", "-nic", "user,model=virtio-net-pci"]
            argv += ["-drive", f"file={iso},if=virtio,format=raw,readonly=on"]
            process = subprocess.Popen([*host.enter, *argv], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            seen = b""
            while b"finished at" not in seen:
                block = os.read(process.stdout.fileno(), 65536)
                assert block, seen[-500:]
                seen = seen[-200:] + block
            process.kill()
            process.wait()

        def ours(*more: str) -> None:
            done = program("test", path, "--offline", *more, timeout=900)
            assert done.code == 0, done.err

        cold, alone = in_turn(lambda: ours("--no-warm"), bare, 3)
        row("test, cold (Debian 12, TCG)", cold, alone, "the shortest QEMU command")
        ours()  # leaves its warm state
        row("test, warm", median(ours, 3), cold, "cold")
        done = program("up", path, "--offline")
        assert done.code == 0, done.err
        row("reset", median(lambda: program("reset", "web", "--yes"), 3), cold, "cold")
        again = program.file("w.yaml", (DEBIAN + LAB).replace("disks: [sys]", "disks: [sys]\n  external: true"))
        warm_starts(program, again, cold)
        log_ins(program, host)
        into_a_guest(program, Real(work / "here", host), row)
    finally:
        program.close()
        host.close()


def warm_starts(program, path: Path, cold: float) -> None:
    """`up --warm` of a machine that was configured once, beside a whole boot; taking it away is not counted."""
    times = []
    for _ in range(4):
        gone = program("down", "-A", "--disks", "--yes", "--force")
        assert gone.code == 0, gone.err
        begin = time.perf_counter()
        done = program("up", path, "--offline", "--warm", timeout=900)
        times.append(time.perf_counter() - begin)
        assert done.code == 0 and (len(times) == 1 or "resumed in" in done.err), done.err
    row("up --warm", statistics.median(times[1:]), cold, "cold")


def log_ins(program, host) -> None:
    """A command in the guest, beside plain ssh to the same port with the same key."""
    first = program("ssh", "web", "--", "id", "-un")  # lets our key in
    assert first.code == 0, first.err
    address, _, port = program.access(22).partition(":")
    words = ["ssh", "-i", program.home / "state" / "ssh" / "id_ed25519", "-p", port, "-o", "StrictHostKeyChecking=no"]
    words += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", f"{first.out.strip()}@{address}", "true"]
    ours, bare = in_turn(lambda: program("ssh", "web", "--", "true"), lambda: host.run(*words), 5)
    row("ssh NAME -- true", ours, bare, "ssh")


def many(work: Path) -> None:
    """Five machines taken down, beside one: asked to (their guests share the cores meanwhile), and at once."""
    from tests.e2e.conftest import KEPT, TINY, TINY_URL, Host, Real, second, stock
    from tests.guests import tiny

    cache = Cache(KEPT / "images", 0o711)
    host = Host()
    program = Real(work / "many", host)
    try:
        image = tiny.make(cache.path(build.build(cache, "debian-12", ignore).digest), KEPT / "test-guests")
        stock(program.home, TINY_URL, image)
        one = program.file("one.yaml", TINY)
        five = program.file("five.yaml", "---\n".join(second(TINY, name) for name in "abcde"))
        for words in ([], ["--force"]):
            times = {}
            for path in (one, five):
                rounds = []
                for _ in range(3):
                    done = program("up", path, "--no-checkpoint")
                    assert done.code == 0, done.err
                    begin = time.perf_counter()
                    program("down", path, *words)
                    rounds.append(time.perf_counter() - begin)
                times[path] = statistics.median(rounds)
            row(" ".join(["down of five machines", *words]), times[five], times[one], "down of one")
    finally:
        program.close()
        host.close()


def main() -> None:
    """Rows alone: what the tests' Program says of each command goes nowhere."""
    with tempfile.TemporaryDirectory(prefix="hikube-local-bench-") as name, redirect_stdout(io.StringIO()):
        work = Path(name)
        command_line(work)
        serving_kubernetes(work, row)
        looked_at(work, row)
        over_ssh(work / "box", row)
        disks(work)
        fetching(work)
        if os.geteuid() == 0:
            boots(work)
            many(work)
            lab(work)


if __name__ == "__main__":
    main()
