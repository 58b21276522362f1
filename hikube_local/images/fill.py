"""Run by build.py with root's ids (maybe in a user namespace): unpack the tree, lay files into it, make the file system.

Standard library alone; reads one JSON file: tar, tree, partition, size (bytes), files {path: text}.
"""

import json
import os
import subprocess
import sys


def main(plan_file: str) -> None:
    with open(plan_file, encoding="utf-8") as f:
        plan = json.load(f)
    tree = plan["tree"]
    os.mkdir(tree, 0o755)
    # Device nodes cannot be made in a user namespace, and devtmpfs makes them anyway.
    subprocess.run(["tar", "-xf", plan["tar"], "-C", tree, "--numeric-owner", "--exclude=./dev/*"], check=True)
    os.unlink(plan["tar"])
    for path, text in plan["files"].items():
        target = tree + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(target, 0o644)
    # Each guest makes its own identity at its first boot.
    for name in os.listdir(f"{tree}/etc/ssh"):
        if name.startswith("ssh_host_"):
            os.unlink(f"{tree}/etc/ssh/{name}")
    with open(f"{tree}/etc/machine-id", "w", encoding="ascii"):
        pass
    for path in ("var/lib/dbus/machine-id", "etc/resolv.conf"):
        if os.path.lexists(f"{tree}/{path}"):
            os.unlink(f"{tree}/{path}")
    os.symlink("/run/systemd/resolve/stub-resolv.conf", f"{tree}/etc/resolv.conf")
    for kind in ("vmlinuz", "initrd.img"):
        found = sorted(n for n in os.listdir(f"{tree}/boot") if n.startswith(kind + "-"))
        link = f"{tree}/{kind}"
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(f"boot/{found[-1]}", link)
    with open(plan["partition"], "wb") as f:
        f.truncate(plan["size"])
    argv = [
        "mkfs.ext4",
        "-q",
        "-F",
        "-L",
        "root",
        "-E",
        "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1",
        "-O",
        "^metadata_csum_seed",
    ]
    subprocess.run([*argv, "-d", tree, plan["partition"]], check=True)
    os.chmod(plan["partition"], 0o644)
    # The tree's owners are ids that only this namespace may delete.
    subprocess.run(["rm", "-rf", "--one-file-system", tree], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
