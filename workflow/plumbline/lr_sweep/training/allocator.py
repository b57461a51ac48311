"""How the C library keeps freed memory: a training step on a CPU frees and takes the same tensors again and again."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
KEPT_BYTES = 1024 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of returning it to the kernel; False where there is no glibc.

    Memory that was returned comes back as pages of zeros, one fault for each 4 KiB: hundreds of faults a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))
