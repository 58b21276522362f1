"""Run inside a sandbox's namespaces; a program of its own, standard library alone (started with python -I -S).

  enter.py PID batch             carry out a JSON list of operations from standard input, print the JSON results
  enter.py PID exec CMD…         become CMD, with the namespace's capabilities
  enter.py PID inside CMD…       become CMD, which as an ordinary user has none
  enter.py PID outside CMD…      stay outside and become CMD, with OWNER in its words for a path of the network's owner
  enter.py PID connect HOST PORT carry standard input and output over a TCP connection made inside
  enter.py PID scan HOST         print the TCP ports of HOST that answer, as JSON
  enter.py PID pod JSON CMD…     become CMD in a network of its own on a tenant's bridge, as a pod of the tenant
PID 0 stays where it is.

As an ordinary user it joins the user namespace that owns the holder's network first, and raises its capabilities there
to ambient ones. `inside` goes on into the holder's own user namespace, where that is another one, and raises none.
"""

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that owns this one
LIBC = ctypes.CDLL(None, use_errno=True)
LAST_CAPABILITY = 40


def join(pid, root, powers):
    """Join the holder's namespaces; `powers`: keep the capabilities that this gives an ordinary user."""

    def opened(name):
        return os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)

    if root:
        for fd, kind in [(opened("mnt"), CLONE_NEWNS), (opened("net"), CLONE_NEWNET)]:
            setns(fd, kind)
    else:
        net, own = opened("net"), opened("user")
        owner = fcntl.ioctl(net, NS_GET_USERNS)
        setns(owner, CLONE_NEWUSER)
        setns(net, CLONE_NEWNET)
        if powers:
            raise_ambient()
        elif os.fstat(own).st_ino != os.fstat(owner).st_ino:
            setns(own, CLONE_NEWUSER)
        os.close(owner)
    os.chdir("/")


def setns(fd, kind):
    if LIBC.setns(fd, kind):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def raise_ambient():
    """Keep the namespace's capabilities over the exec of ip, nft and dnsmasq."""
    header, data = Header(0x20080522, 0), (Data * 2)()
    if LIBC.capget(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capget")
    for d in data:
        d.inheritable = d.permitted
    if LIBC.capset(ctypes.byref(header), data):
        raise OSError(ctypes.get_errno(), "capset")
    for capability in range(LAST_CAPABILITY + 1):
        LIBC.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def batch():
    """Operations: {"run": [argv], "input": text}, {"write": path, "text": text}; stops at the first that fails."""
    results = []
    for op in json.load(sys.stdin):
        if "write" in op:
            try:
                with open(op["write"], "w", encoding="ascii") as f:
                    f.write(op["text"])
                results.append({"code": 0, "out": ""})
            except OSError as e:
                results.append({"code": 1, "out": str(e)})
        else:
            done = subprocess.run(
                op["run"], input=op.get("input", ""), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            results.append({"code": done.returncode, "out": done.stdout[-4000:] if done.returncode else done.stdout})
        if results[-1]["code"] and not op.get("may_fail"):
            break
    json.dump(results, sys.stdout)


RESTARTS = 2.0  # seconds for which a server of ssh is awaited that refuses: cloud-init, an upgrade, start it again


def dial(host, port, patience):
    end = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection((host, port), timeout=20)
        except ConnectionRefusedError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.1)


def connect(host, port, for_ssh):
    """Carry bytes both ways until both sides have ended; `for_ssh`: until ssh has, which says no more then."""
    s = dial(host, port, RESTARTS if for_ssh else 0)
    s.settimeout(None)
    pairs = {0: (lambda: os.read(0, 65536), s.sendall), s.fileno(): (lambda: s.recv(65536), lambda b: write_all(1, b))}
    while pairs:
        ready, _, _ = select.select(list(pairs), [], [])
        for fd in ready:
            read, write = pairs[fd]
            try:
                block = read()
            except OSError:
                block = b""
            if block:
                write(block)
                continue
            del pairs[fd]
            if fd == 0:
                if for_ssh:
                    return
                try:
                    s.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            else:
                return


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data) :]


SCAN_BUDGET, SCAN_PATIENCE, SCAN_WIDTH = 12.0, 1.0, 400  # seconds in all, seconds for one port, ports at once


def scan(host):
    """Every TCP port, the low ones first, until the budget is spent."""
    waiting, found, fds = {}, [], select.epoll()
    end = time.monotonic() + SCAN_BUDGET
    todo = iter(range(1, 65536))
    port = next(todo, None)
    while (port or waiting) and time.monotonic() < end:
        while port and len(waiting) < SCAN_WIDTH:
            s = socket.socket()
            s.setblocking(False)
            code = s.connect_ex((host, port))
            if code == errno.EINPROGRESS:
                fds.register(s.fileno(), select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
                waiting[s.fileno()] = (s, port, time.monotonic())
            else:
                if code == 0:
                    found.append(port)
                s.close()
            port = next(todo, None)
        for fd, _ in fds.poll(0.05):
            s, tried, _ = waiting.pop(fd)
            fds.unregister(fd)
            if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(tried)
            s.close()
        late = time.monotonic() - SCAN_PATIENCE
        for fd in [fd for fd, (_, _, since) in waiting.items() if since < late]:
            waiting.pop(fd)[0].close()
    json.dump(sorted(found), sys.stdout)


def pod(about, command):
    """A network namespace of the command's own with one NIC on the tenant's bridge, its address, routes and resolver.

    The NIC goes with the namespace, so nothing is left over, however the command ends.
    """
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready[0])
        os.close(go[1])
        if LIBC.unshare(CLONE_NEWNET | CLONE_NEWNS):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        os.write(ready[1], b"1")
        if not os.read(go[0], 1):
            sys.exit(111)  # the other half failed, and said so
        LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        for words in about["inside"]:
            subprocess.run(words, check=True)
        resolver(about["resolv"])
        try:
            os.chdir(about["cwd"])
        except OSError:
            os.chdir("/")
        os.execvp(command[0], command)
    os.close(ready[1])
    os.close(go[0])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's
    if os.read(ready[0], 1):
        for words in about["outside"]:
            subprocess.run([w.replace("CHILD", str(child)) for w in words], check=True)
        os.write(go[1], b"1")
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(128 - code if code < 0 else code)


MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18


def resolver(text):
    """/etc/resolv.conf as a pod has it, and no resolver of the host's beside it."""
    LIBC.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None)
    with open("/mnt/resolv.conf", "w", encoding="ascii") as f:
        f.write(text)
    with open("/mnt/nsswitch.conf", "w", encoding="ascii") as f:
        f.write("passwd: files\ngroup: files\nhosts: files dns\n")
    for name in ("resolv.conf", "nsswitch.conf"):
        real = os.path.realpath(f"/etc/{name}")
        if os.path.exists(real):
            LIBC.mount(f"/mnt/{name}".encode(), real.encode(), None, MS_BIND, None)
    for folder in ("/run/nscd", "/var/run/nscd"):
        if os.path.isdir(folder):
            LIBC.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None)
    LIBC.umount2(b"/mnt", 2)


def by_ssh():
    """As in mux, which is none of the standard library's: whether ssh connects through this."""
    try:
        with open(f"/proc/{os.getppid()}/comm", encoding="ascii") as f:
            return f.read().strip() == "ssh"
    except OSError:
        return False


def tell(text):
    """As mux.tell."""
    try:
        if by_ssh() and os.fstat(2).st_rdev == os.stat(os.devnull).st_rdev:
            with open(f"/proc/{os.getppid()}/fd/2", "a") as stderr:
                print(text, file=stderr)
    except OSError:
        pass


def main(argv):
    pid, mode = int(argv[0]), argv[1]
    if mode == "outside":
        owner = fcntl.ioctl(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC), NS_GET_USERNS)
        os.set_inheritable(owner, True)
        os.execvp(argv[2], [w.replace("OWNER", f"/proc/self/fd/{owner}") for w in argv[2:]])
    if pid:
        join(pid, os.geteuid() == 0, powers=mode != "inside")
    if mode == "batch":
        batch()
    elif mode in ("exec", "inside"):
        os.execvp(argv[2], argv[2:])
    elif mode == "connect":
        for_ssh = by_ssh()
        if for_ssh:  # others than the terminal's command may share the connection
            try:
                os.setsid()
            except OSError:
                pass
        connect(argv[2], int(argv[3]), for_ssh)
    elif mode == "scan":
        scan(argv[2])
    elif mode == "pod":
        pod(json.loads(argv[2]), argv[3:])


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (OSError, subprocess.CalledProcessError) as e:
        why = getattr(e, "strerror", None) or str(e)
        if sys.argv[2:3] == ["connect"]:
            why = f"port {sys.argv[4]} of the guest cannot be reached: {why}"
            tell(why)
        print(why, file=sys.stderr)
        sys.exit(111)
