"""Speed of a training step: ours against a plain loop over the same architecture, both in one run on one machine.

    python -m benchmarks.training                       # compact model, device as found
    python -m benchmarks.training --arch ViT-B-32 --batch 16 --seconds 60

Plain: the architecture from open_clip in fp32, AdamW, a DataLoader with its defaults (no worker process) over the same
faces and augmentation, CLIP's own diagonal loss, prompts encoded at every step. Ours: `AffectVLM` with what train.py
sets (bf16 where it is fast, channels last, compiled where asked, texts remembered while the text tower rests, a loader
process, running average). Both see the same number of views a step. Loading and rendering are timed by themselves.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from affectvlm.augmentation.views import MixedViews
from affectvlm.config import LossConfig, OptimConfig
from affectvlm.data import FaceSet, MixedBatches, RenderedFaces, build
from affectvlm.emotions import EKMAN
from affectvlm.launching import fast_precision
from affectvlm.losses import AffectVLMLoss
from affectvlm.methods.affectvlm import AffectVLM
from affectvlm.model import build_model
from affectvlm.model.tuning import TuningConfig, prepare
from affectvlm.prompts import PromptSet


def steps_per_second(step: Callable[[], None], seconds: float, warm: int = 3) -> float:
    """Steps a second after `warm` unmeasured ones."""
    for _ in range(warm):
        step()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return count / (time.perf_counter() - start)


def plain_step(arch: str, loader: DataLoader, device: str) -> Callable[[], None]:
    """One step of a loop as one writes it first."""
    model = build_model(arch).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = iter(loader)

    def step() -> None:
        batch = next(batches)
        z = model.encode_views(batch["views"].to(device)).flatten(0, 1)
        text = model.encode_prompts([text for row in batch["prompts"] for text in row])
        logits = model.logits(z, text)
        target = torch.arange(len(logits), device=device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def our_step(arch: str, loader: DataLoader, device: str, text_lr: float, compiled: bool) -> Callable[[], None]:
    """One step as Lightning drives it in train.py."""
    model = build_model(arch).to(device)
    model.clip.visual.to(memory_format=torch.channels_last)
    tuning = TuningConfig(freeze=() if text_lr else ("text",))
    prepare(model, tuning)
    method = AffectVLM(
        model, AffectVLMLoss(len(EKMAN)), tuning, OptimConfig(text_lr=text_lr, compile=compiled), LossConfig()
    ).to(device)
    method.log_dict = lambda values: None  # without a trainer there is nowhere to log to
    method.train()
    optimizer = method.configure_optimizers()["optimizer"]
    average = torch.optim.swa_utils.AveragedModel(method, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    batches, bf16 = iter(loader), fast_precision() == "bf16"

    def step() -> None:
        batch = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in next(batches).items()}
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = method.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(method)

    return step


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--arch", default="affectvlm-compact")
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=30.0, help="for each measurement")
    arguments.add_argument("--text-lr", type=float, default=0.0, help="0: the text tower rests")
    arguments.add_argument("--compile", action="store_true")
    given = arguments.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as cache:
        size = build_model(given.arch).image_size
        start = time.perf_counter()
        folder = build(FaceSet("procedural", "train", 512, size=size), cache)
        rendered = 512 / (time.perf_counter() - start)
        faces = RenderedFaces([folder])
        settings = {"batch": given.batch, "steps": 10**6, "seed": 0, "per_sample": 2, "prompts": PromptSet.load()}
        batches = MixedBatches(faces, MixedViews(size=size), **settings)
        views = given.batch * 2
        loading = itertools.count()
        result = {
            "arch": given.arch, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "threads": torch.get_num_threads(), "precision": fast_precision(), "views_per_step": views,
            "rendered_faces_per_s_per_core": round(rendered / (os.cpu_count() or 1), 2),
            "loader_views_per_s_one_process": round(
                views * steps_per_second(lambda: batches.make(next(loading)), given.seconds / 3), 1),
        }  # fmt: skip
        plain = plain_step(given.arch, DataLoader(batches, batch_size=None), device)
        result["plain_views_per_s"] = round(views * steps_per_second(plain, given.seconds), 1)
        del plain
        loader = DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=4)
        ours = our_step(given.arch, loader, device, given.text_lr, given.compile)
        result["our_views_per_s"] = round(views * steps_per_second(ours, given.seconds), 1)
        result["ratio"] = round(result["our_views_per_s"] / result["plain_views_per_s"], 2)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
