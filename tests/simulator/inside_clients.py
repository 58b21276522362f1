"""Run by test_clients.py: Python's own clients of Kubernetes, each by what it is used for. Words: the kubeconfig."""

from __future__ import annotations

import sys

GROUP, VERSION = "apps.cozystack.io", "v1alpha1"


def disk(name: str) -> dict:
    meta, spec = {"name": name}, {"storage": "1Gi"}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "VMDisk", "metadata": meta, "spec": spec}


def official(path: str) -> None:
    """kubernetes: typed, custom objects, watch, dynamic with server-side apply."""
    from kubernetes import client, config, dynamic, watch

    config.load_kube_config(path)
    custom, core = client.CustomObjectsApi(), client.CoreV1Api()
    where = (GROUP, VERSION, "default", "vmdisks")
    custom.create_namespaced_custom_object(*where, disk("a"))
    custom.patch_namespaced_custom_object(*where, "a", {"metadata": {"labels": {"x": "y"}}})
    found = custom.list_namespaced_custom_object(*where, label_selector="x=y")["items"]
    assert [o["metadata"]["name"] for o in found] == ["a"]
    watching = watch.Watch()
    for event in watching.stream(custom.list_namespaced_custom_object, *where, timeout_seconds=20):
        if event["object"]["metadata"]["name"] == "a":
            watching.stop()
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"a": "b"})
    core.create_namespaced_secret("default", secret)
    assert core.read_namespaced_secret("s", "default").data == {"a": "Yg=="}
    core.delete_namespaced_secret("s", "default")
    assert [n.status.node_info.kubelet_version for n in core.list_node().items]
    assert core.list_namespaced_persistent_volume_claim("default").items[0].metadata.name == "vm-disk-a"
    assert core.list_namespaced_event("default").items and core.list_namespace().items
    api = dynamic.DynamicClient(client.ApiClient())
    kind = api.resources.get(api_version=f"{GROUP}/{VERSION}", kind="VMDisk")
    kind.server_side_apply(body=disk("b"), name="b", namespace="default", field_manager="me")
    assert client.VersionApi().get_code().git_version.endswith("hikube-local")
    for name in ("a", "b"):
        custom.delete_namespaced_custom_object(*where, name)


def kr8s_(path: str) -> None:
    import kr8s
    from kr8s.objects import ConfigMap, new_class

    api = kr8s.api(kubeconfig=path)
    made = new_class("VMDisk", f"{GROUP}/{VERSION}", namespaced=True)(disk("c"), api=api)
    made.create()
    made.patch({"metadata": {"labels": {"x": "y"}}})
    made.wait("condition=Ready", timeout=20)
    assert "c" in [o.name for o in api.get("vmdisks")] and "hikube" in api.version()["gitVersion"]
    kept = ConfigMap({"metadata": {"name": "m"}, "data": {"a": "b"}}, api=api)
    kept.create()
    kept.delete()
    made.delete()


def lightkube_(path: str) -> None:
    from lightkube import Client, KubeConfig
    from lightkube.generic_resource import create_namespaced_resource
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import Pod, Secret

    client = Client(config=KubeConfig.from_file(path), field_manager="me")
    kind = create_namespaced_resource(GROUP, VERSION, "VMDisk", "vmdisks")
    client.create(kind(**disk("d")), namespace="default")
    client.apply(kind(**disk("e")), namespace="default")
    assert {"d", "e"} <= {o.metadata.name for o in client.list(kind, namespace="default")}
    assert list(client.list(Pod, namespace="default")) == []
    client.apply(Secret(metadata=ObjectMeta(name="s", namespace="default"), stringData={"a": "b"}))
    client.delete(Secret, "s", namespace="default")
    for _, obj in client.watch(kind, namespace="default", server_timeout=20):
        if obj.metadata.name == "e":
            break
    for name in ("d", "e"):
        client.delete(kind, name, namespace="default")


for use in (official, kr8s_, lightkube_):
    use(sys.argv[1])
    print("done:", use.__name__)
