"""Command `sightline import frigate`: turn a Frigate configuration into a site file."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import tomli_w
import typer
from pydantic import ValidationError

from deploy.cli.common import AsJson, friendly
from deploy.cli.output import printable, stdout
from deploy.frigate.convert import FrigateSite, PipelineChoice, convert
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.runtime.files import GROUP_FILE, make_folder, write_new
from ingest.runtime.text import read_text
from ingest.site import Site
from ingest.site.file import config_error
from stream.rules import validated_site

app = typer.Typer(help="Convert the configuration of another system into a site file.", no_args_is_help=True)

DEFAULT_MODEL = PipelineChoice("yolox-nano", 416, 416)
SECRETS = "/etc/sightline/secrets"


@app.callback()
def _group() -> None:
    """Convert the configuration of another system into a site file."""


@app.command()
@friendly
def frigate(
    file: Annotated[Path, typer.Argument(help="Frigate's configuration, such as config.yml.")],
    out: Annotated[Path | None, typer.Option("--out", help="New site file; stdout by default.")] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the site.")] = "site",
    model: Annotated[str, typer.Option("--model", help="Model that detects the objects.")] = DEFAULT_MODEL.model,
    models: Annotated[
        Path | None,
        typer.Option("--models", help="Model repository, to take the model's input size and colours from."),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option("--secrets", help="Folder into which the cameras' passwords are written, one file each."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert Frigate's cameras, zones, masks and objects. List on stderr each key that has no equivalent.

    A password in a camera's address becomes a file, because a site file holds no passwords. Without --secrets, the
    notes say which files to write.
    """
    found = convert(read_text(file, "YAML"), name, _choice(model, models), str(secrets or SECRETS))
    files = [*([out] if out else ()), *((secrets / password for password in found.passwords) if secrets else ())]
    for path in files:
        if path.exists():
            raise ConfigError("sightline import", "file", str(path), "a file that does not exist yet")
    try:
        validated_site(Site.model_validate(found.site), file)
    except ValidationError as error:
        raise config_error(str(file), error) from None
    if secrets:
        make_folder(secrets)
        for password_file, password in found.passwords.items():
            write_new(secrets / password_file, f"{password}\n".encode())
    if out:
        write_new(out, _toml(found).encode(), GROUP_FILE)
    if as_json:
        notes = [note._asdict() for note in found.notes]
        stdout.print_json(data={"site": found.site, "notes": notes, "password_files": sorted(found.passwords)})
        return
    if not out:
        sys.stdout.write(_toml(found))
    _print_notes(found, out, secrets)


def _choice(model: str, models: Path | None) -> PipelineChoice:
    """Return the pipeline's values: those of a model in a repository, else those of YOLOX-nano."""
    if models is None:
        return DEFAULT_MODEL._replace(model=model)
    given = Repository(models).open(model).manifest.input
    return PipelineChoice(model.partition("@")[0], given.width, given.height, given.colour, given.fit)


def _toml(found: FrigateSite) -> str:
    """Return the site as TOML, with each point in one line."""
    return re.sub(r"\[\s+([\d.]+),\s+([\d.]+),\s+\]", r"[\1, \2]", tomli_w.dumps(found.site))


def _print_notes(found: FrigateSite, out: Path | None, secrets: Path | None) -> None:
    for note in found.notes:
        sys.stderr.write(f"{printable(note.key)}: {printable(note.text)}\n")
    if not secrets:
        for password_file in found.passwords:
            sys.stderr.write(
                f"write the camera's password into {SECRETS}/{printable(password_file)}, or use --secrets\n"
            )
    if out:
        cameras, rules = len(found.site["cameras"]), len(found.site.get("rules", ()))
        sys.stderr.write(f"{out}: {cameras} cameras and {rules} rules. Next: sightline config check {out}\n")
