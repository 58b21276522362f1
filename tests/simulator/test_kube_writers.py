"""Many writers and watchers of the endpoint at once: what a list and the changes after it tell is what there is."""

from __future__ import annotations

import random
import threading
import time

import pytest
import requests

from tests.conftest import PAIR, Program
from tests.endpoint import BASE, MERGE, Endpoint, disk, works
from tests.growth import patience


def _write(endpoint: Endpoint, seed: int) -> None:
    """A writer of the API's: creates, labels and deletes disks of a few names."""
    rng = random.Random(seed)
    for _ in range(25):
        name = f"d{rng.randint(0, 4)}"
        match rng.randint(0, 3):
            case 0 | 1:
                endpoint("POST", f"{BASE}/vmdisks", disk(name))
            case 2:
                label = {"metadata": {"labels": {"n": str(rng.randint(0, 9))}}}
                endpoint("PATCH", f"{BASE}/vmdisks/{name}", label, headers=MERGE)
            case 3:
                endpoint("DELETE", f"{BASE}/vmdisks/{name}")


def _told(state: dict[str, dict], events: list[dict]) -> dict[str, dict]:
    """What a client knows that had `state` and saw these."""
    known = dict(state)
    for event in events:
        if event["type"] == "BOOKMARK":
            continue
        value = event["object"]
        name = value["metadata"]["name"]
        if event["type"] == "DELETED":
            known.pop(name, None)
        else:
            assert event["type"] == ("MODIFIED" if name in known else "ADDED"), (event["type"], name)
            known[name] = value
    return known


def _listed(endpoint: Endpoint) -> tuple[str, dict[str, dict]]:
    body = endpoint("GET", f"{BASE}/vmdisks").json()
    return body["metadata"]["resourceVersion"], {v["metadata"]["name"]: v for v in body["items"]}


def _plain(state: dict[str, dict]) -> dict[str, tuple]:
    return {
        name: (v["metadata"]["uid"], v["metadata"]["resourceVersion"], v["metadata"].get("labels"))
        for name, v in state.items()
    }


def test_a_list_and_the_changes_after_it_are_what_there_is(hikube: Program):
    endpoint = Endpoint(hikube)
    revision, state = _listed(endpoint)
    watches = [endpoint.watch(f"{BASE}/vmdisks", resourceVersion=revision) for _ in range(3)]
    whole = endpoint.watch(f"{BASE}/vmdisks", sendInitialEvents="true", allowWatchBookmarks="true")
    threads = [threading.Thread(target=_write, args=(endpoint, seed)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    file = hikube.file(
        "more.yaml", "apiVersion: apps.cozystack.io/v1alpha1\nkind: VMDisk\nmetadata: {name: cli}\nspec: {}\n"
    )
    for n in range(3):  # the command line beside them
        hikube(
            "up" if n % 2 == 0 else "delete",
            *([file, "--backend", "simulator"] if n % 2 == 0 else ["vmdisk/cli", "--yes"]),
        )
    for thread in threads:
        thread.join()
    deadline = time.monotonic() + patience(30)
    while True:
        _, there = _listed(endpoint)
        found = [_plain(_told(state, list(w.events))) for w in watches] + [_plain(_told({}, list(whole.events)))]
        if all(f == _plain(there) for f in found) and not any(
            v["metadata"].get("deletionTimestamp") for v in there.values()
        ):
            break
        assert time.monotonic() < deadline, (found, _plain(there))
        time.sleep(0.1)
    # It goes on where it was after the endpoint was killed, from the last revision that a client saw.
    seen = max(int(e["object"]["metadata"]["resourceVersion"]) for w in watches for e in w.events)
    endpoint.process.kill()
    endpoint.process.wait()
    again = Endpoint(hikube)
    try:
        later = again.watch(f"{BASE}/vmdisks", resourceVersion=str(seen))
        assert again("POST", f"{BASE}/vmdisks", disk("after")).status_code == 201
        later.until(lambda e: any(v["object"]["metadata"]["name"] == "after" for v in e), "what came after the kill")
        assert "after" in _told(there, later.events)
    finally:
        again.close()


@pytest.mark.parametrize("rounds", [4, pytest.param(25, marks=pytest.mark.full)])
def test_killed_at_any_moment_no_accepted_write_is_lost(hikube: Program, rounds: int):
    """The endpoint is killed while clients and the command line write; the next one has what was accepted, and heals the rest."""
    rng = random.Random(rounds)
    accepted: dict[str, str] = {}
    kept: set[str] = set()

    def write(endpoint: Endpoint, turn: int) -> None:
        for n in range(50):
            name = f"d{n % 7}"
            label = {"metadata": {"labels": {"turn": f"{turn}-{n}"}}}
            try:
                if name not in accepted and endpoint("POST", f"{BASE}/vmdisks", disk(name)).status_code in (201, 409):
                    accepted[name] = ""
                if endpoint("PATCH", f"{BASE}/vmdisks/{name}", label, headers=MERGE).status_code == 200:
                    accepted[name] = f"{turn}-{n}"
                secret = {"metadata": {"name": f"s{turn}-{n}"}, "stringData": {"a": "b"}}
                if endpoint("POST", "/api/v1/namespaces/default/secrets", secret).status_code == 201:
                    kept.add(f"s{turn}-{n}")
            except requests.RequestException:
                return  # what was in flight may be there or not

    for turn in range(rounds):
        endpoint = Endpoint(hikube)
        writer = threading.Thread(target=write, args=(endpoint, turn))
        writer.start()
        text = (
            PAIR.replace("name: sys", f"name: c{turn}")
            .replace("- sys", f"- c{turn}")
            .replace("name: web", f"name: w{turn}")
        )
        beside = threading.Thread(
            target=hikube, args=("up", hikube.file(f"{turn}.yaml", text), "--backend", "simulator")
        )
        beside.start()
        time.sleep(rng.uniform(0.05, 1.5))
        endpoint.process.kill()
        endpoint.process.wait()
        writer.join()
        beside.join()
    endpoint = Endpoint(hikube)
    try:
        there = {v["metadata"]["name"]: v for v in endpoint("GET", f"{BASE}/vmdisks").json()["items"]}
        for name, label in accepted.items():
            now = there[name]["metadata"].get("labels", {}).get("turn", "")
            assert label == "" or _order(now) >= _order(label), (name, now, label)
        secrets = endpoint("GET", "/api/v1/namespaces/default/secrets").json()["items"]
        assert kept <= {v["metadata"]["name"] for v in secrets}
        for turn in range(rounds):
            endpoint.until(
                f"{BASE}/vminstances/w{turn}", lambda a: a.ok and works(a.json()), "the command line's machine"
            )
    finally:
        endpoint.close()


def _order(label: str) -> tuple[int, ...]:
    return tuple(map(int, label.split("-"))) if label else (-1,)
