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
    ],
)
def test_unknown_or_contradictory_settings_are_refused_in_words(override, message):
    with pytest.raises(ValueError, match=message):
        load(TrainConfig, None, [override])
