"""Convolutions compiled by numba, with pixels in the lanes of vectors.

An image is a flat array ``(row, block, channel, lane)`` of float32: a block is LANES pixels of a
row, and each row begins and ends with a block of zeros. Sums are made in the order of oneDNN.
"""

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config, errors
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

LANES = 16 if "+avx512f" in (config.CPU_FEATURES or get_host_cpu_features()) else 8
OUTPUTS = 13
"""Of a tile: with two vectors of pixels each they fill 26 of 32 registers, else 13 of 16."""
VECTORS = 2 if LANES == 16 else 1
FAILURES = (errors.NumbaError, RuntimeError, OSError)
"""What compiling raises where numba does not work."""
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_INT = ir.IntType(64)


class _Tile:
    """Emits the code for OUTPUTS x ``vectors`` sums that stay in registers."""

    def __init__(self, builder, vectors):
        self.builder, self.vectors = builder, vectors
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        self.zero = zero
        self.sums = [
            [cgutils.alloca_once_value(builder, zero) for _ in range(vectors)]
            for _ in range(OUTPUTS)
        ]
        for row in self.sums:
            for slot in row:
                builder.store(zero, slot)
        fma = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        self.fma = cgutils.get_or_insert_function(builder.module, fma, f"llvm.fma.v{LANES}f32")

    def at(self, pointer, *terms):
        """``pointer`` moved by a sum of products, in floats."""
        for term in terms:
            offset = ir.Constant(_INT, 1)
            for factor in term if isinstance(term, tuple) else (term,):
                factor = ir.Constant(_INT, factor) if isinstance(factor, int) else factor
                offset = self.builder.mul(offset, factor)
            pointer = self.builder.gep(pointer, [offset], source_etype=_FLOAT)
        return pointer

    def load(self, pointer, typ=_VECTOR):
        return self.builder.load(self.builder.bitcast(pointer, typ.as_pointer()), align=4)

    def splat(self, pointer):
        one = self.builder.load(pointer)
        vector = self.builder.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), one, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.builder.shuffle_vector(vector, vector, mask)

    def shifted(self, left, right, by):
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [by + n for n in range(LANES)])
        return self.builder.bitcast(self.builder.shuffle_vector(left, right, mask), _VECTOR)

    def add(self, x, block, weight, channels, shift):
        """Adds products with ``channels`` channels of pixels moved by ``shift``."""
        b = self.builder
        with cgutils.for_range(b, channels) as loop:
            p = self.at(x, (loop.index, LANES))
            lowest, highest = min(shift, 0), self.vectors + max(shift, 0)
            # As integers, LLVM has one instruction for moving them (valignd).
            typ = _INTEGERS if shift else _VECTOR
            loaded = {v: self.load(self.at(p, (block, v)), typ) for v in range(lowest, highest)}
            pixels = []
            for v in range(self.vectors):
                if shift < 0:
                    pixels.append(self.shifted(loaded[v - 1], loaded[v], LANES - 1))
                elif shift > 0:
                    pixels.append(self.shifted(loaded[v], loaded[v + 1], 1))
                else:
                    pixels.append(loaded[v])
            w = self.at(weight, (loop.index, OUTPUTS))
            for o in range(OUTPUTS):
                one = self.splat(self.at(w, o))
                for v in range(self.vectors):
                    slot = self.sums[o][v]
                    b.store(b.call(self.fma, [one, pixels[v], b.load(slot)]), slot)

    def finish(self, out, block, before, before_is_bias, added, relu):
        """Adds what comes before (a bias, or vectors) and ``added``; ReLU; writes the result."""
        b = self.builder
        for o in range(OUTPUTS):
            bias = self.splat(self.at(before, o)) if before_is_bias else None
            for v in range(self.vectors):
                place = (o * LANES, (block, v))
                plus = self.load(self.at(before, *place)) if bias is None else bias
                total = b.fadd(b.load(self.sums[o][v]), plus)
                if added is not None:
                    total = b.fadd(total, self.load(self.at(added, *place)))
                if relu:
                    total = b.select(b.fcmp_ordered("<", total, self.zero), self.zero, total)
                to = b.bitcast(self.at(out, *place), _VECTOR.as_pointer())
                b.store(total, to, align=4)


def _arrays(context, builder, signature, args):
    """Pointers for arrays, each of which is followed by an offset; numbers as they are."""
    found = []
    for typ, arg in zip(signature.args, args, strict=True):
        if isinstance(typ, types.Array):
            found.append(context.make_array(typ)(context, builder, arg).data)
        elif len(found) and not isinstance(found[-1], list) and found[-1].type.is_pointer:
            found[-1] = [builder.gep(found[-1], [arg], source_etype=_FLOAT)]
        else:
            found.append(arg)
    return [f[0] if isinstance(f, list) else f for f in found]


def _make3(vectors):
    @intrinsic
    def tile3(typing, x, at, weight, w_at, bias, b_at, out, o_at, row, block, channels):
        a = types.intp
        signature = types.void(x, a, weight, a, bias, a, out, a, a, a, a)

        def codegen(context, builder, sig, args):
            x, weight, bias, out, row, block, channels = _arrays(context, builder, sig, args)
            tile = _Tile(builder, vectors)
            with cgutils.for_range(builder, ir.Constant(_INT, 3)) as loop:
                line = tile.at(x, (loop.index, row))
                for kx in range(3):
                    w = tile.at(weight, (loop.index, channels, 3 * OUTPUTS))
                    w = tile.at(w, (channels, kx * OUTPUTS))
                    tile.add(line, block, w, channels, kx - 1)
            tile.finish(out, block, bias, True, None, True)
            return context.get_dummy_value()

        return signature, codegen

    return tile3


def _make1(vectors, is_first, adds, relu):
    @intrinsic
    def tile1(typing, x, at, weight, w_at, before, b_at, added, a_at, out, o_at, block, channels):
        a = types.intp
        signature = types.void(x, a, weight, a, before, a, added, a, out, a, a, a)

        def codegen(context, builder, sig, args):
            x, weight, before, added, out, block, channels = _arrays(context, builder, sig, args)
            tile = _Tile(builder, vectors)
            tile.add(x, block, weight, channels, 0)
            tile.finish(out, block, before, is_first, added if adds else None, relu)
            return context.get_dummy_value()

        return signature, codegen

    return tile1


_wide3, _narrow3 = _make3(VECTORS), _make3(1)


_first_w, _first_n = _make1(VECTORS, True, False, False), _make1(1, True, False, False)
_only_w, _only_n = _make1(VECTORS, True, True, True), _make1(1, True, True, True)
_next_w, _next_n = _make1(VECTORS, False, False, False), _make1(1, False, False, False)
_last_w, _last_n = _make1(VECTORS, False, False, True), _make1(1, False, False, True)


@njit(nogil=True, cache=True)
def _clear(out, y, blocks, width, channels):
    """Zeros left of a row, and right of its last pixel."""
    block = channels * LANES
    begin = y * (blocks + 2) * block
    out[begin : begin + block] = 0
    begin += blocks * block
    out[begin + block : begin + 2 * block] = 0
    last = width - (blocks - 1) * LANES
    if last < LANES:
        for c in range(channels):
            out[begin + c * LANES + last : begin + (c + 1) * LANES] = 0


@njit(nogil=True, cache=True)
def conv3(x, out, start, stop, width, groups, channels, weight, bias):
    """Rows of a 3x3 convolution in groups, then ReLU; ``x`` begins a row above ``out``."""
    blocks = (width + LANES - 1) // LANES
    block = groups * channels * LANES
    row = (blocks + 2) * block
    n = 0
    while n < blocks:
        wide = n + VECTORS <= blocks
        for g in range(groups):
            b, w = g * OUTPUTS, g * 9 * channels * OUTPUTS
            for y in range(start, stop):  # a group's weights and two of its three rows stay in L1
                at = y * row + (n + 1) * block + g * channels * LANES
                if wide:
                    _wide3(x, at, weight, w, bias, b, out, at, row, block, channels)
                else:
                    _narrow3(x, at, weight, w, bias, b, out, at, row, block, channels)
        n += VECTORS if wide else 1
    for y in range(start, stop):
        _clear(out, y, blocks, width, groups * channels)


@njit(nogil=True, cache=True)
def conv1(x0, x1, x2, x3, parts, added, out, start, stop, width, weight, bias):
    """Rows of the ReLU of a sum: of 2 to 4 1x1 convolutions, or of one and ``added``."""
    blocks = (width + LANES - 1) // LANES
    channels = bias.size
    block = channels * LANES
    row = (blocks + 2) * block
    size = channels * OUTPUTS
    xs = (x0, x1, x2, x3)
    for y in range(start, stop):
        n = 0
        while n < blocks:
            at = y * row + (n + 1) * block
            wide = n + VECTORS <= blocks
            for g in range(channels // OUTPUTS):
                to, b, w = at + g * OUTPUTS * LANES, g * OUTPUTS, g * parts * size
                if parts == 1:
                    if wide:
                        _only_w(x0, at, weight, w, bias, b, added, to, out, to, block, channels)
                    else:
                        _only_n(x0, at, weight, w, bias, b, added, to, out, to, block, channels)
                    continue
                if wide:
                    _first_w(x0, at, weight, w, bias, b, added, to, out, to, block, channels)
                else:
                    _first_n(x0, at, weight, w, bias, b, added, to, out, to, block, channels)
                for p in range(1, parts):
                    x = xs[p]
                    w += size
                    if p + 1 < parts:
                        if wide:
                            _next_w(x, at, weight, w, out, to, added, to, out, to, block, channels)
                        else:
                            _next_n(x, at, weight, w, out, to, added, to, out, to, block, channels)
                    elif wide:
                        _last_w(x, at, weight, w, out, to, added, to, out, to, block, channels)
                    else:
                        _last_n(x, at, weight, w, out, to, added, to, out, to, block, channels)
            n += VECTORS if wide else 1
        _clear(out, y, blocks, width, channels)


@njit(nogil=True, cache=True)
def to_planar(x, out, start, stop, width, channels):
    """Rows ``(width, channels)`` in blocks of pixels."""
    blocks = (width + LANES - 1) // LANES
    for y in range(start, stop):
        for n in range(width):
            at = ((y * (blocks + 2) + n // LANES + 1) * channels) * LANES + n % LANES
            for c in range(channels):
                out[at + c * LANES] = x[(y * width + n) * channels + c]
        _clear(out, y, blocks, width, channels)


@njit(nogil=True, cache=True)
def to_pixels(x, out, start, stop, width, channels):
    """The inverse of :func:`to_planar`."""
    blocks = (width + LANES - 1) // LANES
    for y in range(start, stop):
        for n in range(width):
            at = ((y * (blocks + 2) + n // LANES + 1) * channels) * LANES + n % LANES
            for c in range(channels):
                out[(y * width + n) * channels + c] = x[at + c * LANES]
