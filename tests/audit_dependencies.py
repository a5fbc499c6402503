"""Looks up every installed dependency of micfast among the known vulnerabilities.

``python tests/audit_dependencies.py`` needs pip-audit. Exit code 1 where there is one, or where a
package could not be looked up; 0 with a line that says so where no advisories can be reached (1
with ``--required``).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNREACHABLE = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|NameResolutionError|ProxyError"
)
NOT_AUDITED = "not audited: no advisories can be reached from here"


def _first(package: str) -> list[str]:
    """Requirements of micfast itself, which need not be installed as a package."""
    try:
        return distribution(package).requires or []
    except PackageNotFoundError:
        file = Path(__file__).parents[1] / "pyproject.toml"
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["reproduce"]]


def _needed(requirements: list[str], extra: str = "") -> list[str]:
    """Names of those that apply here."""
    parsed = [Requirement(requirement) for requirement in requirements]
    return [r.name for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})]


def installed(package: str) -> list[str]:
    """``name==version`` of all that the package needs, directly or not, and that is installed."""
    found: dict[str, str] = {}
    waiting = _needed(_first(package), "reproduce")
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found or name == package:
            continue
        try:
            known = distribution(name)
        except PackageNotFoundError:  # micfast without its extra
            continue
        # A local version (2.13.0+cpu) stands in no list.
        found[name] = known.version.partition("+")[0]
        waiting += _needed(known.requires or [])
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def judge(code: int, out: str, err: str) -> tuple[int, str]:
    """Exit code and text for what pip-audit ended with."""
    try:
        packages = json.loads(out)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if code and UNREACHABLE.search(err):
            return 0, NOT_AUDITED
        return 1, f"pip-audit failed ({code}): {out.strip()}\n{err.strip()[-2000:]}"
    bad = [package for package in packages if package.get("vulns")]
    if bad:
        lines = [
            f"{package['name']} {package['version']}: {vulnerability['id']}, "
            f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
            for package in bad
            for vulnerability in package["vulns"]
        ]
        return 1, "\n".join(lines)
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return 0, NOT_AUDITED
    if skipped:
        return 1, f"not audited: {', '.join(skipped)}"
    return 0, f"{len(packages)} packages, none with a known vulnerability"


def main() -> int:
    """Run pip-audit; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--required", action="store_true", help="fail where no advisories can be reached"
    )
    required = parser.parse_args().required
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(installed("micfast")) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(file), "--no-deps"]
        command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True)
    code, text = judge(done.returncode, done.stdout, done.stderr)
    print(text)
    return 1 if required and text == NOT_AUDITED else code


if __name__ == "__main__":
    sys.exit(main())
