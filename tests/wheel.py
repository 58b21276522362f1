"""The wheel, built from this checkout and laid into a folder with what it needs, without libvirt's binding."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

# What a plain `pip install` of the wheel brings.
NEEDED = [
    "click",
    "pydantic_core",
    "typing_extensions",
    "yaml",
    "_yaml",
    "requests",
    "urllib3",
    "idna",
    "certifi",
    "charset_normalizer",
    "pycdlib",
    "platformdirs",
    "zstandard",
]


def install(work: Path, site: Path) -> Path:
    """Build the wheel in `work` and install it into `site`; hands back the wheel."""
    argv = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(work),
        str(ROOT),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    wheel = next(work.glob("hikube_local-*.whl"))
    site.mkdir(parents=True)
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec and spec.origin, name
        origin = Path(spec.origin)
        if spec.submodule_search_locations:
            shutil.copytree(origin.parent, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, site)
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    return wheel
