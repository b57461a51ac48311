"""The device a stage computes on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from plumbline.core.errors import UserError

OUT_OF_MEMORY = (
    "can't allocate memory",  # torch's CPU allocator, which has no error class of its own
    "std::bad_alloc",
    "Cannot allocate memory",  # the system's: mapping a file, starting a process
    "could not create a memory object",  # oneDNN
)


def torch_device(name: str) -> torch.device:
    """`cpu`, `cuda`, or for `auto` a GPU where there is one. Raises UserError for `cuda` without a GPU.

    Torch uses OMP_NUM_THREADS threads, one if it is not set: the thread count changes the bits of sums, so a stage run
    by hand must not use however many the machine has.
    """
    torch.set_num_threads(omp_threads() or 1)
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device: {name!r} does not exist; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, but torch finds no GPU; set device: auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """The device as records name it: `cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns torch's own out-of-memory errors, GPU or CPU, into MemoryError."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if (named := memory_error(error)) is not None:
            raise named from error
        raise


def memory_error(error: Exception) -> MemoryError | None:
    """A MemoryError itself, or for one of torch's own out-of-memory errors, GPU or CPU; None for any other error."""
    if isinstance(error, MemoryError):
        return error
    is_one = isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(phrase in str(error) for phrase in OUT_OF_MEMORY)
    )
    return MemoryError(_first_line(error)) if is_one else None


def omp_threads() -> int | None:
    """The number in OMP_NUM_THREADS, the first of a list, which has one per nesting level; None where it is not set."""
    value = os.environ.get("OMP_NUM_THREADS")
    if value is None:
        return None
    first = value.partition(",")[0].strip()
    if not (first.isdecimal() and int(first) > 0):
        raise UserError(f"OMP_NUM_THREADS: {value!r} is not a number of threads; set it to 1 or more, or unset it")
    return int(first)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
