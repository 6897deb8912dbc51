"""Propose the decoder and the manifest of a foreign model, and list the settings that the file does not show.

The layouts of the outputs suggest possible decoders. Each decoder is tried on the outputs of images of noise, and the
first decoder that can read these outputs is proposed. An ONNX file states neither the normalisation of pixels nor the
resizing. For the normalisation and the resizing, the usual values of the model's family are proposed, and are marked
as assumed.
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from engines import decoders
from engines.decoders import Proposal, propose
from engines.engine import Outputs
from engines.exceptions import AdoptFailed, DecoderUnknown, ManifestError
from engines.repository.adopt import (
    AdoptOptions,
    adopt_checked,
    finds_objects,
    outputs_on_noise,
    unproven_settings,
    unreadable,
)
from engines.repository.inspection import FileFacts, TensorInfo, facts_of, read_checked
from engines.repository.manifest import Decoding
from engines.repository.report import ConvertedFrom, ModelReport, Overrides, Setting, Source
from engines.repository.store import Repository
from engines.repository.usage import hidden_order, labels_in, labels_of, named_settings, usage_of, variants
from engines.repository.wrap import NO_MEAN, NO_SCALE, ForeignInput, input_of, with_float_outputs

_USUAL_SIZE = (640, 640)
"""Input size (width, height) in px for models that accept any size: the usual size of YOLO and RT-DETR models."""
_MERGING = Decoding.model_fields.keys() - {"settings"}
"""Names of the settings that all decoders have, which control how overlapping boxes are merged."""
_NO_OBJECT = "the outputs on images of noise show no object"


def examined(
    file: Path, name: str, overrides: Overrides, repository: Path | None, converted: ConvertedFrom | None = None
) -> ModelReport:
    """Inspect a model file, choose its settings, and adopt the model.

    Without ``repository``, adopt the model into a temporary repository. ``converted`` describes the file from which
    ``file`` was converted. Raise AdoptFailed, DecoderUnknown or ManifestError.
    """
    if overrides.decoder and overrides.decoder not in decoders.known():
        raise DecoderUnknown(overrides.decoder, decoders.known())
    checked = read_checked(file)
    model = checked.model
    facts = facts_of(file, model)
    size = _size(model, overrides, facts.metadata)
    given = input_of(model, size.value if size else None)
    settings, outputs, rejected = _chosen(file, model, given, overrides, facts)
    settings = (*settings, *([size] if size else []))
    with tempfile.TemporaryDirectory() as temporary:
        root = repository or Path(temporary)
        stored = adopt_checked(checked, Repository(root), _options(name, settings, converted)).manifest
    return ModelReport(
        file=str(converted.file if converted else file),
        sha256=converted.sha256 if converted else checked.sha256,
        facts=facts,
        layout=given.layout,
        settings=settings,
        outputs=tuple(_described(name, values) for name, values in outputs.items()),
        rejected=tuple(rejected),
        model=stored.id if repository else "",
        max_batch=stored.max_batch,
    )


class _Choice(NamedTuple):
    """The settings of a proposed decoder, and the outputs on which the decoder was tried. ``refusal`` is the reason
    why the decoder cannot read the outputs, or "".

    ``unproven`` is true if the outputs show no object, so that nothing confirms the settings of this decoder.
    """

    settings: tuple[Setting, ...]
    outputs: Outputs
    refusal: str = ""
    unproven: bool = False


def _chosen(
    file: Path, model: Any, given: ForeignInput, overrides: Overrides, facts: FileFacts
) -> tuple[tuple[Setting, ...], Outputs, list[str]]:
    """Return (settings, outputs, reasons against other decoders) for the first decoder that can read the outputs.

    A decoder whose settings nothing confirms is chosen only if no later decoder finds objects. If the user named a
    decoder, no other decoder is tried.
    """
    plain = with_float_outputs(model, overrides.output, scores=False)
    usage = AdoptOptions("probe", "", ())
    shapes = {name: values.shape for name, values in outputs_on_noise(plain, given, usage).items()}
    rejected: list[str] = []
    unproven: list[tuple[_Choice, str]] = []
    for proposal in _proposals(shapes, given, overrides, facts.metadata):
        choice = _tried(model, given, overrides, proposal, facts.metadata)
        described = f"{proposal.decoder} ({proposal.reason})"
        if choice.unproven:
            unproven.append((choice, f"{described}: {_NO_OBJECT}"))
        elif overrides.decoder:  # adoption explains why a decoder does not fit
            return choice.settings, choice.outputs, rejected
        elif choice.refusal:
            rejected.append(f"{described}: {choice.refusal}")
        elif unproven and not finds_objects(choice.outputs, given, _options("probe", choice.settings)):
            rejected.append(f"{described}: {_NO_OBJECT}")
        else:
            return choice.settings, choice.outputs, [*rejected, *(reason for _, reason in unproven)]
    if unproven:
        choice = unproven[0][0]
        return choice.settings, choice.outputs, rejected
    found = ", ".join(f"{name} {list(shape[1:])}" for name, shape in shapes.items())
    labels = len(overrides.labels)
    tried = "; ".join(rejected) or (f"no layout has {labels} classes" if labels else "no known layout")
    raise AdoptFailed(
        f"model file {file}, outputs {found} per image: no decoder can read them: {tried}. Choose one "
        f"with --decoder and --labels, or register your own. Decoders: {', '.join(decoders.known())}"
    )


def _tried(
    model: Any, given: ForeignInput, overrides: Overrides, proposal: Proposal, metadata: Mapping[str, str]
) -> _Choice:
    """Try a decoder with each of its usual settings, or only with the settings that the user gave."""
    refusal = ""
    for candidate in _candidates(model, overrides, proposal):
        settings = tuple(_settings(model, given, overrides, proposal, candidate, metadata))
        options = _options("probe", settings)
        kept = with_float_outputs(model, options.output, scores=options.decoder in decoders.SIGMOIDS)
        outputs = outputs_on_noise(kept, given, options)
        reason = _reason(outputs, given, options)
        if not reason:
            fixed = overrides.decoding.keys() - _MERGING or candidate.named
            assumed = {} if fixed else unproven_settings(outputs, given, options)
            if not assumed:
                return _Choice(settings, outputs)
            decoding = candidate.decoding.model_copy(update={"settings": assumed})
            candidate = _Candidate(decoding, "assumed", _NO_OBJECT)
            settings = tuple(_settings(model, given, overrides, proposal, candidate, metadata))
            return _Choice(settings, outputs, unproven=True)
        refusal = refusal or reason
    return _Choice(settings, outputs, refusal)


class _Candidate(NamedTuple):
    """Settings of a decoder to try, and the origin of these settings.

    ``named`` is true if output names state the settings.
    """

    decoding: Decoding
    source: Source
    reason: str
    named: bool = False


def _candidates(model: Any, overrides: Overrides, proposal: Proposal) -> Iterator[_Candidate]:
    """Yield the settings to try: the settings of the user, or the decoder's usual settings. Raise ManifestError."""
    merging = {key: value for key, value in overrides.decoding.items() if key in _MERGING}
    own = {key: value for key, value in overrides.decoding.items() if key not in _MERGING}
    kept = overrides.output or proposal.output
    names = kept.split(",") if kept else [value.name for value in model.graph.output]
    named = {} if own else named_settings(proposal.decoder, names)
    hidden = {} if own or named else hidden_order(proposal.decoder, model.producer_name)
    source: Source = "option" if overrides.decoding else "file"
    reason = "the names of the outputs" if named else "the form of the outputs"
    if hidden:
        source, reason = "assumed", "TensorFlow's models have either order of coordinates, and classes from 0 or 1"
    for settings in [own] if own else variants(proposal.decoder):
        try:
            decoding = Decoding(settings={**hidden, **settings, **named}, **merging)
            yield _Candidate(decoding, source, reason, bool(named))
        except ValidationError as error:
            first = error.errors()[0]
            raise ManifestError(f"setting {first['loc'][0]} = {first['input']!r}: {first['msg']}") from None


def _reason(outputs: Outputs, given: ForeignInput, options: AdoptOptions) -> str:
    try:
        return unreadable(outputs, given, options)
    except ManifestError as error:  # the decoder needs settings
        return str(error)


def _proposals(
    shapes: Mapping[str, tuple[int, ...]], given: ForeignInput, overrides: Overrides, metadata: Mapping[str, str]
) -> list[Proposal]:
    count = len(overrides.labels or labels_in(metadata)) or None
    found = propose(shapes, count, (given.width, given.height))
    if count and not found and not overrides.labels:
        found = propose(shapes, None, (given.width, given.height))
    if not overrides.decoder:
        return found
    chosen = [proposal for proposal in found if proposal.decoder == overrides.decoder]
    return chosen[:1] or [Proposal(overrides.decoder, "chosen by the option", count)]


def _settings(
    model: Any,
    given: ForeignInput,
    overrides: Overrides,
    proposal: Proposal,
    candidate: _Candidate,
    metadata: Mapping[str, str],
) -> Iterator[Setting]:
    """Yield each setting of a model, with its value, origin and reason."""
    decoding = candidate.decoding
    usage, reason, source = usage_of(model, given, proposal.decoder, decoding, metadata)
    if overrides.decoder:
        yield Setting(key="decoder", value=proposal.decoder, source="option", reason="--decoder")
    else:
        yield Setting(key="decoder", value=proposal.decoder, source="file", reason=proposal.reason)
    if decoding != Decoding():
        yield Setting(key="decoding", value=decoding, source=candidate.source, reason=candidate.reason)
    yield labels_of(proposal, decoding, overrides, metadata)
    output = overrides.output or proposal.output
    if output:
        how: Source = "option" if overrides.output else "file"
        because = "the outputs that the decoder reads" if "," in output else "the output that the decoder reads"
        yield Setting(key="output", value=output, source=how, reason=because)
    for key in ("colour", "fit", "mean", "scale"):
        fixed = getattr(overrides, key)
        if fixed is not None:
            yield Setting(key=key, value=fixed, source="option", reason=f"--{key}")
        elif key in ("mean", "scale") and given.dtype is np.uint8:
            value = NO_MEAN if key == "mean" else NO_SCALE
            yield Setting(key=key, value=value, source="file", reason="the input takes uint8 pixels")
        else:
            yield Setting(key=key, value=getattr(usage, key), source=source, reason=reason)


def _size(model: Any, overrides: Overrides, metadata: Mapping[str, str]) -> Setting | None:
    """Return the setting of the input size, or None if the file fixes the size and the user named no size."""
    if overrides.size:
        return Setting(key="size", value=overrides.size, source="option", reason="--size")
    try:
        input_of(model)
    except AdoptFailed:
        pass
    else:
        return None
    try:
        height, width = (int(side) for side in ast.literal_eval(metadata.get("imgsz", "")))
        return Setting(key="size", value=(width, height), source="file", reason="imgsz in the file's metadata")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return Setting(key="size", value=_USUAL_SIZE, source="assumed", reason="the model accepts any size")


def _options(name: str, settings: tuple[Setting, ...], converted: ConvertedFrom | None = None) -> AdoptOptions:
    values = {setting.key: setting.value for setting in settings}
    assumed = tuple(setting.key for setting in settings if setting.source == "assumed")
    return AdoptOptions(name=name, **values, assumed=assumed, converted=converted)


def _described(name: str, values: Any) -> TensorInfo:
    shape = (None, *values.shape[1:])
    return TensorInfo(name=name, dtype="float", shape=shape, low=float(values.min()), high=float(values.max()))
