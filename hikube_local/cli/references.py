"""Words that name things: manifests (files, folders, URLs) and objects in kubectl's forms."""

from __future__ import annotations

from hikube_local.errors import HikubeError, UsageError


def manifests(files: tuple[str, ...], filename: tuple[str, ...], offline: bool = False) -> tuple[str, ...]:
    """The manifests that a command names, as arguments or with -f: at least one; those at a URL are read at once."""
    if not (*files, *filename):
        raise UsageError("HK810", "no manifest given", fix="give a file, a folder or - for standard input")
    return urls((*files, *filename), offline)


def urls(words: tuple[str, ...], offline: bool = False) -> tuple[str, ...]:
    """`words` with what was read at those that are URLs."""
    return tuple(_fetched(w, offline) if w.startswith(("http://", "https://")) else w for w in words)


def _fetched(url: str, offline: bool) -> str:
    """A manifest at a URL that was typed here: read whole, within the bounds of any other."""
    from hikube_local.images import http
    from hikube_local.manifests import load
    from hikube_local.source import nodes
    from hikube_local.text import mask_url

    if offline:
        raise UsageError("HK810", f"--offline, but the manifest {mask_url(url)} is remote", fix="download it first")
    content = bytearray()
    try:
        with http.get(url, {}) as answer:
            for block in answer.iter_content(1 << 16):
                content += block
                if len(content) > nodes.MAX_BYTES:
                    break  # the reader says that it is too long
    except (http.Again, HikubeError) as e:
        error = e.error if isinstance(e, http.Again) else e
        raise UsageError(
            "HK101", error.what, why=error.why, fix="check the URL in a browser, or download the file first"
        ) from None
    return load.Fetched.of(mask_url(url), bytes(content))


def reference(word: str, default_kind: str | None = None) -> tuple[str, str]:
    """`vm/web`, `vminstance/web` or, with a default kind, `web` and `vm-instance-web`, as (kind, name)."""
    from hikube_local.api.names import user_names
    from hikube_local.api.objects import INSTANCE, KIND_WORDS

    head, slash, name = word.partition("/")
    if slash:
        kind = KIND_WORDS.get(head.lower())
        if kind is None:
            raise UsageError("HK810", f"unknown kind {head!r} in {word!r}", fix="write vminstance/NAME or vmdisk/NAME")
    elif default_kind is None:
        raise UsageError("HK810", f"{word!r} has no kind", fix=f"write vminstance/{word} or vmdisk/{word}")
    else:
        kind, name = default_kind, word
    return kind, user_names(name) if kind == INSTANCE else name.removeprefix("vm-disk-")


def references(words: tuple[str, ...], default_kind: str | None = None) -> list[tuple[str, str | None]]:
    """kubectl's forms: `vm`, `vm web db`, `vm/web vmdisk/sys`, `vm,vmdisk`; name None means all of the kind."""
    from hikube_local.api.objects import KIND_WORDS

    if not words:
        return []
    kinds = [KIND_WORDS.get(k.lower()) for k in words[0].split(",")]
    if "/" not in words[0] and all(kinds):
        names = [reference(w, kinds[0]) for w in words[1:]]
        return list(names) or [(k, None) for k in kinds if k]
    if "/" not in words[0] and default_kind is None and words[0] != "all":
        known = "vminstances (vm, vmi) and vmdisks (dv)"
        raise UsageError("HK810", f"unknown kind {words[0]!r}", fix=f"the kinds are {known}")
    if words == ("all",):
        from hikube_local.api.objects import DISK, INSTANCE

        return [(INSTANCE, None), (DISK, None)]
    return [reference(w, default_kind) for w in words]
