"""Server-side apply against the rules of Kubernetes' documentation: several appliers and writers, forced and not."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hikube_local.kube.ownership import Owner, apply, conflicts, decode, encode, fields, get, same, update

A, B, U = Owner("a", "Apply"), Owner("b", "Apply"), Owner("kubectl-edit", "Update")


def test_an_applier_owns_what_it_sets_and_lets_go_of_what_it_leaves_out():
    live, owners, _ = apply(None, {"spec": {"external": True, "instanceType": "u1.nano"}}, {}, A)
    assert owners == {A: {("spec", "external"), ("spec", "instanceType")}}
    live, owners, clash = apply(live, {"spec": {"instanceType": "u1.nano"}}, owners, A)
    assert not clash and live == {"spec": {"instanceType": "u1.nano"}}


def test_another_value_conflicts_and_the_same_value_is_shared():
    live, owners, _ = apply(None, {"spec": {"external": True}}, {}, A)
    unchanged, _, clash = apply(live, {"spec": {"external": False}}, owners, B)
    assert unchanged == live and [(c.field, c.owner) for c in clash] == [(".spec.external", A)]
    live, owners, clash = apply(live, {"spec": {"external": True}}, owners, B)
    assert not clash and set(owners) == {A, B}
    # One of two owners lets go: the field stays.
    live, owners, _ = apply(live, {}, owners, A)
    assert live == {"spec": {"external": True}} and set(owners) == {B}


def test_force_takes_a_field_over():
    live, owners, _ = apply(None, {"spec": {"external": True, "running": True}}, {}, A)
    live, owners, clash = apply(live, {"spec": {"external": False}}, owners, B, force=True)
    assert not clash and live["spec"]["external"] is False
    assert owners == {A: {("spec", "running")}, B: {("spec", "external")}}


def test_an_update_takes_what_it_changes_without_asking():
    live, owners, _ = apply(None, {"spec": {"external": True, "disks": ["a"]}}, {}, A)
    changed = {"spec": {"external": True, "disks": ["a", "b"]}}
    owners = update(live, changed, owners, U)
    assert owners == {A: {("spec", "external")}, U: {("spec", "disks")}}
    assert [c.owner for c in conflicts(changed, {"spec": {"disks": ["a"]}}, owners, A)] == [U]
    # The same name by Apply and by Update are two.
    assert conflicts(changed, {"spec": {"disks": []}}, owners, Owner("kubectl-edit", "Apply"))


def test_a_list_is_one_value_and_true_is_not_one():
    assert set(fields({"spec": {"disks": [{"name": "a"}], "labels": {}}})) == {("spec", "disks"), ("spec", "labels")}
    live, owners, _ = apply(None, {"spec": {"external": True}}, {}, A)
    assert apply(live, {"spec": {"external": 1}}, owners, B)[2]


def test_what_is_the_servers_is_nobodys_field():
    value = {
        "apiVersion": "v1",
        "kind": "K",
        "metadata": {"name": "n", "uid": "u", "labels": {"a": "b"}},
        "status": {"x": 1},
    }
    assert set(fields(value)) == {("metadata", "labels", "a")}


leaf = st.one_of(st.booleans(), st.integers(0, 2), st.sampled_from(["x", "y"]), st.lists(st.integers(0, 1), max_size=2))
tree = st.recursive(
    st.dictionaries(st.sampled_from("abc"), leaf, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.one_of(leaf, inner), max_size=3),
    max_leaves=6,
)
step = st.tuples(st.sampled_from(["apply", "force", "update"]), st.sampled_from("pqr"), tree)


@settings(max_examples=400, deadline=None)
@given(st.lists(step, max_size=8))
def test_whoever_writes_in_whatever_order(steps):
    live, owners = {}, {}
    for kind, name, value in steps:
        before = deepcopy((live, owners, value))
        who = Owner(name, "Update" if kind == "update" else "Apply")
        if kind == "update":
            owners, live = update(live, value, owners, who), value
        else:
            live, owners, clash = apply(live, value, owners, who, kind == "force")
            if clash:
                assert kind == "apply" and (live, owners) == before[:2]  # nothing is half done
                assert all(c.owner != who for c in clash)
                continue
            for path in fields(value):  # what was applied is there
                assert same(get(live, path)[1], get(value, path)[1]), path
            assert owners.get(who, frozenset()) == frozenset(fields(value))
            again, still, none = apply(live, value, owners, who)
            assert not none and same(again, live) and still == owners  # applying it again changes nothing
        assert value == before[2], "what was given is left as it is"
        for owned in owners.values():
            for path in owned:
                assert get(live, path)[0], f"{path} is owned and not there"
        times = dict.fromkeys(owners, "2026-01-01T00:00:00Z")
        assert decode(encode(owners, times, "v1")) == (owners, times)


@pytest.mark.parametrize(
    "rows", [None, 1, [None], [{}], [{"fieldsV1": {"f:a": 1}}], [{"fieldsV1": {"x": {}, "f:b": {"y": {}}}}]]
)
def test_damaged_managed_fields_are_nobodys(rows):
    decode(rows)
