"""pytest plugin (entry point `hikube_local`): machines of a manifest, booted once a session, as testinfra hosts.

def test_web(hikube_machines):
    web = hikube_machines("manifest.yaml")["web"]
    assert web.service("nginx").is_running
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Boot = Callable[[str | Path], dict[str, Any]]


@pytest.fixture(scope="session")
def hikube_machines() -> Iterator[Boot]:
    """A function: manifest to {machine's name: testinfra host}. A machine that does not come up fails the test."""
    from hikube_local import config
    from hikube_local.access import keys
    from hikube_local.engine.session import Session
    from hikube_local.errors import HikubeError
    from hikube_local.events import ignore
    from hikube_local.lab import report, root
    from hikube_local.lab.guest import host
    from hikube_local.lab.trial import Trial
    from hikube_local.manifests.validate import Known, validate
    from hikube_local.paths import layout
    from hikube_local.plan.steps import RunOptions
    from hikube_local.readiness.stages import Result

    places = layout()
    session = Session(places, config.read(places.config))
    booted: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(session.cache.in_use())

        def boot(manifest: str | Path) -> dict[str, Any]:
            name = str(Path(manifest).resolve())
            if name in booted:
                return booted[name]
            if name in failed:
                pytest.fail(failed[name], pytrace=False)  # it was tried once
            known = Known({}, session.image_names)
            loaded = validate([name], None, session.config.namespace, known, for_plan=True)
            if loaded.findings.failed:
                pytest.fail("\n".join(d.render() for d in loaded.findings.items), pytrace=False)
            own = stack.enter_context(root.made(places))
            trial = Trial(own, session.image_settings, ignore, RunOptions(), None, keys.own_key(places))
            stack.callback(trial.close)
            hosts = {}
            for r in trial.run([i.object for i in loaded.objects], ()):
                if r.verdict is None or r.verdict.result not in (Result.READY, Result.CLOUD_INIT_FAILED):
                    failed[name] = f"{r.machine.name} did not come up: {report.cause(r)}"
                    pytest.fail(failed[name], pytrace=False)
                try:
                    guest, _ = trial.guest(r)
                except HikubeError as e:
                    failed[name] = f"{r.machine.name} cannot be asked: {e.what}"
                    pytest.fail(failed[name], pytrace=False)
                hosts[r.machine.name] = host(guest, r.machine.name)
            booted[name] = hosts
            return hosts

        yield boot
