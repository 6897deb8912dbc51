"""Make optimised versions of a model, compare each with the original, and store each version whose loss is small
enough."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import onnx

from deploy.optimise.pictures import PreparedPictures
from deploy.optimise.prune import Pruned, prune
from deploy.optimise.report import OptimisedVersion, OptimiseReport, SpeedRow
from engines import backends, decoders
from engines.backends.hardware import processor
from engines.decoders import DecoderOptions, FrameRegion
from engines.exceptions import EngineError, InferenceFailed, ModelLoadFailed, OptimiseFailed
from engines.optimise.half import halved
from engines.optimise.int8 import Form, quantised
from engines.optimise.judge import Found, Quality, accuracy, class_agreement, object_agreement
from engines.repository.adopt import KERAS_FILE, MODEL_FILE
from engines.repository.manifest import Manifest, Model, sha256_of
from engines.repository.store import Repository
from engines.speed import batch_speeds
from ingest.site.pipeline import Precision

MAX_CALIBRATION = 200
"""Maximum number of calibration pictures. NVIDIA and ONNX Runtime recommend 100 to 500 pictures. More pictures hardly
change the ranges of values."""
_FEW_PICTURES = 50
_LARGE_BATCH = 8
_REFERENCE = "onnxruntime"
"""Backend that computes the outputs of the original and of each optimised version, which are then compared.

ONNX Runtime runs every quantised form on any machine. The CPU backend that ``auto`` chooses for an optimised version
computes its outputs, too, and the larger loss of both counts.
"""

Begin = Callable[[str, int], Callable[[], None]]
"""Function that begins a step with a title and a number of parts, and returns the function to call after each
part."""


@dataclass(frozen=True, slots=True)
class OptimiseOptions:
    """Settings of an optimisation.

    ``name`` is the model that gets the new versions. If ``name`` is empty, ``name_of`` adds the steps of the
    optimisation to the original's name. ``max_loss`` is the largest accepted loss of accuracy, or of agreement with
    the original. ``seconds`` is the time to measure each backend and batch size. If ``backends`` is empty, all usable
    backends of this machine are measured.
    """

    precision: Precision = "fp32"
    forms: tuple[Form, ...] = ()
    prune: float = 0.0
    prune_by: Literal["channels", "weights"] = "channels"
    epochs: int = 5
    max_loss: float = 0.02
    min_score: float = 0.3
    name: str = ""
    seconds: float = 2.0
    backends: tuple[str, ...] = ()


def optimise(
    model: Model,
    repository: Repository,
    calibration: PreparedPictures,
    test: PreparedPictures,
    options: OptimiseOptions,
    begin: Begin,
) -> OptimiseReport:
    """Make the optimised versions, compare each with the original, and store the versions that lose at most
    ``max_loss``.

    The pictures in ``calibration`` give the value ranges for int8, and train a pruned model. ``test`` has pictures
    that are not in ``calibration``, on which the models are compared. Raise OptimiseFailed, AdoptFailed or
    InferenceFailed.
    """
    if options.precision == "fp32" and not options.prune:
        raise OptimiseFailed("nothing to do: expected --precision fp16 or int8, or --prune")
    if not model.manifest.finds_objects:
        raise OptimiseFailed(
            f"model {model.manifest.id} has decoder {model.manifest.decoder}: expected a model that finds or labels "
            "objects, because the loss of other models is not measured"
        )
    before = _found(model, _REFERENCE, test, options.min_score, begin)
    with tempfile.TemporaryDirectory() as folder:
        pruned = None
        if options.prune:
            pruned = prune(model, calibration, Path(folder), options.prune, options.prune_by, options.epochs, begin)
        base = pruned.model if pruned else model
        forms: Sequence[Form | None] = options.forms if options.precision == "int8" else (None,)
        versions = [
            _version(model, base, pruned, form, calibration, test, before, options, repository, Path(folder), begin)
            for form in forms
        ]
    return OptimiseReport(
        original=model.manifest.id,
        calibration_pictures=len(calibration),
        test_pictures=len(test),
        max_loss=options.max_loss,
        pruned=pruned.facts if pruned else None,
        versions=tuple(versions),
    )


def _version(
    model: Model,
    base: Model,
    pruned: Pruned | None,
    form: Form | None,
    calibration: PreparedPictures,
    test: PreparedPictures,
    before: Found,
    options: OptimiseOptions,
    repository: Repository,
    folder: Path,
    begin: Begin,
) -> OptimisedVersion:
    """Make one version, compare the version with the original, and store it if its loss is small enough."""
    content, notes = _converted(base, form, calibration, options, begin)
    candidate = _temporary(base, content, options.precision, folder / (form or "version"))
    try:
        qualities = [
            _quality(model.manifest, before, _found(candidate, name, test, options.min_score, begin), test.labels)
            for name in dict.fromkeys((_REFERENCE, backends.choose_cpu_here(options.precision).backend))
        ]
        quality = max(qualities, key=lambda each: each.loss)
    except (InferenceFailed, ModelLoadFailed) as error:
        raise OptimiseFailed(f"the optimised model cannot be used: {error}. Choose another precision") from None
    if len(test) < _FEW_PICTURES:
        notes.append(f"{len(test)} pictures were compared: expected {_FEW_PICTURES} or more for a sure figure.")
    refused, identity = "", ""
    if quality.loss > options.max_loss:
        refused = f"{quality.measure} falls by {quality.loss}: expected at most {options.max_loss}"
    else:
        identity = _stored(model, candidate, pruned, form, quality, len(calibration), options, repository)
    speed, measured_notes = _speeds(model, candidate, options, begin)
    original = model.path.read_bytes()
    return OptimisedVersion(
        precision=options.precision,
        form=form,
        model=identity,
        refused=refused,
        original_bytes=len(original),
        optimised_bytes=len(content),
        original_packed_bytes=len(zlib.compress(original)),
        optimised_packed_bytes=len(zlib.compress(content)),
        quality=quality,
        speed=tuple(speed),
        notes=(*notes, *measured_notes),
    )


def _converted(
    base: Model, form: Form | None, calibration: PreparedPictures, options: OptimiseOptions, begin: Begin
) -> tuple[bytes, list[str]]:
    """Return the model file in the wanted precision, and notes about the conversion."""
    if options.precision == "fp32":
        return base.path.read_bytes(), []
    loaded, notes = onnx.load(str(base.path)), []
    if options.precision == "fp16":
        advance = begin("converting to fp16", 1)
        found = halved(loaded)
        advance()
        notes.append("fp16 is for GPUs, and for processors with fp16 instructions. On others it is slower than fp32.")
        return found.SerializeToString(), notes
    if form is None:
        raise OptimiseFailed("int8 needs a form: expected u8s8 or s8s8")
    chosen = calibration.spread(MAX_CALIBRATION)
    advance = begin(f"calibrating {form}", len(chosen))
    reduce_range = form == "u8s8" and not processor().instruction("int8")
    if reduce_range:
        notes.append("This processor has no VNNI, so weights have seven bits; with eight, sums overflow.")
    found = quantised(loaded, form, chosen, reduce_range=reduce_range, on_picture=advance)
    if form == "s8s8":
        notes.append("s8s8 is for TensorRT and OpenVINO. ONNX Runtime is slow with it on CPUs.")
    return found.SerializeToString(), notes


def _temporary(base: Model, content: bytes, precision: Precision, folder: Path) -> Model:
    """Write a model file of this content to the new folder ``folder``, and return the Model."""
    folder.mkdir()
    (folder / base.manifest.file).write_bytes(content)
    sha256 = sha256_of(folder / base.manifest.file)
    return Model(base.manifest.model_copy(update={"precision": precision, "sha256": sha256}), folder)


def _found(model: Model, backend: str, pictures: PreparedPictures, min_score: float, begin: Begin) -> Found:
    """Return the detections of a model on a backend. A classifier gives its best class, whatever the score."""
    manifest = model.manifest
    score = 0.0 if manifest.decoder in decoders.CLASSIFIERS else min_score
    decoder = decoders.make(manifest.decoder, DecoderOptions.of(manifest, score))
    region = FrameRegion.whole(manifest.input.width, manifest.input.height)
    advance = begin(f"running {manifest.id} in {manifest.precision} on {backend}", len(pictures))
    engine = backends.make(backend)
    engine.load(model)
    found = []
    try:
        for picture in pictures:
            found += decoder.decode(engine.infer(picture), [region])
            advance()
    finally:
        engine.close()
    return found


def _quality(manifest: Manifest, before: Found, after: Found, labels: Sequence[str]) -> Quality:
    if manifest.decoder not in decoders.CLASSIFIERS:
        return object_agreement(before, after)
    return accuracy(before, after, labels) if labels else class_agreement(before, after)


def _speeds(
    model: Model, candidate: Model, options: OptimiseOptions, begin: Begin
) -> tuple[list[SpeedRow], list[str]]:
    """Return the latency on each backend, for batches of one image and for a larger batch."""
    names = options.backends or backends.usable()
    sizes = sorted({1, min(_LARGE_BATCH, model.manifest.max_batch, candidate.manifest.max_batch)})
    advance = begin("measuring", len(names) * len(sizes))
    rows, notes = [], []
    for name in names:
        try:
            for row in speed_rows(name, model, candidate, sizes, options.seconds):
                rows.append(row)
                advance()
        except EngineError as error:
            notes.append(f"{name} cannot run the model: {error}")
    return rows, notes


def speed_rows(
    backend: str, original: Model, optimised: Model, sizes: Sequence[int], seconds: float
) -> Iterator[SpeedRow]:
    """Measure two models on a backend, ``seconds`` for each batch size. Run the batches of the two models
    alternately.

    Raise ModelLoadFailed or InferenceFailed.
    """
    with closing(backends.make(backend)) as first, closing(backends.make(backend)) as second:
        first.load(original)
        second.load(optimised)
        for size in sizes:
            before, after = batch_speeds([first, second], size, seconds)
            yield SpeedRow(
                backend=backend,
                batch=size,
                original_ms=before.p50_ms,
                optimised_ms=after.p50_ms,
                speedup=round(before.p50_ms / after.p50_ms, 2),
                runs=before.runs,
            )


def _stored(
    model: Model,
    candidate: Model,
    pruned: Pruned | None,
    form: Form | None,
    quality: Quality,
    calibration: int,
    options: OptimiseOptions,
    repository: Repository,
) -> str:
    """Write the version into the repository, and return its identity.

    If the name already has a served version, the new version is not served until it is promoted.
    """
    name = name_of(model.manifest.name, form, options)
    if repository.versions(name):
        repository.promote(name, repository.promoted(name))
    manifest = candidate.manifest.model_dump(mode="json", exclude={"name", "version", "sha256", "file"})
    made: dict[str, Any] = {
        "model": model.manifest.id,
        "sha256": model.manifest.sha256,
        "date": datetime.now(UTC).date().isoformat(),
        "precision": options.precision,
        "calibration_pictures": calibration,
        **quality.model_dump(),
    }
    if form:
        made["form"] = form
    files = {MODEL_FILE: candidate.path.read_bytes()}
    origin = {**model.manifest.origin, "optimised": made}
    origin.pop("keras_sha256", None)
    if pruned:
        made["pruned"] = pruned.facts.model_dump()
        files[KERAS_FILE] = pruned.keras_file.read_bytes()
        origin["keras_sha256"] = sha256_of(pruned.keras_file)
    return repository.write(name, {**manifest, "file": MODEL_FILE, "origin": origin}, files).manifest.id


def name_of(name: str, form: Form | None, options: OptimiseOptions) -> str:
    """Return the model name of a new version: the name in the options, or the original's name with the steps of the
    optimisation appended."""
    parts = [
        name,
        *(["pruned"] if options.prune else []),
        *([options.precision] if options.precision != "fp32" else []),
    ]
    made = options.name or "-".join(parts)
    several = len(options.forms) > 1 or not options.name
    return f"{made}-{form}" if form and several else made
