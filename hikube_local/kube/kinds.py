"""The kinds that the endpoint serves, by the names of their resources; what is in no list here is absent; pure."""

from __future__ import annotations

from typing import Any

from hikube_local.api.objects import DISK, INSTANCE
from hikube_local.records import dataclass

GROUP, VERSION = "apps.cozystack.io", "v1alpha1"
CRUD = ("create", "delete", "get", "list", "patch", "update", "watch")
LOOKS = ("get", "list", "watch")
ALL_OF_IT = ("all",)  # what `kubectl get all` asks for


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as clients name it. `source`: the kind of the stored objects that it is made of, where it is made of such."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    verbs: tuple[str, ...] = LOOKS
    namespaced: bool = True
    short: tuple[str, ...] = ()
    source: str = ""
    categories: tuple[str, ...] = ()

    @property
    def full(self) -> str:
        """With its group, as kubectl and refusals write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def base(self) -> str:
        """The path below which its group answers."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @property
    def own(self) -> bool:
        """One of the two kinds of the manifests."""
        return self.group == GROUP

    def details(self, name: str) -> dict[str, str]:
        """What a Status says of the object that it is about."""
        return {"name": name, "kind": self.plural, **({"group": self.group} if self.group else {})}


MACHINES = Resource(GROUP, VERSION, "vminstances", "vminstance", INSTANCE, CRUD, source=INSTANCE)
DISKS = Resource(GROUP, VERSION, "vmdisks", "vmdisk", DISK, CRUD, source=DISK)
VMS = Resource(
    "kubevirt.io",
    "v1",
    "virtualmachines",
    "virtualmachine",
    "VirtualMachine",
    short=("vm", "vms"),
    source=INSTANCE,
    categories=ALL_OF_IT,
)
VMIS = Resource(
    "kubevirt.io",
    "v1",
    "virtualmachineinstances",
    "virtualmachineinstance",
    "VirtualMachineInstance",
    short=("vmi", "vmis"),
    source=INSTANCE,
    categories=ALL_OF_IT,
)
# virtctl's image-upload makes a DataVolume; here that is a VMDisk that waits for its content.
VOLUMES = Resource(
    "cdi.kubevirt.io",
    "v1beta1",
    "datavolumes",
    "datavolume",
    "DataVolume",
    ("create", *LOOKS),
    short=("dv", "dvs"),
    source=DISK,
    categories=ALL_OF_IT,
)
TYPES = Resource(
    "instancetype.kubevirt.io",
    "v1beta1",
    "virtualmachineclusterinstancetypes",
    "virtualmachineclusterinstancetype",
    "VirtualMachineClusterInstancetype",
    namespaced=False,
    short=("vmclusterinstancetype", "vmcf", "vmcfs"),
)
PREFERENCES = Resource(
    "instancetype.kubevirt.io",
    "v1beta1",
    "virtualmachineclusterpreferences",
    "virtualmachineclusterpreference",
    "VirtualMachineClusterPreference",
    namespaced=False,
    short=("vmcp", "vmcps"),
)
CONFIGMAPS = Resource("", "v1", "configmaps", "configmap", "ConfigMap", CRUD, short=("cm",))
EVENTS = Resource("", "v1", "events", "event", "Event", short=("ev",))
NAMESPACES = Resource("", "v1", "namespaces", "namespace", "Namespace", CRUD, namespaced=False, short=("ns",))
NODES = Resource("", "v1", "nodes", "node", "Node", namespaced=False, short=("no",))
CLAIMS = Resource(
    "", "v1", "persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim", short=("pvc",), source=DISK
)
PODS = Resource("", "v1", "pods", "pod", "Pod", short=("po",), source=INSTANCE, categories=ALL_OF_IT)
SECRETS = Resource("", "v1", "secrets", "secret", "Secret", CRUD)
SERVICES = Resource("", "v1", "services", "service", "Service", short=("svc",), source=INSTANCE, categories=ALL_OF_IT)
POD_METRICS = Resource("metrics.k8s.io", "v1beta1", "pods", "pod", "PodMetrics", ("get", "list"))
NODE_METRICS = Resource("metrics.k8s.io", "v1beta1", "nodes", "node", "NodeMetrics", ("get", "list"), namespaced=False)
ACCESS = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "selfsubjectaccessreview",
    "SelfSubjectAccessReview",
    ("create",),
    namespaced=False,
)
RULES = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectrulesreviews",
    "selfsubjectrulesreview",
    "SelfSubjectRulesReview",
    ("create",),
    namespaced=False,
)
UPLOAD_TOKENS = Resource(
    "upload.cdi.kubevirt.io",
    "v1beta1",
    "uploadtokenrequests",
    "uploadtokenrequest",
    "UploadTokenRequest",
    ("create",),
    short=("utr", "utrs"),
)
# Always empty: Terraform's kubernetes_manifest asks for it before it does anything.
DEFINITIONS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "customresourcedefinition",
    "CustomResourceDefinition",
    namespaced=False,
    short=("crd", "crds"),
)
# What a form may offer in a namespace: instance types, images and so on, each list an object of its own.
OPTIONS = Resource("core.cozystack.io", "v1alpha1", "options", "option", "Option")
ALL = (
    *(CONFIGMAPS, EVENTS, NAMESPACES, NODES, CLAIMS, PODS, SECRETS, SERVICES),
    *(DEFINITIONS, MACHINES, DISKS, ACCESS, RULES, VOLUMES, TYPES, PREFERENCES),
    *(VMS, VMIS, POD_METRICS, NODE_METRICS, UPLOAD_TOKENS, OPTIONS),
)
# KubeVirt's group of subresources is in no list of groups: virtctl asks for it by name.
SUBRESOURCES = "subresources.kubevirt.io"


def groups() -> dict[str, str]:
    """The groups beside the core one, each with its version."""
    return {r.group: r.version for r in ALL if r.group}


def of_group(group: str) -> list[Resource]:
    return [r for r in ALL if r.group == group]


def list_of(resource: Resource, values: list[dict[str, Any]], revision: str) -> dict[str, Any]:
    return {
        "apiVersion": resource.api_version,
        "kind": f"{resource.kind}List",
        "metadata": {"resourceVersion": revision},
        "items": values,
    }
