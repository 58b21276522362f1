"""The Kubernetes endpoint over real machines: made by the API, entered as virtctl does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import TINY, Host, Real
from tests.forms import valid
from tests.growth import patience
from tests.page import CHROMIUM

pytestmark = pytest.mark.e2e


def look_at(real: Real, host: Host) -> None:
    """The page in a browser: list, boot, console, screen, network, a checkpoint and back, usage."""
    if CHROMIUM is None:
        return  # tests/simulator/test_browser.py says so
    link = real("ui", "--print").out.strip()
    argv = [*host.enter, sys.executable, "-P", "-m", "tests.e2e.inside_page", link]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=patience(400), env=env)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert told["list"] == told["screen"] == told["snapshots"] == told["console after a reload"] == "yes", told
    assert told["console"] == "page-42" and told["network"] == "True" and told["usage"] == "4", told
    print(done.stdout)


def test_virtctl_kubectl_and_prometheus_reach_a_machine_that_the_command_line_made(
    real: Real, host: Host, tiny_image: Path
):
    assert real("up", real.file("m.yaml", TINY)).code == 0
    argv = [*real.before({}), "-m", "hikube_local", "serve", "--port", "26443"]
    log = real.folder / "serve.log"
    with open(log, "wb") as out:
        serve = subprocess.Popen(argv, env=real.env, cwd=real.folder, stdout=out, stderr=out)
    try:
        real.wait_for(lambda: "serving" in log.read_text(), "serve")
        folder = real.home / "state" / "serve"
        client = Path(__file__).with_name("inside_serve.py")
        argv = [*host.enter, sys.executable, "-P", client, folder, "26443", tiny_image, str(patience(1))]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=patience(400))
        assert done.returncode == 0, done.stderr + log.read_text()
        told = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
        assert "hello from" in told["page"] and told["console"] == "typed-42", told
        assert told["vnc"].startswith("RFB 003") and told["screenshot"] == "PNG" and told["plain GET"] == "400", told
        assert told["no agent"] == "409" and told["log"] == "True" and told["top"].startswith("True"), told
        for name in ("cpu_usage_seconds_total", "network_receive_bytes_total", "storage_read_traffic_bytes_total"):
            assert told[name] == "True", told
        assert told["history"] == "True" and told["upload"] == "Succeeded" and told["soft reboot"] == "202", told
        real.wait_for(lambda: "power button pressed" in real("logs", "web").out, "the guest to go down")
        real.wait_for(lambda: "hello" in (host.http(real.access(80)) or ""), "it to be back")
        assert "CPU" in real("top", "web", "--history", "10m").out
        valid("history", real("top", "web", "--history", "10m", "-o", "json").json)
        look_at(real, host)
        real("stop", "web", "--force")  # by the command line; the keeper leaves it stopped
        assert real.status()["printableStatus"] == "Stopped"
    finally:
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(patience(20)) == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()
