"""Programs that are run to their end: argument lists only, no standard input unless given, a time limit always.

Those that stay, that get a socket or that this process becomes are started where they are used; each is told to log.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hikube_local import log
from hikube_local.errors import HikubeError
from hikube_local.records import dataclass

INSTALL = {
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon",  # Debian 13 has libvirt-daemon-log, which it depends on
    "virsh": "libvirt-clients",
    "dnsmasq": "dnsmasq-base",
    "slirp4netns": "slirp4netns",
    "nft": "nftables",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "flock": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "grub-mkimage": "grub-common",
    "mkfs.ext4": "e2fsprogs",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for a program that reads hostile input: CPU seconds, address space and file size in bytes, open files."""

    cpu: int = 30
    memory: int = 1 << 30
    files: int = 64
    file_size: int | None = None


def find(program: str) -> str:
    """The program's path; where it is missing the error names the package."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not path:
        package = INSTALL.get(program, program)
        raise HikubeError("HK601", f"{program} is not installed", fix=f"sudo apt-get install {package}")
    return path


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = 60,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limits: Limits | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and hand back its output; a failure is HK607 with what it wrote."""
    words = [find(str(argv[0])), *map(str, argv[1:])]
    prefix: list[str] = []
    if limits:
        prefix = [
            find("prlimit"),
            f"--cpu={limits.cpu}",
            f"--as={limits.memory}",
            f"--nofile={limits.files}",
            "--core=0",
        ]
        if limits.file_size is not None:
            prefix.append(f"--fsize={limits.file_size}")
        prefix.append("--")
    begin = time.monotonic()
    with subprocess.Popen(
        prefix + words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
        cwd=cwd,
    ) as process:
        try:
            output = _collect(process, timeout)
        except BaseException as e:
            process.kill()
            if isinstance(e, subprocess.TimeoutExpired):
                log.ended(words, None, begin)
                what = f"{argv[0]} did not end within {timeout:.0f} s"
                raise HikubeError("HK607", what, why=" ".join(words)) from None
            raise
    log.ended(words, process.returncode, begin)
    done = subprocess.CompletedProcess(words, process.returncode, *output)
    if check and done.returncode:
        from hikube_local.text import sanitize

        said = sanitize(done.stderr or done.stdout).strip()[-1500:]
        if os.strerror(errno.ENOSPC) in said:
            raise HikubeError("HK604", f"no space: {argv[0]} filled the file system", said, "free space, run it again")
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise HikubeError("HK607", f"{argv[0]} failed ({how})", why=said or " ".join(words))
    return done


def _collect(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes]:
    """What the process wrote until it ended. What outlives it and holds its pipes open keeps nobody waiting; and the end is
    seen at once, which `Popen.wait` with a time-out looks for every millisecond or more."""
    deadline = time.monotonic() + timeout
    try:
        end = os.pidfd_open(process.pid)
    except (OSError, AttributeError):  # a sandbox, or a Python, that does not know the call
        return process.communicate(timeout=timeout)
    pipes = [process.stdout.fileno(), process.stderr.fileno()]  # type: ignore[union-attr]
    parts: dict[int, list[bytes]] = {fd: [] for fd in pipes}
    try:
        waiting = select.poll()
        for fd in (*pipes, end):
            waiting.register(fd, select.POLLIN)
        ended = False
        while not ended:
            ready = waiting.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise subprocess.TimeoutExpired(process.args, timeout)
            ended = any(fd == end for fd, _ in ready)
            for fd in {fd for fd, _ in ready} - {end}:
                parts[fd].append(block := os.read(fd, 1 << 16))
                if not block:
                    waiting.unregister(fd)
        for fd in pipes:  # the rest: a pipe holds a MiB at most
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                parts[fd].append(os.read(fd, 1 << 20))
    finally:
        os.close(end)
    out, err = (b"".join(parts[fd]) for fd in pipes)
    return out, err


def program() -> list[str]:
    """The words that start hikube-local again. -P: never with code of the folder that it is started in."""
    return [sys.executable, "-P", "-m", "hikube_local"]


def left_behind(
    argv: Sequence[str], ask: bool = False, env: Mapping[str, str] | None = None, patience: float | None = None
) -> tuple[int, str]:
    """(exit code, what it said) of a program that leaves a process of its own behind, as `ssh -f` does. What it says goes to a
    file: a pipe would be held open by what stays. `ask`: it may talk to the terminal. `patience`: seconds after which it is ended,
    with exit code 255: ssh's own ConnectTimeout is over once the other side has said its name."""
    from hikube_local.text import one_line, sanitize

    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND  # to its end, whoever else writes there
    with tempfile.TemporaryDirectory() as folder, open(os.open(f"{folder}/said", flags, 0o600), "r+b") as said:
        begin = time.monotonic()
        log.started(argv)
        quiet = subprocess.DEVNULL
        stdin = None if ask else quiet
        try:
            code = subprocess.run(argv, stdin=stdin, stdout=quiet, stderr=said, env=env, timeout=patience).returncode
        except subprocess.TimeoutExpired:
            code = 255
            said.write(f"it did not answer in {patience:.0f} s\n".encode())
            said.flush()
        log.ended(argv, code, begin)
        said.seek(0)
        return code, one_line(sanitize(said.read(4000)))


def clean_environment(**extra: str) -> dict[str, str]:
    """A small environment for programs that stay: no tokens, no proxies, no Python settings."""
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "TZ") if k in os.environ}
    kept.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    if "/usr/sbin" not in kept["PATH"].split(":"):
        kept["PATH"] += ":/usr/sbin:/sbin"
    return kept | extra
