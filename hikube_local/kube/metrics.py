"""What machines use, for `kubectl top`, Prometheus and the history: sampled in one thread while the endpoint is there."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from hikube_local.api import names
from hikube_local.api.objects import INSTANCE, Key, Object
from hikube_local.backends.capabilities import Figures
from hikube_local.engine import usage
from hikube_local.engine.session import Session
from hikube_local.engine.usage import Usage
from hikube_local.host import facts
from hikube_local.kube.kinds import NODE_METRICS, POD_METRICS
from hikube_local.kube.projections.host import node_name
from hikube_local.kube.projections.machines import pod_name
from hikube_local.records import dataclass
from hikube_local.text import timestamp

LOG = logging.getLogger("hikube_local.kube")
WINDOW = f"{usage.STEP}s"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look: when (Unix seconds), the counters of machines, what they used since the look before, processor time of the
    host's (seconds, busy)."""

    time: float
    figures: dict[Key, Figures] = field(default_factory=dict)
    usages: dict[Key, Usage] = field(default_factory=dict)
    busy: float = 0.0
    cores: float = 0.0  # used since the look before
    tick: float = 0.0  # when, by the clock that nobody sets


class Sampler:
    """The newest sample; each is kept in the history."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.newest = Sample(time.time(), tick=time.monotonic())
        self._end = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        self._end.set()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._one()
            except Exception:  # the next look may be luckier
                LOG.debug("what machines use could not be looked at", exc_info=True)
            self._end.wait(usage.STEP - time.time() % usage.STEP)

    def _one(self) -> None:
        before, now, tick = self.newest, time.time(), time.monotonic()
        machines = [o for o in self.session.store.objects(INSTANCE) if not o.deletion]
        figures = usage.look(self.session, machines) if machines else {}
        spent = tick - before.tick
        used = {
            key: usage.between(before.figures[key], f, spent) for key, f in figures.items() if key in before.figures
        }
        busy = busy_seconds()
        cores = (busy - before.busy) / spent if before.busy and spent > 0 else 0.0
        self.newest = Sample(now, figures, used, busy, cores, tick)
        if used:
            usage.keep(self.session.layout, now, used)


def busy_seconds() -> float:
    """Processor time that this host has spent on anything, in seconds since it was started (proc(5): /proc/stat)."""
    with open("/proc/stat", encoding="ascii") as f:
        ticks = list(map(int, f.readline().split()[1:]))
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / os.sysconf("SC_CLK_TCK")


def pods(sample: Sample, objects: list[Object]) -> list[dict[str, Any]]:
    """PodMetrics of machines that run."""
    out = []
    for obj in objects:
        if used := sample.usages.get(obj.key):
            figures = {"cpu": f"{used.cpuMillis}m", "memory": f"{used.memory // 1024}Ki"}
            out.append(
                {
                    "kind": POD_METRICS.kind,
                    "apiVersion": POD_METRICS.api_version,
                    "metadata": {
                        "name": pod_name(obj),
                        "namespace": obj.namespace,
                        "creationTimestamp": timestamp(sample.time),
                        "labels": {"vm.kubevirt.io/name": names.machine(obj.name), "kubevirt.io": "virt-launcher"},
                    },
                    "timestamp": timestamp(sample.time),
                    "window": WINDOW,
                    "containers": [{"name": "compute", "usage": figures}],
                }
            )
    return out


def node(sample: Sample) -> dict[str, Any]:
    """NodeMetrics of this host."""
    memory = facts.meminfo()
    used = memory["MemTotal"] - memory.get("MemAvailable", 0)
    return {
        "kind": NODE_METRICS.kind,
        "apiVersion": NODE_METRICS.api_version,
        "metadata": {"name": node_name(), "creationTimestamp": timestamp(sample.time)},
        "timestamp": timestamp(sample.time),
        "window": WINDOW,
        "usage": {"cpu": f"{int(sample.cores * 1000)}m", "memory": f"{used // 1024}Ki"},
    }


NS, KIB = 1e-9, 1024
# KubeVirt's names (kubevirt/kubevirt 1.8, its documentation of metrics): metric, kind, libvirt's figure, factor.
_MACHINE: tuple[tuple[str, str, str, float], ...] = (
    ("kubevirt_vmi_cpu_usage_seconds_total", "counter", "cpu.time", NS),
    ("kubevirt_vmi_cpu_user_usage_seconds_total", "counter", "cpu.user", NS),
    ("kubevirt_vmi_cpu_system_usage_seconds_total", "counter", "cpu.system", NS),
    ("kubevirt_vmi_memory_resident_bytes", "gauge", "balloon.rss", KIB),
    ("kubevirt_vmi_memory_available_bytes", "gauge", "balloon.available", KIB),
    ("kubevirt_vmi_memory_unused_bytes", "gauge", "balloon.unused", KIB),
    ("kubevirt_vmi_memory_usable_bytes", "gauge", "balloon.usable", KIB),
    ("kubevirt_vmi_memory_cached_bytes", "gauge", "balloon.disk_caches", KIB),
    ("kubevirt_vmi_memory_actual_balloon_bytes", "gauge", "balloon.current", KIB),
    ("kubevirt_vmi_memory_domain_bytes", "gauge", "balloon.maximum", KIB),
    ("kubevirt_vmi_memory_swap_in_traffic_bytes", "gauge", "balloon.swap_in", KIB),
    ("kubevirt_vmi_memory_swap_out_traffic_bytes", "gauge", "balloon.swap_out", KIB),
    ("kubevirt_vmi_memory_pgmajfault_total", "counter", "balloon.major_fault", 1),
    ("kubevirt_vmi_memory_pgminfault_total", "counter", "balloon.minor_fault", 1),
)
# Of each device: the part of libvirt's figures, the label that names the device, the figure of its name, then as above.
_DEVICES: tuple[tuple[str, str, str, tuple[tuple[str, str, float], ...]], ...] = (
    (
        "net",
        "interface",
        "name",
        tuple(
            (f"kubevirt_vmi_network_{way}_{what}_total", f"{short}.{figure}", 1)
            for way, short in (("receive", "rx"), ("transmit", "tx"))
            for what, figure in (
                ("bytes", "bytes"),
                ("packets", "pkts"),
                ("errors", "errs"),
                ("packets_dropped", "drop"),
            )
        ),
    ),
    (
        "block",
        "drive",
        "name",
        (
            ("kubevirt_vmi_storage_iops_read_total", "rd.reqs", 1),
            ("kubevirt_vmi_storage_iops_write_total", "wr.reqs", 1),
            ("kubevirt_vmi_storage_read_traffic_bytes_total", "rd.bytes", 1),
            ("kubevirt_vmi_storage_write_traffic_bytes_total", "wr.bytes", 1),
            ("kubevirt_vmi_storage_read_times_seconds_total", "rd.times", NS),
            ("kubevirt_vmi_storage_write_times_seconds_total", "wr.times", NS),
            ("kubevirt_vmi_storage_flush_requests_total", "fl.reqs", 1),
            ("kubevirt_vmi_storage_flush_times_seconds_total", "fl.times", NS),
        ),
    ),
    (
        "vcpu",
        "id",
        "",
        (("kubevirt_vmi_vcpu_seconds_total", "time", NS), ("kubevirt_vmi_vcpu_wait_seconds_total", "wait", NS)),
    ),
)


def exposition(sample: Sample, objects: list[Object]) -> str:
    """Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats)."""
    rows: dict[str, tuple[str, list[str]]] = {}
    for obj in objects:
        figures = sample.figures.get(obj.key)
        labels = {"node": node_name(), "namespace": obj.namespace, "name": names.machine(obj.name)}
        phase = "running" if figures is not None else "stopped"
        info = {**labels, "phase": phase, "instance_type": obj.instance.instanceType or "<none>"}
        _add(rows, "kubevirt_vmi_info" if figures is not None else "kubevirt_vm_info", "gauge", info, 1)
        if figures is None:
            continue
        for metric, kind, figure, factor in _MACHINE:
            if (value := figures.get(figure)) is not None:
                _add(rows, metric, kind, labels, value * factor)
        for metric, more, value in _of_devices(figures):
            _add(rows, metric, "counter", labels | more, value)
    out = []
    for metric, (kind, lines) in sorted(rows.items()):
        out += [f"# TYPE {metric} {kind}", *lines]
    return "\n".join([*out, ""])


def _of_devices(figures: Figures) -> Iterator[tuple[str, dict[str, str], float]]:
    for part, label, named, metrics in _DEVICES:
        count = figures.get(f"{part}.count", figures.get(f"{part}.current", 0))
        for number in range(int(count)):
            device = str(figures.get(f"{part}.{number}.{named}", number)) if named else str(number)
            for metric, figure, factor in metrics:
                if (value := figures.get(f"{part}.{number}.{figure}")) is not None:
                    yield metric, {label: device}, value * factor


def _add(rows: dict[str, tuple[str, list[str]]], metric: str, kind: str, labels: dict[str, str], value: float) -> None:
    text = ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items())
    rows.setdefault(metric, (kind, []))[1].append(f"{metric}{{{text}}} {value:.15g}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
