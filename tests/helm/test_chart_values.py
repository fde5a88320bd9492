"""values.yaml, its schema and the README's table say the same, and all files are clean."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_render import CHART, lint

ROOT = CHART.parents[1]


def table_module() -> Any:
    spec = importlib.util.spec_from_file_location("chart_table", ROOT / "helm" / "table.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = table_module()
VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def resolved(schema: Any) -> Any:
    reference = schema.get("$ref", "")
    return resolved(SCHEMA["$defs"][reference.rpartition("/")[2]]) if reference else schema


def schema_leaves(schema: Any, path: str = "") -> set[str]:
    """The paths that the schema knows, as far as it names them."""
    properties = resolved(schema).get("properties")
    if properties is None or path in TABLE.WHOLE:
        return {path}
    return set().union(
        *(schema_leaves(value, f"{path}.{key}".lstrip(".")) for key, value in properties.items())
    )


def objects(schema: Any) -> list[Any]:
    """Every schema of an object with named properties."""
    if isinstance(schema, list):
        return [found for entry in schema for found in objects(entry)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if "properties" in schema and "type" in schema else []
    return own + [found for entry in schema.values() for found in objects(entry)]


def test_schema_and_values_have_the_same_paths():
    known = schema_leaves(SCHEMA) - {"global"}  # Helm's own, which every chart gets
    assert known == {path for path, _ in TABLE.leaves(yaml.safe_load(VALUES))}


def test_no_object_of_the_schema_takes_unknown_keys():
    closed = [entry.get("additionalProperties") is False for entry in objects(SCHEMA)]
    free = [
        set(entry["properties"])
        for entry, is_closed in zip(objects(SCHEMA), closed, strict=True)
        if not is_closed
    ]
    assert free == []
    assert len(closed) > 40


def test_the_readme_has_the_table_of_today():
    readme = (CHART / "README.md").read_text()
    assert readme == TABLE.with_table(readme, VALUES), "run: python helm/table.py"


def test_a_value_without_a_comment_is_found():
    with pytest.raises(ValueError, match=r"b\.c: expected a comment above it"):
        list(TABLE.rows("# A.\na: 1\nb:\n  c: 2\n"))


def test_default_values_pass_helm_lint_strict():
    assert lint({}) == []


def test_yaml_files_are_clean():
    pytest.importorskip("yamllint", reason="yamllint is missing: pip install 'jettison[dev]'")
    command = [sys.executable, "-m", "yamllint", "--strict", "-c", ".yamllint.yaml", "helm", "deploy"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout + result.stderr == ""


def test_shell_scripts_are_clean():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing: apt-get install shellcheck")
    scripts = sorted(str(path) for path in (CHART / "files").glob("*.sh"))
    result = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert result.stdout + result.stderr == ""


def test_templates_are_small_and_one_kind_a_file():
    for path in sorted(Path(CHART / "templates").glob("*.yaml")):
        text = path.read_text()
        kinds = {line.removeprefix("kind: ") for line in text.splitlines() if line.startswith("kind: ")}
        assert len(kinds) <= 1, path.name
        assert len(text.splitlines()) <= 130, path.name


def test_chart_and_package_have_one_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = (ROOT / "plugin" / "jettison" / "_version.py").read_text().split('"')[-2]
    assert (chart["appVersion"], chart["kubeVersion"]) == (version, ">=1.29.0-0")
