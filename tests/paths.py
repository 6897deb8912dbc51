"""Where tests find the repository and the models that ship."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "engines" / "models"
