"""Nothing outlives the tests: what runs them ends what they leave."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hikube_local.paths import layout
from tests.growth import patience

ROOT = Path(__file__).parents[2]
# A daemon: its parent is gone, its session is its own.
LEAVES = (
    "setsid sh -c 'sleep 600 & echo $! > \"$1\"' x {left}; until [ -s {left} ]; do sleep 0.05; done; echo up; {then}"
)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("then", "sent", "code"), [("exit 7", None, 7), ("exec sleep 600", signal.SIGTERM, 143)])
def test_what_a_command_leaves_is_ended_with_it(tmp_path: Path, then: str, sent: int | None, code: int):
    left = tmp_path / "left"
    argv = [sys.executable, "-m", "tests.reaper", "sh", "-c", LEAVES.format(left=left, then=then)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reaper:
        assert reaper.stdout.readline() == "up\n"
        pid = int(left.read_text())
        if sent:
            assert alive(pid)
            os.kill(reaper.pid, sent)
        _, told = reaper.communicate(timeout=patience(30))
    assert reaper.returncode == code
    assert not alive(pid) and f"ended now: {pid} " in told


@pytest.mark.skipif(os.geteuid() != 0, reason="as root the runtime folders lie in /run")
def test_runtime_folders_of_tests_go_with_them_and_others_stay(tmp_path: Path):
    """A run that was cut short leaves no folder in /run; somebody's own state root and another run's are not ours."""
    mine, others, lives = tmp_path / "mine" / "home", tmp_path / "others", tmp_path / "lives" / "home"
    of_test = mine / "state" / "lab" / "t123456"  # of the program's own `test`
    tags = {home: layout({"HIKUBE_LOCAL_HOME": str(home)}).runtime for home in (mine, of_test, others, lives)}
    folders = " ".join(str(p) for p in tags.values())
    script = f"mkdir -p {of_test}/state {lives}/state {folders}; touch {tags[lives]}/made"
    (tmp_path / "wait.sh").write_text(
        f"until [ -e {tags[lives]}/made ]; do sleep 0.05; done; exec <{tags[lives]}/made sleep 600"
    )
    other_run = subprocess.Popen(["sh", str(tmp_path / "wait.sh")], stdin=subprocess.DEVNULL)
    script += f'; until [ "$(readlink /proc/{other_run.pid}/fd/0)" = {tags[lives]}/made ]; do sleep 0.05; done'
    try:
        done = subprocess.run([sys.executable, "-m", "tests.reaper", "sh", "-c", script], cwd=ROOT, capture_output=True)
        assert done.returncode == 0
        assert not tags[mine].exists() and str(tags[mine]) in done.stderr.decode()
        assert not tags[of_test].exists() and str(tags[of_test]) in done.stderr.decode()
        assert tags[others].exists() and tags[lives].exists()
    finally:
        other_run.kill()
        other_run.wait()
        for folder in tags.values():
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a user")
def test_throw_away_users_of_a_run_that_was_cut_short_go_with_it():
    """A test's own clearing up does not run when it is killed."""
    script = 'useradd --no-create-home "hkt$$" && echo "hkt$$" && exec sleep 600'
    argv = [sys.executable, "-m", "tests.reaper", "sh", "-c", script]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reaper:
        user = reaper.stdout.readline().strip()
        assert pwd.getpwnam(user)
        os.kill(reaper.pid, signal.SIGTERM)
        _, told = reaper.communicate(timeout=patience(30))
    assert f"the user {user}" in told
    with pytest.raises(KeyError):
        pwd.getpwnam(user)


@pytest.mark.skipif(os.geteuid() != 0, reason="makes users")
def test_users_that_workers_made_go_too():
    """A worker that was killed and not yet buried looks alive by its folder in /proc."""
    make = 'useradd --no-create-home "hkt$$" && echo "hkt$$" && exec sleep 600'
    argv = [sys.executable, "-m", "tests.reaper", "sh", "-c", f"for i in 1 2 3; do sh -c '{make}' & done; wait"]
    users = []
    try:
        with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reaper:
            users = [reaper.stdout.readline().strip() for _ in range(3)]
            os.kill(reaper.pid, signal.SIGTERM)
            reaper.communicate(timeout=patience(30))
        assert [u.pw_name for u in pwd.getpwall() if u.pw_name in users] == []
    finally:
        for user in users:
            subprocess.run(["userdel", "--remove", "--force", user], capture_output=True)
