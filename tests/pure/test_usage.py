"""What machines use: rates out of counters, and a history whose columns may change from version to version."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.cli import top
from hikube_local.engine import usage
from hikube_local.kube import metrics
from hikube_local.manifests.models import read_spec
from hikube_local.paths import layout

BEFORE = {"cpu.time": 1_000_000_000, "block.count": 2, "block.0.rd.bytes": 100, "block.1.rd.bytes": 50, "net.count": 1}
AFTER = BEFORE | {
    "cpu.time": 2_000_000_000,
    "balloon.rss": 4,
    "block.0.rd.bytes": 1100,
    "block.1.wr.bytes": 200,
    "block.0.name": "vda",
    "net.0.rx.bytes": 30,
    "net.0.name": "tap0",
    "vcpu.current": 1,
    "vcpu.0.time": 5_000_000_000,
}


def test_rates_between_two_looks():
    found = usage.between(BEFORE, AFTER, 2.0)
    assert found == usage.Usage(500, 4096, 500, 100, 15, 0)
    again = usage.between(AFTER, AFTER | {"cpu.time": 100_000_000}, 1.0)
    assert again.cpuMillis == 100, "one that was started anew counts from its start"


def test_each_column_has_its_heading_and_its_cell():
    assert len(top.FIGURES) == len(usage.COLUMNS) == len(usage.between(BEFORE, AFTER, 1.0).row)
    row = dict(zip(usage.COLUMNS, usage.between(BEFORE, AFTER, 1.0).row, strict=True))
    assert len(top._cells(row)) == len(top.FIGURES)


def _machine() -> Object:
    spec = read_spec(INSTANCE, {"disks": []})
    return Object(kind=INSTANCE, namespace="default", name="web", spec=spec, uid="u", created=0.0)


def test_a_history_of_another_version_or_a_damaged_one_begins_anew(tmp_path: Path):
    where = layout({"HIKUBE_LOCAL_HOME": str(tmp_path)}).make()
    obj, point = _machine(), {Key(INSTANCE, "default", "web"): usage.between(BEFORE, AFTER, 1.0)}
    with sqlite3.connect(usage.path(where)) as c:
        c.execute("CREATE TABLE points(step INTEGER, namespace TEXT, name TEXT, time INTEGER, cpuMillis INTEGER)")
    usage.keep(where, time.time(), point)
    assert usage.history(where, obj, 600)["cpuMillis"] == [1000]
    usage.path(where).write_bytes(b"no database at all" * 100)
    assert usage.history(where, obj, 600)["time"] == []
    usage.keep(where, time.time(), point)  # it goes
    usage.keep(where, time.time(), point)
    found = usage.history(where, obj, 600)
    assert {len(found[name]) for name in ("time", *usage.COLUMNS)} == {1}
    old = time.time() - 2 * usage.HOUR
    usage.keep(where, old, point)
    assert len(usage.history(where, obj, usage.DAY)["time"]) == 2 and len(usage.history(where, obj, 600)["time"]) == 1


def test_prometheus_reads_kubevirts_names():
    sample = metrics.Sample(1.0, {_machine().key: AFTER})
    lines = metrics.exposition(sample, [_machine()]).splitlines()
    values = {line.partition("{")[0]: line.rpartition(" ")[2] for line in lines if not line.startswith("#")}
    assert values["kubevirt_vmi_cpu_usage_seconds_total"] == "2"
    assert values["kubevirt_vmi_memory_resident_bytes"] == "4096"
    assert any('drive="vda"' in line and line.endswith(" 1100") for line in lines)
    assert any('interface="tap0"' in line and "receive_bytes" in line and line.endswith(" 30") for line in lines)
    assert any(line.startswith("kubevirt_vmi_vcpu_seconds_total{") and line.endswith(" 5") for line in lines)
