"""Faults that a test asks ranks for by a signal: they raise, leave, hang, lose their disk or their loss,
or are told to stop while they validate."""

import errno
import os
import signal
import time


def _raise(number, frame):
    raise ZeroDivisionError("injected")


def _leave(number, frame):
    os._exit(0)


def _hang(number, frame):
    time.sleep(10_000)


def _fill_disk(number, frame):
    from plumbline.core import files

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    files.Path.write_bytes = full


def _spoil_loss(number, frame):
    from plumbline.data_parallel.training.model import SummedLoss

    whole = SummedLoss.forward
    SummedLoss.forward = lambda self, *batch: whole(self, *batch) * float("nan")


def _terminate_in_validation(number, frame):
    from plumbline.data_parallel.training.loop import Trainer

    whole = Trainer.validation_loss

    def terminated(self):
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(self)

    Trainer.validation_loss = terminated


FAULTS = {
    signal.SIGUSR1: _raise,
    signal.SIGUSR2: _leave,
    signal.SIGRTMIN: _hang,
    signal.SIGRTMIN + 1: _fill_disk,
    signal.SIGRTMIN + 2: _spoil_loss,
    signal.SIGRTMIN + 3: _terminate_in_validation,
}
if "RANK" in os.environ:
    for number, fault in FAULTS.items():
        signal.signal(number, fault)
