"""Throughput of `make bench`: guest to host and guest to guest, ours beside bare QEMU on the same kind of tap, one run."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hikube_local.render import seed as seeds
from tests.growth import patience

MIB = 128
FETCHES = 12
ROUNDS = 3  # bare and ours in turn: what the machine does meanwhile meets both; the median of all fetches counts
SERVE = f"dd if=/dev/zero of=/www/big bs=1M count={MIB} 2>/dev/null; echo SERVING"
FETCH = (
    "for i in 1 2 3 4 5 6 7 8 9; do wget -q -O /dev/null http://{peer}/ && break; sleep 1; done; sleep 5\n"
    f"for i in $(seq {FETCHES}); do a=$(cut -d' ' -f1 /proc/uptime); wget -q -O /dev/null http://{{peer}}/big; "
    "b=$(cut -d' ' -f1 /proc/uptime); echo RATE $a $b; done"
)


def rates(log: str) -> list[float]:
    """MiB/s of each of the guest's own fetches."""
    spans = [float(b) - float(a) for a, b in re.findall(r"RATE ([\d.]+) ([\d.]+)", log)]
    assert len(spans) == FETCHES, log[-500:]
    return [MIB / span for span in spans]


def fetched(words: list[str], ip: str) -> list[float]:
    """MiB/s of each fetch by a process on the tap's other side."""
    # No retries of curl's: it truncates its output between them, and /dev/null cannot be (exit code 23).
    argv = [*words, "curl", "-s", "-m", str(int(patience(60))), "-o", "/dev/null"]
    argv += ["-w", "%{http_code} %{size_download} %{speed_download}", f"http://{ip}/big"]

    def one() -> float:
        for _ in range(20):
            done = subprocess.run(argv, capture_output=True, text=True)
            code, size, speed = [*done.stdout.split(), "", "", ""][:3]
            if done.returncode == 0 and (code, size) == ("200", str(MIB << 20)):
                return float(speed) / 2**20
            time.sleep(1)  # the guest's server is not there yet, or its file not whole
        raise AssertionError((done.returncode, done.stdout, done.stderr))

    return [one() for _ in range(FETCHES)]


def wait_for(log: Path, what: str) -> str:
    """A console's log, once it says so."""
    deadline = time.monotonic() + patience(120)
    while True:
        text = log.read_text(errors="replace") if log.exists() else ""
        if what in text:
            return text
        assert time.monotonic() < deadline, text[-500:]
        time.sleep(0.2)


def ours(program, tiny: str, second) -> tuple[list[float], list[float]]:
    """(guest to host, guest to guest): MiB/s of each fetch."""

    from tests.e2e.conftest import seeded

    text = tiny.replace("u1.nano", "u1.small").replace("external: true", "external: false")
    a = seeded(second(text, "a"), SERVE)
    done = program("up", program.file("a.yaml", a))
    assert done.code == 0, done.err
    ip = next(x["address"] for x in program.status("a")["addresses"] if x["type"] == "InternalIP")
    words = [*program.host.enter, "env", *(f"{k}={v}" for k, v in program.env.items())]
    import sys

    words += [sys.executable, "-m", "hikube_local", "network", "exec", "--"]
    to_host = fetched(words, ip)
    b = seeded(second(text, "b"), FETCH.format(peer=ip))
    # Nobody follows it meanwhile: two guests have the two cores to themselves, as the bare ones.
    done = program("up", "--no-wait", program.file("b.yaml", b))
    assert done.code == 0, done.err
    between = rates(wait_for(program.home / "state" / "machines" / "default" / "b" / "console.log", "login: "))
    program("down", "--force")
    return to_host, between


def bare(host, image: Path, work: Path) -> tuple[list[float], list[float]]:
    """The same machines with hand-made taps on a hand-made bridge and hand-written QEMU command lines."""
    run = host.run
    for words in (
        "ip link add bench0 type bridge stp_state 0 forward_delay 0",
        "ip addr add 10.9.0.1/24 dev bench0",
        "ip link set bench0 up",
        *(f"ip tuntap add bench{i} mode tap vnet_hdr" for i in (1, 2)),
        *(f"ip link set bench{i} master bench0 up" for i in (1, 2)),
    ):
        run(*words.split())
    started: list[subprocess.Popen] = []
    try:
        words = "dnsmasq --no-daemon --conf-file=/dev/null --interface=bench0 --bind-interfaces --port=0 --user=root"
        words += " --dhcp-range=10.9.0.10,static --dhcp-option=option:mtu,1400"
        words += " --dhcp-host=52:54:00:00:00:01,10.9.0.11 --dhcp-host=52:54:00:00:00:02,10.9.0.12"
        words += f" --dhcp-leasefile={work}/leases"
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen([*host.enter, *words.split()], **quiet))

        def boot(n: int, script: str) -> Path:
            disk, iso, log = work / f"b{n}.qcow2", work / f"b{n}.iso", work / f"b{n}.log"
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, disk], check=True)
            log.unlink(missing_ok=True)
            content = seeds.Seed(user_data=f"#!/bin/sh\n{script}\n".encode(), meta_data=b"{}")
            iso.write_bytes(seeds.volume(content))
            argv = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]
            argv += ["-smp", "1", "-m", "2048", "-nodefaults", "-serial", f"file:{log}"]
            # A machine of the same shape: it is the network that is compared (each of these costs it 2 to 4 %).
            argv += ["-no-hpet", "-rtc", "base=utc,driftfix=slew", "-device", "VGA", "-vnc", f"unix:{work}/v{n}"]
            argv += ["-device", "virtio-balloon-pci-non-transitional,free-page-reporting=on"]
            argv += ["-device", "virtio-rng-pci-non-transitional"]
            argv += ["-drive", f"file={disk},if=virtio,format=qcow2"]
            argv += ["-drive", f"file={iso},if=virtio,format=raw,readonly=on"]
            argv += ["-netdev", f"tap,id=n,ifname=bench{n},script=no,downscript=no"]
            argv += ["-device", f"virtio-net-pci-non-transitional,netdev=n,mac=52:54:00:00:00:0{n},host_mtu=1400"]
            # A session of its own, as libvirt's have: the kernel shares the processors among sessions (autogroup).
            started.append(subprocess.Popen([*host.enter, *argv], start_new_session=True, **quiet))
            return log

        wait_for(boot(1, SERVE), "SERVING")
        to_host = fetched(host.enter, "10.9.0.11")
        return to_host, rates(wait_for(boot(2, FETCH.format(peer="10.9.0.11")), "login: "))
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        for name in ("bench1", "bench2", "bench0"):
            run("ip", "link", "del", name, check=False)


def throughput(program, host, image: Path, work: Path, tiny: str, second) -> None:
    """Print both rates with their ratio."""
    os.makedirs(work, exist_ok=True)
    rows: dict[str, tuple[list[float], list[float]]] = {"guest to host": ([], []), "guest to guest": ([], [])}
    for _ in range(ROUNDS):
        plain, mine = bare(host, image, work), ours(program, tiny, second)
        for (a, b), more, others in zip(rows.values(), mine, plain, strict=True):
            a += more
            b += others
    for name, (a, b) in ((name, map(statistics.median, both)) for name, both in rows.items()):
        print(
            f"{name + ' (tiny guest, TCG)':<42}{a:8.1f} MiB/s {a / b:5.2f} x bare QEMU ({b:.1f} MiB/s)",
            file=sys.__stdout__,
            flush=True,
        )
