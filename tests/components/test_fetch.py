"""Fetching from a server that misbehaves: resumed, retried, verified, refused, and never twice."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import subprocess
from pathlib import Path

import pytest
import zstandard

from hikube_local.errors import HikubeError, Interrupted
from hikube_local.events import Event, EventType, ignore
from hikube_local.images import checksums, download, fetch, http, streams
from hikube_local.images.cache import Cache
from hikube_local.images.inspect import inspect
from hikube_local.urls import is_inner
from tests.components.refusal import refusal
from tests.components.server import Act, Served, authority, serve_file, serving
from tests.growth import patience


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A raw disk of 6 MiB with something in it, so that it comes in several blocks."""
    path = tmp_path / "image.raw"
    path.write_bytes(b"\xeb\x63" + bytes(508) + b"\x55\xaa" + bytes(range(256)) * (6 << 12))
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def served(monkeypatch) -> Served:
    monkeypatch.setattr(download, "sleep", lambda seconds: None)
    monkeypatch.setattr(http, "STALL_TIMEOUT", patience(0.7))
    with serving() as s:
        s.etag = '"v1"'
        yield s


def kept(cache: Cache, sub: str = "partial") -> list[str]:
    return sorted(p.name for p in (cache.folder / sub).iterdir())


class Told(list):
    def __call__(self, event: Event) -> None:
        self.append(event.message)


def test_a_break_is_resumed_where_it_was(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.script = [Act(cut=4 << 20)]
    told = Told()
    entry = fetch.fetch(cache, url, told, "x")
    assert cache.path(entry.digest).read_bytes() == image.read_bytes()
    assert served.fetched == ["/a.img"] * 2
    assert served.seen[1]["Range"] == f"bytes={4 << 20}-" and served.seen[1]["If-Range"] == '"v1"'
    assert any("retrying" in t for t in told)
    assert kept(cache) == []


def test_a_later_run_goes_on_with_what_an_earlier_one_left(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.script, served.default = [Act(cut=2 << 20)], Act(cut=0)
    with pytest.raises(HikubeError):
        fetch.fetch(cache, url, ignore, "x")
    assert len(kept(cache)) == 2
    served.default = Act()
    before = len(served.seen)
    fetch.fetch(cache, url, ignore, "x")
    assert int(served.seen[before]["Range"].removeprefix("bytes=").rstrip("-")) >= 2 << 20
    assert kept(cache) == []


@pytest.mark.parametrize("what", ["no ranges", "another etag", "another length", "wrong start", "multipart", "416"])
def test_what_does_not_go_on_begins_anew_and_says_so(cache, served, image, what):
    url = serve_file(served, image, "a.img")
    served.script = [Act(cut=3 << 20)]
    if what == "no ranges":
        served.ranges = False
    elif what == "another etag":
        served.script.append(
            Act(status=206, headers={"ETag": '"v2"', "Content-Range": f"bytes {3 << 20}-9/{image.stat().st_size}"})
        )
    elif what == "another length":
        served.script.append(Act(headers={"Content-Range": f"bytes {3 << 20}-99/100"}))
    elif what == "wrong start":
        served.script.append(Act(headers={"Content-Range": f"bytes 0-9/{image.stat().st_size}"}))
    elif what == "multipart":
        served.script.append(Act(headers={"Content-Type": "multipart/byteranges; boundary=x"}))
    else:
        served.script.append(Act(status=416))
    told = Told()
    entry = fetch.fetch(cache, url, told, "x")
    assert cache.path(entry.digest).read_bytes() == image.read_bytes()
    assert any("from the beginning" in t or "changed during the download" in t for t in told)


def test_weak_etags_are_no_validators(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.etag = 'W/"v1"'
    served.script = [Act(cut=3 << 20)]
    fetch.fetch(cache, url, ignore, "x")
    assert "Range" not in served.seen[1]


def test_busy_servers_are_tried_again_and_refusals_are_not(cache, served, image, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(download.Download, "_pause", lambda self, seconds: waits.append(seconds))
    url = serve_file(served, image, "a.img")
    served.script = [Act(status=429, headers={"Retry-After": "7"}), Act(status=500), Act(status=503)]
    fetch.fetch(cache, url, ignore, "x")
    assert waits[0] == 7 and waits[1:] == [2, 4]
    served.files["/b.img"] = b""
    served.default = Act(status=503)
    refusal(lambda: fetch.fetch(cache, f"{served.url}/b.img", ignore, "x"), "503")
    served.default = Act(status=403)
    before = len(served.seen)
    refusal(lambda: fetch.fetch(cache, f"{served.url}/b.img", ignore, "x"), "403")
    assert len(served.seen) == before + 1


@pytest.mark.parametrize(
    ("text", "least", "most"), [("3", 3, 3), ("999999", 60, 60), ("-1", None, None), ("soon", None, None)]
)
def test_what_a_server_asks_for_is_bounded(text, least, most):
    wait = http._retry_after(text)
    assert wait is None if least is None else least <= wait <= most


def test_a_stall_ends_and_a_slow_server_does_not(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.script = [Act(stall=3 * http.STALL_TIMEOUT)]
    told = Told()
    fetch.fetch(cache, url, told, "x")
    assert any("no data" in t or "was interrupted" in t for t in told)
    slow = image.with_name("slow")
    slow.write_bytes(image.read_bytes()[: 64 << 10])
    served.script = [Act(drip=2048)]
    fetch.fetch(cache, serve_file(served, slow, "slow.img"), ignore, "x")


def test_redirects_are_followed_ten_times_and_only_to_http(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.script = [Act(redirect=f"{served.url}/a.img")] * 3
    fetch.fetch(cache, url, ignore, "x")
    served.files["/b.img"] = served.files["/c.img"] = image.read_bytes()
    served.script = [Act(redirect=f"{served.url}/b.img")] * 20
    refusal(lambda: fetch.fetch(cache, f"{served.url}/b.img", ignore, "x"), "more than 10")
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x"):
        served.script = [Act(redirect=target)]
        refusal(lambda: fetch.fetch(cache, f"{served.url}/c.img", ignore, "x"), "only http and https")


def test_from_outside_nobody_is_led_inwards_or_out_of_tls():
    with pytest.raises(HikubeError, match="inside this network"):
        http._follow("https://example.org/a", "https://169.254.169.254/x", True)
    with pytest.raises(HikubeError, match="from https to http"):
        http._follow("https://example.org/a", "http://example.com/x", False)
    http._follow("https://example.org/a", "http://example.com/x", True)


def test_a_server_that_sends_more_than_it_said(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.default = Act(length=5000)
    entry = fetch.fetch(cache, url, ignore, "x")  # what it said is what is taken: a checksum tells the difference
    assert entry.size == 5000
    served.files["/b.img"] = image.read_bytes()
    right = hashlib.sha256(image.read_bytes()).hexdigest()
    refusal(lambda: fetch.fetch(cache, f"{served.url}/b.img", ignore, "x", right), "HK704", right)
    assert kept(cache) == []


def test_content_encodings_are_refused(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.default = Act(headers={"Content-Encoding": "gzip"})
    refusal(lambda: fetch.fetch(cache, url, ignore, "x"), "Content-Encoding")


# verification


def test_checksum_files_in_every_style():
    a, b = "a" * 64, "b" * 128
    for text, found in (
        (f"{a}  x.img\n", ("sha256", a)),
        (f"{a} *x.img\r\n", ("sha256", a)),
        (f"{a.upper()}  ./x.img\n", ("sha256", a)),
        (f"SHA512 (x.img) = {b}\n", ("sha512", b)),
        (f"# x\n-----BEGIN PGP SIGNED MESSAGE-----\nSHA256 (x.img) = {a}\n", ("sha256", a)),
        (f"{a}  x.img\n{'c' * 64}  x.img\n", None),  # two for one name
        (f"{a}  ../x.img\n{a}  y.img\n", None),
        ("", None),
    ):
        assert checksums.find(text, "x.img") == found, text


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA512SUMS", "CHECKSUM", "a.img.sha256", "a.img.sha512"])
def test_the_vendors_checksum_beside_the_image_is_found_and_said(cache, served, image, name):
    url = serve_file(served, image, "a.img")
    algorithm = "sha512" if "512" in name else "sha256"
    digest = hashlib.new(algorithm, image.read_bytes()).hexdigest()
    served.files[f"/{name}"] = (f"SHA256 (a.img) = {digest}\n" if name == "CHECKSUM" else f"{digest}  a.img\n").encode()
    told = Told()
    entry = fetch.fetch(cache, url, told, "x")
    assert entry.verified == f"the vendor's {name}" and any(name in t for t in told)
    served.files[f"/{name}"] = served.files[f"/{name}"].replace(digest[:8].encode(), b"00000000")
    refusal(lambda: fetch.request(Cache(cache.folder.parent / "other"), fetch.Request(url), ignore), "HK704", digest)


def test_without_any_checksum_the_first_use_is_trusted_and_a_change_is_said(cache, served, image):
    url = serve_file(served, image, "a.img")
    told = Told()
    entry = fetch.fetch(cache, url, told, "x")
    assert any("trusted on first use" in t for t in told) and entry.verified == ""
    cache.forget(entry.digest)
    served.files["/a.img"] = image.read_bytes()[:-512] + bytes(512)
    told = Told()
    fetch.fetch(cache, url, told, "x")
    assert any("changed since it was first used" in t for t in told)


def test_a_resumed_mix_is_fetched_once_more_from_the_start(cache, served, image):
    """Mirrors that mix builds: the same ETag, other bytes."""
    url = serve_file(served, image, "a.img")
    right = image.read_bytes()
    digest = hashlib.sha256(right).hexdigest()
    served.files["/a.img"] = right[: 3 << 20] + b"x" * (len(right) - (3 << 20))
    served.script = [Act(cut=4 << 20)]
    told = Told()

    def emit(event: Event) -> None:
        told(event)
        if "retrying" in event.message:
            served.files["/a.img"] = right

    entry = fetch.fetch(cache, url, emit, "x", digest)
    assert entry.digest == digest and any("downloading again" in t for t in told)
    served.files["/a.img"] = right[:-1] + b"!"
    cache.forget(digest)
    refusal(lambda: fetch.fetch(cache, url, ignore, "x", digest), "HK704", digest)
    assert kept(cache) == []


def test_pull_asks_and_304_costs_nothing(cache, served, image):
    url = serve_file(served, image, "a.img")
    first = fetch.fetch(cache, url, ignore, "x")
    told = Told()
    again = fetch.request(cache, fetch.Request(url, pull=True), told)
    assert again.digest == first.digest and any("nothing newer" in t for t in told)
    served.etag = '"v2"'
    served.files["/a.img"] = image.read_bytes() + bytes(512)
    assert fetch.request(cache, fetch.Request(url, pull=True), ignore).digest != first.digest


def test_mirrors_are_urls_or_folders(cache, served, image, tmp_path):
    served.files["/debian/a.img"] = image.read_bytes()
    mirrors = {"https://cloud.example.org/": f"{served.url}/", "https://cloud.example.org/local/": str(tmp_path)}
    entry = fetch.request(cache, fetch.Request("https://cloud.example.org/debian/a.img", mirrors=mirrors), ignore)
    assert entry.key == "https://cloud.example.org/debian/a.img"
    other = fetch.request(
        cache, fetch.Request(f"https://cloud.example.org/local/{image.name}", mirrors=mirrors), ignore
    )
    assert other.digest == entry.digest
    refusal(
        lambda: fetch.request(cache, fetch.Request("https://cloud.example.org/local/none", mirrors=mirrors), ignore),
        "the mirror has no",
    )


def test_passwords_are_never_told(cache, served, image):
    serve_file(served, image, "a.img")
    url = served.url.replace("http://", "http://user:s3cret@") + "/a.img"
    told = Told()
    entry = fetch.fetch(cache, url, told, "x")
    assert "s3cret" not in " ".join(told) + entry.origin


# compressed and foreign images


def xz_of_blocks(data: bytes) -> bytes:
    """As `xz -T` writes it: many blocks, whose headers say their sizes."""
    words = ["xz", "-0", "-T2", "--block-size=256KiB", "-c"]
    return subprocess.run(words, input=data, capture_output=True, check=True).stdout


KINDS = ["gz", "bz2", "xz", "xz of blocks", "zst"]


def packed(kind: str, data: bytes) -> bytes:
    return {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "xz of blocks": xz_of_blocks,
        "zst": zstandard.ZstdCompressor().compress,
    }[kind](data)


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_images_are_known_by_content_and_unpacked(cache, served, image, kind):
    sparse = image.read_bytes() + bytes(8 << 20)
    served.files["/a.img"] = packed(kind, sparse)
    served.script = [Act(cut=len(served.files["/a.img"]) // 2)]  # also over a break
    entry = fetch.fetch(cache, f"{served.url}/a.img", ignore, "x")
    path = cache.path(entry.digest)
    assert entry.format == "raw" and path.read_bytes() == sparse
    assert path.stat().st_blocks * 512 < len(sparse) - (7 << 20), "zeros stay holes"
    assert entry.digest == hashlib.sha256(sparse).hexdigest()
    assert entry.sources["sha256"] == hashlib.sha256(served.files["/a.img"]).hexdigest()
    assert kept(cache) == []


@pytest.mark.parametrize("kind", KINDS)
def test_bombs_end_early_and_cut_or_doubled_layers_are_refused(cache, served, kind):
    data = b"\xeb\x63" + bytes(64 << 20)
    served.files["/a.img"] = packed(kind, data)
    want = fetch.Request(f"{served.url}/a.img", limit=1 << 20)
    refusal(lambda: fetch.request(cache, want, ignore), "HK703", "1Mi")
    assert kept(cache) == []
    served.files["/a.img"] = packed(kind, data)[:-3]
    refusal(lambda: fetch.fetch(cache, f"{served.url}/a.img", ignore, "x"), "HK702")
    served.files["/a.img"] = packed(kind, packed(kind, data + os.urandom(4096)))
    refusal(lambda: fetch.fetch(cache, f"{served.url}/a.img", ignore, "x"), "HK702", "twice")
    assert kept(cache, "sha256") == []


def test_an_xz_of_blocks_is_unpacked_in_threads_where_the_program_is_there(cache, served, image, tmp_path, monkeypatch):
    data = image.read_bytes() + os.urandom(1 << 20)
    many, one = xz_of_blocks(data), lzma.compress(data)
    assert streams.XzBlocks.helps(many[:64]) and not streams.XzBlocks.helps(one[:64])
    served.files["/a.img"] = many
    in_threads = fetch.fetch(cache, f"{served.url}/a.img", ignore, "x")
    monkeypatch.setattr(streams.shutil, "which", lambda name: None)
    other = Cache(tmp_path / "other")
    assert fetch.fetch(other, f"{served.url}/a.img", ignore, "x").digest == in_threads.digest


@pytest.mark.parametrize("damage", ["a block", "the index", "rubbish behind it"])
def test_a_damaged_xz_of_blocks_is_refused_and_no_program_stays(cache, served, damage):
    good = xz_of_blocks(b"\xeb\x63" + os.urandom(2 << 20))
    at = {"a block": len(good) // 2, "the index": len(good) - 20}.get(damage)
    bad = good + b"rubbish" if at is None else good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    served.files["/a.img"] = bad
    refusal(lambda: fetch.fetch(cache, f"{served.url}/a.img", ignore, "x"), "HK702", "xz content ")
    assert kept(cache) == [] and kept(cache, "sha256") == []
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "comm="], capture_output=True, text=True).stdout
    assert "xz" not in children.split()


def test_an_xz_header_that_asks_for_gigabytes_is_refused(cache, served):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30}]
    served.files["/a.img"] = lzma.compress(bytes(1 << 20), filters=filters)
    refusal(lambda: fetch.fetch(cache, f"{served.url}/a.img", ignore, "x"), "HK702")


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("vmdk", []),
        ("vmdk", ["-o", "subformat=streamOptimized"]),
        ("vdi", []),
        ("vpc", ["-o", "force_size"]),
        ("vpc", ["-o", "subformat=fixed,force_size"]),
        ("vhdx", []),
    ],
)
def test_foreign_formats_become_qcow2_once_with_the_same_content(cache, served, image, tmp_path, format, options):
    foreign = tmp_path / "foreign"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", format, *options, image, foreign], check=True)
    entry = fetch.fetch(cache, serve_file(served, foreign, "a.img"), ignore, "x")
    path = cache.path(entry.digest)
    assert entry.format == "qcow2" and inspect(path).format == "qcow2"
    compared = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", image, path]
    assert subprocess.run(compared, capture_output=True).returncode == 0
    assert kept(cache) == []
    assert served.fetched == ["/a.img"]
    fetch.fetch(cache, f"{served.url}/a.img", ignore, "x")
    assert served.fetched == ["/a.img"]


def test_interrupted_by_a_full_disk_nothing_counts(cache, served, image, monkeypatch):
    url = serve_file(served, image, "a.img")
    monkeypatch.setattr(download, "RESERVE", 1 << 60)
    error = refusal(lambda: fetch.fetch(cache, url, ignore, "x"), "HK604", "missing", "prune")
    assert error.code == "HK604" and kept(cache, "sha256") == []


def test_time_is_bounded_for_a_dead_server(cache, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(download, "sleep", slept.append)
    with pytest.raises(http.Unreachable):
        fetch.fetch(cache, "http://127.0.0.1:1/x", ignore, "x")
    assert len(slept) < 10 and sum(slept) < 300, slept


def test_tls_is_verified_and_a_ca_of_ones_own_is_honoured(cache, image, tmp_path, monkeypatch):
    folder = tmp_path / "tls"
    folder.mkdir()
    with serving(authority(folder)) as served:
        url = serve_file(served, image, "a.img")
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        with pytest.raises(HikubeError, match="TLS failed") as told:
            fetch.fetch(cache, url, ignore, "x")
        assert "REQUESTS_CA_BUNDLE" in told.value.fix and not served.seen
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "ca.pem"))
        assert fetch.fetch(cache, url, ignore, "x").digest == hashlib.sha256(image.read_bytes()).hexdigest()
        # The right CA, another host than the certificate's.
        with pytest.raises(HikubeError, match="TLS failed"):
            fetch.fetch(cache, url.replace("127.0.0.1", "localhost"), ignore, "x")


def test_out_of_tls_only_with_a_digest(cache, image, tmp_path, monkeypatch):
    folder = tmp_path / "tls"
    folder.mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority(folder) / "ca.pem"))
    with serving() as plain, serving(folder) as served:
        there = serve_file(plain, image, "a.img")
        url = serve_file(served, image, "a.img")
        served.default = Act(redirect=there)
        with pytest.raises(HikubeError, match="from https to http"):
            fetch.fetch(cache, url, ignore, "x")
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        assert fetch.fetch(cache, url, ignore, "x", f"sha256:{digest}").digest == digest


def test_the_proxy_of_the_environment_is_asked(cache, served, image, monkeypatch):
    served.files["http://images.invalid/a.img"] = image.read_bytes()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", served.url)
    fetch.fetch(cache, "http://images.invalid/a.img", ignore, "x")
    assert served.fetched == ["http://images.invalid/a.img"]


def test_a_password_of_netrc_stays_with_its_host(cache, served, image, tmp_path, monkeypatch):
    serve_file(served, image, "a.img")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    there = served.url.replace("127.0.0.1", "localhost") + "/a.img"
    served.script = [Act(redirect=there)]
    fetch.fetch(cache, f"{served.url}/a.img", ignore, "x")
    first, second = (headers for headers in served.seen if "SUMS" not in str(headers))
    assert "Authorization" in first and "Authorization" not in second


def test_a_first_block_of_a_few_bytes_still_unpacks(cache, served):
    data = b"\xeb\x63" + bytes(508) + b"\x55\xaa" + os.urandom(300)
    served.files["/a.img"] = gzip.compress(data)
    served.default = Act(drip=3)
    download_block, download.BLOCK = download.BLOCK, 3
    try:
        entry = fetch.fetch(cache, f"{served.url}/a.img", ignore, "x")
    finally:
        download.BLOCK = download_block
    assert cache.path(entry.digest).read_bytes() == data


@pytest.mark.parametrize("where", ["http://[", "http://127.1:99999/x", "file:///etc/passwd"])
def test_a_redirect_to_no_url_is_an_answer(cache, served, image, where):
    url = serve_file(served, image, "a.img")
    served.script = [Act(redirect=where)]
    refusal(lambda: fetch.fetch(cache, url, ignore, "x"), "HK701", "redirects")


@pytest.mark.parametrize(
    ("host", "inner"),
    [
        ("127.1", True),
        ("0x7f000001", True),
        ("2130706433", True),
        ("localhost.", True),
        ("a.localhost", True),
        ("100.64.0.1", True),
        ("[::ffff:10.0.0.1]", True),
        ("10.1.2.3", True),
        ("cloud.debian.org", False),
        ("1.1.1.1", False),
    ],
)
def test_hosts_of_this_network_are_known_in_all_their_forms(host, inner):
    from urllib.parse import urlsplit

    assert is_inner(urlsplit(f"http://{host}/").hostname) is inner


def test_a_checksum_of_another_kind_given_later_is_compared(cache, served, image):
    url = serve_file(served, image, "a.img")
    fetch.fetch(cache, url, ignore, "x")
    right = hashlib.sha512(image.read_bytes()).hexdigest()
    fetch.fetch(cache, url, ignore, "x", f"sha512:{right}")
    assert served.fetched == ["/a.img"], "it is compared with what is kept"
    refusal(lambda: fetch.fetch(cache, url, ignore, "x", f"sha512:{'0' * 128}"), "HK704", right)


def test_a_checksum_file_in_trouble_is_said_and_a_dead_server_is_asked_once(cache, served, image):
    url = serve_file(served, image, "a.img")
    served.files["/SHA256SUMS"] = b"x"
    served.default = Act()
    told: list[tuple[str, bool]] = []
    served.files["/a.img.sha256"] = b"x"
    served.script = [Act(status=503)]
    assert checksums.vendors(url, lambda m, warn=False: told.append((m, warn))) is None
    assert told and told[0][1] and "503" in told[0][0]
    assert checksums.vendors("http://127.0.0.1:1/x.img", lambda *a: told.append(a)) is None
    assert len(told) == 1


def test_what_a_kill_left_of_work_goes_with_the_next_command(cache, served, image):
    cache.make()
    for name in ("convert-1234", "build-xy"):
        (cache.folder / "partial" / name).mkdir()
        (cache.folder / "partial" / name / "f").write_bytes(b"x")
    (cache.folder / "partial" / "import-99").write_bytes(b"x")
    with cache.in_use():
        fetch.fetch(cache, serve_file(served, image, "a.img"), ignore, "x")
        assert len(kept(cache)) == 3, "somebody may be at work on it"
    fetch.fetch(cache, serve_file(served, image, "b.img"), ignore, "x")
    assert kept(cache) == []


def test_an_interrupt_is_heeded_between_two_tries(cache, served, image):
    """A server may ask for a minute: each second of it whoever waits can be told to stop."""
    url = serve_file(served, image, "a.img")
    served.script = [Act(status=429, headers={"Retry-After": "60"})]
    pulses = 0

    def emit(event: Event) -> None:
        nonlocal pulses
        pulses += event.type is EventType.PULSE
        if pulses == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        fetch.fetch(cache, url, emit, "x")


def test_a_line_that_becomes_slow_is_heard_of(image):
    """What is read at a time is little enough also after a fast beginning."""
    whole = image.read_bytes()
    sizes: list[int] = []

    class Raw:
        at = 0

        def read(self, most: int, decode_content: bool) -> bytes:
            sizes.append(most)
            block = whole[self.at : self.at + most]
            self.at += len(block)
            return block

    assert b"".join(download._blocks(Raw())) == whole
    assert sizes[0] == 4 << 10 and max(sizes) == 128 << 10
