"""The page's way in and its walls, without a browser: requests as browsers and others send them."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import requests

from hikube_local.page import site, walls
from hikube_local.page.sessions import CODE, IDLE, Sessions
from hikube_local.readiness.stages import WORDS, Stage
from tests.conftest import ROOT, Program
from tests.endpoint import BASE, Endpoint, disk, machine, works
from tests.growth import patience

STATIC = ROOT / "hikube_local" / "page" / "static"
LIST = f"{BASE}/vminstances"


class Visitor:
    """A browser's half of the way in."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        self.origin, self.code = f"{parts.scheme}://{parts.netloc}", parts.fragment.removeprefix("code=")
        self.http = requests.Session()
        self.http.trust_env = False
        self.bearer = ""

    def sign_in(self) -> requests.Response:
        own = {"Origin": self.origin}
        answer = self.http.post(
            f"{self.origin}/ui/session", json={"code": self.code}, headers=own, timeout=patience(20)
        )
        if answer.ok:
            self.bearer = answer.json()["bearer"]
        return answer

    def upgrade(self, path: str) -> socket.socket:
        """A websocket as a browser opens it, after its handshake."""
        parts = urlsplit(self.origin)
        half = base64.urlsafe_b64encode(self.bearer.encode()).decode().rstrip("=")
        cookie = "; ".join(f"{c.name}={c.value}" for c in self.http.cookies)
        s = socket.create_connection((parts.hostname, parts.port), timeout=patience(20))
        lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", f"Cookie: {cookie}"]
        lines += [f"Sec-WebSocket-Protocol: json, {walls.BEARER}{half}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        s.sendall("\r\n".join([*lines, "", ""]).encode())
        assert s.recv(4096).startswith(b"HTTP/1.1 101")
        return s

    def get(self, path: str, **headers: str) -> requests.Response:
        known = {"Authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        return self.http.get(
            self.origin + path, headers={**known, **headers}, timeout=patience(20), allow_redirects=False
        )


def visitor(endpoint: Endpoint) -> Visitor:
    answer = endpoint("POST", "/hikube/v1/page", {})
    assert answer.status_code == 201, answer.text
    return Visitor(answer.json()["url"])


def test_a_code_is_used_once_and_grows_old():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    code, late = sessions.code(), sessions.code()
    session = sessions.exchange(code)
    assert session and sessions.exchange(code) is None and sessions.exchange("") is None
    assert sessions.find(session.bearer, [session.cookie]) is session
    assert sessions.find(session.bearer, ["x"]) is None and sessions.find("x", [session.cookie]) is None
    assert sessions.find(session.cookie, [session.bearer]) is None
    now[0] += CODE + 1
    assert sessions.exchange(late) is None
    now[0] += IDLE
    assert sessions.find(session.bearer, [session.cookie]) is None and sessions.empty


def test_the_way_in(endpoint: Endpoint):
    """Both halves are needed, neither is the token, and the token is no way in at the page's listener."""
    one = visitor(endpoint)
    assert one.get(LIST).status_code == 401
    answer = one.sign_in()
    cookie = answer.headers["Set-Cookie"]
    port = urlsplit(one.origin).port
    assert f"hikube-local-{port}=" in cookie and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert one.get(LIST).status_code == 200
    token = (endpoint.folder / "token").read_text()
    assert token not in answer.text + cookie
    assert one.sign_in().status_code == 403, "a code is used once"
    assert "hikube-local ui" in Visitor(f"{one.origin}/ui/#code=none").sign_in().json()["message"]
    # One half alone.
    halves = Visitor(one.origin)
    halves.bearer = one.bearer
    assert halves.get(LIST).status_code == 401
    one_bearer, one.bearer = one.bearer, ""
    assert one.get(LIST).status_code == 401
    one.bearer = token
    assert one.get(LIST).status_code == 401, "the operator's token is none of a browser's"
    one.bearer = one_bearer
    # Another tab, with a link of its own, and both stay.
    two = visitor(endpoint)
    assert two.sign_in().ok and two.get(LIST).ok and one.get(LIST).ok
    # The halves of one are not those of another.
    two.bearer = one.bearer
    assert two.get(LIST).status_code == 401
    own = {"Authorization": f"Bearer {one.bearer}"}
    assert one.http.delete(f"{one.origin}/ui/session", headers=own, timeout=patience(20)).ok
    assert one.get(LIST).status_code == 401
    # Nobody makes a link but who has the token.
    assert requests.post(f"{one.origin}/hikube/v1/page", timeout=patience(20)).status_code == 401


def test_at_the_tls_port(endpoint: Endpoint):
    made = Visitor(endpoint("POST", "/hikube/v1/page", {"tls": True}).json()["url"])
    assert made.origin == endpoint.url
    made.http.verify = endpoint.http.verify
    answer = made.sign_in()
    assert answer.ok and "Secure" in answer.headers["Set-Cookie"] and made.get(LIST).ok
    again = endpoint("GET", LIST, headers={"Origin": endpoint.url})
    assert again.status_code == 401, "the token is no page's"


def _ask(origin: str, method: str, path: str, headers: dict[str, str], upgrade: bool) -> int:
    """The status of one request, sent as it is."""
    parts = urlsplit(origin)
    more = (
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }
        if upgrade
        else {"Connection": "close"}
    )
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in {**headers, **more}.items()), "", ""]
    with socket.create_connection((parts.hostname, parts.port), timeout=patience(20)) as s:
        s.sendall("\r\n".join(lines).encode())
        return int(s.recv(4096).split(b" ", 2)[1])


@pytest.mark.parametrize("upgrade", [False, True], ids=["http", "websocket"])
def test_walls(endpoint: Endpoint, upgrade: bool):
    """Host, Origin and Sec-Fetch-Site, with everything else as it has to be."""
    one = visitor(endpoint)
    one.sign_in()
    port = urlsplit(one.origin).port
    cookie = "; ".join(f"{c.name}={c.value}" for c in one.http.cookies)
    half = base64.urlsafe_b64encode(one.bearer.encode()).decode().rstrip("=")
    known = {
        "Cookie": cookie,
        **(
            {"Sec-WebSocket-Protocol": f"json, {walls.BEARER}{half}"}
            if upgrade
            else {"Authorization": f"Bearer {one.bearer}"}
        ),
    }
    own = f"127.0.0.1:{port}"
    good = 101 if upgrade else 200
    path = f"{LIST}?watch=1&timeoutSeconds=1" if upgrade else LIST
    for host, origin, site_, wanted in (
        (own, None, None, good),
        (own, f"http://{own}", "same-origin", good),
        (own, None, "none", good),
        (own, f"http://{own}", "cross-site", 403),
        (own, f"http://{own}", "same-site", 403),
        (own, f"https://{own}", None, 403),
        (own, f"http://127.0.0.1:{port + 1}", None, 403),
        (own, f"http://{own}.evil.example", None, 403),
        (own, f"http://localhost:{port}", None, 403),
        (own, "http://127.0.0.1", None, 403),
        (own, "null", None, 403),
        (own, "", None, 403),
        (f"evil.example:{port}", None, None, 421),
        (f"127.0.0.1.evil.example:{port}", None, None, 421),
        ("", None, None, 421),
        (f"[::1]:{port}", None, None, good),
        (f"localhost:{port}", f"http://localhost:{port}", None, good),
    ):
        headers = {"Host": host, **known}
        headers |= {} if origin is None else {"Origin": origin}
        headers |= {} if site_ is None else {"Sec-Fetch-Site": site_}
        assert _ask(one.origin, "GET", path, headers, upgrade) == wanted, (host, origin, site_)
    # Another port of this host, as `ssh -L` makes it: the cookie's name has the port that the browser sees.
    moved = cookie.replace(f"hikube-local-{port}", "hikube-local-9")
    assert _ask(one.origin, "GET", path, {"Host": "127.0.0.1:9", **known, "Cookie": moved}, upgrade) == good
    assert _ask(one.origin, "GET", path, {"Host": "127.0.0.1:9", **known}, upgrade) == 401
    for lacking in known:
        assert (
            _ask(one.origin, "GET", path, {"Host": own, **{k: v for k, v in known.items() if k != lacking}}, upgrade)
            == 401
        )


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@pytest.mark.parametrize(
    "path", [LIST, f"{LIST}/web", "/hikube/v1/network", "/hikube/v1/page", "/ui/session", "/ui/", "/livez"]
)
def test_walls_stand_for_every_method_and_path(endpoint: Endpoint, path: str):
    """A foreign page gets nothing, whatever it asks, with both halves; nobody unknown gets anything but files and health."""
    one = visitor(endpoint)
    one.sign_in()
    parts = urlsplit(one.origin)
    cookie = "; ".join(f"{c.name}={c.value}" for c in one.http.cookies)
    known = {"Host": parts.netloc, "Cookie": cookie, "Authorization": f"Bearer {one.bearer}", "Content-Length": "0"}
    for method in METHODS:
        for foreign in ({"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": "cross-site"}):
            assert _ask(one.origin, method, path, {**known, **foreign}, False) == 403, (method, path, foreign)
        assert _ask(one.origin, method, path, {**known, "Host": "evil.example"}, False) == 421
        if not path.startswith(("/ui", "/livez")):
            bare = {"Host": parts.netloc, "Content-Length": "0"}
            assert _ask(one.origin, method, path, bare, False) == 401, (method, path)
    assert _ask(one.origin, "POST", "/hikube/v1/page", {**known, "Origin": one.origin}, False) == 403, (
        "no page makes links"
    )


def test_what_is_no_code_is_refused(endpoint: Endpoint):
    origin = visitor(endpoint).origin
    for body in (
        b"",
        b"{}",
        b'{"code": 1}',
        b'{"code":"\\ud800"}',
        b"[" * 900,
        b"\xff",
        b'{"code": "' + b"x" * 2000 + b'"}',
        b"null",
    ):
        answer = requests.post(f"{origin}/ui/session", data=body, timeout=patience(20))
        assert answer.status_code == 403 and "hikube-local ui" in answer.json()["message"], (body[:20], answer.text)
    assert "Traceback" not in endpoint.log.read_text()


def test_signing_out_closes_what_is_open(endpoint: Endpoint):
    """A watch that was begun with a session ends with it; a second link in one browser takes the place of the first."""
    one = visitor(endpoint)
    one.sign_in()

    def ended(s: socket.socket) -> bool:
        try:
            while s.recv(4096):
                pass
        except ConnectionError:
            pass
        return True

    open_ = one.upgrade(f"{LIST}?watch=1")
    known = {"Authorization": f"Bearer {one.bearer}"}
    one.code = urlsplit(endpoint("POST", "/hikube/v1/page", {}).json()["url"]).fragment.removeprefix("code=")
    again = one.http.post(f"{one.origin}/ui/session", json={"code": one.code}, headers=known, timeout=patience(20))
    assert again.ok and ended(open_), "the first session went"
    one.bearer = again.json()["bearer"]
    open_ = one.upgrade(f"{LIST}?watch=1")
    known = {"Authorization": f"Bearer {one.bearer}"}
    assert one.http.delete(f"{one.origin}/ui/session", headers=known, timeout=patience(20)).ok and ended(open_)


def test_every_answer_tells_browsers_what_is_forbidden(endpoint: Endpoint):
    one = visitor(endpoint)
    one.sign_in()
    answers = [one.get(p) for p in ("/ui/", "/ui/app.js", "/ui/none", LIST, "/apis", "/livez", "/ui")]
    answers += [endpoint("GET", LIST), requests.get(one.origin + LIST, timeout=patience(20))]
    for answer in answers:
        for name in (
            "Content-Security-Policy",
            "X-Frame-Options",
            "X-Content-Type-Options",
            "Referrer-Policy",
            "Cross-Origin-Opener-Policy",
        ):
            assert answer.headers.get(name) == walls.HEADERS[name], (answer.url, name)
    assert "unsafe" not in walls.POLICY and "require-trusted-types-for" in walls.POLICY
    assert one.get(LIST).headers["Cache-Control"] == "no-store"
    parts = urlsplit(one.origin)
    for path in ("/ui/../../etc/passwd", "/ui/%2e%2e/%2e%2e/etc/passwd", "/ui/vendor/lock.json", "/ui/vendor"):
        assert _ask(one.origin, "GET", path, {"Host": parts.netloc}, False) in (401, 404), path
    page = one.get("/ui/")
    assert one.get("/ui/", **{"If-None-Match": page.headers["ETag"]}).status_code == 304


def test_what_the_page_shows_kubectl_can_fetch(endpoint: Endpoint):
    """The page asks the public API alone: each path in its code is one that the token opens at the TLS port."""
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    endpoint("POST", LIST, machine("web", "d"))
    endpoint.until(f"{LIST}/web", lambda a: works(a.json()), "the machine")
    code = "\n".join(p.read_text() for p in STATIC.glob("*.js"))
    paths = set(re.findall(r"""[`'](/(?:api|apis|hikube)[/\w.$\{\}()?=:\-]*)""", code))
    assert len(paths) >= 6, paths
    for path in paths:
        assert re.match(
            r"/(api/v1|apis/(apps\.cozystack\.io/v1alpha1|subresources\.kubevirt\.io/v1)|hikube/v1)\b", path
        ), path
    fetched = [
        LIST,
        f"{BASE}/vmdisks",
        "/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind=VMInstance",
    ]
    fetched += ["/api/v1/namespaces/default/pods", "/hikube/v1/network", "/hikube/v1/tests"]
    fetched += ["/hikube/v1/namespaces/default/vminstances/web/history?since=1h"]
    for path in fetched:
        assert endpoint("GET", path).status_code == 200, path
    refused = endpoint("GET", "/hikube/v1/namespaces/default/vminstances/web/snapshots")
    assert refused.status_code == 422 and "snapshots" in refused.json()["message"], (
        "the simulator has none, and says so"
    )
    status = endpoint("GET", f"{LIST}/web").json()["status"]
    assert status["boot"]["stages"][-1]["stage"] == "done" and status["boot"]["start"] == status["startTime"]


def test_a_cause_has_evidence_and_a_next_step(endpoint: Endpoint):
    value = machine("web", "d")
    value["metadata"]["annotations"] = {"hikube.local/simulate": "stage=kernel,outcome=panic"}
    endpoint("POST", f"{BASE}/vmdisks", disk("d"))
    endpoint("POST", LIST, value)
    found = endpoint.until(f"{LIST}/web", lambda a: "cause" in a.json().get("status", {}), "the cause")
    cause = found["status"]["cause"]
    assert cause["code"] == "HK903" and "panicked" in cause["message"] and cause["remedy"]
    works_ = next(c for c in found["status"]["conditions"] if c["type"] == "WorkloadsReady")
    assert cause["message"] in works_["message"] and cause["remedy"] in works_["message"]


def test_watches_by_websocket_carry_the_bearer_as_kubernetes_does(endpoint: Endpoint):
    """A watch from the list's revision, a token as a subprotocol, and what is offered beside it comes back."""

    async def watch(origin: str, bearer: str, cookies: dict[str, str]) -> list[dict]:
        half = base64.urlsafe_b64encode(bearer.encode()).decode().rstrip("=")
        words = ["json", f"{walls.BEARER}{half}"]
        own, path = {"Origin": origin}, f"{origin}{BASE}/vmdisks?watch=1"
        async with (
            aiohttp.ClientSession(cookies=cookies, trust_env=False) as http,
            http.ws_connect(path, protocols=words, headers=own) as ws,
        ):
            assert ws.protocol == "json"
            endpoint("POST", f"{BASE}/vmdisks", disk("late"))
            return [json.loads((await ws.receive(patience(20))).data)]

    one = visitor(endpoint)
    one.sign_in()
    jar = {c.name: c.value or "" for c in one.http.cookies}
    # aiohttp keeps no cookie of an address unless told so: they are given as they are.
    (event,) = asyncio.run(watch(one.origin, one.bearer, jar))
    assert event["type"] == "ADDED" and event["object"]["metadata"]["name"] == "late"


def test_ui_prints_a_link_of_the_serve_that_runs(endpoint: Endpoint, hikube: Program):
    done = hikube("ui", "--print")
    one = Visitor(done.out.strip())
    assert one.origin.startswith("http://127.0.0.1:") and one.sign_in().ok and one.get(LIST).ok
    assert "once" in done.err and one.code not in done.err + endpoint.log.read_text()
    missing = hikube("ui", "none", "--print")
    assert missing.code != 0 and "none" in missing.err and "http" not in missing.out


def test_ui_serves_by_itself_and_ends_with_its_tabs_open(hikube: Program):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = [sys.executable, "-m", "hikube_local", "ui", "--print", "--backend", "simulator", "--port", str(port)]
    process = subprocess.Popen(
        words, env=hikube.env, cwd=hikube.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout
        one = Visitor(process.stdout.readline().strip())
        assert one.sign_in().ok
        tabs = [one.upgrade(f"{LIST}?watch=1") for _ in range(30)]  # ten tabs with three watches each
        begin = time.monotonic()
        process.terminate()
        process.wait(patience(20))
        assert time.monotonic() - begin < patience(2.0), "two seconds, as long as this host is as fast as usual"
        for s in tabs:
            s.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_the_listener_closes_when_the_last_session_ends(endpoint: Endpoint):
    one = visitor(endpoint)
    one.sign_in()
    one.http.delete(f"{one.origin}/ui/session", headers={"Authorization": f"Bearer {one.bearer}"}, timeout=patience(20))
    deadline = time.monotonic() + patience(20)
    while True:
        try:
            requests.get(f"{one.origin}/ui/", timeout=patience(5))
        except requests.ConnectionError:
            break
        assert time.monotonic() < deadline, "the listener is still open"
        time.sleep(0.1)
    assert visitor(endpoint).sign_in().ok, "and another link opens it again"


# The files


def test_the_pages_size():
    own = [p for p in STATIC.iterdir() if p.is_file()]
    code = sum(p.stat().st_size for p in own if p.suffix == ".js" and p.name != "fr.js")
    assert code <= 80_000, "the page's own code"
    assert sum(p.stat().st_size for p in own) <= 100_000, "with its style and its French"
    first = ["index.html", "app.css", "app.js", "base.js", "list.js"]
    assert sum(len(site.files()[name].zipped) for name in first) <= 20_000
    everything = sum(len(f.zipped) for f in site.files().values())
    assert everything <= 300_000, "what the wheel grows by"


def test_the_page_takes_nothing_from_elsewhere():
    for path in STATIC.iterdir():
        if path.is_file():
            assert not re.findall(r"(?:src|href|from|import|url)\W{1,3}(?:https?:)?//", path.read_text()), path


def test_everything_is_said_in_french():
    code = {p.name: p.read_text() for p in STATIC.glob("*.js")}
    said = set()
    for text in code.values():
        said |= set(re.findall(r"\bt\('((?:[^'\\]|\\.)*)'", text)) | set(re.findall(r'\bt\("((?:[^"\\]|\\.)*)"', text))
    # Words in tables, which are translated where they are shown.
    for name, pattern in {
        "app.js": r"\['(\w+)', \(\) =>|\['\w*', '([\w ]+)'\]",
        "base.js": r"\['[\w-]+', '([\w ()-]+)'\]",
        "list.js": r"(?<=[\[ ])'([A-Z][\w .]+)'(?=[,\]])",
        "machine.js": r"\['([A-Z][\w ]+)', |: '([A-Z]\w+)',|(?<=[\[ ])'([A-Z]\w+)'(?=[,\]])",
        "usage.js": r"\['(\w+)', \(h\)|\['\d+h', '([\w ]+)'\]",
    }.items():
        said |= {next(filter(None, m if isinstance(m, tuple) else (m,))) for m in re.findall(pattern, code[name])}
    said |= {
        "Succeeded",
        "Failed",
        "Terminating",
        "Pending",
        "Stopped",
        "Paused",
        "CrashLoopBackOff",
        "Provisioning",
        "Starting",
    }
    said |= {"passed", "failed", "timed out", "running", "killed", "ended", "everything", "ping", site.TOO_OLD}
    said -= {"Ctrl+Alt+Del", "TRUE", "PUT", "DELETE", "POST", "GET"}
    french = set(re.findall(r"^  (?:'((?:[^'\\]|\\.)+)'|\"((?:[^\"\\]|\\.)+)\"|(\w+)): ", code["fr.js"], re.M))
    known = {next(filter(None, m)) for m in french}
    assert said - known == set(), "words without French"
    assert known - said <= {
        "Console",
        "Running",
        "Unknown",
        "DataVolumeError",
        "UploadReady",
        "ImportScheduled",
        "ImportInProgress",
        "CloneScheduled",
        "Refused",
    }, "French of nothing"
    for key, value in re.findall(r"^  '((?:[^'\\]|\\.)+)': '((?:[^'\\]|\\.)*)'", code["fr.js"], re.M):
        assert set(re.findall(r"\{\w+\}", key)) == set(re.findall(r"\{\w+\}", value)), key


def test_the_pages_stages_are_ours():
    found = re.findall(r"\['([\w-]+)', '([\w ()-]+)'\]", (STATIC / "base.js").read_text())
    stages = [(s, w) for s, w in found if s in set(Stage)]
    assert stages == [(str(s), w) for s, w in WORDS.items() if s is not Stage.DONE]


def test_what_others_wrote_is_as_the_lock_says():
    """Each file, its licence and the notice; `.ci/vendor.py --check` compares with the registry (make test-all)."""
    lock = json.loads((STATIC / "vendor" / "lock.json").read_text())
    notice = (STATIC / "vendor" / "NOTICE.txt").read_text()
    named: set[str] = set()
    for package in lock["packages"]:
        assert re.fullmatch(r"sha512-[\w+/]{86}==", package["integrity"])
        assert (
            f"{package['name']}@{package['version']} ({package['integrity']})" in notice
            and package["licence"] in notice
        )
        named |= {*package["files"], *package.get("joined", {})}
    there = {p.name for p in (STATIC / "vendor").iterdir() if p.is_file()}
    assert there == named | {"lock.json", "NOTICE.txt"}
    assert len(list((STATIC / "vendor" / "licences").iterdir())) == sum(len(p["licences"]) for p in lock["packages"])
    assert not any("sourceMappingURL" in Path(p).read_text() for p in (STATIC / "vendor").glob("*.js"))
