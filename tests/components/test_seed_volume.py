"""The seed, read back with another reader (libarchive), and its label."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hikube_local.render import seed


def test_the_volume_is_read_back_by_another_reader(tmp_path: Path):
    content = seed.Seed(b"#cloud-config\n" + b"x: 1\n" * 3000, b'{"instance-id":"a"}')
    path = tmp_path / "seed.iso"
    path.write_bytes(seed.volume(content))
    for options in ("joliet", "!joliet"):
        for name, data in (("user-data", content.user_data), ("meta-data", content.meta_data)):
            argv = ["bsdtar", "--options", f"iso9660:{options}", "-xOf", path, name]
            assert subprocess.run(argv, capture_output=True, check=True).stdout == data
    listing = subprocess.run(["bsdtar", "-tf", path], capture_output=True, check=True, text=True).stdout.split()
    assert sorted(n for n in listing if n != ".") == ["meta-data", "user-data"]
    # The primary volume descriptor's identifier.
    assert path.read_bytes()[32768 + 40 : 32768 + 72].rstrip() == b"cidata"
