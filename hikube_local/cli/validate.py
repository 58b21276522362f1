"""`validate`."""

from __future__ import annotations

import click

from hikube_local.cli.app import App, annotate
from hikube_local.cli.options import common, files_option, option, output_option, validate_option
from hikube_local.cli.references import manifests
from hikube_local.errors import ExitCode
from hikube_local.language import tr


@click.command("validate")
@click.argument("files", nargs=-1)
@files_option()
@option("--strict", is_flag=True, help="Warnings count as errors.")
@validate_option()
@output_option("json")
@common
def validate(
    app: App, files: tuple[str, ...], filename: tuple[str, ...], strict: bool, unknown: str, output: str
) -> int:
    """Check manifests, and show all problems at once, each with its line."""
    from hikube_local.cli.tables import as_json
    from hikube_local.manifests.validate import validate
    from hikube_local.source.finding import Severity, counted, folded

    known = app.session.known(app.session.offer())
    result = validate(manifests(files, filename), app.flag_namespace, app.default_namespace, known, unknown=unknown)
    findings = result.findings
    annotate(findings.items)
    if output == "json":
        print(as_json([d.as_json() for d in findings.items]))
    else:
        for d in folded(findings.items):
            if d.severity is not Severity.DIFFERENCE or not app.no_differences:
                print(d.render())
        told = counted(findings.items)
        valid = tr(f"{len(result.objects)} object{'s' if len(result.objects) != 1 else ''} valid")
        print("; ".join(filter(None, (valid, told))))
        if (offer := known.offer) is not None:
            for what in offer.silent:
                print(
                    tr(
                        f"not compared with {what}: your role in {offer.where} may not read it, or this version of the platform has none"
                    )
                )
    bad = findings.failed or (strict and bool(findings.of(Severity.WARNING)))
    return ExitCode.USAGE if bad else ExitCode.DONE
