"""What Flagger's webhooks are told: yes, or 409, which holds and is not tried again.

Source: https://docs.flagger.app/usage/webhooks: a status of at most 202 is yes, 5xx is asked again; the
webhook `rollback` is inverted, since yes triggers it.
"""

from __future__ import annotations

from jettison.experiment.verdict import Decision

YES: dict[str, frozenset[Decision]] = {
    "pre-rollout": frozenset({"continue", "promote"}),
    "gate": frozenset({"continue", "promote"}),
    "promote": frozenset({"promote"}),
    "rollback": frozenset({"rollback"}),
}
"""The last part of the path, and the decisions on which it says yes.

Traffic may grow while nothing speaks against the candidate. It is only promoted where that is proven, and
only taken out where harm is: an experiment that is exhausted or invalid holds.
"""


def says_yes(hook: str, decision: Decision) -> bool:
    """Whether the webhook agrees."""
    return decision in YES[hook]
