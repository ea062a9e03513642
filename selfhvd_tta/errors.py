"""One exception class per exit code; each carries one line of what happened and one of what to do."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of the command line tool."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_DEVICE = 3
    WEIGHTS = 4
    PRECONDITION = 5
    DISK = 6
    BATCH_PARTLY_FAILED = 7
    INTERRUPTED = 130


# How libraries below say in the text of a RuntimeError that an allocation failed; torch has a class only for its own
# allocator on a GPU. A handle that cannot be created is what full memory looks like to cuBLAS, cuDNN and cuSOLVER.
OUT_OF_MEMORY = (
    "out of memory",  # CUDA, HIP, MPS
    "defaultcpuallocator",
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "insufficient memory",  # OpenCV
    "failed to allocate",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, and cuDNN's, cuSOLVER's, cuSPARSE's, cuFFT's, hipBLAS's
    "allocation_failed",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "cudaerrormemoryallocation",
    "hiperroroutofmemory",
    "rocblas_status_memory_error",
    "cublas_status_not_initialized",
    "cudnn_status_not_initialized",
    "cusolverdncreate",
    "unable to find an engine to execute this computation",  # cuDNN: none whose workspace fits
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    text = str(error).lower()
    return not isinstance(error, (SelfHVDError, OSError)) and any(token in text for token in OUT_OF_MEMORY)


class SelfHVDError(Exception):
    """Base of every error that the user is meant to read.

    Args:
        message: one line, what happened, with the file or flag it is about.
        hint: one line, what to do about it; may be empty.
    """

    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(SelfHVDError):
    """The input cannot be read or decoded, or holds no video."""


class UsageError(SelfHVDError):
    """A setting is out of range, two contradict each other, or a name is unknown."""

    exit_code = ExitCode.USAGE


class DeviceError(SelfHVDError):
    """No usable device, or not enough memory on it."""

    exit_code = ExitCode.NO_DEVICE


class WeightsError(SelfHVDError):
    """Weights are not available, not complete, or not what their hash says."""

    exit_code = ExitCode.WEIGHTS


class UnreachableError(WeightsError):
    """The Hub cannot be reached.

    Args:
        source: what was asked for.
        reason: of the failure, one line.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(
            f"{source} cannot be reached: {reason}",
            "Check the connection (proxy: HTTPS_PROXY, mirror: HF_ENDPOINT), or use a bundled network.",
        )
        self.reason = reason


class PreconditionError(SelfHVDError):
    """The method cannot help with this video and ``--strict`` was asked for."""

    exit_code = ExitCode.PRECONDITION


class DiskError(SelfHVDError):
    """The output cannot be written: no space, no permission, no such folder."""

    exit_code = ExitCode.DISK


class VerificationError(DiskError):
    """The written file is not what it should be; writing it again would most likely end the same way."""


class BatchError(SelfHVDError):
    """Some videos of a batch failed; the others are complete."""

    exit_code = ExitCode.BATCH_PARTLY_FAILED


class Interrupted(SelfHVDError):
    """The user asked to stop.

    Args:
        left: what is left of the run, completes the message.
        hint: one line, what to do about it; may be empty.
        word: what has happened, begins the message.
    """

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, left: str, hint: str = "", word: str = "interrupted") -> None:
        super().__init__(f"{word}; {left}", hint)
        self.word = word
