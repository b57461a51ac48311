"""Engines that are wrong in one way each, for the tests of what a trial does about it."""

import os
import time

import torch

from plumbline.throughput.engines.lean import Lean


class WrongToken(Lean):
    """The second row's third token is another."""

    def generate(self, prompts, count, on_token=None):
        tokens = super().generate(prompts, count, on_token).clone()
        tokens[1, 2] = (tokens[1, 2] + 1) % 97
        return tokens


class WrongLater(Lean):
    """Right in its first five calls: cold, three to warm up, the first timed one."""

    calls = 0

    def generate(self, prompts, count, on_token=None):
        tokens = super().generate(prompts, count, on_token).clone()
        self.calls += 1
        if self.calls > 5:
            tokens[0, 0] = (tokens[0, 0] + 1) % 97
        return tokens


class EndsEarly(Lean):
    def generate(self, prompts, count, on_token=None):
        return super().generate(prompts, count, on_token)[:, :-1]


class TooMany(Lean):
    def generate(self, prompts, count, on_token=None):
        tokens = super().generate(prompts, count, on_token)
        return torch.cat([tokens, tokens[:, -1:]], dim=1)


class OutsideVocabulary(Lean):
    def generate(self, prompts, count, on_token=None):
        tokens = super().generate(prompts, count, on_token).clone()
        tokens[0, -1] = 97
        return tokens


class Sleeps(Lean):
    def generate(self, prompts, count, on_token=None):
        time.sleep(60)
        return super().generate(prompts, count, on_token)


class Crashes(Lean):
    def generate(self, prompts, count, on_token=None):
        os.abort()


class Raises(Lean):
    def generate(self, prompts, count, on_token=None):
        raise ZeroDivisionError("a bug")


class SaysNothing(Lean):
    """Reports no token."""

    def generate(self, prompts, count, on_token=None):
        return super().generate(prompts, count)


class SlowWithTokens(Lean):
    """Takes its time where it reports tokens."""

    def generate(self, prompts, count, on_token=None):
        if on_token:
            time.sleep(0.05)
        return super().generate(prompts, count, on_token)


class SlowWithTwoThreads(Lean):
    """Takes its time unless it has one thread, and as eager it is wrong."""

    def generate(self, prompts, count, on_token=None):
        tokens = super().generate(prompts, count, on_token).clone()
        if self._config.threads > 1:
            time.sleep(0.05)
        if self._config.attention == "eager":
            tokens[0, 0] = (tokens[0, 0] + 1) % 97
        return tokens


class Twice(Lean):
    """Does all its work twice."""

    def generate(self, prompts, count, on_token=None):
        super().generate(prompts, count)
        return super().generate(prompts, count, on_token)


class TwoAtATime(Lean):
    """So large that memory holds two."""

    limit, alive = 2, 0

    def __init__(self, *arguments):
        if TwoAtATime.alive >= self.limit:
            raise MemoryError("full")
        TwoAtATime.alive += 1
        super().__init__(*arguments)

    def close(self):
        TwoAtATime.alive -= 1
        super().close()


class OneAtATime(TwoAtATime):
    """So large that memory holds one."""

    limit = 1


class Huge(TwoAtATime):
    """So large that memory holds none."""

    limit = 0
