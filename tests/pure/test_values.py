"""Quantities, scalars, names, text: tables of what Kubernetes makes of them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hikube_local.api import names, quantities
from hikube_local.source.scalars import disagreement, resolve
from hikube_local.text import Cleaner, age, duration, mask_url, sanitize


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("30Gi", 30 << 30),
        ("1.5Gi", 3 << 29),
        ("500M", 500_000_000),
        ("2e9", 2_000_000_000),
        ("1024", 1024),
        ("1Ki", 1024),
        ("0.5", 1),
        ("100m", 1),
        (7, 7),
        ("1E", 10**18),
        ("1Ei", 1 << 60),
        (".5Gi", 1 << 29),
        ("5.", 5),
        ("+1k", 1000),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(text, value):
    assert quantities.in_bytes(text) == value


@pytest.mark.parametrize(
    "text", ["", "1 Gi", "1e3Gi", "Gi", "1GiB", "30GB", "1,5Gi", "--1", "0x10", "1e", "١Gi", "9" * 100]
)
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="not a quantity"):
        quantities.in_bytes(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("no", False),
        ("y", True),
        ("On", True),
        ("0o22", 18),
        ("0644", 420),
        ("1e3", 1000),
        ("1_000", 1000),
        ("0x1F", 31),
        ("~", None),
        ("", None),
        ("null", None),
        ("1.5", 1.5),
        ("2024-01-01", "2024-01-01"),
        ("08", 8),
        ("-0b11", -3),
        ("yes please", "yes please"),
        ("+12", 12),
        (".5", 0.5),
        ("1__0", 10),
        ("0o9", "0o9"),
        ("s1.small", "s1.small"),
    ],
)
def test_plain_scalars_mean_what_they_mean_to_kubernetes(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize("text", ["22:22", "no", "y", "0644", "0o22", "1e3"])
def test_scalars_that_readers_disagree_on_are_known(text):
    assert disagreement(text)


@pytest.mark.parametrize("text", ["true", "22", "web", "1.5", "0", "null"])
def test_ordinary_scalars_are_not_complained_of(text):
    assert disagreement(text) is None


@given(st.text(max_size=30))
def test_resolve_never_fails(text):
    resolve(text)


def test_the_uuid_follows_the_formula():
    h = hashlib.sha256(b"default-vm-instance-web-s1").hexdigest()
    assert names.firmware_uuid("default", "web", "s1") == f"{h[:8]}-{h[8:12]}-4{h[13:16]}-9{h[17:20]}-{h[20:32]}"


def test_long_names_are_cut_as_the_chart_cuts_them():
    name = "a" * 50 + "-" + "b" * 20
    assert names.machine(name) == f"vm-instance-{'a' * 50}"
    assert len(names.tap("0123", "ns" * 30, name)) <= 15 >= len(names.bridge("n" * 63))


@given(st.text(max_size=200))
def test_sanitised_text_holds_nothing_a_terminal_acts_on(text):
    clean = sanitize(text)
    assert not [c for c in clean if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) <= 0x9F]
    assert sanitize(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (b"\x1b[0;32mok\x1b[0m", "ok"),
        (b"\x1b]52;c;aGk=\x07x", "x"),
        (b"\x1b]0;title\x1b\\y", "y"),
        (b"a\rb", "a\nb"),
        (b"\xc2\x9b31mz", "z"),
        (b"\xff", "\ufffd"),
        ("\u202eevil".encode(), "\ufffdevil"),
    ],
)
def test_escape_sequences_go(raw, clean):
    assert sanitize(raw) == clean


def test_ages_and_durations():
    assert [age(s) for s in (-5, 45, 125, 600, 7200, 90000, 400000)] == [
        "0s",
        "45s",
        "2m5s",
        "10m",
        "120m",
        "25h",
        "4d",
    ]
    assert [duration(t) for t in ("90s", "5m", "1m30s", "250ms", "7")] == [90, 300, 90, 0.25, 7]
    with pytest.raises(ValueError, match="not a duration"):
        duration("soon")


def test_secrets_in_urls_are_masked():
    assert mask_url("https://me:pw@host/x?token=abc&a=1") == "https://***@host/x?token=***&a=1"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_sequence_cut_by_a_block_is_cleaned_like_a_whole_one(size):
    raw = "a\x1b[31mred\x1b[0m \u00e9\u20ac\r\nb\x1b]0;title\x07c\x1b(Bd login: ".encode()
    cleaner = Cleaner()
    blocks = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert "".join(map(cleaner.feed, blocks)) + cleaner.end() == sanitize(raw)


def test_a_prompt_is_shown_without_waiting_for_a_newline():
    assert Cleaner().feed(b"web login: ") == "web login: "
