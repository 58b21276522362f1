"""`doctor`."""

from __future__ import annotations

from dataclasses import asdict

import click

from hikube_local.cli.app import App
from hikube_local.cli.options import common, output_option
from hikube_local.errors import ExitCode
from hikube_local.language import tr


@click.command("doctor")
@output_option("json")
@common
def doctor(app: App, output: str) -> int:
    """Check whether this host can run machines, and how to fix what is missing."""
    from hikube_local.cli import tables
    from hikube_local.engine.doctor import examine

    checks = examine(app.session)
    ok = all(c.ok for c in checks if c.needed)
    value = {"ok": ok, "checks": [asdict(c) for c in checks]}

    def text() -> str:
        lines = []
        for c in checks:
            mark = "ok  " if c.ok else "FAIL" if c.needed else "note"
            lines.append(f"{mark}  {tr(c.name)}: {tr(c.detail)}")
            if c.fix and not c.ok:
                lines.append(f"      {tr('fix')}: {tr(c.fix)}")
        lines.append(tr("this host can run machines" if ok else "this host cannot run machines yet"))
        return "\n".join(lines)

    print(tables.show(value, output, text))
    return ExitCode.DONE if ok else ExitCode.FAILED
