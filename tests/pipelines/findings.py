"""What `sumi doctor` finds, by its level, and repairs."""

from __future__ import annotations

from collections.abc import Iterator

from typer.testing import CliRunner

from pipelines.cli import app
from sumi_core.lineage.checkup import Finding

FINGERPRINT = "0123456789abcdef"


def levels(findings: Iterator[Finding]) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for finding in findings:
        told.setdefault(finding.level, []).append(finding.message)
    return told


def repair(findings: Iterator[Finding]) -> list[str]:
    return [finding.fix() for finding in findings if finding.fix is not None]


def doctor(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)
    return result.exit_code, result.output
