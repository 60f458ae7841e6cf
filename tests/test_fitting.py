"""What happens around the steps of a training: numbers that are said are true from the first step on."""

from types import SimpleNamespace

import pytest

from affectvlm import fitting
from affectvlm.config import TrainConfig, load
from affectvlm.fitting import Progress


@pytest.mark.parametrize("began", [0, 40])
def test_progress_tells_the_speed_of_the_first_step_and_then_that_of_the_others(monkeypatch, began):
    now, said = [100.0], []
    monkeypatch.setattr(fitting.time, "monotonic", lambda: now[0])
    config = load(TrainConfig, None, ["optim.steps=50", "optim.batch=8", "optim.warmup=1", "run.every=1"])
    run = SimpleNamespace(event=lambda kind, **values: said.append((kind, values)))
    trainer = SimpleNamespace(global_step=began, callback_metrics={}, is_global_zero=True, world_size=1)
    progress = Progress(run, config)
    progress.on_train_start(trainer, None)
    for seconds in (10.0, 2.0, 2.0, 2.0):  # the first one compiles
        progress.on_train_batch_start(trainer)
        now[0] += seconds
        trainer.global_step += 1
        progress.on_train_batch_end(trainer, None)
    told = [values for kind, values in said if kind == "progress"]
    assert [values["steps_per_s"] for values in told] == [0.1, 0.5, 0.5, 0.5]
    assert [values["eta_s"] for values in told] == [
        (50 - began - step) * seconds for step, seconds in ((1, 10), (2, 2), (3, 2), (4, 2))
    ]
    assert told[1]["views_per_s"] == 0.5 * 8 * 2
