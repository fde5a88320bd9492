"""deploy/gitops and deploy/kind, as far as they can be held to something without a cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from pages import ROOT, is_value, named_values, page

GITOPS = ROOT / "deploy" / "gitops"
SCRIPT = ROOT / "deploy" / "kind" / "up.sh"


def test_rings_are_those_that_applications_are_labelled_with():
    spec = yaml.safe_load((GITOPS / "applicationset.yaml").read_text())["spec"]
    assert set(spec["template"]["metadata"]["labels"]) == {"ring"}
    steps = spec["strategy"]["rollingSync"]["steps"]
    assert [step["matchExpressions"][0]["key"] for step in steps] == ["ring", "ring"]
    assert [step["matchExpressions"][0]["values"] for step in steps] == [["first"], ["rest"]]


def test_the_hook_runs_after_a_sync_once_and_within_the_restricted_profile():
    job = yaml.safe_load((GITOPS / "wait-for-verdict.yaml").read_text())
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "PostSync"
    assert job["spec"]["backoffLimit"] == 0
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_values_that_the_page_names_are_the_chart_s():
    found = named_values(page("deploying.md"))
    assert len(found) >= 25
    assert [path for path in sorted(found) if not is_value(path)] == []


@pytest.mark.parametrize("given", ["", "/nowhere"])
def test_the_script_for_kind_says_what_it_lacks(tmp_path: Path, given: str):
    for name in ("docker", "kind", "kubectl", "helm"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 9\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([SCRIPT, given], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert done.stderr == (
        f"up.sh: expected a model repository, found '{given}'. Make one: make demo, or jettison publish\n"
    )


def test_the_script_for_kind_names_a_program_that_is_missing(tmp_path: Path):
    done = subprocess.run(
        ["/bin/sh", SCRIPT, "x"], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "up.sh: expected the program docker, found none. Install it: https://" in done.stderr
