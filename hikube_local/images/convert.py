"""Foreign formats become qcow2 once, in the cache: by qemu-img, format pinned, in a folder that holds this file alone."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from hikube_local import files
from hikube_local.errors import HikubeError
from hikube_local.images.foreign import refused
from hikube_local.run import Limits, find, run

_NAMES = {"vmdk": "image.vmdk", "vdi": "image.vdi", "vpc": "image.vhd", "vhdx": "image.vhdx"}


def to_qcow2(file: Path, format: str, virtual_size: int, folder: Path) -> Path:
    """`file` as a new qcow2 in `folder`; `file` itself is gone afterwards. Death by a signal or a limit means hostile."""
    work = files.make_folder(folder / f"convert-{secrets.token_hex(4)}")
    out = folder / f"{secrets.token_hex(8)}.qcow2"
    try:
        name = _NAMES[format]
        os.rename(file, work / name)
        # Tables of a qcow2 take less than a thousandth of its size; zeros are left out.
        bound = Limits(cpu=1800, memory=2 << 30, files=64, file_size=virtual_size + (virtual_size >> 8) + (64 << 20))
        argv: list[str | Path] = [
            find("qemu-img"),
            "convert",
            "-f",
            format,
            "-O",
            "qcow2",
            "-W",
            "-m",
            "8",
            name,
            "out",
        ]
        try:
            run(argv, limits=bound, timeout=3600, cwd=work)
        except HikubeError as e:
            if e.code == "HK607":
                raise refused(
                    f"qemu-img could not read it as {format}: {e.why[:200]}", "a broken download? fetch it again"
                ) from None
            raise
        os.rename(work / "out", out)
        return out
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
