"""`plumbline status --watch`: how far everything is, from files alone, until all is done."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from plumbline.core.plan.target import Target


def show_status(plan: Callable[[], Sequence[Target]], results: Path, studies: Sequence[str]) -> None:
    """Shows `studies` until all of their targets are done, or Ctrl-C."""
    from plumbline.commands.live import LiveView
    from plumbline.core.plan.live_status import StatusReader

    reader = StatusReader(lambda: [target for target in plan() if target.study in studies], results)
    view = LiveView(reader, results, studies)

    def is_over(seconds: float) -> bool:
        if not view.is_done:
            time.sleep(seconds)
        return view.is_done

    try:
        view.show_until(is_over, Console(soft_wrap=True, highlight=False))
    except KeyboardInterrupt:
        return
