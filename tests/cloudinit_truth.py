"""cloud-init's own readers over user-data, as a program of its own: files' names in, one JSON line for each out.

It is started with PYTHONPATH at Debian's package (unpacked, never installed): see tests/components/test_truth.py.
"""

import json
import logging
import sys

from cloudinit import handlers, helpers, user_data, util
from cloudinit.distros import ug_util
from cloudinit.handlers import cloud_config, jinja_template

logging.disable(logging.CRITICAL)
PATHS = helpers.Paths({"cloud_dir": "/nonexistent", "run_dir": "/nonexistent"})
INSTANCE = {"v1": {"local_hostname": "box", "instance_id": "i-1", "region": "eu"}, "ds": {"meta_data": {}}}


class Distro:
    """What ug_util asks of a distribution."""

    name = "debian"

    @staticmethod
    def get_default_user():
        return {"name": "debian"}


def parts(raw):
    """(type, text, headers) as cloud-init's own handlers would get them; no URL is fetched."""
    processor = user_data.UserDataProcessor(PATHS)
    processor._do_include = lambda content, appendage: None
    message = processor.process(raw)
    for part in message.walk():
        if not part.is_multipart():
            payload = util.fully_decoded_payload(part)
            yield part.get_content_type(), payload, dict(part)


def config(raw):
    """The cloud-config that all parts come to, or why a part is refused."""
    handler, refused = cloud_config.CloudConfigPartHandler(PATHS), []
    handler.cloud_buf = {}
    for kind, payload, headers in parts(raw):
        found = handlers.type_from_starts_with(payload, kind) if kind == "text/plain" else kind
        if found == "text/jinja2" or payload.lstrip().lower().startswith("## template: jinja"):
            try:
                payload = jinja_template.render_jinja_payload(payload, "x", INSTANCE)
            except Exception as e:
                refused.append(f"jinja: {e}")
                continue
            found = handlers.type_from_starts_with(payload, "text/plain")
        if found != "text/cloud-config":
            continue
        try:
            handler._merge_part(payload, headers)
        except Exception as e:
            refused.append(str(e))
            continue
    return handler.cloud_buf or {}, refused


def unpacked(row):
    """A file's content as cc_write_files takes it apart; raises what that raises."""
    from cloudinit.config import cc_write_files

    return cc_write_files.extract_contents(
        row.get("content", ""), cc_write_files.canonicalize_extraction(row.get("encoding"))
    )


def judge(raw):
    merged, refused = config(raw)
    out = {"keys": sorted(map(str, merged)), "refused": refused, "commands": {}}
    for name in ("runcmd", "bootcmd"):
        if name in merged:
            try:
                out["commands"][name] = util.shellify(merged[name])
            except Exception as e:
                refused.append(f"{name}: {type(e).__name__}")
    for row in merged.get("write_files") or []:
        try:
            unpacked(row)
        except Exception as e:
            refused.append(f"write_files: {type(e).__name__}: {e}")
    try:
        users, groups = ug_util.normalize_users_groups(merged, Distro)
        out["users"] = {name: sorted(about) for name, about in users.items()}
        out["groups"] = sorted(groups)
    except Exception as e:
        refused.append(f"users: {type(e).__name__}")
    return out


def main():
    for name in sys.argv[1:]:
        with open(name, "rb") as f:
            raw = f.read()
        try:
            row = judge(raw)
        except Exception as e:
            row = {"keys": [], "refused": [f"{type(e).__name__}: {e}"[:200]], "commands": {}}
        print(json.dumps({"file": name, **row}, default=str))


if __name__ == "__main__":
    main()
