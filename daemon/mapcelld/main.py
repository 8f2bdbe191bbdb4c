"""The command `mapcelld`: parse, configure, serve."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from mapcell_formats.errors import MapcellError
from mapcelld import config_file, logs
from mapcelld.config import Config
from mapcelld.server import serve

log = logging.getLogger("mapcelld")

# What sysexits.h calls a fault of the program. The unit restarts it then, and not after 1, which wants an operator.
_EXIT_BUG = 70


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", type=click.Path(path_type=Path), help="TOML file.")
@click.option("--check-config", is_flag=True, help="Check the configuration and exit.")
@click.option("--runtime", metavar="DIR", help="Folder of the sockets.")
@click.option("--budget", metavar="SIZE", help="Bytes of sealed memory, such as 48GiB.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
@click.version_option(package_name="mapcell")
def main(path: Path | None, check_config: bool, runtime: str | None, budget: str | None, log_level: str | None) -> None:
    """Maps model checkpoints into memory once and lends them to every process that asks."""
    try:

        def read() -> Config:
            return config_file.load(path, os.environ, runtime=runtime, budget=budget, log_level=log_level)

        settings = read()
        if check_config:
            click.echo("the configuration is valid", err=True)
            return
        logs.start(settings.log_level, os.environ)
        serve(settings, os.environ, read)
    except MapcellError as exc:
        click.echo(f"error: {logs.escaped(str(exc))}", err=True)
        sys.exit(1)
    # The boundary of the process: its status tells the service manager whether trying again makes sense.
    except Exception:
        log.exception("ended by a bug")
        sys.exit(_EXIT_BUG)


if __name__ == "__main__":
    main()
