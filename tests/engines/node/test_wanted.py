"""Tests of the models that a configuration and its canaries ask for."""

from __future__ import annotations

from engines.node.wanted import (
    ModelSettings,
    SecondWanted,
    Wanted,
    WantedModels,
    canary_name,
    is_pipeline_name,
    lighter_name,
)
from engines.repository.canary import Canary
from ingest.site import PipelineConfig, SecondModelConfig
from ingest.site.pipeline import MOTION_MODEL

BRAND = SecondModelConfig(name="brand", model="brands@3", min_score=0.6, precision="bf16")
CARS = PipelineConfig(
    name="cars",
    model="regions",
    width=64,
    height=32,
    min_score=0.4,
    lighter="regions@1",
    overload="lighter",
    then=(BRAND,),
)
PEOPLE = PipelineConfig(name="people", model="regions@2", width=64, height=64)
CANARY = Canary(model="regions", version=2, share=0.25, since_ns=7)


def wanted(*pipelines: PipelineConfig, **canaries: Canary) -> WantedModels:
    models = WantedModels()
    models.set_pipelines(pipelines)
    models.set_canaries(canaries)
    return models


def identities(models: list[Wanted]) -> dict[str, str]:
    """Return the model of each wanted model, by name."""
    return {one.name: one.config.model if isinstance(one, SecondWanted) else one.model for one in models}


def test_a_pipeline_needs_its_model_its_lighter_model_and_its_second_models() -> None:
    models = wanted(CARS, PEOPLE)
    assert identities(models.configured()) == {
        "cars": "regions",
        "cars/lighter": "regions@1",
        "people": "regions@2",
        "cars/then/brand": "brands@3",
    }
    assert models.names == {"cars", "cars/lighter", "people", "cars/then/brand"}
    assert "cars/then/brand" in models
    assert "cars/canary" not in models


def test_a_lighter_model_and_a_canary_have_the_settings_of_their_pipeline_without_its_second_models() -> None:
    models = wanted(CARS, cars=CANARY)
    lighter, canary = models.configured()[1], *models.canary_versions()
    for one in (lighter, canary):
        assert isinstance(one, PipelineConfig)
        assert (one.then, one.width, one.height, one.min_score) == ((), 64, 32, 0.4)
    assert isinstance(canary, PipelineConfig)
    assert canary.lighter == ""


def test_a_pipeline_with_a_canary_needs_the_canary_and_the_promoted_version() -> None:
    models = wanted(CARS, cars=CANARY)
    assert identities(models.canary_versions()) == {"cars/canary": "regions@2"}
    assert {"cars", "cars/canary"} <= models.names


def test_a_canary_is_not_needed_if_its_pipeline_is_not_configured() -> None:
    models = wanted(PEOPLE, cars=CANARY)
    assert models.canary_versions() == []
    assert models.names == {"people"}
    models.set_pipelines([CARS, PEOPLE])
    assert "cars/canary" in models


def test_setting_the_canaries_returns_each_ended_canary_once() -> None:
    models = wanted(CARS, PEOPLE, cars=CANARY)
    assert models.set_canaries({"people": CANARY}) == {"cars": CANARY}
    assert models.set_canaries({"people": CANARY}) == {}
    assert models.names == {"cars", "cars/lighter", "cars/then/brand", "people", "people/canary"}


def test_a_pipeline_that_uses_motion_instead_of_a_model_needs_no_model() -> None:
    models = wanted(CARS)
    models.set_pipelines([PipelineConfig.model_validate({"name": "motion", "model": MOTION_MODEL})])
    assert (models.configured(), models.names) == ([], frozenset())


def test_names_of_lighter_canary_and_second_models_are_not_names_of_pipelines() -> None:
    others = [lighter_name("cars"), canary_name("cars"), SecondWanted(CARS, BRAND).name]
    assert [is_pipeline_name(name) for name in ("cars", *others)] == [True, False, False, False]


def test_model_settings_do_not_change_with_pipeline_settings_that_do_not_concern_the_model() -> None:
    usual = ModelSettings.of(CARS, "regions@1")
    assert ModelSettings.of(CARS.model_copy(update={"max_items": 2, "cameras": ("north",)}), "regions@1") == usual
    for change in ({"width": 32}, {"colour": "rgb"}, {"fit": "crop"}, {"min_score": 0.5}, {"precision": "int8"}):
        assert ModelSettings.of(CARS.model_copy(update=change), "regions@1") != usual


def test_settings_of_a_second_model_do_not_depend_on_the_input_of_its_pipeline() -> None:
    found = ModelSettings.of(SecondWanted(CARS, BRAND), "brands@3")
    assert found == ModelSettings("brands@3", (), 0.6, "bf16")
    assert ModelSettings.of(SecondWanted(PEOPLE, BRAND), "brands@3") == found
