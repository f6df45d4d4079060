"""Convolutions, pixel-level MLPs and refinement compiled by numba, pixels in the lanes of vectors.

For convolutions an image is a flat array ``(row, block, slot, lane)``: a block is LANES pixels of a
row, and each row begins and ends with a block of zeros. A slot is a channel in float32, and sums
are made in the order of oneDNN. In bfloat16 arrays are of 32-bit integers, and a slot is two
channels; one of an odd number is beside a zero. Sums are float32 there too.

A tile of some outputs and some vectors of pixels is computed in registers. Kernels take it as
tuples of those lengths, so that numba compiles one for each, see :func:`best_tile`.

All is in one file, since numba keeps what it compiled for as long as the kernel's file is the same.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")
_FEATURES = config.CPU_FEATURES or get_host_cpu_features()
LANES = 16 if "+avx512f" in _FEATURES else 8
HAS_BF16 = "+avx512bf16" in _FEATURES and "+amx-bf16" not in _FEATURES
"""Products of bfloat16, but no unit for matrices of them, which PyTorch's operators use."""
REGISTERS = 2 * LANES
MOST_VECTORS = 3 if LANES == 16 else 1
"""Measured: with 16 registers, tiles of several vectors are slower, though they read less."""
MOST_READS = 1.25
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
_INT = ir.IntType(64)


@cache
def best_tile(outputs, pair=1):
    """The tile that reads least for each of its sums; ``None`` if even it reads too much.

    Args:
        outputs: those of a tile are a divisor of it.
        pair: channels of a slot.
    """
    tiles = [
        ((t + 2 * v) / (t * v), t, v)  # pixels count twice: neighbours are read too, and moved
        for t in range(1, outputs + 1)
        for v in range(1, MOST_VECTORS + 1)
        if t * v + v + 1 <= REGISTERS  # sums, pixels and one weight
        and outputs % t == 0
        and (t % pair == 0 or t == outputs)
    ]
    reads, t, v = min(tiles, default=(MOST_READS + 1, 0, 0))
    return None if reads > MOST_READS else ((0,) * t, (0,) * v)


def mlp_tiles(width, outputs, pair=1):
    """Tiles of hidden layers, of their last outputs, and of the last layer, see :func:`mlp`.

    Returns ``None`` if the last layer is too wide.
    """
    vectors = min(2, MOST_VECTORS)
    most = (REGISTERS - 1 - vectors) // vectors
    if outputs > most:
        return None
    full = width
    if width > most:  # as few tiles as possible, and the last no smaller than it must be
        full = min(range(pair, most + 1, pair), key=lambda t: (-(-width // t), t))
    rest = width % full or full
    return tuple(((0,) * t, (0,) * vectors) for t in (full, rest, outputs))


class _Code:
    """Emits operations on vectors."""

    def __init__(self, builder):
        self.builder, self.zero = builder, ir.Constant(_VECTOR, [0.0] * LANES)

    def call(self, name, result, *args):
        kind = ir.FunctionType(result, [arg.type for arg in args])
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, args)

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
        return self.shuffled(vector, vector, [0] * LANES)

    def shuffled(self, first, second, lanes):
        """Lanes of two vectors; those of ``second`` count from ``LANES`` on."""
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
        return self.builder.shuffle_vector(first, second, mask)

    def relu(self, x):
        below = self.builder.fcmp_ordered("<", x, self.zero)
        return self.builder.select(below, self.zero, x)

    def paired(self, even, odd=None):
        """Two vectors, rounded to bfloat16, as one; beside zeros if there is no second."""
        found = self._rounded(even)
        if odd is None:
            return found
        return self.builder.or_(found, self.builder.shl(self._rounded(odd), _same(16)))

    def _rounded(self, x):
        half = self.call("llvm.x86.avx512bf16.cvtneps2bf16.512", _HALVES, x)
        return self.builder.zext(half, _INTEGERS)

    def store(self, vector, pointer):
        pointer = self.builder.bitcast(pointer, vector.type.as_pointer())
        self.builder.store(vector, pointer, align=4)


class _Tile(_Code):
    """Emits the code for ``outputs`` x ``vectors`` sums that stay in registers."""

    def __init__(self, builder, outputs, vectors, pairs):
        super().__init__(builder)
        self.outputs, self.vectors, self.pairs = outputs, vectors, pairs
        self.sums = [
            [cgutils.alloca_once_value(builder, self.zero) for _ in range(vectors)]
            for _ in range(outputs)
        ]
        for row in self.sums:
            for slot in row:
                builder.store(self.zero, slot)

    def multiply_add(self, weight, pixels, total):
        if not self.pairs:
            return self.call(f"llvm.fma.v{LANES}f32", _VECTOR, weight, pixels, total)
        weight, pixels = (self.builder.bitcast(x, _INTEGERS) for x in (weight, pixels))
        return self.call("llvm.x86.avx512bf16.dpbf16ps.512", _VECTOR, total, weight, pixels)

    def moved(self, left, right, by):
        vector = self.shuffled(left, right, [by + n for n in range(LANES)])
        return self.builder.bitcast(vector, _VECTOR)

    def add(self, x, block, weight, slots, shift):
        """Adds products with ``slots`` slots of pixels moved by ``shift``."""
        b = self.builder
        with cgutils.for_range(b, slots) as loop:
            p = self.at(x, (loop.index, LANES))
            lowest, highest = min(shift, 0), self.vectors + max(shift, 0)
            # As integers, LLVM has one instruction for moving them (valignd).
            typ = _INTEGERS if shift else _VECTOR
            loaded = {v: self.load(self.at(p, (block, v)), typ) for v in range(lowest, highest)}
            pixels = []
            for v in range(self.vectors):
                if shift < 0:
                    pixels.append(self.moved(loaded[v - 1], loaded[v], LANES - 1))
                elif shift > 0:
                    pixels.append(self.moved(loaded[v], loaded[v + 1], 1))
                else:
                    pixels.append(loaded[v])
            w = self.at(weight, (loop.index, self.outputs))
            for o in range(self.outputs):
                one = self.splat(self.at(w, o))
                for v in range(self.vectors):
                    slot = self.sums[o][v]
                    b.store(self.multiply_add(one, pixels[v], b.load(slot)), slot)

    def change(self, function):
        """Replaces each sum by ``function(sum, output, vector)``."""
        for o, row in enumerate(self.sums):
            for v, slot in enumerate(row):
                self.builder.store(function(self.builder.load(slot), o, v), slot)

    def add_bias(self, bias):
        ones = [self.splat(self.at(bias, o)) for o in range(self.outputs)]
        self.change(lambda total, o, v: self.builder.fadd(total, ones[o]))

    def add_image(self, image, block):
        b = self.builder

        def add(total, o, v):
            if not self.pairs:
                return b.fadd(total, self.load(self.at(image, o * LANES, (block, v))))
            both = self.load(self.at(image, o // 2 * LANES, (block, v)), _INTEGERS)
            one = b.and_(both, _same(-(2**16))) if o % 2 else b.shl(both, _same(16))
            return b.fadd(total, b.bitcast(one, _VECTOR))

        self.change(add)

    def relu_sums(self):
        self.change(lambda x, o, v: self.relu(x))

    def write(self, out, block, pairs=None):
        """Stores the sums, as pairs if pixels are pairs or as ``pairs`` says."""
        pairs = self.pairs if pairs is None else pairs
        for v in range(self.vectors):
            sums = [self.builder.load(row[v]) for row in self.sums]
            if pairs:
                sums = [self.paired(*sums[o : o + 2]) for o in range(0, len(sums), 2)]
            for n, found in enumerate(sums):
                self.store(found, self.at(out, n * LANES, (block, v)))


def _same(number):
    return ir.Constant(_INTEGERS, [number] * LANES)


def _arrays(context, builder, signature, args):
    """Pointers for arrays, each of which is followed by an offset; numbers as they are."""
    found = []
    for typ, arg in zip(signature.args, args, strict=True):
        if isinstance(typ, types.Array):
            data = context.make_array(typ)(context, builder, arg).data
            found.append(builder.bitcast(data, _FLOAT.as_pointer()))
        elif len(found) and not isinstance(found[-1], list) and found[-1].type.is_pointer:
            found[-1] = [builder.gep(found[-1], [arg], source_etype=_FLOAT)]
        else:
            found.append(arg)
    return [f[0] if isinstance(f, list) else f for f in found]


def _make3(wide):
    @intrinsic
    def tile3(typing, tile, x, at, weight, w_at, bias, b_at, out, o_at, row, block, slots):
        a = types.intp
        signature = types.void(tile, x, a, weight, a, bias, a, out, a, a, a, a)

        def codegen(context, builder, sig, args):
            _, x, weight, bias, out, row, block, slots = _arrays(context, builder, sig, args)
            sums = _tile(builder, tile, wide, sig.args[1])
            with cgutils.for_range(builder, ir.Constant(_INT, 3)) as loop:
                line = sums.at(x, (loop.index, row))
                for kx in range(3):
                    w = sums.at(weight, (loop.index, slots, 3 * sums.outputs))
                    w = sums.at(w, (slots, kx * sums.outputs))
                    sums.add(line, block, w, slots, kx - 1)
            sums.add_bias(bias)
            sums.relu_sums()
            sums.write(out, block)
            return context.get_dummy_value()

        return signature, codegen

    return tile3


def _make1(wide):
    @intrinsic
    def tile1(
        typing, tile, x0, at0, x1, at1, x2, at2, x3, at3, parts, weight, w_at, bias, b_at, added,
        d_at, out, o_at, block, slots,
    ):  # fmt: skip
        a, x = types.intp, x0
        signature = types.void(
            tile, x, a, x, a, x, a, x, a, a, weight, a, bias, a, x, a, out, a, a, a
        )

        def codegen(context, builder, sig, args):
            _, *images, parts, weight, bias, added, out, block, slots = _arrays(
                context, builder, sig, args
            )
            sums = _tile(builder, tile, wide, sig.args[1])
            for p, image in enumerate(images):
                with builder.if_then(builder.icmp_signed("<", ir.Constant(_INT, p), parts)):
                    w = sums.at(weight, (slots, p * sums.outputs))
                    sums.add(image, block, w, slots, 0)
            sums.add_bias(bias)
            with builder.if_then(builder.icmp_signed("==", parts, ir.Constant(_INT, 1))):
                sums.add_image(added, block)
            sums.relu_sums()
            sums.write(out, block)
            return context.get_dummy_value()

        return signature, codegen

    return tile1


def _make_part(wide):
    @intrinsic
    def part(
        typing, tile, x, at, weight, w_at, bias, b_at, out, o_at, block, out_block, slots, first,
        relu,
    ):  # fmt: skip
        a, flag = types.intp, types.boolean
        signature = types.void(tile, x, a, weight, a, bias, a, out, a, a, a, a, flag, flag)

        def codegen(context, builder, sig, args):
            given = _arrays(context, builder, sig, args)
            _, x, weight, bias, out, block, out_block, slots, first, relu = given
            sums = _tile(builder, tile, wide, sig.args[1])
            sums.add(x, block, weight, slots, 0)
            with builder.if_else(first) as (then, otherwise):
                with then:
                    sums.add_bias(bias)
                with otherwise:
                    sums.add_image(out, out_block)
            with builder.if_then(relu):
                sums.relu_sums()
            sums.write(out, out_block, pairs=sig.args[7].dtype == types.int32)
            return context.get_dummy_value()

        return signature, codegen

    return part


@intrinsic
def _gather(typing, proj, p_at, rows, r_at, cols, c_at, places, i_at, out, o_at, queries, chunks):
    """First layers of a vector of queries: ReLU of a sum of three rows for each, transposed.

    Where the rows begin is in ``places``, for ``queries`` queries in each of the three arrays.
    """
    a = types.intp
    signature = types.void(proj, a, rows, a, cols, a, places, a, out, a, a, a)

    def codegen(context, builder, sig, args):
        *sources, places, out, queries, chunks = _arrays(context, builder, sig, args)
        code, pairs = _Code(builder), sig.args[8].dtype == types.int32

        def begin(n, lane):
            pointer = code.at(places, (queries, 2 * n), 2 * lane)  # they have 64 bits
            return builder.load(builder.bitcast(pointer, _INT.as_pointer()))

        with cgutils.for_range(builder, chunks) as loop:
            vectors = []
            for lane in range(LANES):
                proj, row, col = (
                    code.load(code.at(source, begin(n, lane), (loop.index, LANES)))
                    for n, source in enumerate(sources)
                )
                vectors.append(code.relu(builder.fadd(builder.fadd(proj, row), col)))
            vectors = _transposed(code, vectors)
            if pairs:
                vectors = [code.paired(*vectors[n : n + 2]) for n in range(0, LANES, 2)]
            for n, vector in enumerate(vectors):
                code.store(vector, code.at(out, n * LANES, (loop.index, len(vectors) * LANES)))
        return context.get_dummy_value()

    return signature, codegen


def _transposed(code, vectors):
    """``LANES`` vectors with lanes and vectors exchanged, by halves, quarters and so on."""
    step = 1
    while step < LANES:
        low = [lane + (LANES - step if lane & step else 0) for lane in range(LANES)]
        high = [lane + (LANES if lane & step else step) for lane in range(LANES)]
        for n in range(LANES):
            if not n & step:
                a, b = vectors[n], vectors[n + step]
                vectors[n], vectors[n + step] = code.shuffled(a, b, low), code.shuffled(a, b, high)
        step *= 2
    return vectors


def _tile(builder, tile, wide, image):
    vectors = len(tile[1]) if wide else 1
    return _Tile(builder, len(tile[0]), vectors, pairs=image.dtype == types.int32)


_wide3, _narrow3 = _make3(True), _make3(False)
_wide1, _narrow1 = _make1(True), _make1(False)
_wide_part, _narrow_part = _make_part(True), _make_part(False)


@njit(nogil=True)
def _clear(out, y, blocks, width, slots):
    """Zeros left of a row, and right of its last pixel."""
    block = slots * LANES
    begin = y * (blocks + 2) * block
    out[begin : begin + block] = 0
    begin += blocks * block
    out[begin + block : begin + 2 * block] = 0
    last = width - (blocks - 1) * LANES
    if last < LANES:
        for c in range(slots):
            out[begin + c * LANES + last : begin + (c + 1) * LANES] = 0


@njit(nogil=True)
def conv3(x, out, start, stop, width, groups, slots, weight, bias, tile):
    """Rows of a 3x3 convolution in groups, then ReLU; ``x`` begins a row above ``out``.

    ``slots`` are those of a group.
    """
    outputs, vectors = len(tile[0]), len(tile[1])
    tiles = bias.size // outputs
    of_group, of_tile = tiles // groups, groups * slots // tiles
    blocks = (width + LANES - 1) // LANES
    block = groups * slots * LANES
    row = (blocks + 2) * block
    n = 0
    while n < blocks:
        wide = n + vectors <= blocks
        for t in range(tiles):
            b, w = t * outputs, t * outputs * 9 * slots
            for y in range(start, stop):  # a tile's weights and two of its three rows stay in L1
                at = y * row + (n + 1) * block
                i, o = at + t // of_group * slots * LANES, at + t * of_tile * LANES
                if wide:
                    _wide3(tile, x, i, weight, w, bias, b, out, o, row, block, slots)
                else:
                    _narrow3(tile, x, i, weight, w, bias, b, out, o, row, block, slots)
        n += vectors if wide else 1
    for y in range(start, stop):
        _clear(out, y, blocks, width, groups * slots)


@njit(nogil=True)
def conv1(x0, x1, x2, x3, parts, added, out, start, stop, width, slots, weight, bias, tile):
    """Rows of the ReLU of a sum: of up to 4 1x1 convolutions, or of one and ``added``."""
    outputs, vectors = len(tile[0]), len(tile[1])
    tiles = bias.size // outputs
    blocks = (width + LANES - 1) // LANES
    block = slots * LANES
    for y in range(start, stop):
        n = 0
        while n < blocks:
            i = (y * (blocks + 2) + n + 1) * block
            wide = n + vectors <= blocks
            for t in range(tiles):
                b, w, o = t * outputs, t * outputs * parts * slots, i + t * (block // tiles)
                if wide:
                    _wide1(
                        tile, x0, i, x1, i, x2, i, x3, i, parts, weight, w, bias, b, added, o, out,
                        o, block, slots,
                    )  # fmt: skip
                else:
                    _narrow1(
                        tile, x0, i, x1, i, x2, i, x3, i, parts, weight, w, bias, b, added, o, out,
                        o, block, slots,
                    )  # fmt: skip
            n += vectors if wide else 1
        _clear(out, y, blocks, width, slots)


@njit(nogil=True)
def conv1_in_turn(x0, x1, x2, x3, parts, out, start, stop, width, slots, weight, bias, tile):
    """The same of 2 to 4 convolutions in float32; bits are those of adding one after another."""
    outputs, vectors = len(tile[0]), len(tile[1])
    tiles = bias.size // outputs
    blocks = (width + LANES - 1) // LANES
    block = slots * LANES
    for y in range(start, stop):
        n = 0
        while n < blocks:
            i = (y * (blocks + 2) + n + 1) * block
            wide = n + vectors <= blocks
            for t in range(tiles):
                b, w, o = t * outputs, t * outputs * parts * slots, i + t * (block // tiles)
                for p, x in enumerate((x0, x1, x2, x3)):
                    if p == parts:
                        break
                    first, last = p == 0, p == parts - 1
                    if wide:
                        _wide_part(
                            tile, x, i, weight, w, bias, b, out, o, block, block, slots, first, last
                        )
                    else:
                        _narrow_part(
                            tile, x, i, weight, w, bias, b, out, o, block, block, slots, first, last
                        )
                    w += outputs * slots
            n += vectors if wide else 1
        _clear(out, y, blocks, width, slots)


@njit(nogil=True)
def to_planar(x, out, start, stop, width, channels, unit, pair):
    """Rows ``(width, channels)`` in blocks of pixels.

    ``unit`` channels begin a slot, which holds ``pair`` of them.
    """
    blocks = (width + LANES - 1) // LANES
    of_unit = (unit + pair - 1) // pair
    slots = channels // unit * of_unit
    block = slots * LANES * pair
    for y in range(start, stop):
        row = y * (blocks + 2) * block
        out[row : row + block] = 0
        out[row + blocks * block : row + (blocks + 2) * block] = 0
        for n in range(blocks):
            first = y * width + n * LANES
            lanes = min(LANES, width - n * LANES)
            for c in range(channels):
                slot = c // unit * of_unit + c % unit // pair
                at = row + (n + 1) * block + slot * LANES * pair + c % unit % pair
                if c % unit == unit - 1 and unit % pair:
                    for i in range(LANES):
                        out[at + i * pair + 1] = 0
                for i in range(lanes):
                    out[at + i * pair] = x[(first + i) * channels + c]


@njit(nogil=True)
def to_pixels(x, out, start, stop, width, channels, unit, pair):
    """The inverse of :func:`to_planar`."""
    blocks = (width + LANES - 1) // LANES
    of_unit = (unit + pair - 1) // pair
    slots = channels // unit * of_unit
    block = slots * LANES * pair
    for y in range(start, stop):
        row = y * (blocks + 2) * block
        for n in range(blocks):
            first = y * width + n * LANES
            lanes = min(LANES, width - n * LANES)
            for c in range(channels):
                slot = c // unit * of_unit + c % unit // pair
                at = row + (n + 1) * block + slot * LANES * pair + c % unit % pair
                for i in range(lanes):
                    out[(first + i) * channels + c] = x[at + i * pair]


@njit(nogil=True)
def _layers(x, y, result, block, width, pair, hidden, weight, bias, full, rest, last):
    """All layers of a block of queries but the first, whose output is in ``x``."""
    slots, w, first = (width + pair - 1) // pair, 0, 0
    for _ in range(hidden):
        o = 0
        while o < width:
            at, b = o // pair * LANES, first + o
            if o + len(full[0]) <= width:
                _wide_part(full, x, 0, weight, w, bias, b, y, at, block, block, slots, True, True)
                w += len(full[0]) * slots
                o += len(full[0])
            else:
                _wide_part(rest, x, 0, weight, w, bias, b, y, at, block, block, slots, True, True)
                w += len(rest[0]) * slots
                o = width
        x, y, first = y, x, first + width
    of_result = len(last[0]) * LANES
    _wide_part(last, x, 0, weight, w, bias, first, result, 0, block, of_result, slots, True, False)


@njit(nogil=True)
def mlp(
    classes, proj, rows, cols, line_pixel, line_row, column_pixel, out, start, stop, wanted,
    column_step, stride, width, pair, hidden, weight, bias, full, rest, last,
):  # fmt: skip
    """Lines of queries through an MLP: those of class ``wanted``, all if it is negative.

    The first layer's output at a query is ``proj[its pixel] + rows[its line] + cols[its column]``,
    rows of ``stride`` floats. ``width`` is that of the hidden layers, of which ``full`` outputs are
    computed together, and ``rest`` at the end.
    """
    vectors, columns = len(full[1]), column_pixel.size
    queries, outputs, total = vectors * LANES, len(last[0]), line_pixel.size * columns
    block = stride // pair * LANES
    x, y = np.empty(vectors * block, weight.dtype), np.empty(vectors * block, weight.dtype)
    result = np.empty(queries * outputs, np.float32)
    found, places = np.empty(queries, np.intp), np.zeros((3, queries), np.intp)
    line, column, n = start, 0, queries
    while n == queries:
        n = 0
        while n < queries and line < stop:
            at, pixel, row = line * columns, line_pixel[line], line_row[line] * stride
            while column < columns and n < queries:
                found[n] = at + column
                places[0, n] = (pixel + column_pixel[column]) * stride
                places[1, n] = row
                places[2, n] = column * column_step
                n += wanted < 0 or classes[at + column] == wanted
                column += 1
            if column == columns:
                line, column = line + 1, 0
        for v in range(vectors):  # beyond the last query, those of the block before
            _gather(
                proj, 0, rows, 0, cols, 0, places, 2 * v * LANES, x, v * block, queries,
                stride // LANES,
            )  # fmt: skip
        _layers(x, y, result, block, width, pair, hidden, weight, bias, full, rest, last)
        for q in range(n):
            at = q // LANES * outputs * LANES + q % LANES
            for o in range(outputs):
                out[o * total + found[q]] = result[at + o * LANES]


@njit(nogil=True)
def refine(image, classes, out, start, stop, height, width, heavy):
    """Rows of pictures ``(3, height, width)``: light pixels beside heavy ones take the 3x3 mean.

    Classes below ``heavy`` are heavy. The order of sums is that of ``routing.refine``.
    """
    near, sums, ninth = np.zeros(width, np.uint8), np.empty(width, np.float32), np.float32(1 / 9)
    for line in range(start, stop):
        inner, row = 0 < line % height < height - 1, line * width
        if inner:
            above, own = classes[row - width : row], classes[row : row + width]
            below = classes[row + width : row + 2 * width]
            for x in range(width):
                near[x] = (above[x] < heavy) | (own[x] < heavy) | (below[x] < heavy)
        for channel in range(3):
            at = ((line // height * 3 + channel) * height + line % height) * width
            source, into = image[at : at + width], out[at : at + width]
            into[:] = source
            if inner:
                before, after = image[at - width : at], image[at + width : at + 2 * width]
                for x in range(width):
                    sums[x] = before[x] + source[x] + after[x]
                for x in range(1, width - 1):
                    mean = (sums[x - 1] + sums[x] + sums[x + 1]) * ninth
                    touched = (near[x - 1] | near[x] | near[x + 1]) != 0 and own[x] >= heavy
                    into[x] = mean if touched else source[x]


KERNELS = conv3, conv1, conv1_in_turn, to_planar, to_pixels, mlp, refine


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
