"""Convolutions compiled by numba, with pixels in the lanes of vectors.

An image is a flat array ``(row, block, channel, lane)`` of float32: a block is LANES pixels of a
row, and each row begins and ends with a block of zeros. Sums are made in the order of oneDNN.

A tile of some outputs and some vectors of pixels is computed in registers. Kernels take it as
tuples of those lengths, so that numba compiles one for each, see :func:`best_tile`.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")
LANES = 16 if "+avx512f" in (config.CPU_FEATURES or get_host_cpu_features()) else 8
REGISTERS = 2 * LANES
MOST_VECTORS = 3 if LANES == 16 else 1
"""Measured: with 16 registers, tiles of several vectors are slower, though they read less."""
MOST_READS = 1.25
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_INT = ir.IntType(64)


@cache
def best_tile(outputs):
    """The tile that reads least for each of its sums; ``None`` if even it reads too much.

    Args:
        outputs: those of a tile are a divisor of it.
    """
    tiles = [
        ((t + 2 * v) / (t * v), t, v)  # pixels count twice: neighbours are read too, and moved
        for t in range(1, outputs + 1)
        for v in range(1, MOST_VECTORS + 1)
        if outputs % t == 0 and t * v + v + 1 <= REGISTERS  # sums, pixels and one weight
    ]
    reads, t, v = min(tiles)
    return None if reads > MOST_READS else ((0,) * t, (0,) * v)


class _Tile:
    """Emits the code for ``outputs`` x ``vectors`` sums that stay in registers."""

    def __init__(self, builder, outputs, vectors):
        self.builder, self.outputs, self.vectors = builder, outputs, vectors
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        self.zero = zero
        self.sums = [
            [cgutils.alloca_once_value(builder, zero) for _ in range(vectors)]
            for _ in range(outputs)
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
            w = self.at(weight, (loop.index, self.outputs))
            for o in range(self.outputs):
                one = self.splat(self.at(w, o))
                for v in range(self.vectors):
                    slot = self.sums[o][v]
                    b.store(b.call(self.fma, [one, pixels[v], b.load(slot)]), slot)

    def change(self, function):
        """Replaces each sum by ``function(sum, output, vector)``."""
        for o, row in enumerate(self.sums):
            for v, slot in enumerate(row):
                self.builder.store(function(self.builder.load(slot), o, v), slot)

    def add_bias(self, bias):
        ones = [self.splat(self.at(bias, o)) for o in range(self.outputs)]
        self.change(lambda total, o, v: self.builder.fadd(total, ones[o]))

    def add_image(self, image, block):
        def add(total, o, v):
            return self.builder.fadd(total, self.load(self.at(image, o * LANES, (block, v))))

        self.change(add)

    def relu(self):
        b = self.builder
        self.change(lambda x, o, v: b.select(b.fcmp_ordered("<", x, self.zero), self.zero, x))

    def write(self, out, block):
        for o, row in enumerate(self.sums):
            for v, slot in enumerate(row):
                to = self.at(out, o * LANES, (block, v))
                to = self.builder.bitcast(to, _VECTOR.as_pointer())
                self.builder.store(self.builder.load(slot), to, align=4)


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


def _make3(wide):
    @intrinsic
    def tile3(typing, tile, x, at, weight, w_at, bias, b_at, out, o_at, row, block, channels):
        a = types.intp
        signature = types.void(tile, x, a, weight, a, bias, a, out, a, a, a, a)

        def codegen(context, builder, sig, args):
            _, x, weight, bias, out, row, block, channels = _arrays(context, builder, sig, args)
            sums = _Tile(builder, len(tile[0]), len(tile[1]) if wide else 1)
            with cgutils.for_range(builder, ir.Constant(_INT, 3)) as loop:
                line = sums.at(x, (loop.index, row))
                for kx in range(3):
                    w = sums.at(weight, (loop.index, channels, 3 * sums.outputs))
                    w = sums.at(w, (channels, kx * sums.outputs))
                    sums.add(line, block, w, channels, kx - 1)
            sums.add_bias(bias)
            sums.relu()
            sums.write(out, block)
            return context.get_dummy_value()

        return signature, codegen

    return tile3


def _make1(wide):
    @intrinsic
    def tile1(
        typing, tile, x, at, weight, w_at, bias, b_at, added, d_at, out, o_at, block, channels,
        first, adds, last,
    ):  # fmt: skip
        a, flag = types.intp, types.boolean
        signature = types.void(
            tile, x, a, weight, a, bias, a, added, a, out, a, a, a, flag, flag, flag
        )

        def codegen(context, builder, sig, args):
            given = _arrays(context, builder, sig, args)
            _, x, weight, bias, added, out, block, channels, first, adds, last = given
            sums = _Tile(builder, len(tile[0]), len(tile[1]) if wide else 1)
            sums.add(x, block, weight, channels, 0)
            with builder.if_else(first) as (then, otherwise):
                with then:
                    sums.add_bias(bias)
                with otherwise:
                    sums.add_image(out, block)
            with builder.if_then(adds):
                sums.add_image(added, block)
            with builder.if_then(last):
                sums.relu()
            sums.write(out, block)
            return context.get_dummy_value()

        return signature, codegen

    return tile1


_wide3, _narrow3 = _make3(True), _make3(False)
_wide1, _narrow1 = _make1(True), _make1(False)


@njit(nogil=True)
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


@njit(nogil=True)
def conv3(x, out, start, stop, width, groups, channels, weight, bias, tile):
    """Rows of a 3x3 convolution in groups, then ReLU; ``x`` begins a row above ``out``."""
    outputs, vectors = len(tile[0]), len(tile[1])
    blocks = (width + LANES - 1) // LANES
    block = groups * channels * LANES
    row = (blocks + 2) * block
    n = 0
    while n < blocks:
        wide = n + vectors <= blocks
        for b in range(0, groups * channels, outputs):
            first, w = b // channels * channels, b * 9 * channels
            for y in range(start, stop):  # a tile's weights and two of its three rows stay in L1
                at = y * row + (n + 1) * block
                i, o = at + first * LANES, at + b * LANES
                if wide:
                    _wide3(tile, x, i, weight, w, bias, b, out, o, row, block, channels)
                else:
                    _narrow3(tile, x, i, weight, w, bias, b, out, o, row, block, channels)
        n += vectors if wide else 1
    for y in range(start, stop):
        _clear(out, y, blocks, width, groups * channels)


@njit(nogil=True)
def conv1(x0, x1, x2, x3, parts, added, out, start, stop, width, weight, bias, tile):
    """Rows of the ReLU of a sum: of 2 to 4 1x1 convolutions, or of one and ``added``."""
    outputs, vectors = len(tile[0]), len(tile[1])
    blocks = (width + LANES - 1) // LANES
    channels = bias.size
    block = channels * LANES
    row = (blocks + 2) * block
    adds = parts == 1
    for y in range(start, stop):
        n = 0
        while n < blocks:
            at = y * row + (n + 1) * block
            wide = n + vectors <= blocks
            for b in range(0, channels, outputs):
                o = at + b * LANES
                for p, x in enumerate((x0, x1, x2, x3)):
                    if p == parts:
                        break
                    w, first, last = (b * parts + p * outputs) * channels, p == 0, p == parts - 1
                    if wide:
                        _wide1(
                            tile, x, at, weight, w, bias, b, added, o, out, o, block, channels,
                            first, adds, last,
                        )  # fmt: skip
                    else:
                        _narrow1(
                            tile, x, at, weight, w, bias, b, added, o, out, o, block, channels,
                            first, adds, last,
                        )  # fmt: skip
            n += vectors if wide else 1
        _clear(out, y, blocks, width, channels)


@njit(nogil=True)
def to_planar(x, out, start, stop, width, channels):
    """Rows ``(width, channels)`` in blocks of pixels."""
    blocks = (width + LANES - 1) // LANES
    for y in range(start, stop):
        for n in range(width):
            at = ((y * (blocks + 2) + n // LANES + 1) * channels) * LANES + n % LANES
            for c in range(channels):
                out[at + c * LANES] = x[(y * width + n) * channels + c]
        _clear(out, y, blocks, width, channels)


@njit(nogil=True)
def to_pixels(x, out, start, stop, width, channels):
    """The inverse of :func:`to_planar`."""
    blocks = (width + LANES - 1) // LANES
    for y in range(start, stop):
        for n in range(width):
            at = ((y * (blocks + 2) + n // LANES + 1) * channels) * LANES + n % LANES
            for c in range(channels):
                out[(y * width + n) * channels + c] = x[at + c * LANES]


KERNELS = conv3, conv1, to_planar, to_pixels


def keep_compiled() -> None:
    """Keeps what is compiled for later processes.

    Raises:
        RuntimeError: there is no folder for it.
    """
    for kernel in KERNELS:
        kernel.enable_caching()


def compile_anew() -> None:
    """Forgets what is compiled and kept."""
    for kernel in KERNELS:
        kernel.recompile()
