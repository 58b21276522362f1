"""Run a dozen user-data through the real cloud-init of one guest, in its warm state, and print what the lab reads of each.

    python -m tests.guests.gallery MANIFEST < {name: user-data} as JSON

The guest's seed is replaced by a folder of its own (/var/lib/cloud/seed/nocloud), cleaned and run stage by stage, as at a
boot; so twelve of them cost one boot.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import shlex
import sys

from hikube_local.access import keys
from hikube_local.cli.app import App
from hikube_local.events import ignore
from hikube_local.lab import evidence, root
from hikube_local.lab.guest import read
from hikube_local.lab.looked import FILES
from hikube_local.lab.trial import Trial
from hikube_local.manifests.validate import Known, validate
from hikube_local.plan.steps import RunOptions

SEED = "/var/lib/cloud/seed/nocloud"
# Without the label the disk with the machine's own seed is no source; the network is up already.
PREPARE = f"""mkdir -p {SEED}
printf 'datasource: {{NoCloud: {{fs_label: null}}}}\\nnetwork: {{config: disabled}}\\n' > /etc/cloud/cloud.cfg.d/99-gallery.cfg"""
STAGES = ("init --local", "init", "modules --mode=config", "modules --mode=final")


def main() -> None:
    texts: dict[str, str] = json.load(sys.stdin)
    app = App()
    objects = [i.object for i in validate([sys.argv[1]], None, "default", Known({})).objects]
    out = {}
    with root.made(app.layout) as own, app.cache.in_use():
        trial = Trial(own, app.image_settings, ignore, RunOptions(warm=app.layout.warm), None, keys.own_key(app.layout))
        (report,) = trial.run(objects, ())
        guest, _ = trial.guest(report)
        guest.run(PREPARE)
        for number, (name, text) in enumerate(texts.items()):
            packed = base64.b64encode(text.encode()).decode()
            write = f"echo {packed} | base64 -d > {SEED}/user-data; echo instance-id: g{number} > {SEED}/meta-data"
            run = "; ".join(f"cloud-init {s} >/dev/null 2>&1" for s in STAGES)
            guest.run(f"{write}; cloud-init clean --logs >/dev/null 2>&1; {write}; {run}", timeout=300)
            found = evidence.read(*read(guest, *FILES.values()), text)
            out[name] = [dataclasses.asdict(p) for p in found.problems]
            print(f"{name}: {shlex.quote(json.dumps(out[name]))[:400]}", file=sys.stderr, flush=True)
        trial.close()
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
