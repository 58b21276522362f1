"""What somebody who helps needs to see of a state root, as files of text, with what is secret left out. It writes nothing but what the
accelerator's trial found (`doctor`)."""

from __future__ import annotations

import json
import platform
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from hikube_local import __version__
from hikube_local.api.names import LAST_APPLIED
from hikube_local.api.objects import Object
from hikube_local.engine import doctor
from hikube_local.engine.session import Session, capabilities
from hikube_local.errors import HikubeError
from hikube_local.run import find, run
from hikube_local.text import mask_url, sanitize, timestamp

LOG = 200_000  # bytes of the end of each log
_PROGRAMS = ("qemu-system-x86_64", "libvirtd", "slirp4netns", "dnsmasq", "nft", "swtpm", "cloud-init")
# Assignments of what people call secrets, in logs and settings.
_SECRET = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase)?|secret|token|api_?key|private_?key|credential)s?[\w-]*[\"']?\s*[:=]\s*)\S+"
)
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)


def collect(session: Session, wanted: list[Object], logs: bool = True) -> dict[str, str]:
    """The files by their names. What cannot be had is a file that says why."""
    out = {
        "versions.txt": _try(_versions),
        "doctor.json": _try(lambda: _json([asdict(c) for c in doctor.examine(session)])),
        "config.json": _try(lambda: _json(_masked(session.config.values))),
        "objects.json": _try(lambda: _json([_object(session, o) for o in session.store.objects()])),
        "events.txt": _try(lambda: _events(session)),
    }
    for obj in wanted:
        at = f"machines/{obj.namespace}/{obj.name}"
        if session.able(obj, capabilities.Libvirt) is not None:
            out[f"{at}/domain.xml"] = _try(partial(_domain, session, obj))
        if logs and session.able(obj, capabilities.Logs) is not None:
            for name in ("console", "firmware"):
                out[f"{at}/{name}.log"] = _try(partial(_log, session, obj, name))
    return out


def _try(look: Callable[[], str]) -> str:
    try:
        return look()
    except (HikubeError, OSError, ValueError) as e:
        return f"not to be had: {getattr(e, 'what', e)}\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def _versions() -> str:
    rows = [f"hikube-local {__version__}", f"Python {sys.version.split()[0]}", platform.platform()]
    release = platform.freedesktop_os_release()
    rows.append(release.get("PRETTY_NAME", ""))
    for name in _PROGRAMS:
        try:
            done = run([find(name), "--version"], check=False, timeout=10)
            said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
            rows.append(said.splitlines()[0] if said else f"{name}: says nothing of its version")
        except HikubeError:
            rows.append(f"{name}: not installed")
    return "\n".join(rows) + "\n"


def _masked(value: Any) -> Any:
    """Without what may be secret: user-data and keys, passwords and tokens of URLs and settings."""
    if isinstance(value, dict):
        return {
            k: _hidden(v) if k in ("cloudInit", "cloudInitSeed", "sshKeys") else _masked(v) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(v) for v in value]
    return mask_secrets(value) if isinstance(value, str) else value


def _hidden(value: Any) -> Any:
    """Its size alone."""
    return f"(left out: {len(value)} {'entries' if isinstance(value, list) else 'characters'})" if value else value


def mask_secrets(text: str) -> str:
    """Text without private keys, and without what stands behind the words for secrets."""
    return _SECRET.sub(r"\1***", mask_url(_KEY.sub("(a private key was left out)", text)))


def _object(session: Session, obj: Object) -> Any:
    found = session.statuses.resource(obj)
    found["metadata"].get("annotations", {}).pop(LAST_APPLIED, None)
    return _masked(found)


def _events(session: Session) -> str:
    rows = session.store.events(0, None)[-2000:]
    lines = (
        f"{timestamp(t)} {e.get('namespace', '')}/{e.get('object', '')} {e['type']}: {e.get('message', '')}"
        for _, t, e in rows
    )
    return "".join(mask_secrets(sanitize(line).replace("\n", " ")) + "\n" for line in lines)


def _domain(session: Session, obj: Object) -> str:
    """What libvirt runs, or would run."""
    backend = session.require(obj, capabilities.Libvirt)
    text = backend.live_xml(obj) or backend.domain_xml(obj)
    for node in ET.fromstring(text).iter():  # a password of a screen would stand here
        if "passwd" in node.attrib:
            text = text.replace(node.attrib["passwd"], "***")
    return mask_secrets(text)


def _log(session: Session, obj: Object, name: str) -> str:
    raw = session.require(obj, capabilities.Logs).log(obj, name).raw()
    return mask_secrets(sanitize(raw[-LOG:]))
