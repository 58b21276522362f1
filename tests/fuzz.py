"""`make fuzz`: what comes from outside, mutated; an exception, a long wait or too much memory is a finding.

python -m tests.fuzz [--seconds N] [--seed S] [--target NAME] [--count N]
A finding is kept in tests/corpus/fuzz/TARGET-DIGEST and read first by every later run. `--seed` and `--count 1` give one
input again.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hikube_local import config
from hikube_local.backends.qemu.agent import Agent
from hikube_local.backends.qemu.network.lan import believable
from hikube_local.backends.qemu.network.user_network import table
from hikube_local.errors import HikubeError
from hikube_local.images import inspect
from hikube_local.lab import checklist, evidence, units
from hikube_local.manifests.validate import Known, validate
from hikube_local.readiness import cloudinit
from hikube_local.readiness.console import Console
from hikube_local.source import nodes
from hikube_local.text import one_line, sanitize
from hikube_local.userdata import places, requested, whole
from hikube_local.userdata.check import check
from tests.growth import unit

KEPT = Path(__file__).parent / "corpus" / "fuzz"
MEMORY = 4 << 30  # bytes of address space
LEAST = 10.0  # seconds that one input has on any machine
PATIENCE = 60.0  # of one input, in units of this machine's speed (tests/growth.py)
_SAFE = frozenset("\n\t")

Target = Callable[[bytes, Path], Any]


def _manifest(raw: bytes, folder: Path) -> None:
    path = folder / "m.yaml"
    path.write_bytes(raw)
    found = validate([str(path)], None, "default", Known.nothing()).findings.items
    for d in found:
        _safe(d.render())
    json.dumps([d.as_json() for d in found])


def _user_data(raw: bytes, folder: Path) -> None:
    for note in check(raw):
        assert note.line >= 1 and note.code.startswith("HK")
    for d in places.of_file("x", raw):
        _safe(d.render())
    text = raw.decode("utf-8", "replace")
    whole.replaced(text)
    whole.ending(text)
    commands = requested.Commands(text)
    for n in range(5):
        commands.line(n)
        commands.survives(n, "curl")
    requested.changed(text, text[::-1])


def _checks(raw: bytes, folder: Path) -> None:
    checks, found = checklist.parse(raw.decode("utf-8", "replace"), "checks.yaml")
    for d in found:
        _safe(d.render())
    for c in checks:
        assert c.kind in checklist.KINDS and isinstance(c.title, str)


def _configuration(raw: bytes, folder: Path) -> None:
    path = folder / "config.yaml"
    path.write_bytes(raw)
    with contextlib.suppress(HikubeError):
        read = config.read(path)
        assert isinstance(read.options, dict) and isinstance(read.networks, dict)


def _console(raw: bytes, folder: Path) -> None:
    console = Console()
    rng = random.Random(len(raw))
    at = 0
    while at < len(raw):
        step = rng.randint(1, 4096)
        console.feed(raw[at : at + step], firmware=rng.random() < 0.1)
        at += step
    for line in [*console.lines, *console.failures, console.progress.detail]:
        _safe(line)


class _Dom:
    """A domain whose agent answers what the fuzzer likes."""

    def __init__(self, raw: bytes) -> None:
        self.text = raw.decode("utf-8", "replace")

    def XMLDesc(self, flags: int) -> str:
        return "org.qemu.guest_agent.0 state='connected'"


def _agent(raw: bytes, folder: Path) -> None:
    dom = _Dom(raw)
    agent = Agent(dom)
    answers = iter(dom.text.split("\n"))

    def call(command: str, timeout: int = 5, **arguments: Any) -> Any:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(next(answers, "null"))
        return None

    agent.call = call  # type: ignore[method-assign]
    agent.may_run()
    agent.read("/etc/x")
    with contextlib.suppress(HikubeError):
        agent.run("true", 0.01)
    believable([dom.text, *dom.text.split()], [])
    table(dom.text)


def _evidence(raw: bytes, folder: Path) -> None:
    a, _, rest = raw.partition(b"\0")
    b, _, c = rest.partition(b"\0")
    found = evidence.read(a, b, c, (b or a).decode("utf-8", "replace"))
    for p in found.problems:
        _safe(p.message)
    units.read(raw.decode("utf-8", "replace"))
    cloudinit.busy_with(raw.decode("utf-8", "replace"))
    cloudinit.module(raw)


def _image(raw: bytes, folder: Path) -> None:
    path = folder / "image"
    path.write_bytes(raw.ljust(512, b"\0"))
    with contextlib.suppress(HikubeError):
        inspect.inspect(path)


def _text(raw: bytes, folder: Path) -> None:
    shown = sanitize(raw)
    _safe(shown)
    assert "\n" not in one_line(shown)


def _request(raw: bytes, folder: Path) -> None:
    """A request of the endpoint's: its path, its selectors, its body in any of the forms, judged as each kind is."""
    from hikube_local.api import selectors
    from hikube_local.kube import kept, kinds, objects, ownership, paths, protobuf, roles
    from hikube_local.kube.status import Refused

    head, _, body = raw.partition(b"\0")
    text = head.decode("utf-8", "replace")
    for path in (text, f"/api/v1/{text}", f"/apis/apps.cozystack.io/v1alpha1/namespaces/{text}"):
        if target := paths.parse("GET", path, {}):
            roles.refusal(roles.Role.VIEW, target).as_json()
    for read in (selectors.selector, selectors.fields):
        with contextlib.suppress(HikubeError):
            read(text)
    value: Any = None
    with contextlib.suppress(Refused):
        value = protobuf.read(protobuf.MAGIC + body)
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body)
    roles.access_review(roles.Role.USE, value)
    ownership.decode(value)
    target = paths.Target("create", "", "v1", "secrets", "default", "")
    for kind in (kinds.SECRETS, kinds.CONFIGMAPS):
        with contextlib.suppress(Refused):
            json.dumps(kept.read(kind, target, value))
    for kind in (kinds.MACHINES, kinds.DISKS):
        with contextlib.suppress(Refused, HikubeError, nodes.Refused):
            objects.read(kind, value, "default", None, Known.nothing(), "strict")
    for patch in (objects.merge_patch, objects.json_patch, kept.strategic):
        with contextlib.suppress(Refused):
            patch({"a": {"b": [1]}}, value)


def _safe(text: str) -> None:
    """Nothing that a terminal would act on."""
    bad = [
        c
        for c in text
        if (ord(c) < 32 and c not in _SAFE) or 0x7F <= ord(c) < 0xA0 or c in "\u202a\u202b\u202d\u202e\u2066\u2067"
    ]
    assert not bad, f"control characters reach the terminal: {bad[:5]}"


TARGETS: dict[str, Target] = {
    "manifest": _manifest,
    "user-data": _user_data,
    "checks": _checks,
    "configuration": _configuration,
    "console": _console,
    "agent": _agent,
    "evidence": _evidence,
    "image": _image,
    "text": _text,
    "request": _request,
}
TOKENS = [
    b"\n",
    b"- ",
    b": ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"&a ",
    b"*a",
    b"|\n",
    b">\n",
    b"'",
    b'"',
    b"\xff",
    b"\0",
    b"\x1b[31m",
    b"\r",
]
TOKENS += [
    b"<<: ",
    b"!!binary ",
    b"!!str ",
    b"---\n",
    b"#cloud-config\n",
    b"## template: jinja\n",
    b"{{ x }}",
    b"{% if x %}",
    b"{% endif %}",
]
TOKENS += [
    b"9" * 400,
    b"0x",
    b"\xc2\x9b",
    b"\xe2\x80\xae",
    b"::error::",
    b"\xef\xbb\xbf",
    b"users:\n",
    b"runcmd:\n",
    b"MIME-Version: 1.0\n",
]


def seeds(target: str) -> list[bytes]:
    """What is mutated: the galleries of the tests, and what was found before."""
    from tests.pure import test_cases, test_console, test_manifests, test_userdata

    texts: list[Any] = [t for t, _ in test_userdata.GALLERY.values()] + [t for t, _ in test_cases.CLASSES.values()]
    out = [t.encode() if isinstance(t, str) else t for t in texts]
    root = Path(__file__).parent.parent
    if target in ("manifest", "configuration", "checks"):
        out = [p.read_bytes() for p in (root / "examples").rglob("*.y*ml")]
        out += [
            b"namespace: a\nimages: {a: {url: 'http://x/y', checksum: c}}\nnetworks: {a: {bridge: b}}\noptions: {timeout: 5m}\n"
        ]
        out += [
            b"- run: {command: ls, exit: 0}\n- file: {path: /x, mode: '0644'}\n  after: reboot\n- http: {port: 80}\n"
        ]
        assert test_manifests
    elif target == "console":
        out = [
            b"[    0.0] Linux version 6\n[  OK  ] Reached target \x1b[0;1;39mnetwork.target\x1b[0m\nCloud-init v. 22 finished at x\nweb login: "
        ]
        assert test_console
    elif target == "agent":
        out = [
            b'{"supported_commands": [{"name": "guest-exec", "enabled": true}]}\n5\n{"buf-b64": "aGk="}\n{"pid": 7}\n{"exited": true, "exitcode": 0}'
        ]
    elif target == "evidence":
        logs = root / "tests" / "pure" / "lab"
        out = [
            b"\0".join(
                (logs / n).read_bytes()[:20000] for n in ("status.json", "cloud-init.log", "cloud-init-output.log")
            )
        ]
    elif target == "request":
        meta = b'{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","labels":{"a":"b"}},"data":{"a":"Yg=="}}'
        machine = b'{"apiVersion":"apps.cozystack.io/v1alpha1","kind":"VMInstance","metadata":{"name":"w"},"spec":{"disks":["d"]}}'
        about = b"\n\x0c\n\x02v1\x12\x06Secret\x12\x11\n\x03\n\x01s\x12\n\n\x01k\x12\x05hello"
        patches = b'[{"op":"replace","path":"/a/b/0","value":{}},{"op":"copy","from":"/a","path":"/c"}]'
        fields = b'[{"manager":"m","operation":"Apply","fieldsV1":{"f:spec":{"f:disks":{}}}}]'
        review = (
            b'{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"},"nonResourceAttributes":{"path":"/x"}}}'
        )
        out = [b"web/x?a=b,c in (d)\0" + body for body in (meta, machine, about, patches, fields, review)]
    elif target == "image":
        out = [
            b"QFI\xfb\0\0\0\3" + bytes(504),
            b"KDMV" + bytes(1020),
            b"vhdxfile" + bytes(504),
            b"ustar".rjust(262, b"a") + bytes(300),
        ]
    return [s for s in out if len(s) < 60_000]


def mutated(rng: random.Random, pool: list[bytes]) -> bytes:
    raw = bytearray(rng.choice(pool))
    if rng.random() < 0.15:
        raw += rng.choice(pool)
    for _ in range(rng.randint(1, 12)):
        at = rng.randrange(len(raw) + 1)
        kind = rng.random()
        if kind < 0.45:
            raw[at:at] = rng.choice(TOKENS)
        elif kind < 0.65:
            del raw[at : at + rng.randint(1, 40)]
        elif kind < 0.8 and raw:
            raw[min(at, len(raw) - 1)] = rng.randrange(256)
        elif kind < 0.9:
            piece = bytes(raw[at : at + rng.randint(1, 60)])
            raw[at:at] = piece * rng.randint(1, 200)
        else:
            other = rng.choice(pool)
            raw[at:at] = other[: rng.randint(0, len(other))]
    return bytes(raw[:200_000])


class TooLong(Exception):
    pass


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TooLong(f"over {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tried(name: str, raw: bytes, folder: Path, patience: float) -> str:
    """What was found with one input; empty where nothing was."""
    try:
        with bounded(patience):
            TARGETS[name](raw, folder)
    except MemoryError:
        return "MemoryError"
    except Exception as e:
        frame = traceback.extract_tb(e.__traceback__)[-1]
        return f"{type(e).__name__}: {str(e)[:200]} at {Path(frame.filename).name}:{frame.lineno}"
    return ""


def kept(name: str) -> list[Path]:
    return sorted(KEPT.glob(f"{name}-*")) if KEPT.is_dir() else []


def main(words: list[str]) -> int:
    import tempfile

    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--target", choices=sorted(TARGETS), default=None)
    given = parser.parse_args(words)
    names = [given.target] if given.target else list(TARGETS)
    patience, failures, count = max(LEAST, PATIENCE * unit()), 0, 0
    end = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory() as folder:
        pools = {name: [*seeds(name), *(p.read_bytes() for p in kept(name))] for name in names}
        for name in names:
            for path in kept(name):
                if what := tried(name, path.read_bytes(), Path(folder), patience):
                    failures += 1
                    print(f"{name}: {path.name}: {what}")
        while time.monotonic() < end and (not given.count or count < given.count * len(names)):
            name = names[count % len(names)]
            seed = given.seed + count // len(names)
            raw = mutated(random.Random(f"{name}/{seed}"), pools[name])
            count += 1
            if what := tried(name, raw, Path(folder), patience):
                failures += 1
                digest = hashlib.sha256(raw).hexdigest()[:12]
                KEPT.mkdir(parents=True, exist_ok=True)
                (KEPT / f"{name}-{digest}").write_bytes(raw)
                print(f"{name}: seed {seed}: {what}\n  {base64.b64encode(raw[:120]).decode()}")
                if failures >= 20:
                    break
    print(f"{count} inputs, {failures} findings; again with: --seed {given.seed}")
    return 1 if failures else 0


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.exit(main(sys.argv[1:]))
