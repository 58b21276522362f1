"""The lab without a guest: what a real guest's logs say, the checks file, and the reports."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from hikube_local.api.objects import INSTANCE, Object, VMInstanceSpec
from hikube_local.lab import checklist, checks, evidence, overssh, report, units
from hikube_local.lab.looked import Report
from hikube_local.readiness import cloudinit
from hikube_local.readiness.stages import Result, Stage, Verdict
from hikube_local.render import domain, machine
from tests.forms import valid
from tests.growth import is_linear, patience

# Logs of a real Debian 12 guest without a network, whose user-data names a package and a command that do not exist.
LOGS = Path(__file__).parent / "lab"
USER_DATA = (LOGS / "user-data").read_text()


@pytest.fixture(scope="module")
def seen() -> evidence.Evidence:
    parts = [(LOGS / name).read_bytes() for name in ("status.json", "cloud-init.log", "cloud-init-output.log")]
    return evidence.read(*parts, USER_DATA)


def test_the_way_in_over_ssh_touches_no_users_keys():
    """What systemd-tmpfiles makes of the credential: a file of keys in /run, and sshd's word for it; and libvirt takes it."""
    key = "ssh-ed25519 AAAA me@100%"
    text = overssh.credential(key)
    name, _, packed = text.partition("=")
    assert name == "io.systemd.credential.binary:tmpfiles.extra"
    rows = [row.split(None, 6) for row in base64.b64decode(packed).decode().splitlines()]
    assert [(r[0], r[1], r[2]) for r in rows] == [
        ("d", "/run/hikube-local", "0755"),
        ("f", "/run/hikube-local/keys", "0600"),
        ("f", "/etc/ssh/sshd_config.d/00-hikube-local.conf", "0600"),
    ]
    assert rows[1][6] == key.replace("%", "%%")
    match, files = rows[2][6].split(r"\n")[:2]
    assert match == "Match User root" and files.split() == [
        "AuthorizedKeysFile",
        ".ssh/authorized_keys",
        ".ssh/authorized_keys2",
        "/run/hikube-local/keys",
    ]
    plain = machine.portable(Object(kind=INSTANCE, namespace="n", name="w", spec=VMInstanceSpec()), {})
    root = ET.fromstring(domain.domain(dataclasses.replace(plain, oem=(text,))))
    assert root.findtext("sysinfo/oemStrings/entry") == text
    assert ET.fromstring(domain.domain(plain)).find("sysinfo/oemStrings") is None


def test_modules_have_their_times_and_results(seen):
    modules = {m.name: m for m in seen.modules}
    assert modules["package_update_upgrade_install"].result == "FAIL"
    assert modules["package_update_upgrade_install"].seconds > 200
    assert modules["runcmd"].result == modules["write_files"].result == "SUCCESS"
    assert [m.start for m in seen.modules] == sorted(m.start for m in seen.modules)
    assert seen.status == "error"


def test_causes_are_told_apart_and_stand_at_their_lines(seen):
    lines = USER_DATA.splitlines()
    at = {p.message: p for p in seen.problems}
    network = next(p for m, p in at.items() if m.startswith("the network: deb.debian.org"))
    assert network.line == 0 and len(network.lines) <= 4
    package = next(p for m, p in at.items() if "Unable to locate package" in m)
    assert "no-such-package" in lines[package.line - 1]
    command = next(p for m, p in at.items() if m.startswith("runcmd: nosuchcommand"))
    assert "nosuchcommand" in lines[command.line - 1] and not command.recoverable
    assert not any("re-raising" in m or m.startswith("Running module") for m in at), "echoes are left out"
    assert sum("Err:" in m or "Failed to fetch" in m for m in at) == 0, "one cause is told once"


def test_a_key_whose_module_never_ran_is_a_problem(seen):
    parts = [(LOGS / name).read_bytes() for name in ("status.json", "cloud-init.log", "cloud-init-output.log")]
    more = evidence.read(*parts, "#cloud-config\nwireguard: {interfaces: []}\nnonsense: 1\nhostname: x\n")
    told = {p.message: p.line for p in more.problems}
    assert told["wireguard: its module wireguard did not run in this image"] == 2
    assert told["nonsense: no module of cloud-init knows this key"] == 3
    assert not any(m.startswith("hostname") for m in told)
    broken = evidence.read(*parts, "#cloud-config\n- a\n")
    assert any("not a YAML mapping" in p.message for p in broken.problems)


def test_the_header_alone_asks_for_nothing():
    log = (LOGS / "cloud-init.log").read_bytes()
    warned = b"2026-11-24 21:41:41,912 - util.py[WARNING]: Failed at merging in cloud config part from part-001: empty cloud config\n"
    (told,) = [p for p in evidence.read(b"", RAN + warned, b"", "#cloud-config\n").problems]
    assert told.recoverable and "empty cloud config" in told.message
    found = evidence.read(b"", log, b"", "#cloud-config\n")
    assert not [p for p in found.problems if "no configuration" in p.message]
    assert [p for p in evidence.read(b"", log, b"", "#cloud-config\n- a\n").problems if "no configuration" in p.message]


def test_hostile_logs_are_data():
    for raw in (b"", b"\xff" * 100, b'{"v1": 7}', b'{"v1": {"init": []}}', b"[" * 10_000):
        found = evidence.read(raw, raw, raw, "#cloud-config\nhostname: x\n")
        assert found.modules == ()
    long = b"/var/lib/cloud/instance/scripts/runcmd: " + b"9" * 5000 + b": x\n" + b"Could not resolve host a%d\n" * 2000
    assert evidence.read(b"{}", b"", long, "#cloud-config\nhostname: x\n").problems, "no log is no proof"
    many = b"".join(b"2026-11-24 21:41:41,912 - x[ERROR]: failed %d\n" % i for i in range(5000))
    assert len(evidence.read(b"", many, b"", "").problems) <= 200
    evil = b"2026-11-24 21:41:41,912 - x[ERROR]: \x1b]0;own\x07 <script>\n2026-99-99 00:00:00,0 - x[ERROR]: y\n"
    assert "\x1b" not in str(evidence.read(b"", evil, evil, "").problems)


WRONG = {
    "run: x": "HK331 1:1",
    "- run": "HK331 1:3",
    "- run: {}": "HK331 1:8",
    "- run: {command: x, exitt: 1}": "HK331 1:21",
    "- run: {command: [a, b]}": "HK331 1:18",
    "- {run: {command: x}, file: {path: /}}": "HK331 1:3",
    "- {run: {command: x}, after: sunset}": "HK331 1:30",
    "- shout: {x: 1}": "HK331 1:3",
    "- after: reboot": "HK331 1:3",
    "- [": "HK102 2:1",
    "- file: {path: /x, mode: 0644}": "HK331 1:26",
    "- file: {path: x}": "HK331 1:16",
    "- run: {command: x, matches: '('}": "HK331 1:30",
    "- user: {name: x, groups: wheel}": "HK331 1:27",
    "- user: {name: 5}": "HK331 1:16",
    "- port: {port: abc}": "HK331 1:16",
    "- port: {port: 70000}": "HK331 1:16",
    "- http: {port: 80, path: a}": "HK331 1:26",
}


@pytest.mark.parametrize("text", WRONG)
def test_checks_that_cannot_be_understood_are_refused_at_their_place(text):
    (found,) = checklist.parse(text, "checks.yaml")[1]
    assert f"{found.code} {found.place.line}:{found.place.column}" == WRONG[text]
    assert found.place.file == "checks.yaml"


def test_all_that_is_wrong_with_checks_is_told_at_once():
    text = "".join(f"{row}\n" for row in WRONG if row.startswith("- ") and row != "- [")
    found = checklist.parse(text, "checks.yaml")[1]
    assert [d.place.line for d in found] == list(range(1, len(text.splitlines()) + 1))


class FakeHost:
    """What testinfra's host answers on this very machine, by its local backend."""

    def __new__(cls):
        import testinfra

        return testinfra.get_host("local://")


def test_checks_show_what_was_found(tmp_path):
    path = tmp_path / "f"
    path.write_text("hello")
    path.chmod(0o640)
    rows, _ = checklist.parse(
        f"""
- run: {{command: echo hi, contains: hi, matches: '^h.$', stdout: hi}}
- run: {{command: "echo no; exit 3"}}
- file: {{path: {path}, mode: '0640', contains: hello}}
- file: {{path: {path}, mode: '0600', owner: nobody}}
- file: {{path: {path}.gone, exists: false}}
- file: {{path: {path}.gone}}
- user: {{name: root}}
- user: {{name: nobody-at-all}}
- user: {{name: root, groups: [nogroup-x]}}
- http: {{port: 80, contains: welcome}}
- http: {{port: 81}}
- mount: {{path: /proc}}
""",
        "c",
    )

    def http(port: int, path: str) -> tuple[int, str]:
        return (200, "welcome") if port == 80 else (0, "nobody answers on port 81")

    outcomes = [checks.probe(c, FakeHost(), http) for c in rows]
    assert [o.passed for o in outcomes] == [
        True,
        False,
        True,
        False,
        True,
        False,
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    assert "3" in outcomes[1].found[0] and "0640, not 0600" in outcomes[3].found[0] and "root" in outcomes[3].found[1]
    assert outcomes[10].found == ("nobody answers on port 81",)


@pytest.fixture
def failed(seen) -> Report:
    machine = Object(kind=INSTANCE, namespace="default", name="web", spec=VMInstanceSpec(cloudInit=USER_DATA))
    check = checklist.Check("run", {"command": "<b>&'\""})
    return Report(
        machine,
        image="debian-12",
        verdict=Verdict(Result.CLOUD_INIT_FAILED, Stage.DONE, "x", seconds=80.0),
        way_in="guest agent",
        evidence=seen,
        outcomes=[checks.Outcome(check, ("the exit code is 1\x1b[31m",)), checks.Outcome(check)],
        stages=[("firmware", 0.0), ("kernel", 5.0), ("cloud-init-local", 40.0)],
        units=[units.Unit("ssh.service", 7.0, 2.0)],
        files={"console.log": b"<script>alert(1)</script>\x1b[2Jboot\n"},
    )


def place(r: Report, line: int) -> tuple[str, int]:
    return "m,1.yaml", line + 10


def test_junit_is_what_its_schema_says(failed, tmp_path):
    report.junit([failed], place, tmp_path / "j.xml")
    words = ["xmllint", "--noout", "--schema", LOGS / "junit.xsd", tmp_path / "j.xml"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    root = ET.parse(tmp_path / "j.xml").getroot()
    assert root.tag == "testsuites" and root.get("tests") == "4" and root.get("failures") == "2"
    suite = root.find("testsuite")
    assert suite is not None and suite.get("name") == "web on debian-12"
    cases = suite.findall("testcase")
    assert [c.get("name") for c in cases][:2] == ["boot", "cloud-init"]
    assert all(set(c.attrib) >= {"name", "classname", "time"} for c in cases)
    assert [c.find("failure") is not None for c in cases] == [False, True, True, False]
    assert "\x1b" not in (tmp_path / "j.xml").read_text()


def test_the_page_holds_everything_and_runs_nothing(failed):
    text = report.page([failed], place)
    assert "<script" not in text.lower() and "&lt;script&gt;" in text and "://" not in text.split("<h2>")[0]
    assert text.count("class='bar stage'") == 3 and "class='bar module FAIL'" in text
    assert "<span>ssh.service</span>" in text and "class='bar unit' style='left:15.00%;width:2.50%'" in text
    failed.files["console.log"] = b"first byte\n" + b"x" * (report.SHOWN + 7) + b"last"
    text = report.page([failed], place)
    assert "first byte" in text and "xlast" not in text and "… 22 bytes more" in text
    assert "\x1b" not in text and "default-src 'none'" in text


def test_ci_sees_findings_at_their_lines(failed):
    lines = report.in_ci([failed], place)
    assert any(line.startswith("::error file=m%2C1.yaml,line=") and "no-such-package" in line for line in lines)
    assert all("\n" not in line for line in lines)
    assert any("the exit code is 1" in line for line in lines), "a check that failed stands there too"
    table = report.summary([failed])
    assert "| web on debian-12 | failed | 80 | 1 of 2 |" in table


def test_a_guest_forges_no_line_and_no_command(failed, tmp_path):
    check = checklist.Check("run", {"command": "x\x01\ufffe"})
    failed.outcomes = [checks.Outcome(check, ("a\n::error::pwned\n  ok     run fake",))]
    lines = "\n".join(report.text(failed, place, False)).splitlines()
    assert not any(line.startswith(("::", "  ok ")) for line in lines)
    report.junit([failed], place, tmp_path / "j.xml")
    ET.parse(tmp_path / "j.xml")


def test_text_and_json_tell_the_same(failed):
    told = "\n".join(report.text(failed, place, timings=True))
    assert told.startswith("web on debian-12: FAILED") and "kernel" in told and "35.0 s" in told
    row = report.as_json(failed, place)
    valid("test", [json.loads(json.dumps(row))])
    assert (
        row["result"] == "failed"
        and row["checks"][1]["passed"]
        and row["stages"][1] == {"stage": "kernel", "seconds": 35.0}
    )
    assert any(p["line"] and p["file"] == "m,1.yaml" for p in row["problems"])
    assert row["output"].endswith(
        "\none\n/var/lib/cloud/instance/scripts/runcmd: 3: nosuchcommand: not found\nRunning as unit: web.service"
    )
    assert (
        "    | Running as unit: web.service" in told
        and "ci-info" not in row["output"]
        and "util.py" not in row["output"]
    )


def test_units_have_their_beginnings_and_lengths():
    text = """\
Id=ssh.service
InactiveExitTimestampMonotonic=7000000
ActiveEnterTimestampMonotonic=9000000

Id=never.service
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0

Id=quick.mount
InactiveExitTimestampMonotonic=5000000
ActiveEnterTimestampMonotonic=5000001

Id=first.service
InactiveExitTimestampMonotonic=100
ActiveEnterTimestampMonotonic=900000
"""
    assert units.read(text) == [units.Unit("first.service", 0.0001, 0.8999), units.Unit("ssh.service", 7.0, 2.0)]
    assert units.read("") == units.read("Id=a\nInactiveExitTimestampMonotonic=x\n\n=\n\n\x1b") == []


@pytest.mark.full
def test_the_page_is_what_a_browser_shows(failed, tmp_path):
    """Headless Chromium: the timeline's bars are there, inside their tracks, and a picture is kept."""
    browser = shutil.which("chromium")
    assert browser, "sudo apt-get install chromium (make test-all does it)"
    page, picture = tmp_path / "r.html", tmp_path / "r.png"
    page.write_text(report.page([failed], place))
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*words, "--dump-dom", f"file://{page}"], capture_output=True, text=True, timeout=patience(120)
    ).stdout
    assert shown.count('class="bar stage"') == 3 and "&lt;script&gt;" in shown
    subprocess.run(
        [*words, f"--screenshot={picture}", "--window-size=1000,1200", f"file://{page}"],
        check=True,
        timeout=patience(120),
        capture_output=True,
    )
    raw = picture.read_bytes()
    assert raw.startswith(b"\x89PNG") and len(raw) > 10_000


RAN = b"".join(
    b"2026-11-24 21:41:4%d,912 - handlers.py[DEBUG]: %s: modules-final/config-%s: %s\n" % (i, word, name, rest)
    for i, (name, ok) in enumerate([(b"runcmd", b"SUCCESS"), (b"scripts-user", b"SUCCESS"), (b"hostname", b"FAIL")])
    for word, rest in ((b"start", b"running"), (b"finish", ok + b": ran"))
)


def problems(user_data: str, output: str = "") -> dict[str, tuple[int, bool]]:
    return {p.message: (p.line, p.recoverable) for p in evidence.read(b"", RAN, output.encode(), user_data).problems}


def said(number: int, what: str = "nosuch: not found") -> str:
    return f"/var/lib/cloud/instance/scripts/runcmd: {number}: {what}\n"


def test_a_command_that_takes_several_lines_moves_those_behind_it():
    """The script that cloud-init makes of runcmd: line 1 is its header, a text keeps its lines, a list is one."""
    text = (
        "#cloud-config\nruncmd:\n  - |\n    echo one\n    nosuch\n  - [sh, -c, 'a b']\n  - nosuch\n  - 'x\n\n    y'\n"
    )
    script = ["#!/bin/sh", "echo one", "nosuch", "", "sh -c 'a b'", "nosuch", "x", "y"]
    for number, line in ((3, 5), (5, 6), (6, 7), (8, 8)):
        assert problems(text, said(number))["runcmd: nosuch: not found"] == (line, False), script[number - 1]
    assert problems(text, said(99))["runcmd: nosuch: not found"] == (0, False)
    # What only ends like a block's indicator is none.
    assert problems("#cloud-config\nruncmd:\n  - nosuch |\n", said(2))["runcmd: nosuch: not found"] == (3, False)


def test_a_command_that_may_fail_says_so():
    text = "#cloud-config\nruncmd:\n  - nosuch || true\n  - nosuch\n"
    assert problems(text, said(2))["runcmd: nosuch: not found"] == (3, True)
    assert problems(text, said(3))["runcmd: nosuch: not found"] == (4, False)
    told = problems(text, "cp: cannot stat '/a': No such file or directory\nhello\n")
    assert told == {"the output says: cp: cannot stat '/a': No such file or directory": (0, True)}


def test_one_that_may_fail_hides_none_that_may_not():
    """The same words twice: the error counts. What is behind || is no tolerance, nor is a || of another command."""
    both = "#cloud-config\nruncmd:\n  - nosuch || true\n  - nosuch\n"
    assert problems(both, said(2) + said(3))["runcmd: nosuch: not found"] == (4, False)
    for line in ("test -e /x || nosuch", "[ -n x ] || true; nosuch"):
        assert problems(f"#cloud-config\nruncmd:\n  - '{line}'\n", said(2))["runcmd: nosuch: not found"] == (3, False)
    long = "#cloud-config\nruncmd:\n  - |\n    nosuch \\\n      --x || true\n"
    assert problems(long, said(3))["runcmd: nosuch: not found"] == (5, True)
    hollow = "#cloud-config\nruncmd:\n  - # nothing\n  - ls || true\n  - nosuch\n"
    assert problems(hollow, said(3))["runcmd: nosuch: not found"] == (5, False)
    jinja = "## template: jinja\n#cloud-config\nruncmd:\n  - nosuch || true\n"
    assert problems(jinja, said(2))["runcmd: nosuch: not found"] == (0, True)


def test_warnings_make_no_room_for_themselves():
    flood = "".join(f"cp: cannot stat '/{n}': No such file or directory\n" for n in range(300))
    text = "#cloud-config\nruncmd:\n  - nosuch\n"
    found = evidence.read(b"", RAN, (flood + said(2)).encode(), text).problems
    assert len(found) == 200 and [p.message for p in found if not p.recoverable] == ["runcmd: nosuch: not found"]
    warned = b"".join(b"2026-11-24 21:41:41,912 - x[WARNING]: slow %d\n" % i for i in range(300))
    assert any(
        "wireguard" in p.message
        for p in evidence.read(b"", RAN + warned, b"", "#cloud-config\nwireguard: {}\n").problems
    )


def test_scripts_and_templates_are_judged_as_far_as_they_are_known():
    script = "#!/bin/sh\ntrue\nnosuch\n"
    told = problems(script, "/var/lib/cloud/instance/scripts/part-001: 3: nosuch: not found\n")
    assert told == {"the script: nosuch: not found": (3, False)}
    may = "#!/bin/sh\nnosuch \\\n  --x || true\nnosuch\n"
    at = "/var/lib/cloud/instance/scripts/part-00{}: {}: nosuch: not found\n"
    assert problems(may, at.format(1, 3)) == {"the script: nosuch: not found": (3, True)}
    assert problems(may, at.format(1, 4)) == {"the script: nosuch: not found": (4, False)}
    # Of several each by its number, which counts every part.
    kind = "Content-Type: text/x-shellscript\n\n#!/bin/sh\n"
    mime = f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\n{kind}true\n--b\n'
    mime += f"Content-Type: text/cloud-config\n\n#cloud-config\n{{}}\n--b\n{kind}nosuch || true\nnosuch\n--b--\n"
    here = [n for n, line in enumerate(mime.splitlines(), 1) if line.startswith("nosuch")]
    assert problems(mime, at.format(3, 2)) == {"the script: nosuch: not found": (here[0], True)}
    assert problems(mime, at.format(3, 3)) == {"the script: nosuch: not found": (here[1], False)}
    assert problems(mime, at.format(4, 2)) == {"the script: nosuch: not found": (0, False)}, "nobody knows which"
    assert problems(may.replace("true", "exit 1"), at.format(1, 3)) == {"the script: nosuch: not found": (3, False)}
    named = mime.replace(
        "x-shellscript\n\n#!/bin/sh\nnosuch",
        'x-shellscript\nContent-Disposition: a; filename="b.sh"\n\n#!/bin/sh\nnosuch',
    )
    told = problems(named, "/var/lib/cloud/instance/scripts/b.sh: 2: nosuch: not found\n")
    assert told == {"the script: nosuch: not found": (here[0] + 1, True)}
    # An archive's entries are counted each, itself is not.
    archive = "#cloud-config-archive\n- content: |\n    #cloud-config\n    {}\n- content: |\n    #!/bin/sh\n    true\n    nosuch\n"
    assert problems(archive, at.format(2, 3)) == {"the script: nosuch: not found": (8, False)}
    assert problems("#cloud-config\nbootcmd: [x]\n", "/tmp/tmpx.sh: 2: x: not found\n")[
        "the output says: /tmp/tmpx.sh: 2: x: not found"
    ] == (0, True)
    branch = "## template: jinja\n#cloud-config\n{% if v1.cloud_name == 'aws' %}\nsnap: {}\n{% endif %}\n{{ 'x' }}: 1\n"
    assert problems(branch) == {"snap: its module snap did not run in this image": (4, True)}
    short = evidence.read(b"", RAN, b"", "#cloud-config\nwireguard: {}\n", cut=True).problems
    assert all(p.recoverable for p in short) and "only their ends were read" in short[-1].message


@pytest.mark.parametrize(
    "flood",
    [
        lambda n: "".join(f"/var/lib/cloud/instance/scripts/runcmd: {k}: nosuch: not found {k}\n" for k in range(2, n)),
        lambda n: "-----BEGIN SSH HOST KEY\n" * n,
        lambda n: "E: " + "word " * n,
        lambda n: "".join(f"E: Unable to locate package p{k} p{k}x p{k}y\n" for k in range(n)),
        lambda n: "x: line 3: y: not found" * n,
    ],
    ids=["runcmd", "keys", "one line", "packages", "one word"],
)
def test_floods_of_the_guest_take_time_in_proportion(flood):
    def read(given: tuple[bytes, str]) -> None:
        evidence.read(b"", RAN, *given)

    def make(n: int) -> tuple[bytes, str]:
        commands = "".join(f"  - nosuch{k} || \\\n" for k in range(n // 4))
        packages = "".join(f"  - p{k}\n" for k in range(n // 4))
        return flood(n).encode(), f"#cloud-config\nruncmd:\n{commands}packages:\n{packages}"

    is_linear(read, make, 1000)


def test_hostile_answers_of_the_guest_are_read():
    cloudinit.busy_with("1 0 5 " + "python" * 100_000 + "\n1 0 \u00b2 x\n2 1 " + "9" * 5000 + " y\n")
    units.read("Id=a\nInactiveExitTimestampMonotonic=1\nActiveEnterTimestampMonotonic=" + "9" * 400)


def test_a_guest_says_no_command_to_github(failed, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    failed.evidence = dataclasses.replace(failed.evidence, said=("##[stop-commands]x",))
    assert "##[" not in "\n".join(report.text(failed, place, True))


def test_keys_are_proved_in_every_kind_of_user_data():
    mime = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/cloud-config\n\n'
    mime += "#cloud-config\nx-mine: 1\nwireguard: {}\n--b\nContent-Type: text/x-shellscript\n\n#!/bin/sh\ntrue\n--b--\n"
    never = "wireguard: its module wireguard did not run in this image"
    assert problems(mime) == {never: (mime.splitlines().index("wireguard: {}") + 1, False)}
    jinja = "## template: jinja\n#cloud-config\nhostname: {{ v1.region }}\nwireguard: {}\n"
    assert problems(jinja) == {
        never: (4, False),
        "hostname: its module set_hostname did not run in this image": (3, False),
    }
    archive = "#cloud-config-archive\n- type: text/cloud-config\n  content: |\n    #cloud-config\n    wireguard: {}\n"
    assert problems(archive) == {never: (5, False)}
    assert problems("#!/bin/sh\ntrue\n") == {}
    quiet = evidence.read(b"", RAN.replace(b"scripts-user", b"keys-to-console"), b"", "#!/bin/sh\ntrue\n").problems
    assert [(p.message, p.line) for p in quiet] == [
        ("the script: the module scripts_user did not run in this image", 1)
    ]
    assert "no module found" in evidence.read(b"", b"", b"", mime).problems[0].message


def test_keys_for_anchors_and_for_merging_are_nobodys_module():
    assert problems("#cloud-config\nx-common: &c [a]\nmerge_how: 'list(append)'\nruncmd: *c\n") == {}
