"""Triton kernels: the pixel-level MLPs with all that is around them, and refinement.

Imported only where Triton is installed. With ``TRITON_INTERPRET=1`` in the environment before this
import they run on a CPU, slowly, for tests.

Every program works on a tile of ``TH * TW`` HR pixels. MLPs have their widths padded with zeros;
``LAYERS`` says where each is, as :class:`~pcsr_lightning.inference.fused_queries.PackedMLPs` packs
them. A width is the sum of two powers of two, ``A + B`` with ``B`` perhaps 0: 80 costs far less
than 128.
"""

from __future__ import annotations

import triton
import triton.language as tl

OUTPUTS = tl.constexpr(16)
"""Padded outputs of an MLP: the least that tensor cores take."""


@triton.jit
def _relu(x):
    return tl.where(x < 0, 0.0, x)  # NaN stays


@triton.jit
def _first(proj, rows, cols, near_Q, row_Q, col_Q, START, N: tl.constexpr, F: tl.constexpr):
    """The first layer at the queries: the LR pixel's share, the row's and the column's."""
    at = START + tl.arange(0, N)[None, :]
    x = tl.load(proj + near_Q[:, None] * F + at).to(tl.float32)
    return x + tl.load(rows + row_Q[:, None] * F + at) + tl.load(cols + col_Q[:, None] * F + at)


@triton.jit
def _block(x, w, TOP, LEFT, C, K: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr):
    """``x`` times a block of a weight with ``C`` columns."""
    at = (TOP + tl.arange(0, K))[:, None] * C + LEFT + tl.arange(0, N)[None, :]
    return tl.dot(x, tl.load(w + at), input_precision=PRECISION)


@triton.jit
def _mlp(
    proj, rows, cols, weights, biases, near_Q, row_Q, col_Q,
    START: tl.constexpr, A: tl.constexpr, B: tl.constexpr, HIDDEN: tl.constexpr,
    WEIGHT: tl.constexpr, BIAS: tl.constexpr, F: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """An MLP's outputs at the queries, ``(Q, OUTPUTS)``, float32."""
    C: tl.constexpr = A + B
    kind = weights.dtype.element_ty
    first = _first(proj, rows, cols, near_Q, row_Q, col_Q, START, A, F)
    if HIDDEN == 0:
        out = first
    else:
        x_a = _relu(first).to(kind)
        if B > 0:
            first_b = _first(proj, rows, cols, near_Q, row_Q, col_Q, START + A, B, F)
            x_b = _relu(first_b).to(kind)
        for n in tl.static_range(HIDDEN - 1):
            w = weights + WEIGHT + n * C * C
            b = biases + BIAS + n * C
            y_a = _block(x_a, w, 0, 0, C, A, A, PRECISION) + tl.load(b + tl.arange(0, A))[None, :]
            if B > 0:
                y_a += _block(x_b, w, A, 0, C, B, A, PRECISION)
                y_b = _block(x_a, w, 0, A, C, A, B, PRECISION)
                y_b += _block(x_b, w, A, A, C, B, B, PRECISION)
                x_b = _relu(y_b + tl.load(b + A + tl.arange(0, B))[None, :]).to(kind)
            x_a = _relu(y_a).to(kind)
        w = weights + WEIGHT + (HIDDEN - 1) * C * C
        b = biases + BIAS + (HIDDEN - 1) * C
        out = _block(x_a, w, 0, 0, OUTPUTS, A, OUTPUTS, PRECISION)
        out += tl.load(b + tl.arange(0, OUTPUTS))[None, :]
        if B > 0:
            out += _block(x_b, w, A, 0, OUTPUTS, B, OUTPUTS, PRECISION)
    return out


@triton.jit
def upscale_queries(
    proj, rows, cols, near_rows, near_cols, weights, biases, logit_biases,
    lr, low_rows, high_rows, weight_rows, low_cols, high_cols, weight_cols,
    logits, classes, image, stats,
    hr_top, n, W, top, r, w, lr_top, lr_rows,
    LAYERS: tl.constexpr, M: tl.constexpr, F: tl.constexpr, MODE: tl.constexpr,
    WITH_BASE: tl.constexpr, BITS: tl.constexpr, PRECISION: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    """HR rows of a strip: classifier, routing, each class's upsampler, upsampled input, rounding.

    Args:
        proj: the LR pixels' share of all first layers, ``(B, r, w, F)``.
        rows: what they add for each HR row, ``(H, F)``, float32, with the bias.
        cols: for each HR column, ``(W, F)``, float32.
        near_rows: LR row of each HR row, int64; ``near_cols`` likewise.
        weights: of all later layers, flat.
        biases: of them, flat, float32.
        logit_biases: what is added to each logit before the largest is taken, ``(16,)``.
        lr: LR rows from ``lr_top`` on, ``(B, 3, lr_rows, w)``, float32; for the upsampled input,
            like ``low_rows`` to ``weight_cols``.
        logits: ``(B, M, n, W)``, float32, written if ``MODE`` is "logits".
        classes: ``(B, n, W)``, uint8, written if ``MODE`` is "route", else read.
        image: ``(B, 3, n, W)``, float32 or integers, written unless ``MODE`` is "logits".
        stats: int32: pixels of each class, and behind them the number of values that are not
            finite. Added to.
        hr_top: first HR row of the strip.
        n: how many; ``W`` HR columns.
        top: first LR row of the strip.
        r: how many; ``w`` LR columns.
        LAYERS: of each upsampler and, behind them, the classifier: the arguments of ``_mlp``.
        BITS: 0 leaves the image as it is; 32 clamps it; 8 and 16 make integers.
    """
    tiles = tl.cdiv(W, TW)
    tile = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    q = tl.arange(0, TH * TW)
    i_Q, j_Q = tile // tiles * TH + q // TW, tile % tiles * TW + q % TW
    inside_Q = (i_Q < n) & (j_Q < W)
    at_Q = b * n * W + i_Q.to(tl.int64) * W + j_Q  # in classes
    # Queries outside are computed as if they were the last row's or column's, and not stored.
    row_Q, col_Q = hr_top + tl.minimum(i_Q, n - 1), tl.minimum(j_Q, W - 1)
    near_Q = tl.load(near_rows + row_Q) - top
    near_Q = (b * r + near_Q) * w + tl.load(near_cols + col_Q)
    channel = tl.arange(0, OUTPUTS)[None, :]
    if MODE != "given":
        out = _mlp(
            proj, rows, cols, weights, biases, near_Q, row_Q, col_Q,
            LAYERS[M][0], LAYERS[M][1], LAYERS[M][2], LAYERS[M][3], LAYERS[M][4], LAYERS[M][5],
            F, PRECISION,
        )  # fmt: skip
        if MODE == "logits":
            place = (b * M + channel) * n * W + i_Q.to(tl.int64)[:, None] * W + j_Q[:, None]
            tl.store(logits + place, out, mask=inside_Q[:, None] & (channel < M))
        else:
            score = tl.where(channel < M, out + tl.load(logit_biases + channel), float("-inf"))
            # Of equals the first: the heaviest.
            class_Q = tl.argmax(score, axis=1)
            tl.store(classes + at_Q, class_Q.to(tl.uint8), mask=inside_Q)
            # A logit that is not finite must not be lost: it spoils the pixel.
            spoiled_Q = tl.sum(tl.where(channel < M, out - out, 0.0), axis=1)
    else:
        class_Q = tl.load(classes + at_Q, mask=inside_Q, other=255).to(tl.int32)
        spoiled_Q = tl.zeros([TH * TW], tl.float32)
    if MODE != "logits":
        sr = tl.zeros([TH * TW, OUTPUTS], tl.float32)
        for m in tl.static_range(M):
            wanted_Q = inside_Q & (class_Q == m)
            count = tl.sum(wanted_Q.to(tl.int32), axis=0)
            if count > 0:
                out = _mlp(
                    proj, rows, cols, weights, biases, near_Q, row_Q, col_Q,
                    LAYERS[m][0], LAYERS[m][1], LAYERS[m][2], LAYERS[m][3], LAYERS[m][4],
                    LAYERS[m][5], F, PRECISION,
                )  # fmt: skip
                sr = tl.where(wanted_Q[:, None], out, sr)
                tl.atomic_add(stats + m, count)
        if WITH_BASE:
            y0 = (tl.load(low_rows + row_Q) - lr_top) * w
            y1 = (tl.load(high_rows + row_Q) - lr_top) * w
            x0, x1 = tl.load(low_cols + col_Q), tl.load(high_cols + col_Q)
            down, right = tl.load(weight_rows + row_Q), tl.load(weight_cols + col_Q)
        asked_Q = inside_Q & (class_Q < M)
        for c in tl.static_range(3):
            value_Q = tl.sum(tl.where(channel == c, sr, 0.0), axis=1) + spoiled_Q
            if WITH_BASE:
                of = lr + (b * 3 + c) * lr_rows * w
                left, past = tl.load(of + y0 + x0), tl.load(of + y0 + x1)
                above = left + right * (past - left)
                left, past = tl.load(of + y1 + x0), tl.load(of + y1 + x1)
                value_Q += above + down * (left + right * (past - left) - above)
            bad = tl.sum((asked_Q & (value_Q - value_Q != 0)).to(tl.int32), axis=0)
            if bad > 0:
                tl.atomic_add(stats + M, bad)
            place = (b * 3 + c) * n * W + i_Q.to(tl.int64) * W + j_Q
            _store(image + place, value_Q, asked_Q, BITS)


@triton.jit
def _store(place, value, mask, BITS: tl.constexpr):
    """Rounds half to even, as torch does."""
    if BITS > 0:
        value = tl.minimum(tl.maximum(value, 0.0), 1.0)
    if BITS == 8 or BITS == 16:
        value *= 2.0**BITS - 1
        # Adding 2^23 leaves no bits behind the point.
        value = ((value + 8388608.0) - 8388608.0).to(tl.int32)
    tl.store(place, value.to(place.dtype.element_ty), mask=mask)


@triton.jit
def refine_rows(
    sr, classes, out, n, W,
    HEAVY: tl.constexpr, BITS: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr,
):  # fmt: skip
    """:func:`~pcsr_lightning.routing.refine.refine`, and rounding.

    Args:
        sr: ``(B, 3, n, W)``, float32.
        classes: ``(B, n, W)``, uint8.
        out: as ``sr``, or integers.
        HEAVY: how many classes are heavy.
        BITS: see :func:`upscale_queries`.
    """
    tiles = tl.cdiv(W, TW)
    tile = tl.program_id(0)
    b = tl.program_id(1).to(tl.int64)
    q = tl.arange(0, TH * TW)
    i_Q, j_Q = tile // tiles * TH + q // TW, tile % tiles * TW + q % TW
    inside_Q = (i_Q < n) & (j_Q < W)
    inner_Q = (i_Q > 0) & (i_Q < n - 1) & (j_Q > 0) & (j_Q < W - 1)
    at_Q = i_Q.to(tl.int64) * W + j_Q
    near = classes + b * n * W + at_Q
    heavy_Q = tl.load(near, mask=inside_Q, other=0) < HEAVY
    touch_Q = inner_Q & False
    for dy in tl.static_range(-1, 2):
        for dx in tl.static_range(-1, 2):
            touch_Q |= tl.load(near + dy * W + dx, mask=inner_Q, other=255) < HEAVY
    touch_Q = touch_Q & (heavy_Q == 0)
    for c in tl.static_range(3):
        of = sr + (b * 3 + c) * n * W + at_Q
        value_Q = tl.load(of, mask=inside_Q, other=0.0)
        sum_Q = tl.zeros([TH * TW], tl.float32)
        for dx in tl.static_range(-1, 2):
            column_Q = tl.load(of - W + dx, mask=touch_Q, other=0.0)
            column_Q += tl.load(of + dx, mask=touch_Q, other=0.0)
            sum_Q += column_Q + tl.load(of + W + dx, mask=touch_Q, other=0.0)
        value_Q = tl.where(touch_Q, sum_Q * (1 / 9), value_Q)
        _store(out + (b * 3 + c) * n * W + at_Q, value_Q, inside_Q, BITS)
