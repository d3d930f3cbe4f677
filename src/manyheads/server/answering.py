"""From the texts of a request to predictions: checks, queueing, waiting and cancelling."""

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
from manyheads.server.keys import Keys
from manyheads.server.monitoring import FAILED, REFUSED, REPLACED, Monitoring
from manyheads.server.problems import Problem, problem_of
from manyheads.server.protection import log_bug
from manyheads.server.registry import Registry, ReloadRunning, ServedModel
from manyheads.server.scheduling import QueueFull, Scheduler, TextTimeout, Wanted
from manyheads.server.settings import ServerSettings
from manyheads.tasks import Prediction

_UNREADABLE = re.compile("[\x00\ud800-\udfff]")
_DISCONNECT_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Service:
    """The models and settings, and what all routes that predict share."""

    registry: Registry
    settings: ServerSettings
    monitoring: Monitoring
    keys: Keys

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
        """Do nothing if a model can queue a request.

        Raises:
            Problem: the queues of all models are full.
        """
        models = self.registry.all()
        for model in models:
            try:
                model.scheduler.check_room()
            except QueueFull as error:
                full = error
            else:
                return
        for model in models:
            model.scheduler.count_request(refused=True)
        raise problem_of(full)

    def reload(
        self, name: str, *, allow_new_embedding: bool = False, wait: bool = True
    ) -> ServedModel:
        """Reload a model as `Registry.reload` does, and count the result."""
        try:
            new = self.registry.reload(name, allow_new_embedding=allow_new_embedding, wait=wait)
        except ReloadRunning:
            raise  # which is counted itself
        except Exception as error:
            refused = isinstance(error, RequestError)
            self.monitoring.reload(name, REFUSED if refused else FAILED)
            raise
        self.monitoring.reload(name, REPLACED)
        return new

    def prompt(
        self, model: ServedModel, name: str | None, prompt: str | None, *, embed: bool = True
    ) -> str | None:
        """Return the prompt that a request chose; None for the encoder's default prompt.

        Args:
            model: the model to embed with.
            name: that of one of the encoder's prompts.
            prompt: the prompt itself.
            embed: whether the request needs embeddings; nothing else reads a prompt.

        Raises:
            Problem: the request has no use for a prompt, or it is none that the model can read.
        """
        if name is None and prompt is None:
            return None
        param = "prompt" if name is None else "prompt_name"
        if not embed:
            raise Problem(
                422, f"`{param}` is given, but only embeddings read a prompt; add `embed`, or "
                "leave it out", param=param, code="unused_prompt",
            )  # fmt: skip
        if problem := _unreadable(prompt or "", "prompt"):
            raise problem
        try:
            return model.predictor.prompt_of(name, prompt)
        except RequestError as error:
            if name is not None and prompt is not None:
                code = "two_prompts"
            elif prompt is None and name not in model.predictor.reading.prompts:
                code = "unknown_prompt"
            else:
                code = "invalid_prompt"
            raise Problem(422, str(error), param=param, code=code) from None

    async def answer(
        self,
        request: Request,
        model: ServedModel,
        texts: Sequence[Text],
        param: str,
        wanted: Wanted,
        *,
        is_list: bool,
    ) -> list[Prediction | Problem]:
        """Predict for the texts of a request.

        Args:
            request: the request. If its client disconnects, its texts leave the queue.
            model: the model to predict with.
            texts: the texts.
            param: the request's field that holds them, for messages.
            wanted: what to compute.
            is_list: whether that field is a list.

        Returns:
            for each text its prediction or its error.

        Raises:
            Problem: there are too many texts, the queue is full, or the time is up.
        """
        if len(texts) > self.settings.max_texts:
            raise Problem(
                422, f"`{param}` has {len(texts):,} texts; at most {self.settings.max_texts:,} are "
                "allowed in a request", param=param, code="too_many_texts",
            )  # fmt: skip
        request.scope["state"].update(texts=len(texts), model=model.name)
        places = [_place(param, i, is_list) for i in range(len(texts))]
        found: list[Prediction | Problem | None] = [
            self._problem_with(text, place) for text, place in zip(texts, places, strict=True)
        ]
        good = [i for i, problem in enumerate(found) if problem is None]
        outcomes = await _computed(request, model.scheduler, [texts[i] for i in good], wanted)
        for i, outcome in zip(good, outcomes, strict=True):
            found[i] = _answer_of(outcome, places[i], request.scope["state"]["id"])
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
        return _unreadable(whole, param)


def _unreadable(text: str, param: str) -> Problem | None:
    """Return the problem with a text that has a character which is none."""
    if bad := _UNREADABLE.search(text):
        name = "a NUL character" if bad.group() == "\x00" else "half of a surrogate pair"
        return Problem(
            422, f"`{param}` has {name} at character {bad.start()}", param=param,
            code="text_unreadable",
        )  # fmt: skip
    return None


def _answer_of(
    outcome: Prediction | BaseException, param: str, request_id: str
) -> Prediction | Problem:
    """Return a text's prediction, or the error that is its answer.

    Raises:
        Problem: the time of the whole request is up.
    """
    if isinstance(outcome, Prediction):
        return outcome
    problem = problem_of(outcome, param)
    if isinstance(outcome, TextTimeout):
        raise problem
    if problem.status == 500:
        log_bug(request_id, outcome)
    return problem


class _Alarm:
    """Wakes a task up, from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    def ring(self) -> None:
        """Wake the task up."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._woken.set)

    async def wait(self, seconds: float) -> None:
        """Wait until it rings, but not longer than some time."""
        # `asyncio.wait_for` would cost a task for each wait.
        timer = self._loop.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()
        self._woken.clear()


async def _computed(
    request: Request, scheduler: Scheduler, texts: list[Text], wanted: Wanted
) -> list[Prediction | BaseException]:
    """Queue texts, and wait for their outcomes.

    Raises:
        Problem: the queue is full, the time is up, or the client has disconnected.
    """
    if not texts:
        return []
    deadline: float = request.scope["state"]["deadline"]
    alarm = _Alarm()
    try:
        answers = scheduler.submit(texts, wanted, deadline=deadline, done=alarm.ring)
    except QueueFull as error:
        raise problem_of(error) from None
    try:
        while True:
            outcomes = [answer.outcome for answer in answers if answer.outcome is not None]
            if len(outcomes) == len(answers):
                return outcomes
            left = deadline - time.monotonic()
            if left <= 0:
                raise problem_of(TextTimeout())
            await alarm.wait(min(left, _DISCONNECT_SECONDS))
            if answers[-1].outcome is None and await request.is_disconnected():
                raise Problem(499, "the client has disconnected", code="client_closed_request")
    except BaseException:
        scheduler.cancel(answers)
        raise


def only(answers: Sequence[Prediction | Problem]) -> list[Prediction]:
    """Return the predictions of a request in which every text has to be valid.

    Raises:
        Problem: the error of the first faulty text.
    """
    predictions = []
    for answer in answers:
        if isinstance(answer, Problem):
            raise answer
        predictions.append(answer)
    return predictions


def only_with_words(
    answers: Sequence[Prediction | Problem], param: str, *, is_list: bool
) -> list[Prediction]:
    """Return the predictions of a request in which every text has to be valid and have words.

    Raises:
        Problem: the error of the first faulty text, or the first without words.
    """
    predictions = only(answers)
    for i, prediction in enumerate(predictions):
        if prediction.empty:
            place = _place(param, i, is_list)
            raise Problem(422, f"`{place}` has no words", param=place, code="text_empty")
    return predictions


def _place(param: str, i: int, is_list: bool) -> str:
    """Return the place of a text in its request, for messages."""
    return f"{param}[{i}]" if is_list else param
