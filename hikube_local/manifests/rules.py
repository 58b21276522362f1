"""What the platform would refuse or a user would regret: rules over objects, each a small function; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from hikube_local.api.names import ACCELERATOR, ACCELERATORS, SWITCH, WARM
from hikube_local.api.objects import BUSES, INSTANCE, RunStrategy, Source, VMDiskSpec, VMInstanceSpec
from hikube_local.api.quantities import in_bytes, parse
from hikube_local.api.sources import FromImage, fetched, url_of
from hikube_local.catalogue import data
from hikube_local.catalogue.cloudconfig import SECRET_LIMIT
from hikube_local.manifests import upcoming
from hikube_local.manifests.load import Loaded
from hikube_local.manifests.userdata import userdata_rules
from hikube_local.render.sizing import Unsized, requested
from hikube_local.source import ssh_keys as keys
from hikube_local.source.finding import Finding, Path, Severity
from hikube_local.source.scalars import disagreement
from hikube_local.text import mask_url, nearest
from hikube_local.urls import is_link_local, is_this_host

METHODS = ("PortList", "WholeIP")
_E, _W, _D = Severity.ERROR, Severity.WARNING, Severity.DIFFERENCE


def check(item: Loaded, extra_images: frozenset[str] = frozenset()) -> Iterator[Finding]:
    """All findings of one object by itself."""
    rules: tuple[Callable, ...] = _INSTANCE_RULES if item.object.kind == INSTANCE else _DISK_RULES
    for rule in rules:
        if rule is upcoming.disk:  # what it names is in the disk's own namespace
            found = rule(item.object)
        else:
            found = rule(item.object.spec, extra_images) if rule is disk_source else rule(item.object.spec)
        for f in found:
            yield placed(item, f)
    for name, words in ((ACCELERATOR, ACCELERATORS), (WARM, SWITCH)):
        yield from _annotation(item, name, words)
    yield from _readers(item)


def _annotation(item: Loaded, name: str, words: tuple[str, ...]) -> Iterator[Finding]:
    """An annotation of ours that is misspelt would do nothing, without a word."""
    said = item.object.annotations.get(name)
    if said is not None and (said.lower() not in words or item.object.kind != INSTANCE):
        what = (
            f"invalid annotation {name}: {said[:40]!r}"
            if item.object.kind == INSTANCE
            else f"{name} applies to a VMInstance only"
        )
        where = ("metadata", "annotations", name)
        f = Finding("HK304", _E, what, where, f"write {' or '.join(words)}, on a VMInstance")
        yield f.placed(item.place(*where), item.object.kind_and_name, ".".join(where))


def placed(item: Loaded, f: Finding) -> Finding:
    """A rule's finding at the place of its field."""
    from hikube_local.manifests.shape import path_text

    assert isinstance(f.at, tuple)
    return f.placed(item.place("spec", *f.at), item.object.kind_and_name, path_text(("spec", *f.at)))


def _readers(item: Loaded) -> Iterator[Finding]:
    """Plain scalars under spec that YAML's readers do not agree on."""
    spec = item.node.get("spec")
    stack: list[tuple[Path, object]] = [(("spec",), spec)] if spec else []
    while stack:
        path, node = stack.pop()
        value = node.value  # type: ignore[attr-defined]
        if isinstance(value, dict):
            stack += [((*path, k), v) for k, (_, v) in value.items()]
        elif isinstance(value, list):
            stack += [((*path, i), v) for i, v in enumerate(value)]
        elif node.plain and (how := disagreement(node.text)):  # type: ignore[attr-defined]
            from hikube_local.manifests.shape import path_text

            place = item.text.place(node.line, node.column)  # type: ignore[attr-defined]
            ref = item.object.kind_and_name
            message = f"{node.text[:40]} is {how}"  # type: ignore[attr-defined]
            yield Finding(
                "HK111",
                _W,
                message,
                place,
                ref=ref,
                path=path_text(path),
                help="quote text; write booleans as true or false, and numbers as decimals",
            )


def words(spec: VMInstanceSpec) -> Iterator[Finding]:
    """Closed sets of words, and names of the catalogue."""
    if spec.externalMethod not in METHODS:
        yield _unknown("HK304", "externalMethod", spec.externalMethod, METHODS, ("externalMethod",))
    if spec.runStrategy and spec.runStrategy not in [str(s) for s in RunStrategy]:
        yield _unknown("HK304", "runStrategy", spec.runStrategy, [str(s) for s in RunStrategy], ("runStrategy",))
    if spec.instanceType and spec.instanceType not in data.instancetypes():
        yield _unknown("HK302", "instanceType", spec.instanceType, list(data.instancetypes()), ("instanceType",))
    for field, value, rows in (
        ("instanceType", spec.instanceType, data.instancetypes()),
        ("instanceProfile", spec.instanceProfile, data.profiles()),
    ):
        if value in rows and not rows[value].hikube:
            yield _not_listed(field, value, (field,))
    profile = data.profiles().get(spec.instanceProfile)
    if profile is not None and profile.architecture != "amd64":
        what = f"instanceProfile {profile.name} requires {profile.architecture}: Hikube's machines are amd64"
        yield Finding("HK303", _E, what, ("instanceProfile",), f"use {profile.name.rpartition('.')[0]}")
    if spec.instanceProfile and spec.instanceProfile not in data.profiles():
        known = list(data.profiles())
        family = [p for p in known if p.startswith(f"{spec.instanceProfile}.")]
        if family:
            help = f"name a version: {', '.join(family)}"
            what = f"unknown instanceProfile {spec.instanceProfile!r}"
            yield Finding("HK303", _E, what, ("instanceProfile",), help)
        else:
            yield _unknown("HK303", "instanceProfile", spec.instanceProfile, known, ("instanceProfile",))


def _not_listed(field: str, value: str, path: Path) -> Finding:
    what = f"{field} {value} is listed by Cozystack but not by Hikube: Hikube may not have it"
    return Finding("HK334", _D, what, path, f"see the column HIKUBE of: hikube-local catalog {field.lower()}s")


def _unknown(code: str, field: str, value: str, known, path: Path) -> Finding:
    near = nearest(value, list(known))
    listing = ", ".join(known) if len(known) < 8 else f"see: hikube-local catalog {field.lower()}s"
    return Finding(code, _E, f"unknown {field} {value[:60]!r}", path, f"did you mean {near}?" if near else listing)


def ports(spec: VMInstanceSpec) -> Iterator[Finding]:
    given = spec.externalPorts
    seen: dict[int, int] = {}
    for i, port in enumerate(given or []):
        if not 1 <= port <= 65535:
            yield Finding("HK305", _E, f"port {port} is outside 1-65535", ("externalPorts", i))
        if port in seen:
            yield Finding("HK306", _E, f"port {port} is listed twice", ("externalPorts", i), "list it once")
        seen[port] = i
    if spec.external and spec.externalMethod == "PortList":
        if given is None:
            yield Finding("HK324", _D, "no externalPorts: port 22 is used, as in the chart", ("external",))
        elif not given:
            why = "externalPorts: [] with PortList makes a service without ports, which the API server refuses"
            yield Finding("HK307", _E, why, ("externalPorts",), "list at least one port, or set external: false")
        yield Finding(
            "HK506",
            _D,
            "the listed ports are on a loopback address of the machine, "
            "reachable only from this host; on Hikube they are on a public IP",
            ("externalPorts",),
        )
    if given and spec.external and spec.externalMethod == "WholeIP":
        yield Finding("HK318", _W, "externalPorts has no effect with WholeIP: every port is open", ("externalPorts",))
    if given and not spec.external:
        yield Finding("HK318", _W, "externalPorts has no effect with external: false", ("externalPorts",))


def sizing(spec: VMInstanceSpec) -> Iterator[Finding]:
    """vCPUs and memory, from the type or from resources, and what the profile requires."""
    if spec.instanceType and spec.instanceType not in data.instancetypes():
        return
    r = spec.resources
    for name in ("cpu", "memory", "sockets"):
        text = getattr(r, name)
        if text == "":
            continue
        try:
            value = parse(text)
        except ValueError as e:
            yield Finding("HK308", _E, str(e), ("resources", name))
            return
        if value <= 0 or (name != "memory" and value.denominator != 1):
            what = f"resources.{name} is {text}: the chart turns a fraction into 0, so the machine has no size"
            yield Finding("HK308", _E, what, ("resources", name), "write a whole number of at least 1")
            return
    given = [n for n in ("cpu", "sockets", "memory") if getattr(r, n)]
    if spec.instanceType and given and len(given) < 3:
        missing = [n for n in ("cpu", "sockets", "memory") if n not in given]
        what = f"resources has {', '.join(given)} with instanceType {spec.instanceType}, but no {', '.join(missing)}"
        yield Finding("HK326", _E, what, ("resources",), "give all three (they replace the type) or none")
        return
    if spec.instanceType and given:
        what = f"resources replaces instanceType {spec.instanceType} (before September 2026 the platform refused this)"
        yield Finding("HK516", _D, what, ("resources",))
    try:
        size = requested(spec)
    except Unsized:
        what = "Either instanceType or resources (cpu, sockets, memory) must be specified"
        yield Finding(
            "HK309",
            _E,
            what,
            ("instanceType",) if not given else ("resources",),
            "name an instanceType, or give resources.cpu, resources.sockets and resources.memory",
        )
        return
    profile = data.profiles().get(spec.instanceProfile or "ubuntu")
    if profile is None:
        return
    if profile.cpu_topology == "spread" and not spec.own_size and size.threads == 1:
        whole = 2 * profile.spread_ratio
        what = f"profile {profile.name} spreads vCPUs over threads and cores: {size.vcpus} is no multiple of {whole}"
        yield Finding("HK310", _E, what, ("instanceType",), "choose another instanceType")
    if size.vcpus < profile.min_vcpu:
        what = f"profile {profile.name} requires {profile.min_vcpu} vCPUs, the machine has {size.vcpus}"
        yield Finding("HK310", _E, what, ("instanceType",), "choose a larger instanceType")
    if size.memory < profile.min_memory:
        from hikube_local.text import size as words_of

        what = (
            f"profile {profile.name} requires {words_of(profile.min_memory)}, the machine has {words_of(size.memory)}"
        )
        yield Finding("HK310", _E, what, ("instanceType",), "choose a larger instanceType")


def disks(spec: VMInstanceSpec) -> Iterator[Finding]:
    seen: set[str] = set()
    for i, disk in enumerate(spec.disks):
        if disk.name in seen:
            yield Finding("HK323", _E, f"the disk {disk.name!r} is listed twice", ("disks", i))
        seen.add(disk.name)
        if disk.bus is not None and disk.bus not in BUSES:
            yield _unknown("HK304", "bus", disk.bus, BUSES, ("disks", i, "bus"))


def ssh_keys(spec: VMInstanceSpec) -> Iterator[Finding]:
    seen: set[str] = set()
    for i, key in enumerate(spec.sshKeys):
        kind = keys.examine(key)
        if kind is keys.KeyKind.PRIVATE:
            what = "sshKeys contains a private key: everyone who reads this manifest can read it"
            yield Finding("HK314", _E, what, ("sshKeys", i), "use the line of the .pub file, and replace this key pair")
        elif kind is keys.KeyKind.MALFORMED:
            what = "not a public key that sshd accepts (a placeholder?)"
            yield Finding("HK313", _W, what, ("sshKeys", i), "paste the content of ~/.ssh/id_ed25519.pub here")
        if key and key in seen:
            yield Finding("HK323", _E, "the key is listed twice", ("sshKeys", i))
        seen.add(key)
    if sum(len(k.encode()) for k in spec.sshKeys) > SECRET_LIMIT:
        yield Finding("HK327", _E, "sshKeys are larger than a Secret may be (1 MiB)", ("sshKeys",))
    if not spec.cloudInit and not any(spec.sshKeys):
        what = "neither sshKeys nor cloudInit: the only way in is the console, if the image has a password"
        yield Finding("HK325", _W, what, (), "add sshKeys")


def differences(spec: VMInstanceSpec) -> Iterator[Finding]:
    """What means nothing, or something else, on a laptop."""
    series = spec.instanceType.split(".")[0]
    if series in ("s1", "u1"):
        yield Finding(
            "HK508", _D, f"{series} has shared CPUs on Hikube (burstable); here it uses the host's", ("instanceType",)
        )
    if data.huge_pages(spec.instanceType):
        what = f"{series} is backed by huge pages on Hikube; here by ordinary memory"
        yield Finding("HK509", _D, what, ("instanceType",))
    if spec.gpus:
        yield Finding("HK505", _D, "gpus are not passed through here: the machine starts without them", ("gpus",))
    seen: set[str] = set()
    for i, network in enumerate(spec.attached):
        path = ("networks" if spec.networks else "subnets", i)
        if not network.name:
            yield Finding("HK304", _E, "a network without a name", path)
        elif network.name in seen:
            yield Finding("HK323", _E, f"the network {network.name[:60]!r} is listed twice", path)
        seen.add(network.name)
    if spec.further_networks:
        yield Finding(
            "HK512",
            _D,
            "additional networks are isolated networks of this host, unless the configuration sets a bridge",
            ("networks",) if spec.networks else ("subnets",),
        )
    if len(spec.disks) == 1:
        what = "system and data share one disk: data on a separate VMDisk survives a reinstall of the system"
        yield Finding("HK333", _D, what, ("disks",))
    if spec.cpuModel:
        what = f"cpuModel {spec.cpuModel[:40]!r} applies only with KVM: emulation uses QEMU's maximum model"
        yield Finding("HK513", _D, what, ("cpuModel",))
    if spec.external and spec.externalMethod == "PortList" and spec.externalAllowICMP:
        yield Finding("HK511", _D, "ping cannot be forwarded to a loopback address", ("external",))
    if spec.runStrategy in ("Always", "RerunOnFailure"):
        back = "a guest that powers itself off is started again at once; " if spec.runStrategy == "Always" else ""
        what = f"{spec.runStrategy}: {back}if QEMU ends, the next `up` starts the machine; a panic is not detected"
        yield Finding("HK514", _D, what, ("runStrategy",))


def disk_source(spec: VMDiskSpec, extra_images: frozenset[str] = frozenset()) -> Iterator[Finding]:
    given = [n for n in Source.names() if getattr(spec.source, n) is not None]
    if len(given) > 1:
        what = f"source has {' and '.join(given)}: at most one"
        yield Finding("HK311", _E, what, ("source",), "keep the one that you mean")
    if spec.source.disk and not spec.source.disk.name:
        yield Finding("HK304", _E, "source.disk has no name", ("source", "disk"))
    if (url := url_of(spec.content)) is not None:
        yield from _url(url)
    image = spec.content
    if isinstance(image, FromImage) and image.name not in extra_images:
        known = data.images().get(image.name)
        path = ("source", "pvc" if spec.source.pvc else "image", "name")
        if known is None:
            finding = _unknown("HK312", "image", image.name, list(data.images()), path)
            more = "your own image needs an entry under images: in the configuration"
            yield Finding("HK312", _E, finding.message, path, f"{finding.help}; {more}")
        elif known.reason:
            more = "set its URL under images: in the configuration"
            yield Finding("HK312", _E, f"{image.name} has no public image: {known.reason}", path, more)
        elif not known.hikube:
            yield _not_listed("image", image.name, path)


def _url(url: str) -> Iterator[Finding]:
    path = ("source", "http", "url")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = None, None
    if parts is None or parts.scheme not in ("http", "https"):
        yield Finding("HK319", _E, f"{mask_url(url)[:80]!r} is not an http or https URL", path)
    elif not host or not host.strip(".") or "<" in url or url.endswith("..."):
        yield Finding("HK319", _W, f"{mask_url(url)[:80]!r} is a placeholder", path, "put the image's URL here")
    elif is_link_local(host):
        what = f"{host} is a link-local address, where clouds serve credentials, not images"
        yield Finding("HK319", _E, what, path, "put the image's URL here")
    elif is_this_host(url):
        what = f"{host} is this host: on Hikube it would be another host, without this image"
        yield Finding("HK319", _W, what, path, "`up --allow-inner` fetches it anyway")
    elif parts.password or parts.username:
        yield Finding("HK319", _W, "the URL contains a user name or password", path)


def disk_storage(spec: VMDiskSpec) -> Iterator[Finding]:
    try:
        size = in_bytes(spec.storage)
    except ValueError as e:
        yield Finding("HK308", _E, str(e), ("storage",))
        return
    if not 0 < size < 1 << 62:
        yield Finding("HK322", _E, f"storage {spec.storage} is out of range", ("storage",), "write a size such as 20Gi")
    name = spec.content.name if isinstance(spec.content, FromImage) else ""
    image = data.images().get(name)
    if image and 0 < size < image.smallest:
        from hikube_local.text import size as words_of

        what = f"storage {spec.storage} is too small: image {name} needs at least {words_of(image.smallest)}"
        yield Finding("HK321", _E, what, ("storage",), f"write storage: {words_of(image.smallest)}")
    copies = data.STORAGE_CLASSES.get(spec.storageClass)
    if copies is None:
        near = nearest(spec.storageClass, list(data.STORAGE_CLASSES))
        help = f"did you mean {near}?" if near else f"Hikube has {', '.join(data.STORAGE_CLASSES)}"
        yield Finding("HK304", _W, f"unknown storageClass {spec.storageClass[:60]!r}", ("storageClass",), help)
    elif copies > 1:
        what = f"storageClass {spec.storageClass} keeps {copies} copies on Hikube; here it is one file"
        yield Finding("HK504", _D, what, ("storageClass",))
    elif not spec.optical and fetched(spec.content):
        what = "storageClass local keeps one copy on one node: use replicated for a system disk in production"
        yield Finding("HK332", _D, what, ("storageClass",))


_INSTANCE_RULES = (words, ports, sizing, disks, ssh_keys, userdata_rules, differences, upcoming.instance)
_DISK_RULES = (disk_source, disk_storage, upcoming.disk)
