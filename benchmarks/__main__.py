"""Runs the benchmarks that are named, or all of them, and prints a table for each."""

import sys

from rich.console import Console

from benchmarks.daily_sync import daily_sync

_ALL = {"daily": daily_sync}


def main() -> None:
    """Print the tables."""
    console = Console(width=140)
    for name in sys.argv[1:] or _ALL:
        if name not in _ALL:
            raise SystemExit(f"There is no benchmark {name!r}; known: {', '.join(_ALL)}.")
        console.print(_ALL[name]())


if __name__ == "__main__":
    main()
