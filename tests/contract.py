"""What every world must do alike: the same suite runs on the simulator and on real, tiny machines."""

from __future__ import annotations

import pytest

from tests.conftest import Program


class Contract:
    """`world` is a Program with its backend chosen, `manifest` the text of a disk `sys` and a machine `web`."""

    def status(self, world: Program) -> str:
        return world("get", "vm", "web", "-o", "jsonpath={.status.printableStatus}").out.strip()

    def test_a_life(self, world: Program, manifest: str):
        path = world.file("m.yaml", manifest)
        up = world("up", path)
        assert up.code == 0, up.err
        assert self.status(world) == "Running"
        assert {c["type"]: c["status"] for c in world("get", "vm", "web", "-o", "json").json["status"]["conditions"]}[
            "DisksReady"
        ] == "True"
        assert "nothing changed" in world("up", path).err
        plan = world("plan", path, "-o", "json", "--detailed-exitcode")
        assert plan.code == 0 and [r["action"] for r in plan.json] == ["none", "none"]
        # power
        assert world("pause", "web").code == 0 and self.status(world) == "Paused"
        assert world("unpause", "web").code == 0 and self.status(world) == "Running"
        assert world("stop", "web").code == 0 and self.status(world) == "Stopped"
        assert world("stop", "web").code == 0
        assert world("start", "web", "--wait").code == 0 and self.status(world) == "Running"
        # live and restarted changes
        more = world.file("more.yaml", manifest.replace("[22, 80]", "[22, 80, 8080]"))
        assert world("up", more).code == 0
        ports = [a["port"] for a in world("get", "vm", "web", "-o", "json").json["status"]["access"]]
        assert ports == [22, 80, 8080]
        larger = world.file("larger.yaml", manifest.replace("u1.nano", "u1.micro"))
        assert [r["action"] for r in world("plan", larger, "-o", "json").json] == ["none", "restart"]
        assert world("up", larger).code == 0
        kinds = {c["type"] for c in world("get", "vm", "web", "-o", "json").json["status"]["conditions"]}
        assert "RestartRequired" in kinds
        assert world("up", larger, "--restart").code == 0
        kinds = {c["type"] for c in world("get", "vm", "web", "-o", "json").json["status"]["conditions"]}
        assert "RestartRequired" not in kinds
        # disks
        grown = world.file("grown.yaml", manifest.replace("u1.nano", "u1.micro").replace("1Gi", "2Gi"))
        assert world("up", grown).code == 0
        assert world("get", "vmdisk", "sys", "-o", "jsonpath={.status.capacity}").out.strip() == str(2 << 30)
        shrunk = world("up", path)
        assert shrunk.code == 2 and "HK405" in shrunk.err
        # the end: disks stay, and serve again
        assert world("down").code == 0
        assert world("get", "vm").out == ""
        assert world("get", "vmdisk", "sys", "-o", "jsonpath={.status.phase}").out.strip() == "Succeeded"
        assert world("up", grown).code == 0 and self.status(world) == "Running"
        assert world("down", "--disks", "--yes").code == 0
        assert world("get").out == ""

    @pytest.mark.parametrize("strategy", ["Halted", "Manual"])
    def test_strategies_that_do_not_start(self, world: Program, manifest: str, strategy: str):
        path = world.file("m.yaml", manifest + f"  runStrategy: {strategy}\n")
        assert world("up", path).code == 0
        assert self.status(world) == "Stopped"
