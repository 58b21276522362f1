"""Kubernetes' answer to a request that cannot be met: a Status with a reason and causes."""

from __future__ import annotations

from typing import Any

from hikube_local.kube.kinds import Resource
from hikube_local.records import dataclass

MISSING = "the server could not find the requested resource"
# The reason of each HTTP code (apimachinery, meta/v1/types.go).
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One field that is wrong."""

    message: str
    field: str = ""
    reason: str = "FieldValueInvalid"

    def as_json(self) -> dict[str, str]:
        return {k: v for k, v in (("reason", self.reason), ("message", self.message), ("field", self.field)) if v}


class Refused(Exception):
    """A request that is not met; `as_json` is the answer's body."""

    def __init__(
        self,
        code: int,
        message: str,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
        details: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or REASONS.get(code, "Unknown")
        self.causes, self.details = causes, details or {}

    def as_json(self) -> dict[str, Any]:
        details: dict[str, Any] = dict(self.details)
        if self.causes:
            details["causes"] = [c.as_json() for c in self.causes]
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": details} if details else {}),
            "code": self.code,
        }


def success(resource: Resource, name: str, uid: str) -> dict[str, Any]:
    """The answer to a deletion that is done."""
    details = {**resource.details(name), "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
