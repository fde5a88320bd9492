"""R: what stands in the repository, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jettison.core.errors import RepositoryError
from jettison.triton.check.finding import Objection
from jettison.triton.check.look import VERSION, Look, ModelLook
from jettison.triton.config import SAFE_NAME
from jettison.triton.repository import CONFIG_NAME

TOP_FOLDERS = frozenset({"configs", "warmup", "initial_state"})
"""Folders of a model that Triton knows, beside its versions."""
_OLD_CONFIG = re.compile(rf"{re.escape(CONFIG_NAME)}\.before-\d+")
"""A configuration that a publish replaced, and kept because someone had edited it."""
_LABELS = "label_filename"


def stray_folders(look: Look) -> Iterator[Objection]:
    """Folders in the root that are no models: Triton takes each for one."""
    for entry in look.entries:
        if not entry.is_dir():
            continue
        if entry.name.startswith("."):
            yield Objection(
                entry.name, "expected no hidden folder, found one, which Triton takes for a model"
            )
            continue
        model = ModelLook(entry)
        if model.config is None and not model.versions and not (entry / CONFIG_NAME).exists():
            yield Objection(entry.name, "expected a model, found a folder without config.pbtxt and versions")


def scratch_versions(look: Look) -> Iterator[Objection]:
    """Names that begin with a digit and are no versions: Triton reads their digits as one."""
    for model in look.models:
        for entry in model.entries:
            if entry.name[:1].isdigit() and not (VERSION.fullmatch(entry.name) and entry.is_dir()):
                digits = re.match(r"\d+", entry.name)
                number = digits.group() if digits else ""
                text = (
                    f"expected only whole numbers of versions, found {entry.name!r}, read as version {number}"
                )
                yield Objection(f"{model.name}/{entry.name}", text)


def names(look: Look) -> Iterator[Objection]:
    """Models whose name is not their folder's, or cannot be one."""
    for model in look.models:
        if not re.fullmatch(SAFE_NAME, model.name):
            yield Objection(model.name, "expected a letter or _ first, then letters, digits and _ . -")
        declared = "" if model.config is None else model.config.name
        if declared and declared != model.name:
            text = f"expected the folder's name {model.name!r}, found {declared!r}"
            yield Objection(f"{model.name}/{CONFIG_NAME}", text)


def missing_versions(look: Look) -> Iterator[Objection]:
    """Versions that the policy names and that are not there; models without any."""
    for model in look.models:
        if model.config is None:
            continue
        if not model.versions:
            yield Objection(model.name, "expected at least one version folder, found none")
        policy = model.config.version_policy
        if policy.WhichOneof("policy_choice") == "specific":
            missing = sorted(set(policy.specific.versions) - set(model.versions))
            if missing:
                text = f"expected versions {list(policy.specific.versions)}, found no {missing}"
                yield Objection(f"{model.name}/{CONFIG_NAME}", text)


def missing_files(look: Look) -> Iterator[Objection]:
    """Files that a served version is loaded from, and that are not there or lie outside of it."""
    for model in look.models:
        for artifact in model.artifacts:
            folder = model.path / str(artifact.version)
            where = f"{model.name}/{artifact.version}"
            if not artifact.path.resolve().is_relative_to(folder.resolve()):
                yield Objection(where, f"expected a file inside the version, found {artifact.path.name!r}")
            elif not artifact.path.exists():
                yield Objection(where, f"expected {artifact.path.name!r}, found no such file")


def changed_files(look: Look) -> Iterator[Objection]:
    """Files that are not those which were published."""
    for model in look.models:
        for version in model.versions:
            where = f"{model.name}/{version}"
            try:
                manifest = model.manifest(version)
            except RepositoryError as error:
                yield Objection(where, error.detail)
                continue
            changed = manifest.changed_files(model.path / where.rpartition("/")[2]) if manifest else []
            if changed:
                yield Objection(
                    where, f"expected the files that were published, found {changed} changed or gone"
                )
            if manifest is not None and (manifest.model, manifest.version) != (model.name, version):
                text = f"expected its own manifest, found that of {manifest.model} version {manifest.version}"
                yield Objection(where, text)


def stray_files(look: Look) -> Iterator[Objection]:
    """Files beside config.pbtxt: any of them makes each edit reload all versions."""
    for model in look.models:
        known = {CONFIG_NAME, *_label_files(model)}
        for entry in model.entries:
            is_known = entry.name in known or _OLD_CONFIG.fullmatch(entry.name)
            is_digits = entry.name[:1].isdigit()
            if entry.is_dir() and entry.name in TOP_FOLDERS:
                continue
            if not is_known and not is_digits:
                yield Objection(
                    f"{model.name}/{entry.name}", "expected only config.pbtxt and versions, found this"
                )


def _label_files(model: ModelLook) -> set[str]:
    if model.config is None:
        return set()
    return {getattr(output, _LABELS) for output in model.config.output if getattr(output, _LABELS)}
