"""The road of one request: which model answers it, what is done when that fails, and what is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router import router_units as lines
    from jettison.triton.backends.jettison_router.router_breaker import Breaker
    from jettison.triton.backends.jettison_router.router_calls import (
        Answer,
        Asked,
        Target,
        asked_of,
        failures,
        types_of,
    )
    from jettison.triton.backends.jettison_router.router_form import Form
    from jettison.triton.backends.jettison_router.router_keys import (
        Key,
        Sequences,
        bucket_of,
        is_sampled,
        key_of,
        unit_id,
    )
    from jettison.triton.backends.jettison_router.router_ledger import Ledger
    from jettison.triton.backends.jettison_router.router_metrics import Metrics
    from jettison.triton.backends.jettison_router.router_records import Records
    from jettison.triton.backends.jettison_router.router_settings import NAME, Settings
    from jettison.triton.backends.jettison_router.router_shadow import Shadowed, Shadows
    from jettison.triton.backends.jettison_router.router_state import State
    from jettison.triton.backends.jettison_router.router_units import Event
else:
    import router_units as lines
    from router_breaker import Breaker
    from router_calls import Answer, Asked, Target, asked_of, failures, types_of
    from router_form import Form
    from router_keys import Key, Sequences, bucket_of, is_sampled, key_of, unit_id
    from router_ledger import Ledger
    from router_metrics import Metrics
    from router_records import Records
    from router_settings import NAME, Settings
    from router_shadow import Shadowed, Shadows
    from router_state import State
    from router_units import Event

SLICE = "slice"
"""The request parameter that names a part of the units."""
_MOST_THREADS = 16
"""Chosen: more requests of one batch wait; the server itself has 32 threads for an instance's calls."""


class Placed(NamedTuple):
    """A request, its unit, and what the counters call both."""

    asked: Asked
    key: Key
    unit: str
    slice: str
    state: State


class Road:
    """All requests of one instance.

    Args:
        settings: The router's.
        ledger: Where what became of a request is counted.
        metrics: Where it is shown.
        say: Where a sentence about what went wrong goes.
        config: The model's configuration.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        metrics: Metrics,
        say: Callable[[str], None],
        *,
        config: dict[str, Any],
    ) -> None:
        self._settings, self._ledger, self._metrics = settings, ledger, metrics
        # Alone, an instance sees all of a sequence.
        self._is_alone = sum(int(group.get("count", 1)) for group in config.get("instance_group", [])) <= 1
        threads = min(max(int(config.get("max_batch_size", 0)), 1), _MOST_THREADS)
        self._baseline = Target(settings.baseline, threads, version=settings.baseline_version)
        # A whole batch may be split to it, beside those that hang there.
        self._candidate = Target(
            settings.candidate, threads + settings.candidate_in_flight, version=settings.candidate_version
        )
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_pause_s)
        self._shadows = Shadows(settings, self._candidate, self._breaker, types_of(config))
        self._form = Form(config)
        self._sequences = Sequences()
        self._records = Records(
            settings.counter_folder, settings.node, most_bytes=settings.disagreement_bytes, say=say
        )
        self._openings_told = 0

    async def answer(self, request: Any, state: State, *, is_alone: bool) -> Any:
        """The response to a request, an error included; `is_alone` where no other of its batch waits."""
        try:
            asked = asked_of(request)
            if state.mode == "off":
                return _response(await self._ask_baseline(asked, is_alone=is_alone))
            placed = self._placed(asked, state)
            if state.mode == "split":
                return _response(await self._split(placed, is_alone=is_alone))
            answer = await self._ask_baseline(asked, is_alone=is_alone)
            self._shadow(placed, answer)
            return _response(answer)
        except failures() as error:
            return _failed(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Let go of both models."""
        self._shadows.close()
        self._baseline.close()
        self._candidate.close()

    def take_openings(self) -> int:
        """How often the breaker opened since the last call."""
        found = self._breaker.openings - self._openings_told
        self._openings_told += found
        return found

    def _placed(self, asked: Asked, state: State) -> Placed:
        key = key_of(
            asked.parameters,
            header=self._settings.unit_header,
            correlation_id=asked.correlation_id,
            request_id=asked.request_id,
        )
        self._metrics.add(f"unit_{key.source}")
        part = str(asked.parameters.get(SLICE, ""))
        return Placed(asked, key, unit_id(key), part if NAME.fullmatch(part) else "", state)

    def _is_sequence(self, asked: Asked) -> bool:
        return bool(asked.correlation_id) and self._settings.correlation_ids == "sequence"

    async def _ask_baseline(self, asked: Asked, *, is_alone: bool) -> Answer:
        return self._baseline.ask_here(asked) if is_alone else await self._baseline.ask(asked)

    async def _split(self, placed: Placed, *, is_alone: bool) -> Answer:
        state, asked = placed.state, placed.asked
        is_candidates = bucket_of(placed.key.text, state.salt) < state.weight
        is_free = True
        if self._is_sequence(asked):
            # Where other instances see a part of it, nobody can know where it began: it stays.
            is_free = self._is_alone
            is_candidates = is_free and self._sequences.is_candidates(
                asked.correlation_id, asked.flags, hashed=is_candidates
            )
        event = Event(
            placed.unit, lines.ANSWERED, state.weight if is_free else 0, is_candidates, placed.slice
        )
        if is_candidates:
            return await self._split_candidate(placed, event, is_alone=is_alone)
        answer = await self._ask_baseline(asked, is_alone=is_alone)
        self._metrics.add("requests_baseline")
        self._count_answered(placed, event._replace(baseline_errors=int(not answer.is_good)))
        return answer

    async def _split_candidate(self, placed: Placed, event: Event, *, is_alone: bool) -> Answer:
        answer, is_asked = await self._tried(placed.asked, is_alone=is_alone)
        if answer.is_good and (problem := self._form.problem(placed.asked, answer.response)):
            answer = Answer(None, f"{self._candidate.model}: {problem}", answer.seconds)
        within, over = self._timed(answer)
        event = event._replace(candidate_errors=int(not answer.is_good), within_limit=within, over_limit=over)
        self._count_answered(placed, event)
        if answer.is_good:
            self._breaker.tell(is_good=True)
            self._metrics.add("requests_candidate")
            return answer
        self._metrics.add("errors_candidate")
        self._metrics.add("fallbacks")
        instead = await self._ask_baseline(placed.asked, is_alone=is_alone)
        if is_asked and instead.is_good:
            self._breaker.tell(is_good=False)
        elif is_asked:
            self._breaker.withdraw()
        return instead

    async def _tried(self, asked: Asked, *, is_alone: bool) -> tuple[Answer, bool]:
        """The candidate's answer, and whether it was asked: one that hangs or fails is left alone."""
        if self._candidate.is_full:
            return Answer(None, "too many requests are with the candidate", 0.0), False
        if not self._breaker.may_ask():
            return Answer(None, "the breaker is open", 0.0), False
        deadline_s = self._settings.deadline_ms / 1000
        if is_alone:
            return self._candidate.ask_within(asked, deadline_s), True
        return await self._candidate.ask(asked, deadline_s=deadline_s), True

    def _count_answered(self, placed: Placed, event: Event) -> None:
        if event.baseline_errors:
            self._metrics.add("errors_baseline")
        if event.weight:
            self._ledger.add(placed.state.experiment, event)

    def _shadow(self, placed: Placed, answer: Answer) -> None:
        self._metrics.add("requests_baseline")
        if not answer.is_good:
            self._metrics.add("errors_baseline")
        if self._is_sequence(placed.asked):
            return  # a copy that comes after the answer would be out of order
        compares = is_sampled(placed.key.text, placed.state.salt, self._settings.sample_share)
        is_started = self._shadows.start(
            placed.asked,
            answer,
            compares=compares,
            done=lambda found: self._count_shadow(placed, answer, found, compares=compares),
        )
        if not is_started:
            self._metrics.add("dropped_shadows")

    def _count_shadow(self, placed: Placed, answer: Answer, found: Shadowed, *, compares: bool) -> None:
        within, over = self._timed(found.answer)
        event = Event(
            placed.unit,
            _outcome(answer, found, compares=compares),
            slice=placed.slice,
            baseline_errors=int(not answer.is_good),
            candidate_errors=int(not found.answer.is_good),
            within_limit=within,
            over_limit=over,
        )
        self._ledger.add(placed.state.experiment, event)
        self._metrics.add("shadows", int(found.is_asked))
        if not found.answer.is_good:
            self._metrics.add("errors_candidate")
        if found.compared is not None:
            self._metrics.add("agreements" if found.compared.is_same else "disagreements")
            if not found.compared.is_same:
                self._records.add(placed.state.experiment, _record(placed, found))

    def _timed(self, answer: Answer) -> tuple[int, int]:
        """Whether an answer of the candidate came in time, and whether it was late."""
        limit_ms = self._settings.latency_limit_ms
        if not limit_ms or not answer.is_good:
            return 0, 0
        is_late = answer.seconds * 1000 > limit_ms
        if is_late:
            self._metrics.add("over_limit")
        return int(not is_late), int(is_late)


def _outcome(answer: Answer, found: Shadowed, *, compares: bool) -> int:
    if not compares:
        return lines.ANSWERED
    if not answer.is_good:
        return lines.BASELINE_LOST
    if found.compared is None:
        return lines.CANDIDATE_LOST
    return lines.AGREE if found.compared.is_same else lines.DISAGREE


def _record(placed: Placed, found: Shadowed) -> dict[str, object]:
    compared = found.compared
    return {
        "request": placed.asked.request_id,
        "unit": placed.key.text,
        "unit_from": placed.key.source,
        "unit_id": placed.unit,
        "slice": placed.slice,
        "baseline": None if compared is None else compared.baseline,
        "candidate": None if compared is None else compared.candidate,
    }


def _response(answer: Answer) -> Any:
    return answer.response if answer.response is not None else _failed(answer.error)


def _failed(text: str) -> Any:
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(text))
