"""`kpi db dump` and `kpi db restore`: both databases in one file, and back again."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kpi_pipeline.cli.common import err, out, print_warning
from kpi_pipeline.db.backup.archive import Manifest
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services import backup, restore
from kpi_pipeline.settings import Settings, load_settings

_say = partial(err.print, soft_wrap=True)

File = Annotated[Path | None, typer.Argument(metavar="FILE", help="A dump.")]


def dump(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER", help="The file to write; in a folder, one named by the time."
        ),
    ],
    keep: Annotated[
        int | None,
        typer.Option(
            "--keep",
            min=1,
            metavar="N",
            help="Keep the N newest dumps of the folder, delete others.",
        ),
    ] = None,
) -> None:
    """Write both databases to a file, and verify it by reading it back. Nothing has to stop.

    The API keys in it are encrypted: to restore them, the secret key is needed as well, which is
    not in the file. Its owner alone can read the file: it holds leads and the hashes of passwords.
    """
    settings = load_settings()
    old: list[Path] = []
    if target.is_dir():
        made, old = backup.dump_into(settings, target, keep)
    elif keep is not None:
        raise KpiError(f"--keep needs a folder, and {target} is none.")
    else:
        made = backup.dump(settings, target)
    _print_made(made, settings)
    if old:
        out.print(f"{counted(len(old), 'older dump')} deleted.")


def restore_dump(
    file: File = None,
    from_embedded: Annotated[
        bool,
        typer.Option(
            "--from-embedded",
            help="Take the embedded database of the state folder, in place of a dump.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only read the dump through, and see whether the secret key fits."
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Delete what both databases hold; else they must be empty."),
    ] = False,
    without_api_keys: Annotated[
        bool,
        typer.Option(
            "--without-api-keys",
            help="Leave out the clients' API keys, if their secret key is lost.",
        ),
    ] = False,
    without_dagster: Annotated[
        bool,
        typer.Option(
            "--without-dagster", help="Leave out Dagster's database: the grid and history of runs."
        ),
    ] = False,
) -> None:
    """Bring a dump back, into the databases of the settings; they are made where they are missing.

    A dump goes to any server, whatever the version of PostgreSQL. What was written is read back and
    compared before it is committed. Stop `kpi up` first.
    """
    settings = load_settings()
    if from_embedded:
        if file is not None or check or without_api_keys or without_dagster:
            raise KpiError("--from-embedded takes all of the embedded database, and no FILE.")
        made = restore.move_from_embedded(settings, _say, replacing=replace)
        _print_made(made, settings)
        out.print(
            f"{_rows(made.manifest)} are in the databases of the settings. The embedded database "
            f"is left as it was, in {settings.state_dir / 'postgres'}: once you have seen that all "
            "is well, delete it and the dump.",
            soft_wrap=True,
        )
        return
    if file is None:
        raise KpiError("Name the FILE of a dump, or add --from-embedded.")
    if check:
        manifest = restore.check(settings, file, without_api_keys=without_api_keys)
        out.print(f"{file} is whole: {_rows(manifest)}, {_made(manifest)}.", soft_wrap=True)
        return
    manifest = restore.restore(
        settings,
        file,
        _say,
        replacing=replace,
        without_api_keys=without_api_keys,
        without_dagster=without_dagster,
    )
    out.print(f"{_rows(manifest)} are restored, {_made(manifest)}.", soft_wrap=True)
    keys = manifest.secret_keys
    if without_api_keys and (lost := sum(keys.readable.values()) + keys.unreadable):
        print_warning(
            f"{counted(lost, 'API key')} left out: the master key serves these clients until `kpi "
            "keys create-missing` makes new ones."
        )
    if without_dagster:
        print_warning("Dagster's grid is empty: run `kpi dagster rebuild`.")


def _print_made(made: backup.MadeDump, settings: Settings) -> None:
    manifest = made.manifest
    out.print(
        f"{_rows(manifest)} are in {made.file} ({made.size / 1e6:,.1f} MB), and were read back.",
        soft_wrap=True,
    )
    keys = manifest.secret_keys
    place = "KPI_SECRET_KEY" if settings.secret_key else settings.state_dir / "secret.key"
    for fingerprint, number in keys.readable.items():
        out.print(
            f"{counted(number, 'API key')} in it can only be decrypted with the secret key "
            f"{fingerprint}, from {place}: keep a copy of that elsewhere.",
            soft_wrap=True,
        )
    if keys.unreadable:
        print_warning(
            f"{counted(keys.unreadable, 'API key')} in it can't be decrypted with the secret key "
            "of this machine: keep the one that they were stored with."
        )


def _rows(manifest: Manifest) -> str:
    return f"{manifest.lines:,} rows of both databases"


def _made(manifest: Manifest) -> str:
    return f"as of {manifest.made_at:%Y-%m-%d %H:%M %Z}, by version {manifest.version}"
