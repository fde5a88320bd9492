"""The candidate asked after the answer: fire, remember, compare, forget.

Nobody waits for it. What it may hold is bounded in number, in bytes and in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jettison.triton.backends.jettison_router.router_breaker import Breaker
    from jettison.triton.backends.jettison_router.router_calls import (
        Answer,
        Asked,
        Target,
        Types,
        arrays_of,
        failures,
        size_bytes,
    )
    from jettison.triton.backends.jettison_router.router_compare import Compared, MismatchError, compare
    from jettison.triton.backends.jettison_router.router_settings import Settings
else:
    from router_breaker import Breaker
    from router_calls import Answer, Asked, Target, Types, arrays_of, failures, size_bytes
    from router_compare import Compared, MismatchError, compare
    from router_settings import Settings


BACKGROUND = "jettison_background"
"""The parameter that tells our `onnxruntime` backend that nobody waits for the answer: it stands back."""
PATIENCE = 10
"""Chosen: in the background the candidate may take so many times its deadline, since on a busy machine it
gets few turns; a lost answer would speak against it."""


class Shadowed(NamedTuple):
    """What the candidate's answer came to.

    `compared` is None where nothing was compared: it was not to be, or an answer is missing or of a wrong
    form. `is_asked` is False where the breaker is open.
    """

    answer: Answer
    compared: Compared | None
    is_asked: bool = True


class Shadows:
    """The shadows that are under way in one instance.

    Args:
        settings: The router's.
        candidate: Whom to ask.
        breaker: Whether it may be asked.
        types: The element types of inputs and outputs.
    """

    def __init__(self, settings: Settings, candidate: Target, breaker: Breaker, types: Types) -> None:
        self._types = types
        self._settings, self._candidate, self._breaker = settings, candidate, breaker
        # One thread: nobody waits for a comparison, and each more would take memory and turns from answers.
        self._comparer = ThreadPoolExecutor(1, thread_name_prefix="compare")
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references
        self.held_bytes = 0

    def close(self) -> None:
        """Let the comparing thread end."""
        self._comparer.shutdown(wait=False, cancel_futures=True)

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, asked: Asked, baseline: Answer, *, compares: bool, done: Callable[[Shadowed], None]
    ) -> bool:
        """Whether it was started, and `done` will be called; False where too much is under way."""
        size = size_bytes(asked.inputs, self._types)
        if compares and baseline.is_good:
            size += size_bytes(baseline.response.output_tensors(), self._types)
        most = self._settings.candidate_in_flight
        is_busy = max(len(self._tasks), self._candidate.in_flight) >= most
        if is_busy or self.held_bytes + size > self._settings.shadow_bytes:
            return False
        if not self._breaker.may_ask():
            done(Shadowed(Answer(None, "the breaker is open", 0.0), None, is_asked=False))
            return True
        self.held_bytes += size
        task = asyncio.get_running_loop().create_task(
            self._run(asked, baseline, compares=compares, size=size, done=done)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _run(
        self, asked: Asked, baseline: Answer, *, compares: bool, size: int, done: Callable[[Shadowed], None]
    ) -> None:
        try:
            await asyncio.sleep(0)  # the answer goes first
            deadline_s = self._settings.deadline_ms / 1000
            if self._settings.are_shadows_in_background:
                asked = asked._replace(parameters={**asked.parameters, BACKGROUND: True})
                deadline_s *= PATIENCE
            answer = await self._candidate.ask(asked, traced=False, deadline_s=deadline_s)
            found = Shadowed(answer, None)
            if compares and baseline.is_good and answer.is_good:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(self._comparer, self._compared, baseline, answer)
            self._tell(baseline, found.answer)
            done(found)
        finally:
            self.held_bytes -= size

    def _tell(self, baseline: Answer, answer: Answer) -> None:
        if answer.is_good or baseline.is_good:
            self._breaker.tell(is_good=answer.is_good)
        else:
            self._breaker.withdraw()

    def _compared(self, baseline: Answer, answer: Answer) -> Shadowed:
        try:
            first, second = (arrays_of(side.response, self._types) for side in (baseline, answer))
            return Shadowed(answer, compare(first, second, self._settings))
        except MismatchError as error:
            return Shadowed(answer._replace(error=str(error)), None)
        except failures() as error:
            return Shadowed(answer._replace(error=f"cannot be compared: {error}"), None)
