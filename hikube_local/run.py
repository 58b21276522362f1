"""The one place that starts a program: argument lists only, no standard input unless given, a time limit always."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hikube_local.errors import HikubeError

INSTALL = {
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "libvirtd": "libvirt-daemon",
    "virtlogd": "libvirt-daemon",
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
    input: bytes | None = None,
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
    with contextlib.ExitStack() as files:
        # Files in memory instead of pipes: what a program leaves behind may hold them open without keeping us.
        said, told = (files.enter_context(open(os.memfd_create(name), "w+b")) for name in ("stdout", "stderr"))
        given: Any = subprocess.DEVNULL
        if input is not None:
            given = files.enter_context(open(os.memfd_create("stdin"), "w+b"))
            given.write(input)
            given.seek(0)
        environ = None if env is None else dict(env)
        with subprocess.Popen(prefix + words, stdin=given, stdout=said, stderr=told, env=environ, cwd=cwd) as process:
            try:
                _await(process, timeout)
            except BaseException as e:
                process.kill()
                if isinstance(e, subprocess.TimeoutExpired):
                    what = f"{argv[0]} did not end within {timeout:.0f} s"
                    raise HikubeError("HK607", what, why=" ".join(words)) from None
                raise
        done = subprocess.CompletedProcess(words, process.returncode, *(_content(f) for f in (said, told)))
    if check and done.returncode:
        from hikube_local.text import sanitize

        said = sanitize(done.stderr or done.stdout).strip()[-1500:]
        if os.strerror(errno.ENOSPC) in said:
            raise HikubeError("HK604", f"no space: {argv[0]} filled the file system", said, "free space, run it again")
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise HikubeError("HK607", f"{argv[0]} failed ({how})", why=said or " ".join(words))
    return done


def _await(process: subprocess.Popen, timeout: float) -> None:
    """Until the process ends; `Popen.wait` with a time-out looks only every millisecond or more."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:  # a sandbox that does not know the call
        process.wait(timeout)
        return
    try:
        ended = select.poll()
        ended.register(fd, select.POLLIN)
        if not ended.poll(timeout * 1000):
            raise subprocess.TimeoutExpired(process.args, timeout)
    finally:
        os.close(fd)


def _content(file: Any) -> bytes:
    file.seek(0)
    return file.read()


def clean_environment(**extra: str) -> dict[str, str]:
    """A small environment for programs that stay: no tokens, no proxies, no Python settings."""
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "TZ") if k in os.environ}
    kept.setdefault("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    if "/usr/sbin" not in kept["PATH"].split(":"):
        kept["PATH"] += ":/usr/sbin:/sbin"
    return kept | extra
