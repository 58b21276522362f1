"""The NoCloud seed, byte for byte what the platform's charts and KubeVirt give the guest; pure."""

from __future__ import annotations

import hashlib
import io
import json
from functools import lru_cache

from hikube_local.api import names
from hikube_local.api.objects import Object
from hikube_local.records import dataclass

# What the chart has netplan guests told (cozystack#4306): both names that a NIC can have.
NETWORK = (
    "network:\n  version: 2\n  ethernets:\n"
    + "".join(
        f"    cozy-{kind}:\n"
        f'      match:\n        name: "{kind}*"\n'
        "      dhcp4: true\n      dhcp4-overrides:\n        use-domains: true\n"
        for kind in ("en", "eth")
    )
).encode()


class UserDataRefused(ValueError):
    """The chart cannot carry this user-data; the text says why."""


@dataclass(frozen=True, slots=True)
class Seed:
    """The files of the seed volume."""

    user_data: bytes
    meta_data: bytes
    network: bytes = b""  # none: cloud-init makes its own, for the first NIC

    @property
    def files(self) -> dict[str, bytes]:
        """Content by the names that the guest sees."""
        more = {"network-config": self.network} if self.network else {}
        return {"user-data": self.user_data, "meta-data": self.meta_data, **more}

    @property
    def requested(self) -> str:
        """A digest of what is asked of cloud-init: the user-data and the keys, whatever the machine's type is."""
        keys = json.loads(self.meta_data).get("public-keys", {})
        return hashlib.sha256(self.user_data + b"\0" + json.dumps(keys).encode()).hexdigest()

    @property
    def digest(self) -> str:
        more = b"\0" + self.network if self.network else b""
        return hashlib.sha256(self.meta_data + b"\0" + self.user_data + more).hexdigest()


@lru_cache(maxsize=16)
def chart_text(cloud_init: str) -> str:
    """cloudInit as it comes out of the chart: each line indented by four under `userdata: |` and read as YAML.

    Doing literally the same gives the same bytes; raises UserDataRefused where the release would fail.
    """
    import yaml

    lines = cloud_init.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    document = "stringData:\n  userdata: |\n" + "\n".join("    " + line for line in lines) + "\n"
    try:
        value = yaml.load(document, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        text = value["stringData"]["userdata"]
        if set(value) != {"stringData"} or set(value["stringData"]) != {"userdata"} or not isinstance(text, str):
            raise UserDataRefused("a line with less indentation than the first one ends the text in the chart")
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None) or getattr(e, "context_mark", None)
        line = f" at its line {mark.line - 1}" if mark and mark.line >= 2 else ""
        raise UserDataRefused(
            f"the chart indents the text and reads it as YAML, and that fails{line}: "
            "a line is indented less than the first one, or a control character stands in it"
        ) from None
    if any(c in cloud_init for c in "\x85\u2028\u2029"):
        raise UserDataRefused("a line break of Unicode's own (U+0085, U+2028) breaks the chart's YAML")
    return text


def go_quote(text: str) -> str:
    """Text as Go's %q writes it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    out = ['"']
    short = {
        '"': '\\"',
        "\\": "\\\\",
        "\a": "\\a",
        "\b": "\\b",
        "\f": "\\f",
        "\n": "\\n",
        "\r": "\\r",
        "\t": "\\t",
        "\v": "\\v",
    }
    for c in text:
        if c in short:
            out.append(short[c])
        elif c.isprintable():
            out.append(c)
        elif ord(c) < 0x80:
            out.append(f"\\x{ord(c):02x}")
        else:
            out.append(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")
    return "".join(out) + '"'


def go_json(value: object) -> str:
    """JSON as Go's encoder writes it: no blanks, <, > and & escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


def public_keys(ssh_keys: tuple[str, ...]) -> list[str]:
    """The keys in the order of their files' names (key0, key1, key10, key2 …); empty ones are passed over."""
    order = sorted(range(len(ssh_keys)), key=lambda i: f"key{i}")
    return [ssh_keys[i] for i in order if ssh_keys[i]]


def user_data(obj: Object) -> bytes:
    spec = obj.instance
    if spec.cloudInit:
        return chart_text(spec.cloudInit).encode()
    lines = "".join(f"  - {go_quote(key)}\n" for key in spec.sshKeys)
    return f"#cloud-config\nssh_authorized_keys:\n{lines}".encode()


def meta_data(obj: Object, instance_id: str) -> bytes:
    keys = public_keys(obj.instance.sshKeys)
    numbered = {str(i): key for i, key in enumerate(keys)}
    value: dict[str, object] = {
        # KubeVirt takes it from an annotation, which a machine without a type has not.
        "instance-type": "" if obj.instance.own_size else obj.instance.instanceType,
        "instance-id": instance_id,
        "local-hostname": names.hostname(obj.name),
        "public-keys": {n: numbered[n] for n in sorted(numbered)},
    }
    return go_json({k: v for k, v in value.items() if v}).encode()


def seed(obj: Object, instance_id: str) -> Seed | None:
    """The seed of a VMInstance, or None where it has neither keys nor user-data."""
    if not obj.instance.has_seed:
        return None
    return Seed(user_data(obj), meta_data(obj, instance_id), NETWORK if obj.instance.netplanDhcp else b"")


def portable(obj: Object) -> Seed | None:
    """The seed by the formula alone, as a machine that was never here before gets it."""
    return seed(obj, names.firmware_uuid(obj.namespace, obj.name, obj.instance.cloudInitSeed))


def volume(content: Seed) -> bytes:
    """The ISO 9660 volume: label cidata, Joliet and Rock Ridge, a whole number of MiB as KubeVirt's xorrisofs makes it."""
    import pycdlib

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    for name, data in content.files.items():
        short = name.replace("-", "").upper()
        iso.add_fp(
            io.BytesIO(data), len(data), f"/{short}.;1", rr_name=name, joliet_path=f"/{name}", file_mode=0o100444
        )
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    made = out.getvalue()
    return made + bytes(-len(made) % (1 << 20))
