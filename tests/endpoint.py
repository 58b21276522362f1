"""`serve` over the simulator, and a client of it that has its token."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time

import requests

from tests.conftest import Program
from tests.growth import patience

BASE = "/apis/apps.cozystack.io/v1alpha1/namespaces/default"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
MERGE = {"Content-Type": "application/merge-patch+json"}


def disk(name: str, **spec: object) -> dict:
    value = {"apiVersion": "apps.cozystack.io/v1alpha1", "kind": "VMDisk", "metadata": {"name": name}}
    return value | {"spec": {"storage": "1Gi", "storageClass": "local"} | spec}


def machine(name: str, *disks: str, **spec: object) -> dict:
    value = {"apiVersion": "apps.cozystack.io/v1alpha1", "kind": "VMInstance", "metadata": {"name": name}}
    return value | {"spec": {"instanceType": "u1.nano", "instanceProfile": "alpine", "disks": list(disks)} | spec}


class Endpoint:
    """`serve` of a state root, and a client that has its token."""

    def __init__(self, program: Program, *words: str) -> None:
        self.program = program
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        argv = [
            sys.executable,
            "-m",
            "hikube_local",
            "serve",
            "--port",
            str(self.port),
            "--backend",
            "simulator",
            *words,
        ]
        self.log = program.folder / f"serve-{self.port}.log"
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(argv, env=program.env, cwd=program.folder, stdout=out, stderr=out)
        deadline = time.monotonic() + patience(20)
        while "serving" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self.url = f"https://127.0.0.1:{self.port}"
        self.folder = program.home / "state" / "serve"
        self.http = requests.Session()
        self.http.verify = str(self.folder / "ca.crt")
        self.http.headers["Authorization"] = f"Bearer {(self.folder / 'token').read_text()}"
        self.http.trust_env = False

    def __call__(self, verb: str, path: str, body: object = None, **more) -> requests.Response:
        data = json.dumps(body) if body is not None else None
        return self.http.request(verb, self.url + path, data=data, timeout=patience(30), **more)

    def until(self, path: str, holds, what: str) -> dict:
        deadline = time.monotonic() + patience(20)
        while True:
            answer = self("GET", path)
            if holds(answer):
                return answer.json()
            assert time.monotonic() < deadline, f"{what}: {answer.text[:600]}"
            time.sleep(0.05)

    def watch(self, path: str, **query: str) -> Watch:
        return Watch(self, path, query)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(patience(10))


class Watch:
    """The events of a watch, collected by a thread."""

    def __init__(self, endpoint: Endpoint, path: str, query: dict[str, str]) -> None:
        params = {"watch": "true", **query}
        self.answer = endpoint.http.get(endpoint.url + path, params=params, stream=True, timeout=patience(60))
        self.events: list[dict] = []
        self.ended = threading.Event()
        if self.answer.status_code == 200:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for line in self.answer.iter_lines():
                self.events.append(json.loads(line))
        except (requests.RequestException, ValueError):
            pass
        self.ended.set()

    def until(self, holds, what: str) -> list[dict]:
        deadline = time.monotonic() + patience(20)
        while not holds(self.events):
            assert time.monotonic() < deadline, f"{what}: {[(e['type'], e['object']) for e in self.events][-3:]}"
            time.sleep(0.02)
        return self.events


def named(event: dict) -> str:
    return event["object"]["metadata"].get("name", "")


def works(value: dict) -> bool:
    return any(c["type"] == "WorkloadsReady" and c["status"] == "True" for c in value["status"]["conditions"])
