"""The progress bars of commands."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from limner.core.torch_free import Medium


@contextmanager
def progress_bar(total: int, completed: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal -> the function that sets the number of files that are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from limner.apps.shared.console import open_console

    console = open_console(soft_wrap=True)
    columns = (TextColumn("caption"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("caption", total=total, completed=completed)
        yield lambda done: bar.update(task, completed=done)


def watched(media: Sequence[Medium]) -> Iterable[Medium]:
    """The media of a data set, with a progress bar on a terminal while they are opened."""
    from rich.progress import track

    from limner.apps.shared.console import open_console

    console = open_console()
    return track(media, "opening the files", console=console, transient=True, disable=not console.is_terminal)
