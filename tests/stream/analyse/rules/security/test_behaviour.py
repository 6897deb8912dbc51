"""Tests of the rule ``behaviour``, with a small ONNX model that calls a person with a wide box fallen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ingest.exceptions import ConfigError
from stream.analyse.behaviour.model import FILE, INPUT, LABELS
from stream.analyse.behaviour.window import FEATURES, STEPS
from stream.analyse.rule import RuleWatch, Scene, SceneTrack
from stream.analyse.rules.security.behaviour import BehaviourRule
from stream.analyse.stage import runnable
from tests.stream.analyse.rules.scenes import Reports, scene, track

RULE = BehaviourRule(name="hall", camera="c", pipeline="p", behaviour="fallen", model="wide@3")
STEP_S = 0.1


def wide_model() -> onnx.ModelProto:
    """Return a model whose probability of ``fallen`` is the sigmoid of 8 times the logarithm of width by height."""
    constants = {"last": np.array(STEPS - 1), "aspect": np.array([4]), "8": np.float32(8), "1": np.float32(1)}
    nodes = [
        helper.make_node("Gather", [INPUT, "last"], ["now"], axis=1),
        helper.make_node("Gather", ["now", "aspect"], ["shape"], axis=1),
        helper.make_node("Mul", ["shape", "8"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["fallen"]),
        helper.make_node("Sub", ["1", "fallen"], ["standing"]),
        helper.make_node("Concat", ["standing", "fallen"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", STEPS, FEATURES])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {LABELS: "standing,fallen"})
    return model


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "wide" / "3"
    folder.mkdir(parents=True)
    onnx.save(wide_model(), str(folder / FILE))
    monkeypatch.setenv("SIGHTLINE_MODELS", str(tmp_path))
    return tmp_path


def person(*, lies: bool, name: str = "t") -> SceneTrack:
    return track(300.0, 200.0, name, "person", size=(80.0, 30.0) if lies else (30.0, 80.0))


def scenes(*lying: bool) -> list[Scene]:
    return [scene(round(n * STEP_S, 6), person(lies=lies)) for n, lies in enumerate(lying)]


def reports(watch: RuleWatch[BehaviourRule], shown: list[Scene]) -> Reports:
    return [(one.at_ns / 1e9, found) for one in shown for found, _ in watch.observe(one, ())]


FALL = scenes(*[False] * 40, *[True] * 60)


def test_a_behaviour_that_lasts_for_the_configured_time_is_reported_once_with_the_name_of_the_model() -> None:
    ((at_s, found),) = reports(RULE.watch(640, 360), FALL)
    assert 5.0 <= at_s <= 5.5
    assert found.details["behaviour"] == "fallen"
    assert found.details["model"] == "wide@3"
    assert float(found.details["probability"]) > 0.99


def test_a_standing_person_is_not_reported_as_fallen() -> None:
    assert reports(RULE.watch(640, 360), scenes(*[False] * 100)) == []


def test_a_person_who_gets_up_and_falls_again_is_reported_again() -> None:
    shown = scenes(*[False] * 40, *[True] * 40, *[False] * 40, *[True] * 40)
    assert len(reports(RULE.watch(640, 360), shown)) == 2


def test_the_behaviour_of_a_track_is_judged_only_after_two_and_a_half_seconds() -> None:
    watch = RULE.model_copy(update={"for_s": 0.0}).watch(640, 360)
    ((at_s, _),) = reports(watch, scenes(*[True] * 60))
    assert 2.5 <= at_s <= 3.0


def test_a_restart_does_not_change_the_frame_in_which_a_behaviour_is_reported() -> None:
    whole = reports(RULE.watch(640, 360), FALL)
    for cut in (3, 13):
        later = [one._replace(at_ns=one.at_ns - FALL[cut].at_ns) for one in FALL[cut:]]
        restarted = reports(RULE.watch(640, 360), later)
        assert [at_s + cut * STEP_S for at_s, _ in restarted] == pytest.approx([at_s for at_s, _ in whole])


def later(shown: list[Scene], seconds: float) -> list[Scene]:
    after_ns = round(seconds * 1e9)
    return [one._replace(at_ns=one.at_ns + after_ns, captured_ns=one.captured_ns + after_ns) for one in shown]


def test_a_reported_behaviour_that_goes_on_after_an_occlusion_is_not_reported_again() -> None:
    watch = RULE.watch(640, 360)
    assert len(reports(watch, FALL)) == 1
    watch.resume("t")
    assert reports(watch, later(scenes(*[True] * 60), 20.0)) == []
    assert len(reports(watch, later(scenes(*[False] * 40, *[True] * 60), 26.0))) == 1


def test_the_behaviour_of_a_returning_track_is_judged_from_its_boxes_after_the_return() -> None:
    watch = RULE.model_copy(update={"for_s": 0.0}).watch(640, 360)
    assert reports(watch, scenes(*[False] * 40)) == []
    watch.resume("t")
    ((at_s, _),) = reports(watch, later(scenes(*[True] * 60), 10.0))
    assert 12.5 <= at_s <= 13.0


def test_several_people_in_a_frame_are_judged_by_their_own_boxes() -> None:
    watch, found = RULE.watch(640, 360), []
    for n in range(60):
        shown = scene(n * STEP_S, person(lies=False, name="a"), person(lies=True, name="b"))
        found += [one.subject for one, _ in watch.observe(shown, ())]
    assert found == ["b"]


def test_the_behaviour_rule_states_why_a_track_is_not_reported() -> None:
    watch, shown = RULE.watch(640, 360), scenes(*[False] * 40)
    reports(watch, shown[:1])
    assert watch.reasons(shown[0], shown[0].tracks[0]) == ["has not been seen for long enough to judge its behaviour"]
    reports(watch, shown[1:])
    assert watch.reasons(shown[-1], shown[-1].tracks[0]) == ["fallen has the probability 0.00, below 0.7"]


def test_analyse_refuses_a_behaviour_rule_whose_model_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"rule/hall\.model = 'gait@3': expected a usable model: .*is missing"):
        runnable(RULE.model_copy(update={"model": "gait@3"}))


def test_analyse_refuses_a_file_that_is_no_behaviour_model(repository: Path) -> None:
    (repository / "gait" / "1").mkdir(parents=True)
    (repository / "gait" / "1" / FILE).write_bytes(b"no model")
    with pytest.raises(ConfigError, match="expected an ONNX model"):
        runnable(RULE.model_copy(update={"model": "gait@1"}))


def test_analyse_refuses_a_behaviour_that_the_model_does_not_know() -> None:
    with pytest.raises(ConfigError, match=r"rule/hall\.behaviour = 'dancing': expected .*standing, fallen"):
        runnable(RULE.model_copy(update={"behaviour": "dancing"}))
    assert runnable(RULE) == RULE


def test_a_behaviour_rule_whose_model_has_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="model"):
        BehaviourRule(name="hall", camera="c", pipeline="p", behaviour="fallen", model="gait")
