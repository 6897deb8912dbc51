"""The trials of draft rules that users have started: their processes, their progress, and their reports."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from console.child import run_child
from console.editor.request import DraftReport, TrialRequest
from console.exceptions import NotFound, TooManyTrials

MAX_RUNNING = 2
"""Maximum number of trials of drafts that run at the same time. Each trial uses one core."""
MAX_KEPT = 16
"""Maximum number of trials of drafts whose reports are kept."""
LONGEST_S = 600.0
"""Time after which a trial of a draft is stopped, in seconds."""


class RuleTrial:
    """One trial of draft rules. ``report`` and ``problem`` are None until the trial has ended."""

    def __init__(self, user_id: int, folder: Path) -> None:
        self.id = secrets.token_urlsafe(16)
        self.user_id, self.folder = user_id, folder
        self.read, self.total = 0, 0
        self.report: DraftReport | None = None
        self.problem: str | None = None

    @property
    def running(self) -> bool:
        """Whether the trial of draft rules still runs."""
        return self.report is None and self.problem is None

    def take(self, line: bytes) -> None:
        """Process a message of the trial's process."""
        message = json.loads(line)
        if "progress" in message:
            self.read, self.total = message["progress"]
        elif "report" in message:
            self.report = DraftReport.model_validate(message["report"])
        else:
            self.problem = str(message["problem"])


class RuleTrials:
    """All trials of a console. ``env`` has the environment variables from which a trial's process reads the settings
    of Kafka."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._trials: OrderedDict[str, RuleTrial] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, user_id: int, request_in: Callable[[Path], TrialRequest]) -> RuleTrial:
        """Start a trial. ``request_in`` is called with the folder for the trial's pictures, and returns the trial's
        request.

        Raise TooManyTrials.
        """
        if sum(trial.running for trial in self._trials.values()) >= MAX_RUNNING:
            raise TooManyTrials(MAX_RUNNING)
        trial = RuleTrial(user_id, Path(tempfile.mkdtemp(prefix="sightline-trial-")))
        request = request_in(trial.folder)
        self._trials[trial.id] = trial
        while len(self._trials) > MAX_KEPT:
            oldest = next(one for one in self._trials.values() if not one.running)
            self._forget(oldest)
        task = asyncio.create_task(self._run(trial, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return trial

    def trial(self, id_: str, user_id: int) -> RuleTrial:
        """Return a trial of a user. Raise NotFound."""
        found = self._trials.get(id_)
        if found is None or found.user_id != user_id:
            raise NotFound("this trial does not exist any more: start it again")
        return found

    async def settled(self) -> None:
        """Wait until all trials have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop all trials of drafts and delete their pictures."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for trial in list(self._trials.values()):
            self._forget(trial)

    def _forget(self, trial: RuleTrial) -> None:
        del self._trials[trial.id]
        shutil.rmtree(trial.folder, ignore_errors=True)

    async def _run(self, trial: RuleTrial, request: TrialRequest) -> None:
        request_json = request.model_dump_json()
        problem = await run_child("console.editor.trial", request_json, self._env, trial.take, LONGEST_S)
        if trial.running:
            trial.problem = f"the trial {problem}"
