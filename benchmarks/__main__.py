"""Runs every benchmark, and prints a table for each."""

from rich.console import Console

from benchmarks.daily_sync import daily_sync


def main() -> None:
    """Print the tables."""
    console = Console()
    console.print(daily_sync())


if __name__ == "__main__":
    main()
