"""Work beside its feeder: in order, bounded, its errors told to whoever feeds it, and nothing of it left behind."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hikube_local.images.beside import Beside
from hikube_local.images.unpack import Unpacker


def test_it_gets_all_in_order_and_is_waited_for():
    got: list[int] = []
    with Beside[int](got.extend) as beside:
        for n in range(100):
            beside.put(n)
    assert got == list(range(100))


@pytest.mark.parametrize("at", ["the next item", "the end"])
def test_an_error_of_the_work_is_its_feeders(at: str):
    def work(items: Iterator[int]) -> None:
        raise ValueError(f"no {next(items)}")

    with pytest.raises(ValueError, match="no 1"), Beside[int](work, ahead=1) as beside:
        beside.put(1)
        for n in range(2, 50 if at == "the next item" else 2):
            beside.put(n)


def test_an_error_of_the_feeder_is_the_one_that_is_told_and_the_work_stops():
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def work(items: Iterator[int]) -> None:
        for n in items:
            begun.set()
            go_on.wait()
            ended.append(n)

    with pytest.raises(KeyboardInterrupt), Beside[int](work) as beside:
        for n in range(10):
            beside.put(n)
        begun.wait()
        threading.Timer(0.1, go_on.set).start()
        raise KeyboardInterrupt
    assert ended == [0], "what was handed in and not begun is not done"


def test_an_unpacker_that_is_dropped_leaves_no_thread_and_no_file(tmp_path: Path):
    before = threading.active_count()
    for _ in range(3):
        unpacker = Unpacker(tmp_path / "out", 0)
        unpacker.feed(gzip.compress(bytes(1 << 20))[:500])
        assert threading.active_count() == before + 1
        unpacker.drop()
        assert threading.active_count() == before and not (tmp_path / "out").exists()
