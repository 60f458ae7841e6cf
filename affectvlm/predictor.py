"""The facade: a scan, three photos or a sequence in, a frozen `Prediction` out. App, shell and Python all come here.

A `Predictor` holds the model and its text bank, and nothing of any call: sessions and threads share one. A call runs
the network in evaluation mode under `inference_mode`, in float32 and on the views of one face at a time, so that
neither other threads nor the size of a batch can change a number.

What becomes of the logits over the six emotions and the rejection rows ("neutral", "no face") of the text bank:

* p_reject = softmax mass of the rejection rows; reported p = (1 - p_reject) softmax(six) + p_reject / 6. So a neutral
  face, or something that is no face, gets a flat answer, and the six always sum to 1.
* Where the pose of a scan is doubtful, there is perhaps no face, or it was not seen from the front. A certainty c below
  DOUBTFUL_POSE shrinks all shares to c / DOUBTFUL_POSE of themselves, the rest goes to "no face", and a warning says
  so. A user who corrected the pose vouches for it: then nothing shrinks.
* A sequence (4D) is read frame by frame with one smooth pose (`sequences`), from at most MAX_FRAMES frames spread
  evenly over it. Each is answered as above; their mean is weighted by expressiveness, 1 - p_reject, so that a neutral
  beginning and end do not water the answer down. The answers over time are its `curve`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from affectvlm import rendering
from affectvlm.answers import Answer, Clock, Look, Looks
from affectvlm.scan import Scan

if TYPE_CHECKING:
    from affectvlm.curves import EmotionCurve
    from affectvlm.model import Card, MultiviewCLIP
    from affectvlm.photos import PreparedPhotos
    from affectvlm.pose import FrontalScan, Pose
    from affectvlm.sequences import FrontalFrame

logger = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"
DEFAULT_CHECKPOINT = "affectvlm-compact"

SURE, LEANING = 0.75, 0.45
"""Lowest confidence that is called "sure" and "leaning"; "not sure" below."""

NO_FACE = "no face"
DOUBTFUL_POSE = 0.65
DOUBT = "where the face is and which way it looks is doubtful, so the answer is held back"
MAX_FRAMES = 32
VIEW_SIZE = 224

ScanSource = Scan | str | Path | tuple[bytes, str]
"""A scan, the path of its file, or a file's bytes and name."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says of one face.

    Attributes:
        emotion: the class with the largest probability.
        confidence: that probability, 1/6 to 1.
        certainty: the same in words: "sure", "leaning" or "not sure".
        probabilities: class name → probability, in the model's order; they sum to 1.
        view_probabilities: view name → class name → probability, from that view alone; missing photos have no entry.
        rejection: rejection row ("neutral", "no face") → its softmax mass; what the classes have is 1 minus their sum.
        views: (3, 224, 224, 3) uint8 RGB for people to look at: photos, or the scan in its own colours or else grey.
        inputs: (3, 224, 224, 3) uint8 RGB as the model saw them: for scans of the kind of picture it was trained on.
        view_names: of both, in order: front, left, right.
        kind: "scan", "photos" or "sequence".
        pose: how the head was turned in the file (scans; of a sequence, its most expressive frame), else None.
        scan: that scan in the canonical frame, else None.
        warnings: in plain words.
        timings_ms: milliseconds for "read", "pose", "render", "model" (photos: "read", "model") and "total".
        curve: of a sequence, the emotions over time with onset, apex and offset, else None.
        dynamic_images: of a sequence, (3, 224, 224, 3) uint8: each view rank pooled over the frames that were looked
            at, in the kind of `inputs`, at a scale that is the same for all sequences; else None.
    """

    emotion: str
    confidence: float
    certainty: str
    probabilities: dict[str, float]
    view_probabilities: dict[str, dict[str, float]]
    rejection: dict[str, float]
    views: np.ndarray
    inputs: np.ndarray
    view_names: tuple[str, ...]
    kind: str
    pose: Pose | None
    scan: Scan | None
    warnings: tuple[str, ...]
    timings_ms: dict[str, float]
    curve: EmotionCurve | None = None
    dynamic_images: np.ndarray | None = None

    def to_dict(self) -> dict[str, Any]:
        """All but pictures and mesh, as JSON takes it."""
        pose = self.pose
        axes = ("yaw", "pitch", "roll", "certainty")
        return {
            "emotion": self.emotion,
            "confidence": self.confidence,
            "certainty": self.certainty,
            "probabilities": dict(self.probabilities),
            "view_probabilities": {name: dict(shares) for name, shares in self.view_probabilities.items()},
            "rejection": dict(self.rejection),
            "kind": self.kind,
            "view_names": list(self.view_names),
            "pose": None if pose is None else {axis: float(getattr(pose, axis)) for axis in axes},
            "warnings": list(self.warnings),
            "timings_ms": {step: round(value, 2) for step, value in self.timings_ms.items()},
            "curve": None if self.curve is None else self.curve.to_dict(),
        }


class Predictor:
    """A model ready to answer; made by `from_checkpoint`. Safe to share among threads."""

    def __init__(self, model: MultiviewCLIP, card: Card) -> None:
        import torch

        self.model = model.eval().float().requires_grad_(False)
        self.model.clip.visual.to(memory_format=torch.channels_last)  # 1.2 times as fast on a CPU
        self.card = card
        with torch.inference_mode():
            self._bank = model.text_bank(card.prompts)

    @classmethod
    def from_checkpoint(cls, path: str | Path | None = None, device: str = "auto") -> Predictor:
        """Load a checkpoint folder; without `path` the shipped one.

        Args:
            path: the folder.
            device: "cpu", "cuda", ..., or "auto": a GPU where there is one.

        Raises:
            CheckpointError: no checkpoint there, or one that cannot be used.
        """
        import torch

        from affectvlm.model import load_checkpoint

        folder = default_checkpoint() if path is None else Path(path)
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return cls(*load_checkpoint(folder, device))

    def predict(self, x: Any, correction: Sequence[float] = (0.0, 0.0, 0.0)) -> Prediction:
        """Answer whatever is given.

        Args:
            x: a scan (`Scan`, path, or (bytes, name)); three photos as {"front": ..., "left": ..., "right": ...}, as
                [front, left, right] or as `PreparedPhotos`; or a sequence: a list of scans in the order of time, a
                folder of scans, a zip of several, or an animated glTF.
            correction: degrees of yaw, pitch and roll added to the pose that is found (scans and sequences).

        Raises:
            ScanError, PhotoError: the input cannot be used.
            ValueError: something else was given.
        """
        from affectvlm.photos import PreparedPhotos
        from affectvlm.sequences import is_sequence

        if isinstance(x, PreparedPhotos):
            return self._answer_photos(x, Clock())
        if isinstance(x, Mapping):
            unknown = set(x) - set(rendering.VIEW_NAMES)
            if unknown:
                raise ValueError(f"photos are named {sorted(map(str, unknown))}; front, left and right are needed")
            return self.predict_photos(**x)
        if _are_photos(x):
            return self.predict_photos(*x)
        if is_sequence(x):
            return self.predict_sequence(x, correction)
        if _is_scan_source(x):
            return self._predict_scan(x, correction)
        wanted = "a scan (Scan, path, or bytes with a name), front, left and right photo, or a sequence of scans"
        raise ValueError(f"got {type(x).__name__}; {wanted} is needed")

    def predict_photos(self, front: Any = None, left: Any = None, right: Any = None) -> Prediction:
        """Answer from one to three photos of a face; "left" shows the subject's left cheek.

        Each is a path, bytes, a PIL image, a (H, W), (H, W, 3) or (H, W, 4) array, or None where there is none.

        Raises:
            PhotoError: none is given, or one cannot be read.
        """
        from affectvlm.photos import prepare_photos

        self._refuse_single("photos")
        clock = Clock()
        with clock.step("read"):
            photos = prepare_photos(front, left, right, size=VIEW_SIZE)
        return self._answer_photos(photos, clock)

    def predict_sequence(
        self,
        x: Any,
        correction: Sequence[float] = (0.0, 0.0, 0.0),
        frames: int | None = MAX_FRAMES,
        fps: float | None = None,
        on_frame: Callable[[FrontalFrame, Look], None] | None = None,
    ) -> Prediction:
        """Answer a sequence of scans; memory does not grow with its length.

        Args:
            x: a list of scans in the order of time, a folder, a zip of scans or an animated glTF, see
                `sequences.open_sequence`.
            correction: as for `predict`, for every frame.
            frames: how many are looked at, at most, spread evenly; None = all. The curve has as many.
            fps: frames a second, where that is known: the curve then has times.
            on_frame: called with each frame once it was answered.

        Raises:
            ScanError: it cannot be read, or too many of its frames cannot.
            ValueError: something else was given.
        """
        from affectvlm.sequences import DynamicViews, FrontalFrames, Remarks, open_sequence, spread_evenly

        correction, clock = _three_angles(correction), Clock()
        looks, remarks, dynamic = Looks(), Remarks(), DynamicViews(self.card.image_kind)
        with open_sequence(x, fps) as sequence:
            chosen = spread_evenly(len(sequence), frames)
            with clock.step("pose"):
                faces = FrontalFrames(sequence, chosen, correction=correction)
            walk = iter(faces)
            while True:
                with clock.step("pose"):
                    face = next(walk, None)
                if face is None:
                    break
                look = self._look(face, correction, clock)
                with clock.step("render"):
                    dynamic.add(look.buffers)
                looks.add(face, look)
                remarks.add([DOUBT] * look.doubtful)
                if on_frame is not None:
                    on_frame(face, look)
            clock.move("pose", "read", sequence.reading_ms)
            warnings = [*faces.warnings, *remarks.words()]
            if len(chosen) < len(sequence):
                warnings.append(f"{len(chosen)} of the {len(sequence)} frames, spread evenly, were looked at.")
            pictures = dynamic.pictures(magnify=self.card.magnify)
            return self._sequence_prediction(looks, pictures, sequence.times, warnings, clock.finish())

    def _sequence_prediction(
        self,
        looks: Looks,
        dynamic: np.ndarray,
        times: np.ndarray | None,
        warnings: list[str],
        timings: dict[str, float],
    ) -> Prediction:
        from affectvlm.curves import emotion_curve

        classes, weights = self.card.classes, looks.expressiveness()
        temporal = self.card.temporal  # then the dynamic images are what it reads, and no frame alone means anything
        answer, (face, look) = self._ask(dynamic) if temporal else looks.mean(weights), looks.peak
        curve = (
            None
            if temporal
            else emotion_curve(
                classes,
                classes[int(answer.classes.argmax())],
                np.array(looks.numbers),
                np.stack([one.classes for one in looks.answers]),
                weights,
                None if times is None else times[looks.indices],
            )
        )
        views = rendering.picture(look.buffers, "textured")
        dynamic.setflags(write=False)
        prediction = self._prediction(
            answer, views, dynamic if temporal else look.inputs, "sequence", face.pose, face.scan,
            dict.fromkeys(warnings), timings,
        )  # fmt: skip
        return replace(prediction, curve=curve, dynamic_images=dynamic)

    def _answer_photos(self, photos: PreparedPhotos, clock: Clock) -> Prediction:
        with clock.step("model"):
            answer = self._ask(photos.views, photos.present)
        return self._prediction(
            answer, photos.views, photos.views, "photos", None, None, photos.warnings, clock.finish()
        )

    def _predict_scan(self, source: ScanSource, correction: Sequence[float]) -> Prediction:
        from affectvlm.pose import frontalize
        from affectvlm.scan_io import read_scan

        self._refuse_single("a scan")
        correction, clock = _three_angles(correction), Clock()
        with clock.step("read"):
            scan = source if isinstance(source, Scan) else read_scan(*_reader_arguments(source))
        with clock.step("pose"):
            frontal = frontalize(scan, correction)
        look = self._look(frontal, correction, clock)
        with clock.step("render"):
            views = rendering.picture(look.buffers, "textured")
        warnings = [*frontal.scan.warnings, *[DOUBT] * look.doubtful]
        return self._prediction(
            look.answer, views, look.inputs, "scan", frontal.pose, frontal.scan, dict.fromkeys(warnings), clock.finish()
        )

    def _refuse_single(self, given: str) -> None:
        if self.card.temporal:
            raise ValueError(f"{self.card.name} was trained on motion and got {given}; a sequence of scans is needed")

    def _look(self, face: FrontalScan | FrontalFrame, correction: tuple[float, ...], clock: Clock) -> Look:
        """Draw a face and ask the model; the answer is held back where the pose is doubtful."""
        card = self.card
        with clock.step("render"):
            buffers = rendering.render_buffers(face.scan, card.yaws, VIEW_SIZE, card.half_width)
            inputs = rendering.picture(buffers, card.image_kind)
        with clock.step("model"):
            answer = self._ask(inputs)
        doubt = pose_doubt(face.pose, correction)
        doubtful = doubt > 0 and NO_FACE in card.rejection
        if doubtful:
            answer = answer.doubted(doubt, card.rejection.index(NO_FACE))
        return Look(answer, buffers, inputs, doubtful)

    def _ask(self, views: np.ndarray, present: np.ndarray | None = None) -> Answer:
        """(N, H, W, 3) uint8 views of one face, and which of them are there (N,) bool → what the model says."""
        import torch

        from affectvlm.model import probabilities

        present = np.ones(len(views), bool) if present is None else np.asarray(present, bool)
        device, classes = self._bank.device, len(self.card.classes)
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(views.transpose(0, 3, 1, 2)))[None].to(device)
            features = self.model.encode_views(pixels)  # (1, N, D)
            fused = self.model.aggregate(features, torch.from_numpy(present)[None].to(device))  # (1, D)
            logits = self.model.logits(torch.cat([fused, features[0]]), self._bank)  # (1 + N, K + R)
            parts = probabilities(logits, classes, self.card.temperature, self.card.rejection_margin)
            shares, rejected = (part.double().cpu().numpy() for part in parts)
        shares /= shares.sum(axis=1, keepdims=True)  # exactly one in double precision too
        return Answer(shares[0], shares[1:], rejected[0], present)

    def _prediction(
        self,
        answer: Answer,
        views: np.ndarray,
        inputs: np.ndarray,
        kind: str,
        pose: Pose | None,
        scan: Scan | None,
        warnings: Any,
        timings_ms: dict[str, float],
    ) -> Prediction:
        classes, names = self.card.classes, tuple(self.card.view_names)
        best = int(answer.classes.argmax())
        confidence = float(answer.classes[best])
        for picture in (views, inputs):
            picture.setflags(write=False)
        return Prediction(
            emotion=classes[best],
            confidence=confidence,
            certainty=certainty_word(confidence),
            probabilities=_named(classes, answer.classes),
            view_probabilities={
                name: _named(classes, row)
                for name, row, there in zip(names, answer.views, answer.present, strict=True)
                if there
            },
            rejection=_named(self.card.rejection, answer.rejected),
            views=views,
            inputs=inputs,
            view_names=names,
            kind=kind,
            pose=pose,
            scan=scan,
            warnings=tuple(warnings),
            timings_ms=timings_ms,
        )


def default_checkpoint() -> Path:
    """The shipped checkpoint's folder: DEFAULT_CHECKPOINT, or else the first by name.

    Raises:
        CheckpointError: there is none.
    """
    from affectvlm.model import CheckpointError

    named = CHECKPOINTS / DEFAULT_CHECKPOINT
    found = [named] if named.is_dir() else sorted(card.parent for card in CHECKPOINTS.glob("*/card.json"))
    if not found:
        raise CheckpointError("no checkpoint in the folder checkpoints; train one (see README) or name its folder")
    return found[0]


def pose_doubt(pose: Pose, correction: Sequence[float]) -> float:
    """The share of everything that goes to "no face", 0 to 1: none where somebody corrected the pose."""
    return 0.0 if any(correction) else max(0.0, 1.0 - float(pose.certainty) / DOUBTFUL_POSE)


def certainty_word(confidence: float) -> str:
    return "sure" if confidence >= SURE else "leaning" if confidence >= LEANING else "not sure"


def _three_angles(correction: Sequence[float]) -> tuple[float, float, float]:
    angles = tuple(float(angle) for angle in correction)
    if len(angles) != 3 or not np.isfinite(angles).all():
        raise ValueError(f"correction is {angles}; degrees of yaw, pitch and roll are needed")
    return angles


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _are_photos(x: Any) -> bool:
    """Whether x is a list of three pictures, or names of picture files, of which some may be missing (None)."""
    from PIL import Image

    def is_picture(one: Any) -> bool:
        if isinstance(one, str | Path):
            return Path(one).suffix.lower() in Image.registered_extensions()
        return isinstance(one, Image.Image | np.ndarray)

    given = [one for one in x if one is not None] if isinstance(x, list | tuple) and len(x) == 3 else []
    return bool(given) and all(map(is_picture, given))


def _is_scan_source(x: Any) -> bool:
    is_upload = isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], bytes) and isinstance(x[1], str)
    return is_upload or isinstance(x, Scan | str | Path)


def _reader_arguments(source: str | Path | tuple[bytes, str]) -> tuple[Any, ...]:
    return source if isinstance(source, tuple) else (source,)
