"""Records of backtests, stored in the model repository beside the versions that they tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from engines.exceptions import AdoptFailed, PromotionRefused
from engines.repository.store import Repository
from ingest.runtime.files import replace_file
from ingest.runtime.text import decode_text

FOLDER = "backtests"
_ADVICE = "Run `sightline backtest --model {model} --from … --to …`"


class BacktestRecord(BaseModel):
    """The inputs, thresholds and outcome of one backtest of a model version.

    ``served`` counts the compared frames by the model that classified them or their objects live. ``reasons`` say why
    the version did not pass; there are none if it passed. ``plan_sha256`` is the hash of pipelines, rules, cameras,
    measures, model file and period together.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    sha256: str
    at: str
    since: str
    until: str
    pipelines: tuple[str, ...]
    cameras: tuple[str, ...]
    served: dict[str, int]
    rules_sha256: str
    plan_sha256: str
    thresholds: dict[str, float]
    figures: dict[str, Any]
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the version met all thresholds."""
        return not self.reasons


def add_record(repository: Repository, record: BacktestRecord) -> Path:
    """Store the record of a backtest beside the model version, and return the record's path. Raise AdoptFailed if the
    folder cannot be written."""
    name, version = repository.resolve(record.model)
    folder = repository.root / name / FOLDER
    stamp = record.at.replace(":", "").replace("-", "").replace(".", "")
    path = folder / f"{version}-{stamp}.json"
    try:
        folder.mkdir(exist_ok=True)
        replace_file(path, f"{record.model_dump_json(indent=2)}\n".encode())
    except OSError as error:
        raise AdoptFailed(f"record of the backtest {path}: {error.strerror}: expected a writable folder") from None
    return path


def records_of(repository: Repository, name: str, version: int) -> list[BacktestRecord]:
    """Return the backtest records of a model version, the latest last. Leave out unreadable records."""
    found = []
    for path in sorted((repository.root / name / FOLDER).glob(f"{version}-*.json")):
        try:
            found.append(BacktestRecord.model_validate_json(decode_text(path.read_bytes())))
        except (OSError, ValidationError, ValueError):
            continue
    return sorted(found, key=lambda one: one.at)


def require_passed(repository: Repository, name: str, version: int) -> BacktestRecord:
    """Return the latest backtest record of a model version if the version passed. Raise PromotionRefused with the
    reason if the version did not pass.

    The backtest must have tested the version's present file, and compared the version with the served one, unless the
    version itself is served. Raise ModelUnknown or ManifestError.
    """
    manifest, served = repository.open(name, version).manifest, repository.promoted(name)
    advice = _ADVICE.format(model=manifest.id)
    records = records_of(repository, name, version)
    if not records:
        raise PromotionRefused(f"{manifest.id} has no backtest: expected one that passed. {advice}")
    latest = records[-1]
    if latest.sha256 != manifest.sha256:
        raise PromotionRefused(f"the backtest of {manifest.id} at {latest.at} tested another model file. {advice}")
    if not latest.passed:
        raise PromotionRefused(
            f"the backtest of {manifest.id} at {latest.at} did not pass: {'; '.join(latest.reasons)}. Improve the "
            "model, or state other thresholds and run the backtest again"
        )
    if version != served and f"{name}@{served}" not in latest.served:
        compared = ", ".join(latest.served) or "no model"
        raise PromotionRefused(
            f"the backtest of {manifest.id} at {latest.at} compares it with {compared}, but {name}@{served} is "
            f"served now. {advice} over frames that {name}@{served} has classified"
        )
    return latest
