"""Adopt foreign ONNX models into the repository.

Sightline's models take ``(N, height, width, 3)`` uint8. A foreign model, made by other software, takes floats in
another layout. To take uint8, a foreign model gets additional graph nodes that cast, scale and transpose the pixels.
Before the model is stored, the outputs of the original and of the wrapped model are compared, and the decoder must be
able to read the outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion, Proposal
from engines.engine import Outputs
from engines.exceptions import AdoptFailed, DecoderUnknown
from engines.noise import NOISE_IMAGES, largest_difference, noise_images
from engines.repository.inspection import CheckedFile, read_checked
from engines.repository.manifest import Decoding, Model
from engines.repository.report import ConvertedFrom
from engines.repository.store import Repository
from engines.repository.wrap import (
    NO_MEAN,
    NO_SCALE,
    ForeignInput,
    Triple,
    input_of,
    planes,
    with_float_outputs,
    with_free_batch,
    with_pixels,
)

MODEL_FILE = "model.onnx"
KERAS_FILE = "model.keras"
"""Name under which a Keras file is stored beside the model that was converted from this file."""
_TOLERANCE = 1e-3
"""Maximum difference between the outputs of the wrapped and the original model, relative to the largest output. The
graph nodes that wrap a model cause rounding differences only."""
_HALF_TOLERANCE = 1e-2
"""Maximum relative difference between the outputs of a float16 model and its wrapped form. Sums of float16 numbers,
which have ten bits of mantissa, depend on the order of addition, which differs between batch sizes."""
_FAINT = 0.01
"""A decoder that finds an object with at least this score in an image of noise is assumed to read the outputs
correctly."""
_MAX_BATCH = 8
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,"
    "wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,"
    "chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,"
    "toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_LABELS = tuple(_COCO.split(","))
"""Names of the 80 COCO classes (Lin et al., 2014) in index order."""


@dataclass(frozen=True, slots=True)
class AdoptOptions:
    """Facts about a foreign model that its ONNX file does not hold.

    The model's input is ``(pixel - mean) * scale``.
    """

    name: str
    decoder: str
    labels: tuple[str, ...]
    colour: Literal["bgr", "rgb"] = "bgr"
    fit: Literal["stretch", "letterbox", "crop"] = "letterbox"
    mean: Triple = NO_MEAN
    scale: Triple = NO_SCALE
    output: str = ""
    """Name of the output to keep; empty to keep all outputs."""
    decoding: Decoding = field(default_factory=Decoding)
    size: tuple[int, int] | None = None
    """Width and height of the input in px, for a model that accepts any size."""
    assumed: tuple[str, ...] = ()
    """Settings that were assumed, because the file does not show them. The manifest records the assumed settings."""
    converted: ConvertedFrom | None = None
    """The file from which the ONNX file was converted."""


def adopt(file: Path, repository: Repository, options: AdoptOptions) -> Model:
    """Read a model file, and adopt the model with ``adopt_checked``. Raise the errors of ``adopt_checked``."""
    if options.decoder not in decoders.known():  # before a large file is read
        raise DecoderUnknown(options.decoder, decoders.known())
    return adopt_checked(read_checked(file), repository, options)


def adopt_checked(checked: CheckedFile, repository: Repository, options: AdoptOptions) -> Model:
    """Wrap a model, compare its outputs with the original's, try the decoder, and store the model as the next
    version.

    Raise DecoderUnknown, ManifestError for a setting that the decoder does not have, or AdoptFailed.
    """
    if options.decoder not in decoders.known():
        raise DecoderUnknown(options.decoder, decoders.known())
    file, original = checked.path, checked.model
    given = input_of(original, options.size)
    original = with_float_outputs(original, options.output, scores=options.decoder in decoders.SIGMOIDS)
    wrapped = with_pixels(original, given, options.mean, options.scale)
    stored, batch = with_free_batch(wrapped, given.batch or 1), _MAX_BATCH
    tolerance = _TOLERANCE if given.dtype != np.float16 else _HALF_TOLERANCE
    difference = _difference(original, stored, given, options, rows=NOISE_IMAGES)
    if isinstance(difference, AdoptFailed) or difference > tolerance:  # exported for one batch size
        if given.batch > 1:
            raise AdoptFailed(
                f"model file {file} has the fixed batch size {given.batch}: expected a dynamic batch size, or 1. "
                "Export the model with a dynamic batch axis"
            )
        stored, batch = wrapped, 1
        difference = _difference(original, stored, given, options, rows=1)
    if isinstance(difference, AdoptFailed):
        raise AdoptFailed(f"model file {file}: {difference}")
    if not difference <= tolerance:
        raise AdoptFailed(
            f"model file {file}: the outputs after conversion to uint8 pixels differ from the original by "
            f"{difference}: expected at most {tolerance}"
        )
    _refuse_unreadable(file, stored, given, options, batch)
    manifest = {
        "name": options.name,
        "file": MODEL_FILE,
        "decoder": options.decoder,
        "labels": list(options.labels),
        "max_batch": batch,
        "input": {
            "name": stored.graph.input[0].name,
            "width": given.width,
            "height": given.height,
            "colour": options.colour,
            "fit": options.fit,
        },
        **({"decoding": options.decoding.model_dump()} if options.decoding != Decoding() else {}),
        "origin": {
            **_source(checked, options.converted),
            "adopted": datetime.now(UTC).date().isoformat(),
            "layout": given.layout,
            "mean": list(options.mean),
            "scale": list(options.scale),
            "output": options.output,
            "assumed": list(options.assumed),
            "largest_difference": difference,
        },
    }
    files = {MODEL_FILE: stored.SerializeToString()}
    if options.converted and options.converted.kept:
        files[KERAS_FILE] = options.converted.file.read_bytes()
    return repository.write(options.name, manifest, files)


def _source(checked: CheckedFile, converted: ConvertedFrom | None) -> dict[str, Any]:
    """Return the record of the file that the user named."""
    if converted is None:
        return {"file": checked.path.name, "sha256": checked.sha256}
    return {
        "file": converted.file.name,
        "sha256": converted.sha256,
        "converter": converted.converter,
        "conversion_difference": converted.largest_difference,
        **({"keras_sha256": converted.sha256} if converted.kept else {}),
    }


def outputs_on_noise(
    original: Any, given: ForeignInput, options: AdoptOptions, rows: int = NOISE_IMAGES
) -> dict[str, npt.NDArray[np.float32]]:
    """Run a model with float outputs on images of noise, one image at a time, and return the outputs by name.

    Raise AdoptFailed if the model cannot run.
    """
    inputs = planes(noise_images(given.width, given.height, rows), given, options.mean, options.scale)
    copies = max(1, given.batch)  # a fixed batch is filled with copies of one image
    runs = [_run(original, np.repeat(inputs[i : i + 1], copies, axis=0)) for i in range(rows)]
    return {name: np.concatenate([run[name][: len(run[name]) // copies] for run in runs]) for name in runs[0]}


def unreadable(outputs: Outputs, given: ForeignInput, options: AdoptOptions) -> str:
    """Return why the decoder cannot read the ``outputs`` of ``outputs_on_noise``, or "" if the decoder can."""
    decoder = decoders.make(options.decoder, _decoder_options(given, options))
    return decoders.refusal(decoder, outputs, _regions(given))


def unproven_settings(outputs: Outputs, given: ForeignInput, options: AdoptOptions) -> dict[str, Any]:
    """Return the decoder's settings if ``outputs`` confirm none of these settings, else {}. The decoder must be able
    to read ``outputs``."""
    decoder = decoders.make(options.decoder, _decoder_options(given, options))
    return decoder.unproven(outputs) if isinstance(decoder, decoders.StatesUnprovenSettings) else {}


def finds_objects(outputs: Outputs, given: ForeignInput, options: AdoptOptions) -> bool:
    """Return whether the decoder finds an object with a score of at least ``_FAINT`` in the outputs on noise."""
    decoder = decoders.make(options.decoder, replace(_decoder_options(given, options), min_score=_FAINT))
    return any(decoder.decode(outputs, _regions(given)))


def _decoder_options(given: ForeignInput, options: AdoptOptions) -> DecoderOptions:
    return DecoderOptions(options.labels, given.width, given.height, settings=options.decoding.settings)


def _regions(given: ForeignInput) -> list[FrameRegion]:
    """Return a FrameRegion of the whole image for each of the ``NOISE_IMAGES``."""
    return [FrameRegion.whole(given.width, given.height)] * NOISE_IMAGES


def _refuse_unreadable(file: Path, wrapped: Any, given: ForeignInput, options: AdoptOptions, batch: int) -> None:
    """Raise AdoptFailed if the decoder cannot read the outputs of the wrapped model for images of noise."""
    pixels = noise_images(given.width, given.height)
    chunks = [_run(wrapped, pixels[i : i + batch]) for i in range(0, NOISE_IMAGES, batch)]
    found = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    if len(found) > 1 and options.decoder in decoders.READ_ONE_OUTPUT:
        reason = f"the model has outputs {', '.join(found)}: expected one. Choose it with --output NAME"
    else:
        reason = unreadable(found, given, options)
    if reason:
        decoder_options = _decoder_options(given, options)
        others = decoders.readable(found, _regions(given), decoder_options)
        shapes = ", ".join(f"{name} {list(values.shape[1:])}" for name, values in found.items())
        raise AdoptFailed(
            f"model file {file} does not fit decoder {options.decoder}: it has {len(options.labels)} labels and the "
            f"outputs {shapes} per image: {reason}{_hint(found, options.decoder, decoder_options, others)}"
        )


def _hint(outputs: Outputs, decoder: str, options: DecoderOptions, others: Sequence[Proposal]) -> str:
    """Return the advice that ends the error message about unreadable outputs; "" if there is no advice."""
    if decoder == "softmax" and len(options.labels) == 1:
        return ". A model of one class needs the decoder sigmoid"
    if others:
        named = [f"{p.decoder} with --output {p.output}" if p.output else p.decoder for p in others]
        return f". Decoders that can read these outputs: {', '.join(named)}"
    shapes = {name: values.shape for name, values in outputs.items()}
    for proposal in decoders.propose(shapes, None, (options.input_width, options.input_height)):
        count = proposal.classes
        if proposal.decoder == decoder and count not in (None, len(options.labels)):
            return f". The model has {count} classes: pass a --labels file with {count} lines"
    return ""


def _difference(
    original: Any, wrapped: Any, given: ForeignInput, options: AdoptOptions, rows: int
) -> float | AdoptFailed:
    """Return the largest relative difference between original and wrapped outputs, or the error if a model cannot
    run.

    The original model gets one image at a time, and the wrapped model gets all images in one batch.
    """
    try:
        found = _run(wrapped, noise_images(given.width, given.height, rows))
        expected = outputs_on_noise(original, given, options, rows)
    except AdoptFailed as error:
        return error
    for name, values in found.items():
        wanted = expected[name].shape
        if wanted != values.shape:
            return AdoptFailed(f"output {name} has shape {values.shape} for {rows} images: expected {wanted}")
    return largest_difference((expected[name], values) for name, values in found.items())


def _run(model: Any, images: npt.NDArray[Any]) -> Outputs:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # each thread would take memory within the bound of the child process
    options.enable_cpu_mem_arena = False
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        arrays = session.run(names, {session.get_inputs()[0].name: images})
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        reason = str(error) or type(error).__name__  # MemoryError has no message
        raise AdoptFailed(f"ONNX Runtime cannot run the model: {reason}") from None
    return {name: np.atleast_1d(np.asarray(array)) for name, array in zip(names, arrays, strict=True)}
