"""Settings: what is accepted arrives typed, what is not is refused by name."""

import pytest
import yaml

from affectvlm.config import TrainConfig, load, to_dict


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("optim: {lr: 1e-4, batch: 32}\n")
    config = load(TrainConfig, file, ["optim.batch=16", "views.kinds=[1, 0, 0]"])
    assert (config.optim.lr, config.optim.batch, config.views.kinds) == (1e-4, 16, (1.0, 0.0, 0.0))
    assert config.optim.weight_decay == TrainConfig().optim.weight_decay


def test_what_was_resolved_reads_back_equal(tmp_path):
    config = load(TrainConfig, None, ["run.name=x", "optim.lr=3e-4", "data.train_faces=[64]"])
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(to_dict(config)))
    assert load(TrainConfig, file) == config


@pytest.mark.parametrize("name", ["007", "1e3", "1_000", "true", "null", "2024-01-01", "0x1f", "", "~"])
def test_a_name_is_the_text_that_was_typed(name):
    assert load(TrainConfig, None, [f"run.name={name}"]).run.name == name


def test_a_section_can_be_given_whole_and_added_to():
    config = load(TrainConfig, None, ["optim={lr: 1e-4, batch: 8}", "optim.batch=16"])
    assert (config.optim.lr, config.optim.batch) == (1e-4, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lr: 1}\nrun: {seed: 1}\noptim: {steps: 90}\n", "settings.yaml, line 1: optim is given twice"),
        ("optim:\n  lr: 1\n  lr: 2\n", "settings.yaml, line 2: lr is given twice"),
        ("optim: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("run:\n  seed: 1\n\tname: x\n", "settings.yaml, line 3: .*cannot start any token"),
        ("optim: [1\n", "settings.yaml"),
        ("? [1, 2]\n: 3\n", "unhashable"),
        ("- 1\n", "holds list; sections with settings"),
        ("0\n", "holds int; sections with settings"),
        ("1: 2\n", "unknown setting 1"),
        ("optim:\n", "optim is None; keys with values"),
        ("a: \x07\n", "special characters"),
    ],
)
def test_files_that_are_no_settings_are_refused_in_words(tmp_path, text, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load(TrainConfig, file)


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "settings.yaml").write_text("# nothing\n")
    assert load(TrainConfig, tmp_path / "settings.yaml") == TrainConfig()


def test_contradictions_between_settings_are_refused():
    with pytest.raises(ValueError, match="both given"):
        load(TrainConfig, None, ["model.pretrained=openai", "model.start=folder"])
    with pytest.raises(ValueError, match="each source once"):
        load(TrainConfig, None, ["data.sources=[procedural, procedural]", "data.train_faces=[1, 1]"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.learning=1", "unknown setting optim.learning"),
        ("optim.stepz=1", "did you mean optim.steps"),
        ("optim.steps=many", "int is needed"),
        ("optim.steps=true", "int is needed"),
        ("optim=3", "keys with values"),
        ("views.kinds=[1, 2]", "3 are needed"),
        ("optim.lr", "not section.key=value"),
        ("optim.precision=fp8", "bf16 or fp32"),
        ("optim.batch=0", "numbers above 0"),
        ("optim.ema=1", "below 1"),
        ("run.name=../elsewhere", "plain name"),
        ("run.every=0", "1 or more"),
        ("model.interpolate=[1.5]", "between 0 and 1"),
        ("data.image_kind=depth", "normals, shaded or textured"),
        ("data.sources=[folder]", "data.folder is empty"),
        ("tuning.mode=half", "full, lora, projection"),
        ("data.sources=[ict]", "ict_path is empty"),
        ("optim.lr=[", "cannot be read as section.key=value"),
        ("optim.lr=!!python/object:os.system x", "could not determine a constructor"),
        ("optim.lr=nan", "optim.lr is nan; a finite number"),
        ("optim.clip=.inf", "optim.clip is inf; a finite number"),
        ("optim.lr=1" + "0" * 400, "a number is needed"),
        ("optim.lr=fast", "optim.lr is 'fast'; a number is needed"),
        ("optim.clip=-1", "optim.clip is -1.0; 0 or more"),
        ("optim.warmup=-5", "optim.warmup is -5; 0 or more"),
        ("optim.steps=99999999999999999999", "at most"),
        ("loss.triplet=-0.1", "loss.triplet is -0.1; 0 or more"),
        ("loss={contrastive: 0, triplet: 0, alignment: 0, units: 0}", "nothing is left to learn from"),
        ("loss.margin=0.9", "loss.margin is 0.9; a number between 0.05 and 0.6"),
        ("multiview.pair_scale=0", "positive number"),
        ("multiview={contrastive: 0, multiview: 0, positive: 0, negative: 0}", "nothing is left to learn from"),
        ("smile.off_diagonal=-1", "smile.off_diagonal is -1.0; 0 or more"),
        ("smile.projection=1", "smile.projection is 1; 2 or more"),
        ("mifar={views: 0, distortions: 0}", "nothing is left to learn from"),
        ("data={sources: [], train_faces: []}", "data.sources is empty"),
        ("data.sources=[faces]", "data.sources names 'faces'; there are procedural, ict, makehuman, folder"),
        ("data.train_faces=[-5]", "data.train_faces is .-5,.; 0 or more"),
        ("data.train_faces=[0]", "generated faces to train on are needed"),
        ("data.validation_faces=0", "generated faces to validate on are needed"),
        ("data.test_faces=0", "data.test_faces is 0; 1 or more"),
        ("data.loaders=-1", "data.loaders is -1; 0 or more"),
        ("views.kinds=[1, 1, 1]", "three shares, 1 in all"),
        ("views.kinds=[-1, 1, 1]", "three shares, 1 in all"),
        ("views.size=7", "views.size is 7; 32 to 1024"),
        ("views.flip=2", "views.flip is 2.0; a share from 0 to 1"),
        ("views.rotation=-5", "views.rotation is -5.0; 0 or more"),
        ("pseudo.dominance=0", "a share above 0"),
        ("run.seed=-1", "run.seed is -1; a whole number"),
        ("run.save_minutes=-1", "run.save_minutes is -1.0; 0 or more"),
    ],
)
def test_unknown_or_contradictory_settings_are_refused_in_words(override, message):
    with pytest.raises(ValueError, match=message):
        load(TrainConfig, None, [override])
