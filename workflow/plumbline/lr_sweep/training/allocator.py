"""Makes the C library keep freed memory: training on a CPU frees and allocates the same tensors at every step."""

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 1024 * 1024
KEPT_BYTES = 1024 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory instead of returning it to the kernel; False without glibc.

    Memory that was returned comes back as zeroed pages, one page fault per 4 KiB: hundreds of faults per step.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))
