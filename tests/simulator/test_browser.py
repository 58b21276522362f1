"""The page in a real browser, over the simulator. What a simulated machine has not (console, screen, usage) is played to it.

Unmarked: a sample. With the mark `full`: each view in each scheme and size, ten tabs, budgets, a server that goes and comes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Program
from tests.endpoint import BASE, Endpoint, disk, machine
from tests.growth import patience
from tests.page import Look, browser, looking

LIST = f"{BASE}/vminstances"
SHOTS = os.environ.get("HIKUBE_LOCAL_SCREENSHOTS", "")
CONSOLE = re.compile(r"/virtualmachineinstances/[^/]+/console$")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as found:
        yield found


def link(endpoint: Endpoint, to: str = "") -> str:
    url = str(endpoint("POST", "/hikube/v1/page", {}).json()["url"])
    return f"{url}&to={to}" if to else url


def make(endpoint: Endpoint, name: str, simulate: str = "", **spec: object) -> None:
    assert endpoint("POST", f"{BASE}/vmdisks", disk(f"{name}-sys")).ok
    value = machine(name, f"{name}-sys", **spec)
    if simulate:
        value["metadata"]["annotations"] = {"hikube.local/simulate": simulate}
    answer = endpoint("POST", LIST, value)
    assert answer.ok, answer.text


SEED = "#cloud-config\npackages: [nginx]\n"


def three(endpoint: Endpoint) -> None:
    make(endpoint, "web", external=True, externalPorts=[22, 80], cloudInit=SEED)
    make(endpoint, "broken", "stage=kernel,outcome=panic")
    make(endpoint, "slow", "stage=cloud-config,outcome=hang", cloudInit=SEED)


# The sample


def test_list_machine_and_actions(endpoint: Endpoint, chromium: Any):
    """Signed in by a link, three machines, the failed one's cause, a stop, and one that comes while we look."""
    three(endpoint)
    with looking(chromium) as look:
        look.open(link(endpoint))
        assert "code=" not in look.page.url, "the code is in no history"
        look.shows("web", "broken", "Ready", "Failed", "the simulated kernel panicked", "8 of 9 · cloud-init (config)")
        assert look.page.locator("a[href^='http://127.77']").get_attribute("rel") == "noopener noreferrer"
        make(endpoint, "late")
        look.shows("late")
        look.page.keyboard.press("/")
        look.page.keyboard.type("bro")
        look.until(lambda: look.page.get_by_role("row").filter(visible=True).count() == 2, "the head and one row")
        look.page.keyboard.press("Escape")
        look.page.get_by_role("link", name="broken").click()
        look.heading("broken")
        look.shows("the simulated kernel panicked", "[HK903]", "Next step:", "failed here")
        assert look.page.evaluate("document.activeElement.tagName") == "H1", "focus follows the view"
        look.at("#/machines/default/web")
        look.heading("web")
        look.page.get_by_role("button", name="Stop").click()
        look.shows("Stopping web", "Stopped")
        look.page.get_by_role("button", name="Start").click()
        look.until(lambda: "● Ready".replace(" ", "") in look.text().replace(" ", "").replace("\n", ""), "up again")
        look.page.get_by_role("button", name="Reset").click()
        look.page.get_by_role("dialog").get_by_role("button", name="Reset").click()
        look.shows("does not support snapshots", "[HK510]")
        look.at("#/machines/default/web/manifest")
        look.shows("#cloud-config", "packages: [nginx]")
        look.clean()


def test_delete_asks_for_the_name(endpoint: Endpoint, chromium: Any):
    make(endpoint, "web")
    with looking(chromium) as look:
        look.open(link(endpoint, "/machines/default/web")).heading("web")
        look.shows("Ready")
        look.page.get_by_role("button", name="Delete").click()
        dialog = look.page.get_by_role("dialog")
        yes = dialog.get_by_role("button", name="Delete")
        assert yes.is_disabled()
        look.page.keyboard.type("we")
        assert yes.is_disabled()
        look.page.keyboard.type("b")
        yes.click()
        look.shows("This machine was deleted")
        assert endpoint("GET", f"{LIST}/web").status_code == 404
        look.clean()


# What a guest writes


class Played:
    """A console that the test speaks for."""

    def __init__(self, look: Look) -> None:
        self.sockets: list[Any] = []
        self.typed: list[bytes] = []
        look.page.route_web_socket(CONSOLE, self._open)

    def _open(self, ws: Any) -> None:
        self.sockets.append(ws)
        ws.on_message(lambda m: self.typed.append(m if isinstance(m, bytes) else m.encode()))

    def say(self, data: bytes) -> None:
        self.sockets[-1].send(data)


def console(look: Look, endpoint: Endpoint) -> Played:
    played = Played(look)
    look.open(link(endpoint, "/machines/default/web/console"))
    look.shows("Connected. Keys go to the guest")
    look.until(lambda: look.page.evaluate("Boolean(document.querySelector('.tty')?.terminal)"), "the terminal")
    return played


# Requests that a terminal may answer, and things that it may do beside its screen.
HOSTILE = b"".join(
    [
        b"\x1b[c\x1b[>c\x1b[=c\x1b[0c\x1b[5n\x1b[6n\x1b[?6n\x1b[?15n\x1b[>q\x1b[?u\x1bZ",
        b"\x1b[?1$p\x1b[4$p\x1b[18t\x1b[14t\x1b[21t\x1b[20t\x1b[11t\x1b[x\x1b[1x",
        b'\x1bP$qm\x1b\\\x1bP$q"p\x1b\\\x1bP+q544e\x1b\\',
        b"\x1b]0;owned\x07\x1b]1;owned\x07\x1b]2;owned\x1b\\\x1b]4;1;?\x07\x1b]10;?\x07\x1b]11;?\x07\x1b]12;?\x07\x1b]17;?\x07",
        b"\x1b]52;c;b3duZWQ=\x07\x1b]52;c;?\x07\x1b]50;?\x07\x1b]60\x07\x1b]1337;ReportCellSize\x07",
        b"\x1b]8;;https://evil.example/\x07https://hikube.cloud\x1b]8;;\x07",
        b"\x1b[?1000h\x1b[?1002h\x1b[?1003h\x1b[?1006h\x1b[?1004h\x1b[?2004h\x1b[?2026$p\x05",
    ]
)


def test_a_hostile_console_types_nothing(endpoint: Endpoint, chromium: Any):
    """Nothing is sent that was not typed; no title, no link, no clipboard. Then what is typed arrives, and one gets out."""
    make(endpoint, "web")
    with looking(chromium, permissions=["clipboard-read", "clipboard-write"]) as look:
        played = console(look, endpoint)
        title = look.page.title()
        look.page.evaluate("navigator.clipboard.writeText('mine')")
        played.say(HOSTILE + b"\r\nend of it\r\n")
        look.until(lambda: "end of it" in look.terminal(), "the console's text")
        look.page.locator(".tty").hover()
        look.page.locator(".tty").click()
        look.page.locator("h1").click()
        look.page.locator(".tty").click()
        look.page.wait_for_timeout(300)
        assert played.typed == []
        assert look.page.title() == title and look.page.locator(".tty a").count() == 0
        assert look.page.evaluate("navigator.clipboard.readText()") == "mine"
        look.page.keyboard.type("ls")
        look.page.keyboard.press("Tab")
        look.page.keyboard.press("Control+c")
        look.until(lambda: b"".join(played.typed) == b"ls\t\x03", "what was typed")
        look.page.keyboard.press("Control+]")
        assert "Leave" in str(look.page.evaluate("document.activeElement.textContent"))
        look.page.keyboard.press("Enter")
        look.until(lambda: look.page.url.endswith("#/machines/default/web"), "out of the console")
        look.clean()


def test_hostile_text_is_shown_and_not_obeyed(endpoint: Endpoint, chromium: Any):
    """Events, causes and agents' answers are text: no markup, and what turns text around is seen."""
    make(endpoint, "web")
    value = json.dumps(endpoint("GET", f"{LIST}/web").json())
    evil = "<img src=x onerror=alert(1)>\u202egnp.exe\u200b\x9b31m" + "x" * 5000
    changed = json.loads(value)
    changed["status"] |= {"cause": {"code": "HK903", "message": evil, "evidence": [evil], "remedy": evil}}
    changed["status"]["addresses"] = [{"type": "Hostname", "address": evil}]
    changed["metadata"]["resourceVersion"] = "1"
    with looking(chromium) as look:
        body = json.dumps({"items": [changed], "metadata": {"resourceVersion": "1"}})
        look.page.route(
            re.compile(r"v1alpha1/vminstances\?$"), lambda r: r.fulfill(body=body, content_type="application/json")
        )
        look.page.route_web_socket(re.compile(r"v1alpha1/vminstances\?watch"), lambda ws: None)
        look.open(link(endpoint, "/machines/default/web")).heading("web")
        look.shows("<img src=x onerror=alert(1)>\\u202egnp.exe\\u200b\\u009b31m", "x…")
        assert look.page.locator("main img").count() == 0 and "\u202e" not in look.text()
        look.clean()


# Everything


VIEWS = {
    "machines": "/machines",
    "failed": "/machines/default/broken",
    "booting": "/machines/default/slow",
    "events": "/machines/default/web/events",
    "console": "/machines/default/web/console",
    "screen": "/machines/default/web/screen",
    "machine-usage": "/machines/default/web/usage",
    "snapshots": "/machines/default/web/snapshots",
    "manifest": "/machines/default/web/manifest",
    "disks": "/disks",
    "usage": "/usage",
    "network": "/network",
    "tests": "/tests",
    "none": "/machines/default/none",
}
NETWORK = {
    "tenants": [
        {
            "namespace": "default",
            "bridge": "hk0",
            "gateway": "10.77.1.1",
            "machines": [
                {"name": n, "address": f"10.77.1.{i + 2}", "bridge": "hk0"} for i, n in enumerate(("web", "slow"))
            ],
        },
        {
            "namespace": "shop",
            "bridge": "hk1",
            "gateway": "10.77.2.1",
            "machines": [{"name": "db", "address": "10.77.2.2", "bridge": "hk1"}],
        },
    ],
    "arrows": [
        {
            "source": "tenant/default",
            "target": "tenant/default",
            "what": "everything",
            "rule": 'iifname "hk0" oifname "hk0" accept',
        },
        {
            "source": "tenant/default",
            "target": "outside",
            "what": "everything",
            "rule": 'iifname "hk0" oifname "tap0" accept',
        },
        {
            "source": "others",
            "target": "machine/default/web",
            "what": "TCP 22, 80",
            "rule": "ip daddr . tcp dport { 10.77.1.2 . 22 } accept",
        },
        {
            "source": "host",
            "target": "machine/default/web",
            "what": "TCP 80",
            "rule": "forward 127.77.0.9:80 to 10.77.1.2:80",
        },
        {
            "source": "tenant/shop",
            "target": "outside",
            "what": "everything",
            "rule": 'iifname "hk1" oifname "tap0" accept',
        },
    ],
    "inForce": True,
}
SNAPSHOTS = {
    "items": [
        {
            "name": "configured",
            "created": "2026-11-30T06:00:00Z",
            "memory": True,
            "size": 1 << 28,
            "disks": ["web"],
            "firstBoot": True,
        }
    ]
}
STAGES = [
    {"stage": s, "seconds": n}
    for s, n in (("firmware", 0.4), ("kernel", 2.1), ("init", 6.0), ("cloud-init", 9.5), ("cloud-final", 3.0))
]
TESTS = {
    "items": [
        {
            "id": "20261130-060000-abcdef",
            "begun": "2026-11-30T06:00:00Z",
            "manifests": ["vm.yaml"],
            "machines": {"default/web": {"stage": "kernel", "since": "2026-11-30T06:00:02Z"}},
            "state": state,
            "reports": [
                {
                    "machine": "web",
                    "namespace": "default",
                    "image": None,
                    "result": "failed",
                    "cause": "package nginxx was not found",
                    "seconds": 21.0,
                    "stages": STAGES,
                    "problems": [
                        {
                            "message": "apt could not find nginxx",
                            "lines": ["E: Unable to locate package nginxx"],
                            "recoverable": False,
                            "file": "vm.yaml",
                            "line": 12,
                        }
                    ],
                    "checks": [{"kind": "port", "title": "port 80 answers", "passed": False, "found": ["refused"]}],
                }
            ]
            if state == "ended"
            else [],
        }
        for state in ("ended", "running")
    ]
}


def history() -> str:
    """An hour of a machine, as the endpoint has it."""
    times = [int(time.time()) - 3600 + 5 * i for i in range(720)]
    wave = [200 + (i * 37) % 300 for i in range(720)]
    columns = {
        n: [v << shift for v in wave]
        for n, shift in (
            ("cpuMillis", 0),
            ("memory", 20),
            ("readPerSecond", 9),
            ("writtenPerSecond", 10),
            ("receivedPerSecond", 4),
            ("sentPerSecond", 3),
        )
    }
    return json.dumps({"step": 5, "time": times, **columns})


def play(look: Look) -> None:
    """What the simulator has not. (A page whose websockets are played has no real ones: noVNC refuses them.)"""

    def answer(pattern: str, body: str) -> None:
        look.page.route(re.compile(pattern), lambda r: r.fulfill(body=body, content_type="application/json"))

    answer(r"/hikube/v1/network$", json.dumps(NETWORK))
    answer(r"/hikube/v1/tests$", json.dumps(TESTS))
    answer(r"/snapshots$", json.dumps(SNAPSHOTS))
    answer(r"/history\?", history())


def ready(look: Look, view: str) -> None:
    """The view has what it shows."""
    words = {
        "machines": ("web", "Failed"),
        "failed": ("Next step:",),
        "booting": ("cloud-init (config)",),
        "events": ("Step",),
        "console": ("There is no console now",),
        "screen": ("There is no screen now",),
        "machine-usage": ("on average",),
        "usage": ("on average",),
        "snapshots": ("configured",),
        "manifest": ("apiVersion",),
        "disks": ("web-sys",),
        "network": ("These rules are in force", "TCP 22, 80"),
        "tests": ("vm.yaml:12:", "Unable to locate"),
        "none": ("There is no such machine",),
    }
    look.shows(*words[view])
    if view == "console":
        look.until(lambda: look.page.evaluate("Boolean(document.querySelector('.tty')?.terminal)"), "the terminal")
    if view.endswith("usage"):
        look.until(lambda: look.page.locator("canvas").count() == 4, "four plots")
    look.page.wait_for_timeout(150)


@pytest.mark.full
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_view_has_no_fault_for_axe_and_none_for_the_policy(
    endpoint: Endpoint, chromium: Any, scheme: str, width: int
):
    """WCAG 2.2 AA, in each scheme and size; pictures of each view are kept where HIKUBE_LOCAL_SCREENSHOTS says."""
    from axe_playwright_python.sync_playwright import Axe

    three(endpoint)
    options = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    with looking(chromium, **options) as look, looking(chromium, bypass_csp=True, **options) as judged:
        for one in (look, judged):
            play(one)
            one.open(link(endpoint)).shows("Ready")
        faults: list[tuple[Any, ...]] = []
        for view, path in VIEWS.items():
            for one in (look, judged):
                one.at(f"#{path}")
                ready(one, view)
            wide = look.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{view} is {wide} wide"
            assert "null" not in look.page.inner_text("main").split() and "undefined" not in look.text()
            rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
            found = Axe().run(judged.page, options=rules).response["violations"]
            faults += [(view, v["id"], v["nodes"][0]["html"][:200], v["nodes"][0].get("failureSummary")) for v in found]
            if SHOTS:
                look.page.screenshot(path=Path(SHOTS) / f"{view}-{scheme}-{width}.png", full_page=True)
        assert faults == []
        look.clean()


@pytest.mark.full
def test_axe_would_see_faults(endpoint: Endpoint, chromium: Any):
    from axe_playwright_python.sync_playwright import Axe

    with looking(chromium, bypass_csp=True) as look:
        look.open(link(endpoint)).shows("no machines")
        look.page.evaluate("""() => { document.documentElement.removeAttribute('lang');
          document.querySelector('main').append(document.createElement('button')); }""")
        assert {v["id"] for v in Axe().run(look.page).response["violations"]} >= {"html-has-lang", "button-name"}


@pytest.mark.full
def test_french_forced_colours_large_text_and_no_motion(endpoint: Endpoint, chromium: Any):
    three(endpoint)
    with looking(chromium, locale="fr-CH") as look:
        play(look)
        look.open(link(endpoint)).shows("Prête", "En échec", "8 sur 9 · cloud-init (config)")
        assert look.page.get_attribute("html", "lang") == "fr"
        for path, words in {
            "/machines/default/broken": "À faire",
            "/network": "Qui joint qui",
            "/tests": "ÉCHEC",
        }.items():
            look.at(f"#{path}")
            look.shows(words)
        look.clean()
    with looking(chromium, forced_colors="active", reduced_motion="reduce") as look:
        look.open(link(endpoint)).shows("8 of 9", "▲", "Failed")
        assert look.page.evaluate("document.getAnimations().length") == 0
        look.page.evaluate("document.documentElement.style.fontSize = '30px'")
        assert look.page.evaluate("document.documentElement.scrollWidth") <= 1280
    with looking(chromium) as look:
        look.open(link(endpoint)).shows("Ready")
        assert look.page.evaluate("document.getAnimations().length") > 0, "else the one above says nothing"


@pytest.mark.full
def test_by_keyboard_alone(endpoint: Endpoint, chromium: Any):
    """From the list through a machine into its console, and out."""
    make(endpoint, "web")
    with looking(chromium) as look:
        played = Played(look)
        look.open(link(endpoint)).shows("Ready")

        def tab_to(words: str) -> None:
            for _ in range(40):
                look.page.keyboard.press("Tab")
                if str(look.page.evaluate("document.activeElement.textContent")).strip() == words:
                    return
            raise AssertionError(f"no way to {words} by Tab")

        look.page.keyboard.press("Tab")
        look.page.keyboard.press("Enter")
        assert look.page.evaluate("document.activeElement.id") == "main" and look.page.url.endswith("#/machines"), (
            "skipped"
        )
        tab_to("web")
        look.page.keyboard.press("Enter")
        look.heading("web")
        tab_to("Console")
        look.page.keyboard.press("Enter")
        look.until(lambda: look.page.evaluate("document.activeElement.className").startswith("xterm"), "in the console")
        look.shows("Connected. Keys go to the guest")  # what is typed before goes nowhere
        look.page.keyboard.type("x")
        look.until(lambda: played.typed == [b"x"], "typed")
        look.page.keyboard.press("Control+]")
        look.page.keyboard.press("Enter")
        look.until(lambda: look.page.url.endswith("/web"), "out again")
        look.clean()


@pytest.mark.full
def test_a_boot_is_seen_stage_by_stage(endpoint: Endpoint, chromium: Any):
    make(endpoint, "web", "stage=cloud-config,outcome=slow,after=15", cloudInit=SEED)
    with looking(chromium) as look:
        look.open(link(endpoint, "/machines/default/web")).heading("web")
        seen: set[str] = set()

        def counts() -> bool:
            seen.update(re.findall(r"8 of 9 · cloud-init \(config\) · (\d+) s", look.text()))
            return len(seen) > 1

        look.until(counts, "the seconds of the stage")
        look.shows("Ready", "Done after")
        look.clean()


@pytest.mark.full
def test_it_says_when_it_is_not_live_and_catches_up(endpoint: Endpoint, chromium: Any, hikube: Program):
    """A server that is silent for long (a laptop's lid, a cut tunnel), and one that is killed; an old link is told."""
    make(endpoint, "web")
    with looking(chromium) as look:
        # A minute and a half of silence, shortened: bookmarks come every minute.
        look.page.add_init_script(
            "const later = setTimeout; window.setTimeout = (f, ms, ...a) => later(f, ms >= 60000 ? ms / 45 : ms, ...a);"
        )
        look.open(link(endpoint)).shows("● live", "web")
        old = link(endpoint)
        os.kill(endpoint.process.pid, signal.SIGSTOP)
        try:
            look.shows("not live: connection lost")
        finally:
            os.kill(endpoint.process.pid, signal.SIGCONT)
        make(endpoint, "late")
        look.shows("late")
    with looking(chromium) as look:
        look.open(link(endpoint)).shows("● live", "web")
        endpoint.process.kill()
        endpoint.process.wait()
        look.shows("not live: connection lost", "web")
        again = Endpoint(hikube)
        try:
            with looking(chromium) as other:
                other.open(link(again)).shows("web", "late")
                # Another link, in this very tab: the fragment alone changes.
                other.page.evaluate("code => { location.hash = code }", old.partition("#")[2])
                other.shows("Not signed in", "used or is too old", "hikube-local ui")
                assert "code=" not in other.page.url
                other.page.evaluate(
                    "code => { location.hash = code }", link(again, "/machines/default/web").partition("#")[2]
                )
                other.heading("web")
        finally:
            again.close()


@pytest.mark.full
def test_a_session_that_ends_is_told_wherever_one_is(endpoint: Endpoint, chromium: Any):
    make(endpoint, "web")
    for path in ("/tests", "/machines/default/web/console"):
        with looking(chromium) as look:
            look.open(link(endpoint, path))
            look.heading("Tests" if path == "/tests" else "web")
            other = look.context.new_page()
            other.goto(look.page.url)
            other.get_by_role("button", name="Sign out").click()
            look.shows("Not signed in")
            look.at("#/disks")
            look.page.wait_for_timeout(300)
            look.heading("Not signed in")


@pytest.mark.full
def test_ten_tabs(endpoint: Endpoint, chromium: Any):
    """A browser opens six connections to a host over HTTP/1.1: websockets do not count among them."""
    make(endpoint, "web")
    with looking(chromium) as look:
        look.open(link(endpoint)).shows("Ready")
        origin = look.page.url
        for _ in range(9):
            tab = look.context.new_page()
            tab.goto(origin)
            tab.get_by_role("link", name="web").wait_for(timeout=patience(20) * 1000)
        make(endpoint, "late")
        for tab in look.context.pages:
            tab.get_by_role("link", name="late").wait_for(timeout=patience(20) * 1000)


@pytest.mark.full
def test_the_plots_have_the_schemes_colours(endpoint: Endpoint, chromium: Any):
    """Lines and labels are drawn on a canvas, which knows no variables: they are not black on black."""
    make(endpoint, "web")

    def brightest(look: Look) -> tuple[int, int]:
        code = """() => { const c = document.querySelector('canvas'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
          let low = 255, high = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) { const v = Math.max(d[i], d[i + 1], d[i + 2]); low = Math.min(low, v); high = Math.max(high, v); }
          return [low, high]; }"""
        low, high = look.page.evaluate(code)
        return int(low), int(high)

    for scheme in ("light", "dark"):
        with looking(chromium, color_scheme=scheme) as look:
            play(look)
            look.open(link(endpoint, "/machines/default/web/usage"))
            ready(look, "machine-usage")
            _, high = brightest(look)
            assert high > 200 if scheme == "dark" else high < 235, (scheme, high)
            look.page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
            look.page.wait_for_timeout(300)
            assert (brightest(look)[1] > high) is (scheme == "light"), "drawn anew when the scheme changes"
            look.clean()


@pytest.mark.full
def test_a_console_that_floods(endpoint: Endpoint, chromium: Any):
    """10 MB as fast as they come: the page stays alive and keeps so many lines, and not more."""
    make(endpoint, "web")
    with looking(chromium) as look:
        played = console(look, endpoint)
        block = b"".join(b"%06d 0123456789012345678901234567890123456789012345678901\r\n" % i for i in range(4000))
        for _ in range(10_000_000 // len(block) + 1):
            played.say(block)
            look.page.wait_for_timeout(20)
        played.say(b"the end\r\n")
        look.page.wait_for_timeout(500)
        played.say(b"after the flood\r\n")
        look.until(lambda: "after the flood" in look.terminal(), "what came after it")
        assert "the end" in look.terminal(), "its end is shown, whatever of it is not"
        assert look.page.evaluate("document.querySelector('.tty').terminal.buffer.active.length") < 5200
        assert look.page.evaluate("performance.memory.usedJSHeapSize") < 60 << 20


@pytest.mark.full
def test_a_thousand_machines(endpoint: Endpoint, chromium: Any):
    """All of them are in the list, a change of 200 is one batch, and a filter finds one."""
    make(endpoint, "web")
    one = endpoint("GET", f"{LIST}/web").json()
    items = []
    for i in range(1000):
        item = json.loads(json.dumps(one))
        item["metadata"] |= {"name": f"vm-{i:04}", "resourceVersion": str(i + 1)}
        items.append(item)
    body = json.dumps({"items": items, "metadata": {"resourceVersion": "1001"}})
    sockets: list[Any] = []
    with looking(chromium) as look:
        look.page.route(
            re.compile(r"v1alpha1/vminstances\?$"), lambda r: r.fulfill(body=body, content_type="application/json")
        )
        look.page.route_web_socket(re.compile(r"v1alpha1/vminstances\?watch"), lambda ws: sockets.append(ws))
        look.open(link(endpoint)).shows("1000 in all")
        look.until(lambda: sockets, "the watch")
        for i in range(200):
            items[i]["metadata"]["resourceVersion"] = str(2000 + i)
            items[i]["status"]["printableStatus"] = "Stopped"
            sockets[0].send(json.dumps({"type": "MODIFIED", "object": items[i]}))
        look.until(lambda: look.page.locator(".state.off").count() == 200, "200 of them stopped")
        look.page.keyboard.press("/")
        look.page.keyboard.type("vm-0777")
        look.shows("1 of 1000")
        assert look.page.evaluate("performance.memory.usedJSHeapSize") < 40 << 20
        look.clean()
