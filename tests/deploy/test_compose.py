"""deploy/compose: what Docker Compose's schema asks, and what the files say of each other and of the code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
SCHEMA = json.loads(Path(__file__).with_name("compose_spec.json").read_text())
"""The Compose specification as docker-compose 1.29.2 carries it (Apache-2.0)."""
FILES = ("compose.yaml", "compose.gpu.yaml")
MADE_BY_THE_USER = ("experiments", "router", "router/counters", "secrets", "verdicts")


def plain(text: str) -> str:
    """The text with the defaults of its variables."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(plain((FOLDER / "compose.yaml").read_text()))


def problems(document) -> list[str]:
    """What the schema finds; a project's name came into the specification later."""
    held = {key: value for key, value in document.items() if key != "name"}
    return [error.message for error in jsonschema.Draft201909Validator(SCHEMA).iter_errors(held)]


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_compose_s_schema_asks(name):
    assert problems(yaml.safe_load((FOLDER / name).read_text())) == []


def test_the_schema_would_find_a_misspelt_key():
    document = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    document["services"]["triton"]["volume"] = document["services"]["triton"].pop("volumes")
    assert problems(document) == ["'volume' does not match any of the regexes: '^x-'"]


def test_what_is_mounted_is_here_or_is_made_by_the_user(compose):
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                named = source.removeprefix("./") in MADE_BY_THE_USER
                assert named or (FOLDER / source).exists(), source
            else:
                assert source in compose["volumes"]
    readme = (FOLDER / "README.md").read_text()
    assert "mkdir -p experiments router/counters secrets verdicts" in readme
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert {name.split("/")[0] + "/" for name in MADE_BY_THE_USER} == set(ignored)


def test_nothing_is_reachable_from_outside_and_nothing_may_gain_rights(compose):
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.search(r":v?\d+\.\d+", service.get("image", ":1.0")), "a tag that stays"


def test_secrets_and_dependencies_are_declared(compose):
    services = compose["services"]
    assert {name for one in services.values() for name in one.get("secrets", ())} == set(compose["secrets"])
    assert {name for one in services.values() for name in one.get("depends_on", ())} <= set(services)
    prometheus = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    hosts = {job["static_configs"][0]["targets"][0].split(":")[0] for job in jobs.values()}
    assert hosts <= set(services)
    assert jobs["verdict"]["authorization"]["credentials_file"] == "/run/secrets/verdict_token"


def test_the_service_s_image_needs_no_model_library():
    """What is imported from packages is in its requirements, and those are as in pyproject.toml."""
    code = (
        "import sys; sys.argv = ['x', '--help']; import jettison.verdict_service.web, uvicorn; "
        "from jettison.cli.verdict import app, main\n"
        "try: main(app)\nexcept SystemExit: pass\n"
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--experiment" in done.stdout
    loaded = set(done.stdout.rpartition("MODULES")[2].split())
    assert not loaded & {"numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "ml_dtypes", "scipy"}
    project = (ROOT / "pyproject.toml").read_text()
    needed = (ROOT / "deploy" / "docker" / "verdict.in").read_text().split()
    assert [line for line in needed if f'"{line}"' not in project] == []
    assert {"starlette", "uvicorn", "pydantic", "yaml", "rich", "typer"} <= loaded


def test_the_command_s_options_exist(compose):
    done = subprocess.run(
        [sys.executable, "-m", "jettison.cli.verdict", "--help"],
        capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert (ROOT / compose["services"]["verdict"]["build"]["dockerfile"]).exists()
    for option in compose["services"]["verdict"]["command"]:
        assert option.partition("=")[0] in done.stdout
