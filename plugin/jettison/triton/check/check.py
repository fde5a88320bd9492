"""Runs the table of checks over a repository."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from jettison.core.errors import InputError, RepositoryError
from jettison.core.files import read_bounded
from jettison.core.signing import Verifier
from jettison.core.strict_yaml import load_yaml
from jettison.core.validation import nearest_key, problem_of
from jettison.triton.check.finding import Finding
from jettison.triton.check.look import Fleet, Look
from jettison.triton.check.table import CHECKS
from jettison.triton.repository import check_root

MOST_FLEET_BYTES = 1 << 20


def check(root: Path, *, fleet: Fleet | None = None, images: Sequence[str] = ()) -> tuple[Finding, ...]:
    """Everything in the repository that would make Triton refuse, hang or lie, in the table's order.

    Args:
        root: The repository; nothing in it is changed.
        fleet: The machines that serve it.
        images: Tags of Triton images that serve it.

    Raises:
        RepositoryError: There is no such folder.
        MissingError: tritonclient is not installed.
    """
    return findings_of(look_at(root, fleet=fleet, images=images))


def findings_of(look: Look) -> tuple[Finding, ...]:
    """What all checks object to, in the table's order."""
    return tuple(finding for rule in CHECKS for finding in rule.findings(look))


def look_at(
    root: Path, *, fleet: Fleet | None = None, images: Sequence[str] = (), verifier: Verifier | None = None
) -> Look:
    """The repository as it stands on disk.

    Raises:
        RepositoryError: There is no such folder.
    """
    folder = check_root(root)
    if not folder.is_dir():
        raise RepositoryError(
            f"repository {root}", detail="there is no such folder", fix="Give the folder of a repository"
        )
    return Look(folder, fleet or Fleet(), tuple(images), verifier)


def read_fleet(path: Path) -> Fleet:
    """The machines in a YAML file: `targets`, each with `name`, `compute`, `memory_mib` and `image`.

    Raises:
        InputError: There is no such file, or it describes no fleet.
    """
    what, fix = f"fleet {path}", 'Write it like targets: [{name: orin, compute: "8.7", memory_mib: 8192}]'
    content = read_bounded(path, what, most=MOST_FLEET_BYTES, missing=fix, fix=fix)
    try:
        return Fleet.model_validate(load_yaml(content, what=what, fix=fix) or {})
    except ValidationError as error:
        problem = problem_of(error, unknown_key_fix=partial(nearest_key, Fleet))
        raise InputError(
            what, detail=problem.detail, fix=f"{problem.fix}{'' if problem.fix[-1:] == '?' else '.'} {fix}"
        ) from error
