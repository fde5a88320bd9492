"""Why a verdict is as it is, in sentences for someone who knows no statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jettison.evaluate.figures import beyond
from jettison.experiment.counters import CounterSet
from jettison.experiment.evidence import EValue
from jettison.experiment.settings import Rules


def proven(found: Iterable[EValue]) -> tuple[str, ...]:
    """What is shown."""
    return tuple(f"{entry.claim}: {_figures(entry)}" for entry in found)


def failed(found: Iterable[EValue]) -> tuple[str, ...]:
    """Why nothing can be concluded."""
    return (*proven(found), "mend that and begin anew: what was counted so far proves nothing")


def unproven(conditions: Iterable[EValue]) -> tuple[str, ...]:
    """What a promotion still lacks of its proof."""
    return tuple(
        f"not proven yet: {entry.claim}: {_figures(entry)}" for entry in conditions if not entry.reached
    )


def instead(rules: Rules) -> tuple[str, ...]:
    """What may still be tried where the units are used up."""
    if rules.evidence == "labels":
        return ()
    return ("equal answers are more than is needed: label the disagreements, and set evidence: labels",)


def held_up(rules: Rules, counters: CounterSet, *, units: int, pending: int) -> tuple[str, ...]:
    """What else a promotion waits for."""
    return tuple(_waits(rules, counters, units, pending))


def _waits(rules: Rules, counters: CounterSet, units: int, pending: int) -> Iterator[str]:
    if units < rules.min_units:
        yield f"{units} units are judged, min_units is {rules.min_units}"
    if pending:
        yield f"{pending} units wait for a label or an answer, and count as worse until then"
    whole = counters.tally()
    if rules.latency is not None and not whole.within_limit + whole.over_limit:
        yield "the latency guard has seen no request"
    for part in rules.slices:
        tally = counters.tally(part.name)
        if not tally.judged + tally.candidate_lost:
            yield f"no unit of the slice {part.name!r} is judged"


def _figures(entry: EValue) -> str:
    """The e-value on its side of what is asked."""
    return f"e = {beyond(entry.e, entry.threshold)}, where {entry.threshold:.6g} is asked"
