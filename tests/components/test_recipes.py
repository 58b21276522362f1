"""Recipes of images, and what is laid into a tree before its packages."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from hikube_local.images import build


def test_a_recipe_like_another_says_only_what_differs():
    twelve, thirteen = (build.recipes()[name].values for name in ("debian-12", "debian-13"))
    assert {key for key in twelve if twelve[key] != thirteen[key]} == {"name", "suite"}
    assert (thirteen["name"], thirteen["suite"]) == ("debian-13", "trixie") and "like" not in thirteen


def test_what_an_image_is_made_by_names_it(monkeypatch, tmp_path: Path):
    """A change of the recipe that another is like, or of what fills the tree, makes other images of both."""

    def digests() -> list[str]:
        return [build.recipes()[name].digest for name in ("debian-12", "debian-13")]

    first = digests()
    assert first[0] != first[1] and first == digests()
    base = build.folder() / "debian-12" / "recipe.yaml"
    for name in ("debian-12", "debian-13"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_bytes((build.folder() / name / "recipe.yaml").read_bytes())
    monkeypatch.setattr(build, "folder", lambda: tmp_path)
    (tmp_path / "debian-12" / "recipe.yaml").write_text(base.read_text().replace("size: 3Gi", "size: 4Gi"))
    changed = digests()
    assert not {*first} & {*changed}
    fill = tmp_path / "fill.py"
    fill.write_text("pass")
    monkeypatch.setattr(build, "_FILL", fill)
    assert not {*changed} & {*digests()}


@pytest.mark.parametrize("name", ["debian-12", "debian-13"])
def test_what_comes_before_the_packages(name: str, tmp_path: Path):
    values = build.recipes()[name].values
    with tarfile.open(build._early(values["early_files"], tmp_path)) as tar:
        found = {entry.name: (entry.mode, tar.extractfile(entry).read().decode()) for entry in tar.getmembers()}
    hook = "./etc/initramfs-tools/hooks/hikube-local"
    assert {path: text for path, (_, text) in found.items()} == {f".{p}": t for p, t in values["early_files"].items()}
    assert {path for path, (mode, _) in found.items() if mode == 0o755} == {hook}
    assert "virtio_blk" in found[hook][1].split()


def test_the_packages_come_from_the_recipes_own_suite():
    for name, suite in (("debian-12", "bookworm"), ("debian-13", "trixie")):
        values = build.recipes()[name].values
        lines = build._mirrors(values)
        laid = build.laid(values)["/etc/apt/sources.list"]
        assert [line.split()[2] for line in lines] == [suite, f"{suite}-updates", f"{suite}-security"]
        assert [line.split()[2] for line in laid.splitlines()] == [suite, f"{suite}-updates", f"{suite}-security"]
