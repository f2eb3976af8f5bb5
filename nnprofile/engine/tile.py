"""The register tile: C = S + A B for a few rows by a few cache lines of columns, with nothing but registers in the loop.

Why by hand: a matrix product of n x k by k x m numbers does 2nkm operations on nk + km + nm numbers, so a processor
should hardly ever wait for memory. Written as three loops it does, because each multiply-add loads and stores its c_ij.
The cure is old: keep a small block of C, the *tile*, in registers, and walk once along k::

    for k:                      one row of B's panel is loaded once     b   = B[k, 0:16]
        for r in 0 .. 3:        and used four times                     c_r = c_r + A[r, k] * b

A core needs eight sums in flight, since a multiply-add takes four cycles and two can start in each. With float32 and the 16
registers of 256 bits of AVX2 a row of 16 numbers is two registers, so 4 rows are eight sums; more would not fit. AVX-512 has
32 registers of 512 bits, and a tile of 8 rows by 2 lines fills half of them. Measured on products of 100 x 64 to 32 x 16, in
GFLOP/s: with AVX2 66 to 75 (8 rows: 43, the sums spill); with AVX-512 94 to 175 (4 rows by a line: 62 to 97).

A compiler does not find this form in scalar loops, so it is written here in LLVM's own language, through Numba. Rows of A
and steps along k each have a stride of their own, so the same code reads A and A.T. The last columns of a matrix, fewer
than a cache line's, are read and written under a mask. A single row uses tiles of four lines, for the same eight sums.
``llvm.fmuladd`` is one fused instruction where the processor has it.

Each c_ij is summed over k in order, whatever tile it falls into: the bits of a row do not depend on the rows beside it.

For sparse rows there are two tiles more. Of a row of x only the numbers at the columns ``index`` are there, so ``gather``
sums the rows of B that these name, and ``scatter``, its transpose, adds multiples of one row to them.
"""

from __future__ import annotations

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic


def _has_avx512() -> bool:
    """Tell whether Numba compiles for AVX-512, as the machine is, or as its settings say."""
    features = config.CPU_FEATURES
    if features is None or (not features and not config.CPU_NAME):
        return bool(binding.get_host_cpu_features().get("avx512f"))
    return "+avx512f" in features


ROWS, PAIRS = (
    (8, True) if _has_avx512() else (4, False)
)  # of the tile; whether it is two lines wide, where there are two
LINE = 64  # bytes: 16 float32, or 8 float64
WIDE = 4  # lines of columns in the tile of one row
_I32, _I64 = ir.IntType(32), ir.IntType(64)


class _Lines:
    """Emit code on cache lines of numbers: ``n`` lines side by side, or the first ``n_columns`` numbers of one."""

    def __init__(self, context, builder, dtype, n, n_columns=None):
        self.context, self.builder, self.n = context, builder, n
        self.size = dtype.bitwidth // 8
        self.n_lanes = LINE // self.size
        self.type = ir.VectorType(context.get_value_type(dtype), self.n_lanes)
        self.name = f"v{self.n_lanes}f{dtype.bitwidth}"
        self.lanes = ir.VectorType(_I32, self.n_lanes)
        self.mask = None
        if n_columns is not None:
            bound = self._everywhere(self.lanes, builder.trunc(n_columns, _I32))
            self.mask = builder.icmp_signed("<", self.lanes(list(range(self.n_lanes))), bound)

    def pointer(self, kind, array, start):
        """Return the address of array[start]."""
        return self.builder.gep(self.context.make_array(kind)(self.context, self.builder, array).data, [start])

    def load(self, place):
        """Return the lines from ``place`` on."""
        return [self._load(p) for p in self._lines(place)]

    def store(self, values, place):
        """Write them."""
        for value, p in zip(values, self._lines(place), strict=True):
            if self.mask is None:
                self.builder.store(value, p, align=1)
            else:
                kinds = [self.type, p.type, _I32, self.mask.type]
                store = self._function(f"llvm.masked.store.{self.name}.p0{self.name}", ir.VoidType(), kinds)
                self.builder.call(store, [value, p, _I32(self.size), self.mask])

    def multiply_add(self, number, x, y):
        """Return number * x + y."""
        number = self._everywhere(self.type, number)
        fma = self._function(f"llvm.fmuladd.{self.name}", self.type, [self.type] * 3)
        return [self.builder.call(fma, [number, a, b]) for a, b in zip(x, y, strict=True)]

    def _lines(self, place):
        places = [self.builder.gep(place, [_I64(i * self.n_lanes)]) for i in range(self.n)]
        return [self.builder.bitcast(p, self.type.as_pointer()) for p in places]

    def _load(self, place):
        if self.mask is None:
            return self.builder.load(place, align=1)
        kinds = [place.type, _I32, self.mask.type, self.type]
        load = self._function(f"llvm.masked.load.{self.name}.p0{self.name}", self.type, kinds)
        return self.builder.call(load, [place, _I32(self.size), self.mask, self.type(None)])

    def _function(self, name, returns, kinds):
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(returns, kinds), name)

    def _everywhere(self, vector, number):
        one = self.builder.insert_element(vector(ir.Undefined), number, _I32(0))
        return self.builder.shuffle_vector(one, vector(ir.Undefined), self.lanes(None))


def _loop(builder, n_steps, start, body):
    """Emit ``for k in range(n_steps): state = body(k, state)`` with a state in registers; return the last state."""
    before, head = builder.block, builder.append_basic_block("head")
    inside, after = builder.append_basic_block("body"), builder.append_basic_block("after")
    builder.branch(head)
    builder.position_at_end(head)
    k, state = builder.phi(_I64), [builder.phi(value.type) for value in start]
    builder.cbranch(builder.icmp_signed("<", k, n_steps), inside, after)
    builder.position_at_end(inside)
    next_state = body(k, state)
    for phi, first, last in zip([k, *state], [_I64(0), *start], [builder.add(k, _I64(1)), *next_state], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(last, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return state


def _tile(n_rows, n_lines=1, *, masked=False):
    """Return the tile of so many rows and lines as a Numba intrinsic; ``masked``: of the first ``n_columns`` columns."""

    @intrinsic
    def tile(
        typing, a, a_start, a_row, a_step, b, b_start, b_row, s, s_start, s_row, c, c_start, c_row, n_steps, n_columns
    ):
        """C[r, j] = S[r, j] + sum_k A[r, k] B[k, j]; A, B, S, C are flat arrays, each with the place of its [0, 0].

        ``a_row`` and ``a_step`` are A's strides along r and k, ``b_row`` is B's along k, ``s_row`` and ``c_row`` are S's
        and C's along r; columns lie side by side. A stride of 0 repeats a row: S is a bias, say.
        """
        i = types.int64

        def emit(context, builder, signature, args):
            a, a_0, a_row, a_step, b, b_0, b_row, s, s_0, s_row, c, c_0, c_row, n_steps, n_columns = args
            kinds = signature.args
            lines = _Lines(context, builder, kinds[0].dtype, n_lines, n_columns if masked else None)

            def rows(kind, array, start, stride):
                first = lines.pointer(kind, array, start)
                return [builder.gep(first, [builder.mul(_I64(r), stride)]) for r in range(n_rows)]

            a_rows, b_first = rows(kinds[0], a, a_0, a_row), lines.pointer(kinds[4], b, b_0)

            def step(k, sums):
                b_k = lines.load(builder.gep(b_first, [builder.mul(k, b_row)]))
                at = builder.mul(k, a_step)
                numbers = [builder.load(builder.gep(row, [at])) for row in a_rows]
                parts = [sums[r * n_lines : (r + 1) * n_lines] for r in range(n_rows)]
                longer = [lines.multiply_add(x, b_k, part) for x, part in zip(numbers, parts, strict=True)]
                return [value for part in longer for value in part]

            start = [value for row in rows(kinds[7], s, s_0, s_row) for value in lines.load(row)]
            sums = _loop(builder, n_steps, start, step)
            for r, row in enumerate(rows(kinds[10], c, c_0, c_row)):
                lines.store(sums[r * n_lines : (r + 1) * n_lines], row)
            return context.get_dummy_value()

        return types.void(a, i, i, i, b, i, i, s, i, i, c, i, i, i, i), emit

    return tile


def _gather(n_lines, *, masked=False):
    """Return the tile that sums the rows which ``index`` names."""

    @intrinsic
    def gather(typing, a, index, start, b, b_start, b_row, s, s_start, c, c_start, n_steps, n_columns):
        """C[j] = S[j] + sum_k a_k B[index_k, j], with a_k and index_k from the place ``start`` on."""
        i = types.int64

        def emit(context, builder, signature, args):
            a, index, start, b, b_0, b_row, s, s_0, c, c_0, n_steps, n_columns = args
            kinds = signature.args
            lines = _Lines(context, builder, kinds[0].dtype, n_lines, n_columns if masked else None)
            a_first, names = lines.pointer(kinds[0], a, start), lines.pointer(kinds[1], index, start)
            b_first = lines.pointer(kinds[3], b, b_0)

            def step(k, sums):
                row = builder.sext(builder.load(builder.gep(names, [k])), _I64)
                b_k = lines.load(builder.gep(b_first, [builder.mul(row, b_row)]))
                return lines.multiply_add(builder.load(builder.gep(a_first, [k])), b_k, sums)

            start = lines.load(lines.pointer(kinds[6], s, s_0))
            lines.store(_loop(builder, n_steps, start, step), lines.pointer(kinds[8], c, c_0))
            return context.get_dummy_value()

        return types.void(a, index, i, b, i, i, s, i, c, i, i, i), emit

    return gather


def _scatter(n_lines, *, masked=False):
    """Return the tile that adds to the rows which ``index`` names."""

    @intrinsic
    def scatter(
        typing, factor, a, start, index, i_start, d, d_start, b, b_start, b_row, check, c_start, n_steps, n_columns
    ):
        """B[index_k, j] += factor a_k d_j; a_k from the place ``start`` on, index_k from ``i_start``.

        ``check`` += 0 times what is written, so it stays 0 as long as that is finite.
        """
        i = types.int64

        def emit(context, builder, signature, args):
            factor, a, start, index, i_0, d, d_0, b, b_0, b_row, check, c_0, n_steps, n_columns = args
            kinds = signature.args
            lines = _Lines(context, builder, kinds[1].dtype, n_lines, n_columns if masked else None)
            a_first, names = lines.pointer(kinds[1], a, start), lines.pointer(kinds[3], index, i_0)
            d_row = lines.load(lines.pointer(kinds[5], d, d_0))
            b_first, c_place = lines.pointer(kinds[7], b, b_0), lines.pointer(kinds[10], check, c_0)

            def step(k, sums):
                row = builder.sext(builder.load(builder.gep(names, [k])), _I64)
                place = builder.gep(b_first, [builder.mul(row, b_row)])
                number = builder.fmul(factor, builder.load(builder.gep(a_first, [k])))
                new = lines.multiply_add(number, d_row, lines.load(place))
                lines.store(new, place)
                return lines.multiply_add(factor.type(0.0), new, sums)

            lines.store(_loop(builder, n_steps, lines.load(c_place), step), c_place)
            return context.get_dummy_value()

        return types.void(a.dtype, a, i, index, i, d, i, b, i, i, check, i, i, i), emit

    return scatter


@intrinsic
def prefetch(typing, a, start):
    """Ask for the cache line of a[start], which will be needed soon."""

    def emit(context, builder, signature, args):
        place = builder.gep(context.make_array(a)(context, builder, args[0]).data, [args[1]])
        place = builder.bitcast(place, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [place, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(a, types.int64), emit


tile, double_tile = _tile(ROWS), _tile(ROWS, 2)
narrow_tile = _tile(ROWS, masked=True)
wide_row, row, narrow_row = _tile(1, WIDE), _tile(1), _tile(1, masked=True)
wide_gather, gather, narrow_gather = _gather(WIDE), _gather(1), _gather(1, masked=True)
wide_scatter, scatter, narrow_scatter = _scatter(WIDE), _scatter(1), _scatter(1, masked=True)
