import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbkit.config import digest
from nbkit.config.profiles import PROFILES
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError


def test_paper_profile_is_the_printed_recipe():
    cfg = RunConfig.make(profile="paper")
    assert (cfg.stcl.alpha, cfg.vca.beta, cfg.optim.batch, cfg.optim.weight_decay, cfg.optim.optimizer) == (
        2.0,
        0.5,
        64,
        1e-7,
        "sgd",
    )
    assert (cfg.optim.epochs, cfg.optim.lr, cfg.optim.lr_steps) == ((300, 300, 400), (0.01, 0.01, 0.001), (100, 200))
    assert (cfg.data.clips, cfg.data.frames, cfg.data.crop, cfg.model.feature_dim) == (3, 16, 224, 512)
    assert (cfg.stcl.multi_pos, cfg.model.head, cfg.model.bn_mode, cfg.stcl.normalise) == (
        "sum_in_log",
        "none",
        "shared",
        "none",
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_valid(profile):
    assert RunConfig.make(profile=profile).profile == profile


def test_unknown_name_is_refused_with_the_nearest_known_one():
    with pytest.raises(NbkitError, match="unknown parameter ALPA; did you mean ALPHA"):
        RunConfig.from_parameters({"ALPA": 1.0})


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"alpha": -1}, "ALPHA"),
        ({"method": 3}, "METHOD"),
        ({"bn_mode": "layer"}, "BN_MODE"),
        ({"profile": "huge"}, "profile"),
        ({"source": "street"}, "source and target are both"),
        ({"crop": 400}, "crop=400"),
        ({"batch": 33}, "batch=33"),
        ({"batch": 4}, "BATCH"),
        ({"epochs": (0, -1, 8)}, "EPOCHS"),
        ({"lr": (0.0, 1.0, 1.0)}, "LR"),
        ({"aggregation": "mean", "video_neg": "order"}, "order"),
    ],
)
def test_wrong_values_name_the_field(fields, words):
    with pytest.raises(NbkitError, match=words):
        RunConfig.make(**fields)


def test_parameters_cell_takes_upper_case_literals_only():
    names = {
        "SEED": 3,
        "ALPHA": None,
        "np": object(),
        "SomeClass": int,
        "helper": 1,
        "_PRIVATE": 2,
        "CONSTANT_OBJECT": object(),
    }
    assert RunConfig.from_parameters(names) == RunConfig.make(seed=3)


@given(st.text(alphabet=st.characters(categories=["Lu"]), min_size=1, max_size=8))
def test_any_name_is_either_a_field_or_refused(name):
    if name.lower() in RunConfig.model_fields:
        return
    with pytest.raises(NbkitError, match="unknown parameter"):
        RunConfig.from_parameters({name: 1})


def test_identity_ignores_places_and_sees_everything_else():
    base = RunConfig.make()
    assert (
        RunConfig.make(runs_dir="/elsewhere", workers=7, progress=True).identity()
        == base.identity()
    )
    for change in ({"seed": 1}, {"alpha": 0.2}, {"frames": 9}, {"eval_split": "val"}):
        assert RunConfig.make(**change).identity() != base.identity()
    assert RunConfig(**base.model_dump(mode="json")).identity() == base.identity()


def test_digest_does_not_depend_on_key_order():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_a_manifest_path_is_no_benchmark_of_a_run():
    with pytest.raises(NbkitError, match="put the file into data_manifests/ and give its name"):
        RunConfig.make(benchmark="mine/own.yaml")
