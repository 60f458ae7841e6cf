"""Rank pooling: a sequence of frames as one image that ranks them in time (Fernando et al. 2015; Bilen et al. 2016).

Frames ψ_1 ... ψ_T (pixels or features), running means V_t = (ψ_1 + ... + ψ_t) / t, score S(t | d) = <d, V_t>. The
dynamic image d is the one whose scores rise with time.

* Approximate: one gradient step from d = 0, d ∝ Σ_{q>t} (V_q - V_t) = Σ_t α_t ψ_t. `approximate_weights` has α in both
  closed forms, `RankPooling` makes the sum in one pass: with S_i = ψ_1 + ... + ψ_i, A = Σ S_i and B = Σ S_i / i,

      d = 2 A - (T + 1) B,

  so neither T nor the frames have to be kept. The terms cancel, hence float64.
* Linear: ψ in place of V, α_t = 2t - T - 1.
* Exact: `pool_by_regression` (support vector regression of t on V_t, what public code solves) and `pool_by_ranking`
  (the ranking support vector machine of the papers), both by way of the T x T Gram matrix.

Divided by the number of pairs, T (T - 1) / 2, which is the gradient of the mean hinge loss over pairs, d is the mean
difference between a later and an earlier frame: of the same size for long and short sequences, and in [-1, 1] for
pixels in [0, 1]. So one constant scale serves a whole data set (`to_uint8`).

Holes: where a mask says that a pixel is missing in a frame, that pixel is pooled over the frames that have it, as
though it had seen no others: its own T, running mean and number of pairs. A hole that comes and goes thus is no motion.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MAX_STEPS = 200
"""Most Newton steps of the exact forms; they need 5 to 40."""
GAP = 1e-9
"""Of the ranking machine: the loss is at most this much above its minimum."""


def approximate_weights(count: int, form: str = "sums") -> np.ndarray:
    """The weights α (count,) float64 of approximate rank pooling, the first frame's first; [1] for a single frame.

    Args:
        count: frames, T, at least 1.
        form: "sums": α_t = Σ_{i=t..T} (2i - T - 1) / i; "harmonic": α_t = 2 (T - t + 1) - (T + 1) (H_T - H_{t-1}) with
            the harmonic numbers H. The two are equal.

    Raises:
        ValueError: no frames, or another form.
    """
    time = _times(count)
    if form not in ("sums", "harmonic"):
        raise ValueError(f"form is {form!r}; sums or harmonic is needed")
    if count == 1:
        return np.ones(1)
    if form == "sums":
        return np.cumsum(((2 * time - count - 1) / time)[::-1])[::-1]
    harmonic = np.concatenate([[0.0], np.cumsum(1 / time)])
    return 2 * (count - time + 1) - (count + 1) * (harmonic[-1] - harmonic[:-1])


def linear_weights(count: int) -> np.ndarray:
    """The weights (count,) float64 without the running mean, α_t = 2t - T - 1; [1] for a single frame.

    Raises:
        ValueError: no frames.
    """
    time = _times(count)
    return 2 * time - count - 1 if count > 1 else np.ones(1)


class RankPooling:
    """Approximate rank pooling of frames that come one by one; memory is that of five frames, however many come.

        pooling = RankPooling()
        for frame in frames:
            pooling.add(frame)
        image = pooling.result()

    Args:
        running_mean: False for the linear weights.
    """

    def __init__(self, running_mean: bool = True) -> None:
        self._running_mean = running_mean
        self._frames = 0
        self._only: np.ndarray | None = None  # the first frame, until there is a second
        self._sum = self._sums = self._means = np.zeros(0)
        self._seen: np.ndarray | int = 0

    def __len__(self) -> int:
        """How many frames were added."""
        return self._frames

    @property
    def seen(self) -> np.ndarray | int:
        """In how many frames each pixel was there: an array of the mask's shape; one number while no mask was given."""
        return self._seen.copy() if isinstance(self._seen, np.ndarray) else self._seen

    def add(self, frame: np.ndarray, valid: np.ndarray | None = None) -> None:
        """One more frame.

        Args:
            frame: any shape, that of the first frame; numbers. What is not valid may hold anything, NaN too.
            valid: bool, of the frame's shape or of its leading axes, e.g. (H, W) for (H, W, C); None = all of it.

        Raises:
            ValueError: another shape than before, or a valid value that is not finite.
        """
        frame = np.array(frame, np.float64)
        if self._frames and frame.shape != self._sum.shape:
            raise ValueError(f"the frame has shape {frame.shape}; {self._sum.shape} as before is needed")
        if valid is not None:
            valid = np.asarray(valid, bool)
            if valid.shape != frame.shape[: valid.ndim]:
                raise ValueError(f"valid has shape {valid.shape}; the leading axes of {frame.shape} are needed")
            frame[~valid] = 0.0
        if not np.isfinite(frame).all():
            raise ValueError("the frame holds NaN or infinity; finite numbers are needed, or a mask of what is valid")
        if not self._frames:
            self._sum, self._sums, self._means = (np.zeros_like(frame) for _ in range(3))
        self._count(valid)
        self._only = frame if not self._frames else None
        self._frames += 1
        seen, there = self._over(self._seen), 1.0 if valid is None else self._over(valid)
        self._sum += frame
        if self._running_mean:
            self._sums += self._sum * there
            self._means += self._sum * there / np.maximum(seen, 1)
        else:
            self._means += seen * frame

    def result(self, mean: bool = True, least: float = 0.0) -> np.ndarray:
        """The dynamic image, float64 of the frames' shape; of a single frame, that frame.

        Args:
            mean: True for the mean over pairs of frames, False for the plain sum Σ α_t ψ_t.
            least: share of the frames, 0 to 1; a pixel that was there in fewer shows no motion, 0.

        Raises:
            ValueError: no frame was added.
        """
        if not self._frames:
            raise ValueError("no frames were added; at least one is needed")
        if self._only is not None:
            return self._only.copy()
        seen = self._over(self._seen)
        first = 2 * (self._sums if self._running_mean else self._means)
        image = first - (seen + 1) * (self._means if self._running_mean else self._sum)
        if mean:
            image = image / np.maximum(seen * (seen - 1) / 2, 1)
        # Nothing can have moved where a pixel was there but once: rounding alone speaks there.
        return np.where((seen > 1) & (seen >= least * self._frames), image, 0.0)

    def _count(self, valid: np.ndarray | None) -> None:
        if valid is None:
            self._seen = self._seen + 1
            return
        if isinstance(self._seen, int):
            self._seen = np.full(valid.shape, self._seen, np.int64)
        if valid.ndim > self._seen.ndim:
            self._seen = np.broadcast_to(self._over(self._seen, valid.ndim), valid.shape).copy()
        self._seen += valid.reshape(valid.shape + (1,) * (self._seen.ndim - valid.ndim))

    def _over(self, values: np.ndarray | int, axes: int | None = None) -> np.ndarray | int:
        """Values of the leading axes, so that they go with whole frames."""
        axes = self._sum.ndim if axes is None else axes
        return values if isinstance(values, int) else values.reshape(values.shape + (1,) * (axes - values.ndim))


def rank_pool(frames: Iterable[np.ndarray], running_mean: bool = True, mean: bool = True) -> np.ndarray:
    """The dynamic image of frames without holes, see `RankPooling`.

    Raises:
        ValueError: no frames, or frames of several shapes.
    """
    pooling = RankPooling(running_mean)
    for frame in frames:
        pooling.add(frame)
    return pooling.result(mean)


def pool_by_regression(
    frames: np.ndarray, cost: float = 1.0, epsilon: float = 0.1, signed_root: bool = False
) -> np.ndarray:
    """Exact rank pooling as public code does it: linear support vector regression of the time on running means,

        min_w ½ |w|² + C Σ_t max(0, |t - <w, v_t>| - ε)²,    v_t = V_t / |V_t|

    (liblinear's `-s 11`). It is solved for β in w = Σ β_t v_t, which only takes the products <v_s, v_t>, by Newton's
    method on the frames outside the ε-tube.

    Args:
        frames: (T, ...) numbers; all are held at once.
        cost: C > 0; epsilon: ε >= 0.
        signed_root: take sign(V) √|V| first, as for histograms; it hurts where negative values or contrast matter.

    Returns:
        w, float64 of a frame's shape; of a single frame, that frame.

    Raises:
        ValueError: no frames, numbers that are not finite, or cost or epsilon out of range.
    """
    if not cost > 0 or not epsilon >= 0:
        raise ValueError(f"cost is {cost} and epsilon {epsilon}; more than 0, and 0 or more, are needed")
    means = _running_means(frames)
    if len(means) == 1:
        return means.reshape(np.shape(frames)[1:])
    if signed_root:
        means = np.sign(means) * np.sqrt(np.abs(means))
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-300)
    beta = _tube_regression(means @ means.T, _times(len(means)), cost, epsilon)
    return (beta @ means).reshape(np.shape(frames)[1:])


def pool_by_ranking(frames: np.ndarray, regularisation: float = 1.0) -> np.ndarray:
    """Exact rank pooling as the papers define it, a ranking support vector machine,

        min_d (λ/2) |d|² + 2 / (T (T - 1)) Σ_{q>t} max(0, 1 - <d, V_q> + <d, V_t>).

    Its dual has a multiplier for each pair of frames between 0 and 2 / (T (T - 1) λ); a primal-dual interior point
    method solves it. The system of each of its steps shrinks to T x T, since pairs are differences of T vectors.

    Args:
        frames: (T, ...) numbers; all are held at once.
        regularisation: λ > 0. Towards large λ, λ d becomes the approximate form (`rank_pool`).

    Returns:
        d, float64 of a frame's shape; of a single frame, that frame.

    Raises:
        ValueError: no frames, numbers that are not finite, or λ out of range.
    """
    if not regularisation > 0:
        raise ValueError(f"regularisation is {regularisation}; more than 0 is needed")
    means = _running_means(frames)
    if len(means) == 1:
        return means.reshape(np.shape(frames)[1:])
    means -= means.mean(axis=0)  # differences stay, rounding shrinks
    weights = _ranking_weights(means @ means.T, regularisation)
    return (weights @ means).reshape(np.shape(frames)[1:])


def to_uint8(image: np.ndarray, scale: float | None = 1.0) -> np.ndarray:
    """A dynamic image as uint8 of the same shape (..., H, W, C), 128 where nothing moves.

    Args:
        image: numbers; finite.
        scale: the value that becomes 255 (its negative becomes 1; what is beyond is cut). One constant for all of a
            data set keeps the strength of motion. None stretches every image (the last three axes) from its own least
            to its own greatest value, over all channels together so that hues stay: fit to be looked at.

    Raises:
        ValueError: a scale that is not above 0, or numbers that are not finite.
    """
    image = np.asarray(image, np.float64)
    if not np.isfinite(image).all():
        raise ValueError("the dynamic image holds NaN or infinity; finite numbers are needed")
    if scale is not None:
        if not scale > 0:
            raise ValueError(f"scale is {scale}; more than 0 is needed, or None for each image's own range")
        return np.rint(128 + 127 * np.clip(image / scale, -1, 1)).astype(np.uint8)
    axes = tuple(range(max(image.ndim - 3, 0), image.ndim))
    low, high = image.min(axis=axes, keepdims=True), image.max(axis=axes, keepdims=True)
    share = np.where(high > low, (image - low) / np.where(high > low, high - low, 1), 128 / 255)
    return np.rint(255 * share).astype(np.uint8)


def _times(count: int) -> np.ndarray:
    """1 ... T as float64."""
    if count < 1:
        raise ValueError(f"there are {count} frames; at least one is needed")
    return np.arange(1, count + 1, dtype=np.float64)


def _running_means(frames: np.ndarray) -> np.ndarray:
    """(T, D) float64."""
    frames = np.asarray(frames, np.float64)
    if frames.ndim < 1 or not len(frames) or not np.isfinite(frames).all():
        raise ValueError(f"frames are {frames.shape}; (T, ...) finite numbers of at least one frame are needed")
    flat = frames.reshape(len(frames), -1)
    return np.cumsum(flat, axis=0) / _times(len(flat))[:, None]


def _tube_regression(gram: np.ndarray, target: np.ndarray, cost: float, epsilon: float) -> np.ndarray:
    """The β that minimises ½ βᵀKβ + C Σ max(0, |t - Kβ| - ε)², (T,).

    Where frames outside the tube and their sides are known, the minimum is a linear system; a step toward it, of the
    exact best length along the line, lowers the convex piecewise quadratic function, until they no longer change.
    """
    beta = np.zeros(len(target))
    for _ in range(MAX_STEPS):
        miss = target - gram @ beta
        out = np.abs(miss) > epsilon
        aim = np.zeros_like(beta)
        if out.any():
            right = (target - epsilon * np.sign(miss))[out]
            aim[out] = np.linalg.solve(gram[np.ix_(out, out)] + np.eye(out.sum()) / (2 * cost), right)
        step = aim - beta
        if np.abs(step).max() <= 1e-12 * max(np.abs(aim).max(), 1e-300):
            break
        beta = beta + _best_length(gram, beta, step, miss, cost, epsilon) * step
    return beta


def _best_length(
    gram: np.ndarray, beta: np.ndarray, step: np.ndarray, miss: np.ndarray, cost: float, epsilon: float
) -> float:
    """Where along β + s step, 0 < s <= 1, the function is least: the zero of its slope, which rises with s."""
    move = gram @ step

    def slope(length: float) -> float:
        left = miss - length * move
        outside = np.sign(left) * np.maximum(np.abs(left) - epsilon, 0)
        return float((beta + length * step) @ move - 2 * cost * outside @ move)

    if slope(1.0) <= 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return high


def _ranking_weights(gram: np.ndarray, regularisation: float) -> np.ndarray:
    """The γ (T,) of d = Σ γ_t V_t that solves the ranking machine, from the Gram matrix of the V.

    With multipliers a of the pairs (t, q), D the matrix that has 1 at q and -1 at t in the row of its pair: γ = Dᵀa,
    and a solves  min ½ aᵀ D K Dᵀ a - Σ a,  0 <= a <= c = 2 / (T (T - 1) λ).
    """
    count = len(gram)
    early, late = np.triu_indices(count, 1)
    most = 1 / (len(early) * regularisation)
    values, vectors = np.linalg.eigh(gram)
    root = vectors * np.sqrt(np.maximum(values, 0))  # K = root rootᵀ

    def gather(a: np.ndarray) -> np.ndarray:  # Dᵀ a
        return np.bincount(late, a, count) - np.bincount(early, a, count)

    def spread(x: np.ndarray) -> np.ndarray:  # D x
        return x[late] - x[early]

    def solve(diagonal: np.ndarray, right: np.ndarray) -> np.ndarray:
        """(D K Dᵀ + diagonal)⁻¹ right by Woodbury; Dᵀ diagonal⁻¹ D is a graph's Laplacian."""
        weight = np.zeros((count, count))
        weight[early, late] = weight[late, early] = 1 / diagonal
        laplacian = np.diag(weight.sum(axis=1)) - weight
        inner = np.eye(count) + root.T @ laplacian @ root
        return (right - spread(root @ np.linalg.solve(inner, root.T @ gather(right / diagonal)))) / diagonal

    push = spread(gram @ gather(np.ones(len(early))))
    share = min(0.5, 0.5 / max(float(np.abs(push).max()) * most, 1e-300))
    a = np.full(len(early), share * most)
    slope = share * most * push - 1
    lower, upper = np.maximum(slope, 0) + 1, np.maximum(-slope, 0) + 1  # multipliers of 0 <= a and a <= c
    for _ in range(MAX_STEPS):
        slope = spread(gram @ gather(a)) - 1
        gap = float(a @ lower + (most - a) @ upper) / (len(a) * most)  # primal less dual, once the rest is 0
        rest = slope - lower + upper
        if gap < GAP and np.abs(rest).max() < GAP:
            break
        diagonal = lower / a + upper / (most - a)
        first = _changes(solve, diagonal, slope, a, most, lower, upper, 0.0, 0.0)
        length = min(1.0, _longest(a, most, lower, upper, first))
        ahead = float(
            (a + length * first[0]) @ (lower + length * first[1])
            + (most - a - length * first[0]) @ (upper + length * first[2])
        )
        toward = gap * most / 2 * (ahead / (gap * len(a) * most)) ** 3  # Mehrotra's centring
        change = _changes(
            solve, diagonal, slope, a, most, lower, upper, toward - first[0] * first[1], toward + first[0] * first[2]
        )
        length = min(1.0, 0.995 * _longest(a, most, lower, upper, change))
        a, lower, upper = (old + length * step for old, step in zip((a, lower, upper), change, strict=True))
    return gather(a)


def _changes(solve, diagonal, slope, a, most, lower, upper, product_lower, product_upper):
    """Newton's step of a and both multipliers toward a * lower = product_lower, (c - a) * upper = product_upper."""
    change = solve(diagonal, -slope + product_lower / a - product_upper / (most - a))
    return (
        change,
        (product_lower - lower * change) / a - lower,
        (product_upper + upper * change) / (most - a) - upper,
    )


def _longest(a, most, lower, upper, change) -> float:
    """How far all may go along a step before one is at its bound."""
    pairs = ((a, change[0]), (most - a, -change[0]), (lower, change[1]), (upper, change[2]))
    return min(_room(values, step) for values, step in pairs)


def _room(values: np.ndarray, change: np.ndarray) -> float:
    """How far positive values may go along a change before one is zero."""
    falling = change < 0
    return float((-values[falling] / change[falling]).min()) if falling.any() else np.inf
