"""A UDP echo server for the tiny guest, whose busybox has none: a static x86-64 ELF of a few hundred bytes.

socket, bind to 0.0.0.0:PORT, then recvfrom and sendto for ever.
"""

from __future__ import annotations

import struct

PORT = 1194
_BASE = 0x400000
_HEADERS = 64 + 56


def elf() -> bytes:
    """The program; the buffers lie behind the file's end, zeroed by the kernel."""
    code = b""

    def emit(text: str, *values: int) -> None:
        nonlocal code
        code += bytes.fromhex(text) if not values else bytes.fromhex(text) + struct.pack(f"<{len(values)}I", *values)

    size = 122  # of the code; asserted below
    address = _BASE + _HEADERS + size
    length, source, buffer = address + 16, address + 32, address + 64
    emit("bf", 2), emit("be", 2), emit("31d2"), emit("b8", 41), emit("0f05")  # socket(AF_INET, SOCK_DGRAM, 0)
    emit("4189c4")  # r12d = fd
    emit("4489e7"), emit("be", address), emit("ba", 16), emit("b8", 49), emit("0f05")  # bind(fd, address, 16)
    loop = len(code)
    emit("c70425", length, 16)
    emit("4489e7"), emit("be", buffer), emit("ba", 2048), emit("4531d2")
    emit("41b8", source), emit("41b9", length), emit("b8", 45), emit("0f05")  # recvfrom
    emit("89c2"), emit("4489e7"), emit("be", buffer), emit("4531d2")
    emit("41b8", source), emit("41b9", 16), emit("b8", 44), emit("0f05")  # sendto
    code += bytes((0xEB, (loop - len(code) - 2) & 0xFF))
    assert len(code) == size, len(code)
    data = struct.pack("<H", 2) + struct.pack(">H", PORT) + bytes(12)
    total = _HEADERS + len(code) + len(data)
    head = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, _BASE, _BASE, total, total + 8192, 4096)
    return head + segment + code + data
