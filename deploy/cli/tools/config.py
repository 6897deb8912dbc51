"""Commands `sightline config …`: check a site file, apply the file to the config topic, show and remove entries."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, SignKey, friendly, on_log, signer
from deploy.cli.output import stdout
from deploy.cli.tools.lens import lens
from ingest import site
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.site import PinConfig, PipelineConfig, Site
from ingest.site.pipeline import MOTION_LABEL, MOTION_MODEL
from ingest.site.topic.changes import ConfigChanges, site_changes
from ingest.site.topic.signature import PUBLIC_KEY_FILE, ConfigSigner, generate
from ingest.site.topic.store import WRITER, commit, read
from ingest.site.topic.view import Config
from stream.rules import validated, validated_site

if TYPE_CHECKING:
    from engines.repository.manifest import Manifest
    from stream.silent import SilentRule

app = typer.Typer(help="Check, apply and show a site's configuration, and calibrate lenses.", no_args_is_help=True)

UNUSABLE_EXIT = 1
"""Exit status when the command succeeded, but the topic has invalid entries."""

NO_LENS = "the step distortion has no effect, because none of its cameras in this file has a lens"
"""Warning about a pipeline with the step ``distortion``."""

File = Annotated[Path, typer.Argument(help="The site's TOML file.")]

app.command()(lens)


@app.command()
@friendly
def check(
    file: File,
    models: Annotated[
        Path | None,
        typer.Option("--models", help="Model repository, to check second models and the labels of rules."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a site file: print the first wrong key with the expected value. Warn of settings without effect, and of
    rules that can never fire.

    Warnings go to stderr and do not change the exit status.
    """
    found = validated_site(site.load(file), file)
    silent = _silent_rules(found, _labels(models, found, file) if models else {})
    _warn(file, silent, found)
    if as_json:
        warnings = [one._asdict() for one in silent]
        warnings += [
            {"camera": name, "key": "stream.tls", "reason": site.LEGACY_TLS} for name in _with_legacy_tls(found)
        ]
        warnings += [{"pipeline": name, "key": "steps", "reason": NO_LENS} for name in _without_lens(found)]
        stdout.print_json(data={"file": str(file), "entries": len(found.entries()), "warnings": warnings})
    else:
        stdout.print(f"{file} is valid: {len(found.entries())} entries", soft_wrap=True)


@app.command()
@friendly
def apply(
    file: File,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the changes without making them.")] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over", help="Take over, or change for all sites, entries that other sites define differently."
        ),
    ] = False,
    sign_key: SignKey = None,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Write a site's file to the config topic, and leave the entries of other sites unchanged.

    Entries of this site that the file no longer has are removed. Exits with 1 if the topic has invalid entries
    afterwards.
    """
    wanted = validated_site(site.load(file), file)
    _warn(file, _silent_rules(wanted), wanted)
    signing = None if dry_run else signer(sign_key)
    found, unusable = on_log(
        "sightline-config", kafka, prefix, lambda log: _apply(log, file, wanted, dry_run, take_over, signing)
    )
    if as_json:
        stdout.print_json(data=_report(found, unusable, dry_run))
    else:
        _print(found, wanted, dry_run)
    if unusable:  # the errors were logged when the topic was read
        keys = ", ".join(sorted(unusable))
        sys.stderr.write(f"error: config topic: {keys} invalid: apply the file that has it, or remove it\n")
        raise typer.Exit(UNUSABLE_EXIT)


@app.command()
@friendly
def keygen(file: Annotated[Path, typer.Argument(help="New file for the private key.")]) -> None:
    """Make a key pair: FILE signs entries (`config apply --sign-key FILE`), FILE.pub lets services verify entries."""
    public = generate(file)
    stdout.print(f"{file}: the private key. Keep it off the broker and the agents", markup=False, soft_wrap=True)
    stdout.print(
        f"{public}: the public key. Name it in {PUBLIC_KEY_FILE} of every service, or in agent.toml",
        markup=False,
        soft_wrap=True,
    )


@app.command()
@friendly
def remove(
    keys: Annotated[list[str], typer.Argument(help="Keys as `config show` prints them, such as camera/gate.")],
    sign_key: SignKey = None,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Remove entries of any site, also invalid entries, from the config topic."""
    signing = signer(sign_key)
    on_log("sightline-config", kafka, prefix, lambda log: _remove(log, keys, signing))
    stdout.print(f"removed: {', '.join(keys)}", markup=False, soft_wrap=True)


@app.command()
@friendly
def show(kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Print the configuration that the services read, as JSON. Invalid entries are logged on stderr."""
    config = on_log("sightline-config", kafka, prefix, lambda log: read(log, validate=validated))
    entries = {key: entry.model_dump(mode="json") for key, entry in sorted(config.entries.items())}
    stdout.print_json(data=entries)


def _silent_rules(found: Site, labels: Mapping[str, Collection[str]] | None = None) -> list[SilentRule]:
    from stream.silent import silent_rules  # imports OpenCV, which would add 35 MB to every service

    return silent_rules(found, labels)


def _warn(file: Path, silent: list[SilentRule], found: Site) -> None:
    for camera in _with_legacy_tls(found):
        sys.stderr.write(f"warning: {file}: camera {camera}: {site.LEGACY_TLS}\n")
    for pipeline in _without_lens(found):
        sys.stderr.write(f"warning: {file}: pipeline {pipeline}: {NO_LENS}\n")
    for one in silent:
        sys.stderr.write(f"warning: {file}: rule {one.rule} cannot fire as intended: {one.key}: {one.reason}\n")


def _without_lens(found: Site) -> list[str]:
    """Return the pipelines that correct the distortion of cameras, none of which has a lens."""
    with_lens = [camera.name for camera in found.cameras if camera.lens]
    return [one.name for one in found.pipelines if "distortion" in one.steps and not any(map(one.wants, with_lens))]


def _with_legacy_tls(found: Site) -> list[str]:
    return [camera.name for camera in found.cameras if camera.stream.tls == "legacy"]


def _labels(models: Path, found: Site, file: Path) -> dict[str, tuple[str, ...]]:
    """Return the labels of each model that a site names, by model name.

    Raise ConfigError, ModelUnknown or ManifestError.
    """
    from engines.repository.store import Repository

    if not models.is_dir():
        raise ConfigError("config check", "--models", str(models), "the folder of a model repository")
    repository = Repository(models)
    seconds = {second.model for pipeline in found.pipelines for second in pipeline.then}
    names = seconds | {pipeline.model for pipeline in found.pipelines if pipeline.has_model}
    names |= {pipeline.lighter for pipeline in found.pipelines if pipeline.lighter}
    manifests = {name: repository.open(name).manifest for name in sorted(names)}
    for n, pipeline in enumerate(found.pipelines):
        _require_fitting_models(pipeline, manifests, file, f"pipelines.{n}")
    return {MOTION_MODEL: (MOTION_LABEL,)} | {name: manifest.labels for name, manifest in manifests.items()}


def _require_fitting_models(
    pipeline: PipelineConfig, manifests: Mapping[str, Manifest], file: Path, key: str
) -> None:
    """Raise ConfigError unless the pipeline's own models find or label objects, each second-stage model is a
    classifier or the model of embeddings of ``appearance``, and the labels in ``on`` are those of the first model."""
    from engines.decoders import EMBEDDERS, SECOND_STAGE

    def refuse(setting: str, found: str, expected: str) -> NoReturn:
        raise ConfigError(str(file), f"{key}.{setting}", found, expected)

    for setting, name in (("model", pipeline.model), ("lighter", pipeline.lighter)):
        if name in manifests and not manifests[name].finds_objects:
            refuse(setting, f"{name} (decoder {manifests[name].decoder})", "a model that finds or labels objects")
    own = manifests[pipeline.model].labels if pipeline.has_model else (MOTION_LABEL,)
    for m, second in enumerate(pipeline.then):
        decoder = manifests[second.model].decoder
        named = f"{second.model} (decoder {decoder})"
        if decoder not in SECOND_STAGE:
            refuse(f"then.{m}.model", named, f"a model whose decoder is {' or '.join(sorted(SECOND_STAGE))}")
        is_compared = pipeline.appearance is not None and pipeline.appearance.second_model == second.name
        if is_compared and decoder not in EMBEDDERS:
            expected = f"a second model of embeddings, whose decoder is {' or '.join(sorted(EMBEDDERS))}"
            refuse("appearance.second_model", named, expected)
        if decoder in EMBEDDERS and not is_compared:
            expected = f"appearance.second_model = {second.name!r} in this pipeline, because nothing else uses it"
            refuse(f"then.{m}.model", named, expected)
        unknown = [label for label in second.on if label not in own]
        if unknown:
            refuse(f"then.{m}.on", ", ".join(unknown), f"labels of {pipeline.model}: some of {', '.join(own)}")


async def _apply(
    log: Log, file: Path, wanted: Site, dry_run: bool, take_over: bool, signer: ConfigSigner | None = None
) -> tuple[ConfigChanges, dict[str, str]]:
    """Apply a site. Return the changes, and the error of each entry that is still invalid, by key."""
    writer = None if dry_run else await log.writer(WRITER)
    present = await _signed(log, signer)
    found = site_changes(wanted, present.entries, refused=present.refused, take_over=take_over)
    if found.conflicts:
        owners = sorted({owner for each in found.conflicts.values() for owner in each})
        raise ConfigError(
            str(file),
            ", ".join(found.conflicts),
            f"already defined by {', '.join(owners)} with other settings",
            "names that no other site has. Rename the entry here, or remove it from the other site's file and apply "
            "that file, or pass --take-over. Nothing was changed",
        )
    if writer:
        await commit(writer, found.written, found.removed, signer)
    replaced = {*(entry.key for entry in found.written), *found.removed}
    return found, {key: why for key, why in present.refused.items() if key not in replaced}


async def _remove(log: Log, keys: list[str], signer: ConfigSigner | None) -> None:
    writer = await log.writer(WRITER)
    present = await _signed(log, signer)
    for key in keys:
        expected = ""
        # a signed removal may be needed for a key that the topic has lost without one
        if not signer and key not in present.entries and key not in present.refused:
            expected = "a key that `sightline config show` prints"
        elif isinstance(present.entries.get(key), PinConfig):
            expected = "a key other than a pin, because a camera must stay in its partition"
        if expected:
            raise ConfigError("config topic", "KEY", key, expected)
    await commit(writer, [], keys, signer)


async def _signed(log: Log, signer: ConfigSigner | None) -> Config:
    """Read the topic. Set ``signer`` so that its next signature is later than all signatures on the topic."""
    present = await read(log, validate=validated, trust=signer.trust() if signer else None)
    if signer:
        signer.after = present.signed_at
    return present


def _report(found: ConfigChanges, unusable: Mapping[str, str], dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "added": sorted(found.added),
        "changed": dict(sorted(found.fields.items())),
        "taken_over": sorted(found.taken_over),
        "removed": found.removed,
        "unclaimed": found.unclaimed,
        "unusable": dict(unusable),
    }


def _print(found: ConfigChanges, wanted: Site, dry_run: bool) -> None:
    lines = [f"+ {key}" for key in found.added]
    lines += [f"~ {key} ({', '.join(fields)})" for key, fields in found.fields.items()]
    lines += [f"> {key} taken over" for key in found.taken_over]
    lines += [f"- {key}" for key in found.removed]
    # entries of an older version name no site until their files are applied again
    orphan = "? {key} belongs to no site: apply the file that has it, or run `sightline config remove {key}`"
    lines += [orphan.format(key=key) for key in found.unclaimed]
    written, removed = ("to write", "to remove") if dry_run else ("written", "removed")
    lines.append(f"{wanted.name}: {len(found.written)} entries {written}, {len(found.removed)} {removed}")
    for line in lines:
        stdout.print(line, markup=False, soft_wrap=True)
