"""Stopping a run politely: SIGTERM and Ctrl-C ask, the training loop answers at the end of its step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from accelerate import Accelerator

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Context manager in which the first SIGTERM or SIGINT only sets a flag.

    A second SIGINT is the usual KeyboardInterrupt, for the impatient. Outside the main thread, where Python
    does not allow handlers, signals keep their meaning.
    """

    def __init__(self) -> None:
        self.requested = False  # True once this process has been asked to stop
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def agreed(self, accelerator: "Accelerator") -> bool:
        """True on every process as soon as one of them was asked to stop.

        With several processes this is a collective operation: all must call it at the same step.
        """
        if accelerator.num_processes == 1:
            return self.requested
        import torch

        flag = torch.tensor([float(self.requested)], device=accelerator.device)
        return bool(accelerator.reduce(flag, reduction="sum").item() > 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
