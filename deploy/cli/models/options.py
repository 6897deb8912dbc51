"""Options of the commands that inspect a model file, and functions that parse the option values."""

from __future__ import annotations

import functools
import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from ingest.contract.identity import NAME_PATTERN
from ingest.exceptions import ConfigError
from ingest.runtime.text import read_text

if TYPE_CHECKING:
    from engines.repository.report import Overrides

File = Annotated[
    Path,
    typer.Argument(
        help="ONNX file, .keras file, or folder with a TensorFlow SavedModel. The model has one input of colour "
        "pictures, (N, 3, H, W) or (N, H, W, 3)."
    ),
]
NewName = Annotated[
    str, typer.Argument(help="Name for the model. Default: the name of the file.", show_default=False)
]
Decoder = Annotated[
    str,
    typer.Option(help="Decoder of the outputs. Default: the first that can read the outputs.", show_default=False),
]
Labels = Annotated[
    str,
    typer.Option(help="Text file with a class name per line, or the names with commas between.", show_default=False),
]
Colour = Annotated[
    Literal["bgr", "rgb"] | None,
    typer.Option(help="Order of the colours that the model expects.", show_default=False),
]
FitOption = Annotated[
    Literal["stretch", "letterbox", "crop"] | None,
    typer.Option(help="How pictures get the shape of the input.", show_default=False),
]
Mean = Annotated[
    tuple[float, float, float] | None,
    typer.Option(help="Subtracted from each channel of 0 to 255.", show_default=False),
]
Scale = Annotated[
    tuple[float, float, float] | None,
    typer.Option(help="Factor of each channel after the subtraction.", show_default=False),
]
Output = Annotated[
    str, typer.Option(help="Name of the output to keep, for a model with several outputs.", show_default=False)
]
Size = Annotated[
    str, typer.Option(help="WIDTHxHEIGHT of the input, for a model that accepts any size.", show_default=False)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE: setting of the decoder. May be repeated.", show_default=False),
]
MaxSeconds = Annotated[int, typer.Option(min=1, help="Limit of the processor time of the inspection.")]


def read_labels(file: Path | None) -> tuple[str, ...]:
    """Return the class names in a file, one per line.

    Without a file, return the class names of COCO. Raise ConfigError.
    """
    from engines.repository.adopt import COCO_LABELS

    if file is None:
        return COCO_LABELS
    if not file.is_file():
        raise ConfigError("models", "--labels", str(file), "a text file with one class name per line")
    return _unique(str(file), [line.strip() for line in read_text(file).splitlines()])


def overrides_of(
    decoder: Decoder = "",
    labels: Labels = "",
    colour: Colour = None,
    fit: FitOption = None,
    mean: Mean = None,
    scale: Scale = None,
    output: Output = "",
    size: Size = "",
    settings: Settings = None,
) -> Overrides:
    """Return the model settings that the command line options set. Raise ConfigError."""
    from engines.repository.report import Overrides

    return Overrides(
        decoder=decoder,
        labels=_labels(labels),
        colour=colour,
        fit=fit,
        mean=mean,
        scale=scale,
        output=output,
        size=size_of(size, "models"),
        decoding=_decoding(settings or []),
    )


def with_overrides(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of ``overrides_of`` to a command.

    The command gets the values of the options as its argument ``overrides``.
    """

    def parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
        hints = get_type_hints(function, localns={"Overrides": object}, include_extras=True)
        found = inspect.signature(function).parameters.values()
        return [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in found if p.name != "overrides"]

    options = parameters(overrides_of)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        fixed = {option.name: given.pop(option.name) for option in options}
        command(overrides=overrides_of(**fixed), **given)

    signature = inspect.Signature([*parameters(command), *options])
    setattr(run, "__signature__", signature)  # noqa: B010  (typer reads this attribute, which mypy does not know)
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def _labels(text: str) -> tuple[str, ...]:
    if "," in text and not Path(text).exists():
        return _unique("--labels", [name.strip() for name in text.split(",")])
    return read_labels(Path(text)) if text else ()


def _unique(key: str, lines: list[str]) -> tuple[str, ...]:
    labels = tuple(line for line in lines if line)
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not labels:
        raise ConfigError("models", key, ", ".join(twice) or "empty", "one class name per line, each once")
    return labels


def _decoding(settings: list[str]) -> dict[str, Any]:
    """Parse decoder settings of the form KEY=VALUE. A value that is not valid TOML is plain text."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not (key and equals):
            raise ConfigError("models", "--set", setting, "KEY=VALUE, such as unit=px")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def size_of(text: str, command: str) -> tuple[int, int] | None:
    """Return (width, height) in px from the option ``--size``; None for an empty text. Raise ConfigError."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if text and not found:
        raise ConfigError(command, "--size", text, "WIDTHxHEIGHT in px, such as 640x640")
    return (int(found[1]), int(found[2])) if found else None


def name_of(name: str, file: Path) -> str:
    """Return the model name that the user gave, or a name derived from the file's name.

    Raise ConfigError if the name is invalid.
    """
    chosen = name or re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("._-")[:63].rstrip("._-")
    return read_name(chosen, "models", "NAME")


def read_name(name: str, command: str, key: str) -> str:
    """Check a model name that the user gave, and return it. Raise ConfigError if the name is invalid."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(command, key, name, "lower-case letters, digits, dots, hyphens and underscores")
    return name
