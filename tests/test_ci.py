"""What others put into their CI: the command lines of the action, the hook and the GitLab template.

The fast tier runs them with this installation in place of the one that they make. The slow tier lets them
make it: the light core in a clean virtual environment (NOT RUN where pip cannot reach a package registry).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from command import ROOT
from documents import tracked
from ticket_folders import edit

Json = Any
BIN = Path(sys.executable).parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((ROOT / "ci/gitlab.yml").read_text(encoding="utf-8"))["certify"]
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
INSTALL, CHECK = ACTION["runs"]["steps"]

VERDICTS = {"CERTIFIED": 0, "REFUTED": 1, "NOT_JUDGED": 4}


@dataclass
class Runner:
    """A machine of a CI service.

    Attributes:
        temporary: its folder; the environment that the action makes is ``certify`` in it.
        here: what stands in for that environment is this installation.
        package: what is installed otherwise.
    """

    temporary: Path
    here: bool
    package: Path

    def bash(self, script: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run lines as a service does: in a clean environment, ending with the first that fails."""
        clean = {key: os.environ[key] for key in ("HOME", "LANG") if key in os.environ}
        clean |= {
            "PATH": f"{self.temporary}/certify/bin:{BIN}:/usr/local/bin:/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=clean | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )


def step(runner: Runner, one: Json, folder: Path, inputs: dict[str, str], **variables: str) -> Any:
    """Run a step of the action with its inputs; outputs and the summary lie in ``folder``."""
    values = {f"inputs.{name}": entry.get("default", "") for name, entry in ACTION["inputs"].items()}
    values |= {f"inputs.{name}": value for name, value in inputs.items()}
    values |= {"github.action_path": str(runner.package)}
    given = {
        key: re.sub(r"\$\{\{ (\S+) \}\}", lambda m: values[m[1]], text) for key, text in one["env"].items()
    }
    github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    github |= {"GITHUB_OUTPUT": str(folder / "outputs"), "RUNNER_TEMP": str(runner.temporary)}
    return runner.bash(one["run"], folder, **given, **github, **variables)


@pytest.fixture(scope="module", params=["here", pytest.param("installed", marks=pytest.mark.slow)])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A machine on which the action has made its environment."""
    folder = tmp_path_factory.mktemp("runner")
    found = Runner(folder, request.param == "here", folder / "package")
    if found.here:
        program = folder / "certify" / "bin" / "certify"
        program.parent.mkdir(parents=True)
        words = f'exec env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.quote(sys.executable)} -m certify "$@"'
        program.write_text(f"#!/bin/sh\n{words}\n")
        program.chmod(0o755)
        return found
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), "rich"]
    if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("NOT RUN: pip cannot reach a package registry")
    for name in tracked():  # pip writes where it builds
        if not name.startswith(("reports/published/", "tests/")):
            (found.package / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, found.package / name)
    made = step(found, INSTALL, folder, {})
    assert made.returncode == 0, made.stderr
    return found


@pytest.fixture(params=VERDICTS)
def verdict(request: pytest.FixtureRequest, ticket_path: Path) -> str:
    """A verdict, and the ticket file in ``bundle`` that deserves it."""
    if request.param == "REFUTED":
        edit(ticket_path, lambda ticket: ticket["tokens"][0].update(h=1))
    if request.param == "NOT_JUDGED":
        ticket_path.write_text("{")
    return str(request.param)


def test_the_action_says_what_was_found(runner: Runner, verdict: str, tmp_path: Path) -> None:
    inputs = {"files": "\nbundle/tickets.json\n", "policy": "selection"}
    ran = step(runner, CHECK, tmp_path, inputs)
    assert ran.returncode == VERDICTS[verdict], ran.stderr
    outputs = dict(line.split("=", 1) for line in (tmp_path / "outputs").read_text().splitlines())
    report = json.loads(Path(outputs["report"]).read_text())
    assert (outputs["verdict"], outputs["exit-code"]) == (verdict, str(VERDICTS[verdict]))
    assert (report["exit_code"], report["digest"]) == (VERDICTS[verdict], outputs["digest"])
    assert outputs["digest"] in (tmp_path / "summary.md").read_text()
    assert outputs["digest"] in ran.stdout
    assert all(line.startswith("::") for line in ran.stdout.splitlines())
    named = {entry["value"] for entry in ACTION["outputs"].values()}
    assert named == {f"${{{{ steps.check.outputs.{name} }}}}" for name in ACTION["outputs"]}
    assert ACTION["outputs"].keys() <= outputs.keys()


def test_words_of_a_workflow_are_not_commands(runner: Runner, ticket_path: Path, tmp_path: Path) -> None:
    """An input is a value: it neither runs nor becomes an option."""
    inputs = {"files": '$(touch spoiled)\n"; touch spoiled; "\n--help', "policy": "selection"}
    assert step(runner, CHECK, tmp_path, inputs).returncode == 2
    assert step(runner, CHECK, tmp_path, {"files": str(ticket_path), "policy": "--help"}).returncode == 2
    assert not (tmp_path / "spoiled").exists()


def test_the_gitlab_job_leaves_both_reports(runner: Runner, verdict: str, tmp_path: Path) -> None:
    script = GITLAB["script"]
    if runner.here or verdict != "CERTIFIED":  # it is installed once
        (tmp_path / ".certify").symlink_to(runner.temporary / "certify")
        script = script[-1:]
    given = {"CERTIFY_FILES": "bundle/tickets.json", "CERTIFY_POLICY": "selection", "GITLAB_CI": "true"}
    variables = GITLAB["variables"] | given | {"CERTIFY_PACKAGE": str(runner.package)}
    ran = runner.bash("\n".join(script), tmp_path, **variables)
    assert ran.returncode == VERDICTS[verdict], ran.stderr
    reports = GITLAB["artifacts"]["reports"]
    issues = json.loads((tmp_path / reports["codequality"]).read_text())
    suites = ET.fromstring((tmp_path / reports["junit"]).read_text())
    assert bool(issues) == (int(suites.attrib["failures"]) > 0) == (VERDICTS[verdict] > 0)
    assert {issue["location"]["path"] for issue in issues} <= {"bundle/tickets.json"}


def test_the_hook_judges_ticket_files(runner: Runner, verdict: str, tmp_path: Path) -> None:
    files = [
        path
        for path in ("bundle/tickets.json", "bundle/rows/x.safetensors")
        if re.search(HOOK["files"], path)
    ]
    assert files == ["bundle/tickets.json"]
    assert runner.bash(f"{HOOK['entry']} {' '.join(files)}", tmp_path).returncode == VERDICTS[verdict]


def test_the_workflow_gates_every_published_ticket_file() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tickets.yml").read_text(encoding="utf-8"))
    published = {name for name in tracked() if re.search(HOOK["files"], name)}
    alone = {name for name in published if [*(ROOT / name).parent.glob("base/*.safetensors")]}
    withheld = {name for name in published if not (ROOT / name).with_name("rows").is_dir()}
    uses = [one for job in workflow["jobs"].values() for one in job["steps"] if one.get("uses") == "./"]
    frozen = json.loads((ROOT / "tests" / "fixtures" / "verdicts.json").read_text(encoding="utf-8"))
    certified = {
        f"reports/published/{run}/tickets/tickets.json#{name}"
        for run, tickets in frozen.items()
        for name, verdicts in tickets.items()
        if verdicts["release"][0] == "CERTIFIED"
    }
    assert [{*one["with"]["files"].split()} for one in uses] == [alone, certified, alone, withheld]
    commands = [one["run"] for one in workflow["jobs"]["fetched"]["steps"] if "run" in one]
    assert published - alone - withheld == {*re.findall(r"reports/published/[^#\s]*", "\n".join(commands))}
    assert all(one["with"].keys() <= ACTION["inputs"].keys() for one in uses)
