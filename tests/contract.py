"""What every backend must do alike, through the command line: the same suite runs on the simulator and on real, tiny machines."""

from __future__ import annotations

import pytest

from tests.conftest import Program


class Contract:
    """`program` is a Program with its backend chosen, `manifest` the text of a disk `sys` and a machine `web`."""

    def status(self, program: Program) -> str:
        return program("get", "vm", "web", "-o", "jsonpath={.status.printableStatus}").out.strip()

    def test_a_life(self, program: Program, manifest: str):
        path = program.file("m.yaml", manifest)
        up = program("up", path)
        assert up.code == 0, up.err
        assert self.status(program) == "Running"
        assert {c["type"]: c["status"] for c in program("get", "vm", "web", "-o", "json").json["status"]["conditions"]}[
            "DisksReady"
        ] == "True"
        assert "nothing changed" in program("up", path).err
        plan = program("plan", path, "-o", "json", "--detailed-exitcode")
        assert plan.code == 0 and [r["action"] for r in plan.json] == ["none", "none"]
        # power
        assert program("pause", "web").code == 0 and self.status(program) == "Paused"
        assert program("unpause", "web").code == 0 and self.status(program) == "Running"
        assert program("stop", "web").code == 0 and self.status(program) == "Stopped"
        assert program("stop", "web").code == 0
        assert program("start", "web", "--wait").code == 0 and self.status(program) == "Running"
        # live and restarted changes
        more = program.file("more.yaml", manifest.replace("[22, 80]", "[22, 80, 8080]"))
        assert program("up", more).code == 0
        ports = [a["port"] for a in program("get", "vm", "web", "-o", "json").json["status"]["access"]]
        assert ports == [22, 80, 8080]
        larger = program.file("larger.yaml", manifest.replace("u1.nano", "u1.micro"))
        assert [r["action"] for r in program("plan", larger, "-o", "json").json] == ["none", "restart"]
        assert program("up", larger).code == 0
        kinds = {c["type"] for c in program("get", "vm", "web", "-o", "json").json["status"]["conditions"]}
        assert "RestartRequired" in kinds
        assert program("up", larger, "--restart").code == 0
        kinds = {c["type"] for c in program("get", "vm", "web", "-o", "json").json["status"]["conditions"]}
        assert "RestartRequired" not in kinds
        # From 1 GiB on more of it reaches the running machine.
        live = program.file("live.yaml", manifest.replace("u1.nano", "u1.small"))
        assert [r["action"] for r in program("plan", live, "-o", "json").json] == ["none", "update"]
        assert program("up", live).code == 0
        kinds = {c["type"] for c in program("get", "vm", "web", "-o", "json").json["status"]["conditions"]}
        assert "RestartRequired" not in kinds
        # disks
        grown = program.file("grown.yaml", manifest.replace("u1.nano", "u1.small").replace("1Gi", "2Gi"))
        assert program("up", grown).code == 0
        assert program("get", "vmdisk", "sys", "-o", "jsonpath={.status.capacity}").out.strip() == str(2 << 30)
        shrunk = program("up", path)
        assert shrunk.code == 2 and "HK405" in shrunk.err
        # the end: disks stay, and serve again
        assert program("down").code == 0
        assert program("get", "vm").out == ""
        assert program("get", "vmdisk", "sys", "-o", "jsonpath={.status.phase}").out.strip() == "Succeeded"
        assert program("up", grown).code == 0 and self.status(program) == "Running"
        assert program("down", "--disks", "--yes").code == 0
        assert program("get").out == ""

    @pytest.mark.parametrize("strategy", ["Halted", "Manual"])
    def test_strategies_that_do_not_start(self, program: Program, manifest: str, strategy: str):
        path = program.file("m.yaml", manifest + f"  runStrategy: {strategy}\n")
        assert program("up", path).code == 0
        assert self.status(program) == "Stopped"
        # As virtctl: `start` runs it all the same.
        started = program("start", "web", "--no-wait")
        assert started.code == 0 and "was scheduled to start" in started.out
        assert self.status(program) != "Stopped"
        # What the manifest says holds again when it is applied; Manual says nothing.
        assert program("up", path).code == 0
        assert (self.status(program) == "Stopped") is (strategy == "Halted")
