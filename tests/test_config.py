import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbkit.config import RECOGNITION, digest
from nbkit.config.localization import LocalizationConfig
from nbkit.config.recognition import RunConfig
from nbkit.errors import NbkitError


def test_paper_profile_is_the_printed_recipe():
    cfg = RunConfig.make(profile="paper")
    assert (
        cfg.stcl.alpha,
        cfg.vca.beta,
        cfg.optim.batch,
        cfg.optim.weight_decay,
        cfg.optim.optimizer,
    ) == (
        2.0,
        0.5,
        64,
        1e-7,
        "sgd",
    )
    assert (cfg.optim.epochs, cfg.optim.lr, cfg.optim.lr_steps) == (
        (300, 300, 400),
        (0.01, 0.01, 0.001),
        (100, 200),
    )
    assert (cfg.data.clips, cfg.data.frames, cfg.data.crop, cfg.model.feature_dim) == (
        3,
        16,
        224,
        512,
    )
    assert (cfg.stcl.multi_pos, cfg.model.head, cfg.model.bn_mode, cfg.stcl.normalise) == (
        "sum_in_log",
        "none",
        "shared",
        "none",
    )


@pytest.mark.parametrize("profile", RECOGNITION)
def test_every_profile_is_valid(profile):
    assert RunConfig.make(profile=profile).watch.profile == profile


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
        ({"batch": 33}, "BATCH: .* multiple of 2"),
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
    if name.lower() in RunConfig.places():
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
    with pytest.raises(NbkitError, match="A file of data_manifests/ goes without .yaml"):
        RunConfig.make(benchmark="mine/own.yaml")


@pytest.mark.parametrize("made", [RunConfig, LocalizationConfig])
def test_flat_names_are_unique_and_lead_back_to_the_same_configuration(made):
    cfg = made.make()
    names = list(cfg.flat())
    fields = [name for name, section in made.places().items() if not section]
    sections = {section for section in made.places().values() if section}
    inside = [name for section in sections for name in type(getattr(cfg, section)).model_fields]
    assert sorted(names) == sorted([*fields, *inside])  # a name in two sections would show up twice
    assert cfg.replace() == cfg and made.make(**cfg.flat()) == cfg
    assert cfg.changed() == {} and set(cfg.replace(seed=3).changed()) == {"seed"}


@pytest.mark.parametrize("made", [RunConfig, LocalizationConfig])
def test_only_what_is_watched_is_left_out_of_the_identity(made):
    places = made.places()
    watched = set(type(made.make().watch).model_fields)
    cfg = made.make()
    inside = set()
    for name, value in cfg.identity().items():
        inside |= set(value) if isinstance(value, dict) else {name}
    assert inside == (set(places) - watched) | {"task", "version"}


def test_a_part_holds_the_data_and_the_named_sections_only():
    part = RunConfig.make().part("data", "vca")
    common = {"task", "version", "benchmark", "source", "target", "seed", "split_seed"}
    assert set(part) == common | {"data", "vca"}
    assert RunConfig.make(alpha=9.0).part("data", "vca") == part
    assert RunConfig.make(beta=9.0).part("data", "vca") != part


def test_a_row_of_localization_names_its_modules():
    assert LocalizationConfig.make(row="T_img + S_img").modules == ("t_img", "s_img")
    with pytest.raises(NbkitError, match="row='T_all': choose one of"):
        LocalizationConfig.make(row="T_all")
    with pytest.raises(NbkitError, match="norm='group' has none"):
        LocalizationConfig.make(row="AdaBN", norm="group")
