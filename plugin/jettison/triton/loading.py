"""Load a model into a live Triton, and believe only what it shows afterwards.

Over a loaded model a load is hitless; a 200 proves nothing, since it is given for a model that kept serving
its old version.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from jettison.core.errors import ExternalError
from jettison.triton.config import ModelConfig
from jettison.triton.health import ask, check_triton, config_differences, index, is_model_ready
from jettison.triton.repository import model_folders

_POLL_S = 0.1
_MOST_NAMES = 5
_UNKNOWN = "failed to poll from model repository"
"""How Triton says that its repository has no folder of that name, or one that it cannot read."""
_NOT_EXPLICIT = "explicit model load"
"""How Triton says that it was not started with --model-control-mode=explicit."""


def meet(url: str, root: Path, name: str) -> None:
    """See that a Triton answers there and reads this repository, before anything is published or listed.

    Its index names all folders of its repository, served or not.

    Raises:
        InputError: The address is none.
        ExternalError: It does not answer, is no Triton's HTTP service, or reads another repository.
    """
    check_triton(url)
    served = {entry.name for entry in index(url)}
    ours = {folder.name for folder in model_folders(root)} if root.is_dir() else set()
    if (name in ours and name not in served) or (ours and not ours & served):
        raise ExternalError(
            f"server {url}",
            detail=f"expected one over {root}, with {listed(sorted(ours))}; found one over another "
            f"repository, with {listed(sorted(served))}",
            fix="Give the --url of the server that serves this repository, or the --repository of that one",
        )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many there are beyond."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more if names else "no model"


def load(url: str, config: ModelConfig, *, version: int, deadline_s: float) -> bool:
    """Load that version and prove it; False where the server loads nothing over its API.

    Raises:
        ExternalError: The server does not answer, refuses the model, or does not serve that version with that
            configuration by the deadline.
    """
    if not _ask_to_load(url, config.name, deadline_s):
        return False
    _wait(url, config.name, lambda: _problems(url, config, version), deadline_s)
    return True


def load_exactly(url: str, model: str, versions: Sequence[int], *, deadline_s: float) -> bool:
    """Load the model and see that it serves these versions only; False where the server loads nothing.

    A version that stays is not loaded again, and keeps the configuration that it came with.

    Raises:
        ExternalError: The server does not answer, or does not serve exactly these by the deadline.
    """
    if not _ask_to_load(url, model, deadline_s):
        return False
    _wait(url, model, lambda: _other_versions(url, model, versions), deadline_s)
    return True


def _ask_to_load(url: str, model: str, deadline_s: float) -> bool:
    path = f"/v2/repository/models/{quote(model)}/load"
    status, body = ask(url, "POST", path, timeout_s=deadline_s)
    if status == 200:
        return True
    words = _words(body)
    if _NOT_EXPLICIT in words:
        return False
    if _UNKNOWN in words and model not in {entry.name for entry in index(url)}:
        raise ExternalError(
            f"loading model {model!r} at {url}",
            detail="expected it in the server's repository, found a server over another one",
            fix="Give the --url of the server that serves this repository",
        )
    raise ExternalError(
        f"loading model {model!r} at {url}",
        detail=f"the server says: {words}",
        fix="Look at the server's log; what it served before, it still serves",
    )


def unload(url: str, model: str) -> None:
    """Take a model out that has no files any more; a server that never had it is content.

    Raises:
        ExternalError: The server does not answer.
    """
    ask(url, "POST", f"/v2/repository/models/{quote(model)}/unload")


def _wait(url: str, model: str, problems_of: Callable[[], list[str]], deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while problems := problems_of():
        if time.monotonic() > end:
            raise ExternalError(
                f"loading model {model!r} at {url}",
                detail=f"not proven after {deadline_s:g} s: {'; '.join(problems)}",
                fix="Look at the server's log, and whether it serves this repository",
            )
        time.sleep(_POLL_S)


def _other_versions(url: str, model: str, versions: Sequence[int]) -> list[str]:
    entries = [entry for entry in index(url) if entry.name == model]
    found = sorted(int(entry.version) for entry in entries if entry.state == "READY")
    is_loading = any(entry.state in ("LOADING", "UNLOADING") for entry in entries)
    if found == sorted(versions) and not is_loading:
        return []
    more = " and more on the way" if is_loading else ""
    return [f"expected versions {sorted(versions)}, found {found}{more}"]


def _problems(url: str, config: ModelConfig, version: int) -> list[str]:
    entries = [entry for entry in index(url) if entry.name == config.name]
    states = {entry.version: entry.state for entry in entries}
    if states.get(str(version)) != "READY" or "LOADING" in states.values():
        return [f"version {version} is {states.get(str(version)) or 'not in its index'}"]
    if not is_model_ready(url, config.name, version=version):
        return [f"version {version} is not ready"]
    return config_differences(url, config, version=version)


def missing_models(url: str, names: Sequence[str]) -> tuple[str, ...]:
    """Which of the models the server does not serve.

    Raises:
        ExternalError: It does not answer.
    """
    missing = tuple(name for name in names if not is_model_ready(url, name))
    if missing:
        index(url)  # tells a server that is not there from one that does not serve them
    return missing


def _words(body: bytes) -> str:
    try:
        document = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")[:500]
    return str(document.get("error", document))[:500] if isinstance(document, dict) else str(document)[:500]
