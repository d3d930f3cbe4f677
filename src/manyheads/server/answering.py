"""The texts of a request to predictions: checked, queued, and awaited or cancelled."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fastapi import Request

from manyheads.errors import RequestError
from manyheads.inference import Text, TextPair
from manyheads.server.monitoring import Monitoring
from manyheads.server.problems import Problem, problem_of
from manyheads.server.protection import log_bug
from manyheads.server.registry import Registry, ServedModel
from manyheads.server.scheduling import QueueFull, Scheduler, TextTimeout, Wanted
from manyheads.server.settings import ServerSettings
from manyheads.tasks import Prediction

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_DISCONNECT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Service:
    """The models and settings, and what all routes that predict have in common."""

    registry: Registry
    settings: ServerSettings
    monitoring: Monitoring

    def model(self, name: str | None) -> ServedModel:
        """Return a model by name, by default the first.

        Raises:
            Problem: there is no model of that name.
        """
        try:
            return self.registry.get(name)
        except RequestError as error:
            raise Problem(404, str(error), param="model", code="model_not_found") from None

    def check_room(self) -> None:
        """Do nothing if a model can queue a request. Under overload, most requests are refused,
        and reading each first would take much of the processor.

        Raises:
            Problem: the queues of all models are full.
        """
        for model in self.registry.all():
            try:
                model.scheduler.check_room()
            except QueueFull as error:
                full = error
            else:
                return
        raise problem_of(full)

    async def answer(
        self,
        request: Request,
        model: ServedModel,
        texts: Sequence[Text],
        param: str,
        wanted: Wanted,
    ) -> list[Prediction | Problem]:
        """Predict for the texts of a request.

        Args:
            request: the request. If its client disconnects, its texts leave the queue.
            model: the model to predict with.
            texts: the texts.
            param: the request's field that holds them, for messages.
            wanted: what to compute.

        Returns:
            for each text its prediction or its error.

        Raises:
            Problem: there are too many texts, the queue is full, or the time is over.
        """
        if len(texts) > self.settings.max_texts:
            raise Problem(
                422, f"`{param}` has {len(texts):,} texts; at most {self.settings.max_texts:,} are "
                "allowed in a request", param=param, code="too_many_texts",
            )  # fmt: skip
        request.scope["state"]["texts"] = len(texts)
        request.scope["state"]["model"] = model.name
        found: list[Prediction | Problem | None] = [
            self._problem_with(text, param if len(texts) == 1 else f"{param}[{i}]")
            for i, text in enumerate(texts)
        ]
        good = [i for i, problem in enumerate(found) if problem is None]
        outcomes = await _computed(request, model.scheduler, [texts[i] for i in good], wanted)
        for i, outcome in zip(good, outcomes, strict=True):
            if isinstance(outcome, Prediction):
                found[i] = outcome
                continue
            if isinstance(outcome, TextTimeout):
                raise problem_of(outcome)
            found[i] = problem = problem_of(outcome, param if len(texts) == 1 else f"{param}[{i}]")
            if problem.status == 500:
                log_bug(request.scope["state"]["id"], outcome)
        self.monitoring.texts(model.name, len(good))
        return [one for one in found if one is not None]

    def _problem_with(self, text: Text, param: str) -> Problem | None:
        if isinstance(text, TextPair):
            parts = (
                self._problem_with(part, f"{param}.{field}")
                for field, part in text._asdict().items()
            )
            return next((problem for problem in parts if problem), None)
        whole = text if isinstance(text, str) else " ".join(text)
        if len(whole) > self.settings.max_characters:
            return Problem(
                422, f"`{param}` has {len(whole):,} characters; at most "
                f"{self.settings.max_characters:,} are allowed", param=param, code="text_too_long",
            )  # fmt: skip
        if not whole.strip():
            return Problem(422, f"`{param}` is empty", param=param, code="text_empty")
        if bad := _UNREADABLE.search(whole):
            name = "a NUL character" if bad.group() == "\x00" else "half of a surrogate pair"
            return Problem(
                422, f"`{param}` has {name} at character {bad.start()}", param=param,
                code="text_unreadable",
            )  # fmt: skip
        return None


async def _computed(
    request: Request, scheduler: Scheduler, texts: list[Text], wanted: Wanted
) -> list[Prediction | BaseException]:
    """Queue texts, and wait for their outcomes.

    Raises:
        Problem: the queue is full, the time is over, or the client has disconnected.
    """
    if not texts:
        return []
    loop = asyncio.get_running_loop()
    deadline: float = request.scope["state"]["deadline"]
    woken = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    def done() -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(wake)

    try:
        answers = scheduler.submit(texts, wanted, deadline=deadline, done=done)
    except QueueFull as error:
        raise problem_of(error) from None
    try:
        while True:
            outcomes = [answer.outcome for answer in answers]
            if None not in outcomes:
                return [outcome for outcome in outcomes if outcome is not None]
            left = deadline - time.monotonic()
            if left <= 0:
                raise problem_of(TextTimeout())
            timer = loop.call_later(min(left, _DISCONNECT_SECONDS), wake)
            try:
                await woken
            finally:
                timer.cancel()
            woken = loop.create_future()
            if answers[-1].outcome is None and await request.is_disconnected():
                raise Problem(499, "the client has disconnected", code="client_closed_request")
    except BaseException:
        for answer in answers:
            answer.cancelled = True
        raise


def only(answers: Sequence[Prediction | Problem]) -> list[Prediction]:
    """Return the predictions of a request that fails as a whole.

    Raises:
        Problem: the error of the first faulty text.
    """
    predictions = []
    for answer in answers:
        if isinstance(answer, Problem):
            raise answer
        predictions.append(answer)
    return predictions
