"""Decisions about the network: what is open, what is believed, what is forwarded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hikube_local.api import names
from hikube_local.backends.qemu.network import listening, user_network
from hikube_local.backends.qemu.network.lan import believable
from hikube_local.host import userns
from hikube_local.render import firewall
from hikube_local.render.addresses import Range
from hikube_local.render.tenant import (
    Endpoint,
    Nic,
    Tenant,
    all_hosts,
    dhcp_hosts,
    dnsmasq_conf,
    isolated_conf,
    isolated_hosts,
    own_hosts,
)

SHUT = Endpoint("shut", "10.77.5.10", "02:00:00:00:00:01", "hk1")
PORTS = Endpoint("ports", "10.77.5.11", "02:00:00:00:00:02", "hk2", ports=(80, 22), icmp=True)
WHOLE = Endpoint("whole", "10.77.5.12", "02:00:00:00:00:03", "hk3", whole=True, icmp=True)
ON_LAN = Endpoint("lan", "10.77.5.13", "02:00:00:00:00:04", "hk4", ports=(80,), lan="br0", lan_ip="192.168.7.9")


def rules(*seats: Endpoint, range: Range = Range()) -> str:
    return firewall.ruleset([Tenant("default", 5, seats, range)], range)


def test_other_tenants_reach_what_was_opened_and_nothing_else():
    text = rules(SHUT, PORTS, WHOLE)
    assert "ip daddr . tcp dport { 10.77.5.11 . 22, 10.77.5.11 . 80 } accept" in text
    assert "ip daddr { 10.77.5.12 } accept" in text
    assert "ip daddr { 10.77.5.11, 10.77.5.12 } icmp type echo-request accept" in text
    assert "10.77.5.10 ." not in text
    assert text.count("policy drop") == 2


def test_a_wire_carries_its_own_addresses_alone():
    text = rules(SHUT, PORTS)
    chain = text.split("chain from_hk1 {")[1].split("}\n  chain")[0]
    assert "ether saddr != 02:00:00:00:00:01 drop" in chain
    assert "arp saddr ip != { 0.0.0.0, 10.77.5.10 } drop" in chain
    assert "udp sport { 67, 547 } drop" in chain  # no DHCP server
    assert "ether type != { arp, ip, ip6 } drop" in chain  # no VLAN tag to hide behind, no spanning tree
    assert "udp dport 67 @th,288,48 != 0x020000000001 drop" in chain  # no lease in another's name
    assert '"hk1" : jump from_hk1' in text
    assert "ether saddr 02:00:00:00:00:01 ip saddr 10.77.5.10 ip protocol tcp accept" in chain


def test_on_a_hosts_bridge_the_ports_are_a_firewall_and_others_addresses_are_nobodys():
    text = rules(ON_LAN, WHOLE)
    assert 'oifname "hk4" jump to_hk4' in text and "tcp dport { 80 } accept" in text
    assert "arp saddr ip { 10.77.5.1, 10.77.5.12 } drop" in text
    whole = Endpoint("w", "10.77.5.14", "02:00:00:00:00:05", "hk5", whole=True, icmp=True, lan="br0")
    assert "to_hk5" not in rules(whole)
    assert "update @learned" in rules(whole) and "update @learned" not in rules(WHOLE)


def test_further_nics_keep_their_mac():
    seat = Endpoint("a", "10.77.5.10", "02:00:00:00:00:01", "hk1", further=(Nic("back", "02:00:00:00:00:09", "hk9"),))
    assert "ether saddr != 02:00:00:00:00:09 drop" in rules(seat).split("chain from_hk9 {")[1]
    assert seat.taps == {"hk1", "hk9"}
    assert '{ "hkn' not in rules(seat)  # no address there: nothing to ask for


def test_further_networks_have_dhcp_and_nothing_else():
    """As KubeVirt's DHCP of a further NIC: an address and the MTU, no router, no names."""
    nic = Nic("back", "02:00:00:00:00:09", "hk9", number=9, ip="10.77.9.10")
    seat = Endpoint("a", "10.77.5.10", "02:00:00:00:00:01", "hk1", further=(nic,))
    t = Tenant("default", 5, (seat,))
    bridge = names.isolated("default", "back")
    assert f'iifname {{ "{bridge}" }} udp dport 67 accept' in rules(seat)
    assert isolated_hosts(t, bridge) == "02:00:00:00:00:09,10.77.9.10,infinite\n"
    assert "10.77.9" not in dhcp_hosts(t) + dnsmasq_conf(t, "/x")
    text = isolated_conf(t, bridge, "/x").splitlines()
    assert {f"interface={bridge}", "port=0", "dhcp-option=option:mtu,1400", "dhcp-option=option:router"} <= set(text)
    assert "dhcp-range=10.77.9.1,static,255.255.255.0,infinite" in text
    assert not [line for line in text if "domain" in line or "dns-server" in line]
    # One that speaks for another, serves itself or floods is not heard.
    wire = rules(seat).split("chain from_hk9 {")[1].split("}\n")[0]
    assert "@th,288,48 != 0x020000000009 drop" in wire and "udp sport { 67, 547 } drop" in wire and "limit rate" in wire
    # Nobody is forwarded to or from it.
    forward = rules(seat).split("chain forward {")[1].split("}\n")[0]
    assert bridge not in forward


def test_names_and_leases():
    t = Tenant("default", 5, (SHUT, ON_LAN))
    assert own_hosts(t).splitlines() == [
        "10.77.5.10 vm-instance-shut vm-instance-shut.default",
        "192.168.7.9 vm-instance-lan vm-instance-lan.default",
    ]
    assert "vm-instance-lan.default.svc.cozy.local" in all_hosts([t])
    assert "02:00:00:00:00:04" not in dhcp_hosts(t)  # the LAN's own server gives it its address
    assert "enable-ra" not in dnsmasq_conf(t, "/x")
    v6 = Tenant("default", 5, (), Range(77, "fd77:1:2"))
    assert "dhcp-range=fd77:1:2:5::,ra-only,64" in dnsmasq_conf(v6, "/x")
    assert "masquerade" in rules(SHUT, range=Range(77, "fd77:1:2")) and "masquerade" not in rules(SHUT)


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0B054D0A:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0B054D0A:C000 0205A8C0:0050 01 00000000:00000000 00:00000000 00000000     0        0 4 1
"""


def test_a_guests_tables_are_read_as_data():
    assert listening.table(TCP, "0A") == {22, 80}
    six = TCP.replace("0: 00000000:0016", "0: 00000000000000000000000001000000:0016")
    assert listening.table(six, "0A") == {80}
    for odd in ("", "x", "a\n" * 10, "h\n1: zz:zz q 0A\n2: 00000000:FFFFF x 0A\n"):
        listening.table(odd, "0A")


def test_what_is_forwarded_is_bounded():
    many = {("tcp", p) for p in range(1, 5000)}
    assert len(listening.chosen(many)) == listening.MOST
    assert listening.chosen({("udp", 40000), ("udp", 51820), ("udp", 68), ("tcp", 40000), ("tcp", 99999)}) == [
        "40000",
        "51820/udp",
    ]


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        (["192.168.7.9"], "192.168.7.9"),
        (["10.77.5.11", "192.168.7.9"], "192.168.7.9"),  # another machine's
        (["127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1", "nonsense", "::1", ""], ""),
        ([], ""),
    ],
)
def test_an_address_is_believed_when_nobody_else_has_it(said, believed):
    assert believable(said, {"10.77.5.11"}) == believed


def test_the_user_networks_table():
    text = """\
VLAN -1 (hostnet0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]  20    127.77.3.9 10080       10.0.2.15    80     0     0
  UDP[HOST_FORWARD]  21    127.77.3.9  1194       10.0.2.15  1194     0     0
  TCP[ESTABLISHED]   22    127.77.3.9 10080       10.0.2.2  5555     0     0
"""
    assert user_network.table(text) == [
        {"proto": "tcp", "host_addr": "127.77.3.9", "host_port": 10080, "guest_port": 80},
        {"proto": "udp", "host_addr": "127.77.3.9", "host_port": 1194, "guest_port": 1194},
    ]


def test_a_switch_that_is_off_is_what_doctor_names(tmp_path, monkeypatch):
    """Debian's kernel has two; where both are on, what forbids namespaces is AppArmor."""
    monkeypatch.setattr(userns, "ROOTLESSKIT", "/nowhere")
    monkeypatch.setattr(userns, "SWITCHES", {str(tmp_path / "a"): "turn a", str(tmp_path / "b"): "turn b"})
    assert "rootlesskit" in userns.remedy()
    (tmp_path / "a").write_text("1\n")
    (tmp_path / "b").write_text("0\n")
    assert userns.remedy() == "turn b"
    (tmp_path / "b").write_text("62813\n")
    assert "rootlesskit" in userns.remedy()


def test_the_ids_that_doctor_names_are_nobodys(monkeypatch):
    monkeypatch.setattr(userns, "SWITCHES", {})
    monkeypatch.setattr(userns, "ROOTLESSKIT", "/nowhere")
    assert userns.remedy() == "sudo apt-get install rootlesskit uidmap"
    monkeypatch.setattr(userns, "ROOTLESSKIT", "/bin/sh")
    first, last = map(int, re.search(r"--add-subuids (\d+)-(\d+)", userns.remedy()).groups())
    assert last - first == 65535
    for name in ("subuid", "subgid"):
        for row in Path("/etc", name).read_text().splitlines() if Path("/etc", name).exists() else []:
            _, begin, count = row.split(":")
            assert int(begin) + int(count) <= first or int(begin) > last


def test_the_arrows_of_the_drawing_are_rules_of_the_firewall():
    """Each arrow's rule stands in the ruleset: as it is, or, where the ruleset has one for all machines, as a part of its set."""
    import re

    from hikube_local.render.firewall import reach, ruleset
    from hikube_local.render.tenant import Endpoint, Nic, Tenant

    nics = (Nic("back", "02:00:00:00:00:09", "hk9"), Nic("office", "02:00:00:00:00:08", "hk8", "br1"))
    tenants = [
        Tenant(
            "default", 1, (Endpoint("web", "10.77.1.2", "02:00:00:00:00:01", "hk1", (22, 80), icmp=True, further=nics),)
        ),
        Tenant("shop", 2, (Endpoint("all", "10.77.2.2", "02:00:00:00:00:02", "hk2", whole=True),)),
        Tenant(
            "lan", 3, (Endpoint("b", "10.77.3.2", "02:00:00:00:00:03", "hk3", (443,), lan="br0", lan_ip="192.168.1.9"),)
        ),
    ]
    text = ruleset(tenants)
    arrows = reach(tenants)
    for arrow in arrows:
        whole = arrow.rule in text
        parts = re.findall(r"10\.77\.\d\.\d(?: \. \d+)?", arrow.rule)
        assert whole or (parts and all(re.search(rf"\{{[^}}]*\b{re.escape(p)}\b[^}}]*\}}", text) for p in parts)), arrow
    told = {(a.source, a.target, a.what) for a in arrows}
    assert told >= {
        ("tenant/default", "tenant/default", "everything"),
        ("tenant/default", "outside", "everything"),
        ("others", "machine/default/web", "TCP 22, 80"),
        ("others", "machine/default/web", "ping"),
        ("others", "machine/shop/all", "everything"),
        ("bridge/br0", "machine/lan/b", "TCP 443"),
        ("machine/lan/b", "bridge/br0", "everything"),
        ("machine/default/web", "network/default/back", "everything"),
        ("bridge/br1", "machine/default/web", "everything"),
    }
    assert not any(a.source == "tenant/lan" for a in arrows), "it sits on the host's bridge"
    assert not any(a.source == "bridge/br0" and a.what == "everything" for a in arrows)
