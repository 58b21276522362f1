"""A picture of a machine's screen, as PNG."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from hikube_local.backends.qemu import libvirt
from hikube_local.errors import HikubeError

MOST_PIXELS = 16384 * 4096


def screenshot(connection: Any, dom: Any) -> bytes:
    """The screen as PNG; libvirt gives PNG or PPM, which becomes PNG."""
    lv = libvirt.module()
    stream = connection.newStream(0)
    try:
        kind = dom.screenshot(stream, 0, 0)
        data = b""
        while block := stream.recv(262144):
            data += block
            if len(data) > 256 << 20:
                raise HikubeError("HK801", "the screen is too large")
        stream.finish()
    except lv.libvirtError as e:
        raise libvirt.translated(e, "the screenshot could not be taken") from None
    return data if "png" in kind else ppm_to_png(data)


def ppm_to_png(data: bytes) -> bytes:
    """A binary PPM (P6, 8 bits a sample) as PNG."""
    fields: list[bytes] = []
    at = 0
    while len(fields) < 4:
        end = at
        while end < len(data) and data[end : end + 1] not in b" \t\r\n":
            end += 1
        word = data[at:end]
        if word.startswith(b"#"):
            end = data.index(b"\n", at)
        elif word:
            fields.append(word)
        at = end + 1
    magic, width, height, top = fields[0], int(fields[1]), int(fields[2]), int(fields[3])
    if magic != b"P6" or top != 255 or width * height > MOST_PIXELS:
        raise HikubeError("HK801", "the screen came in a form that is not known")
    rows = b"".join(b"\0" + data[at + y * width * 3 : at + (y + 1) * width * 3] for y in range(height))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
