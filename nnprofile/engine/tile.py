"""The register tile: C = S + A B for four rows by one cache line of columns, with nothing but registers in the loop.

Why by hand: a matrix product of n x k by k x m numbers does 2nkm operations on nk + km + nm numbers, so a processor
should hardly ever wait for memory. Written as three loops it does, because each multiply-add loads and stores its c_ij.
The cure is old: keep a small block of C, the *tile*, in registers, and walk once along k::

    for k:                      one row of B's panel is loaded once     b   = B[k, 0:16]
        for r in 0 .. 3:        and used four times                     c_r = c_r + A[r, k] * b

With float32 and 256-bit registers a row of 16 numbers is two registers, so the tile is eight of them: as many sums as a
core needs in flight, since a multiply-add takes four cycles and two can start in each. Loads are 6 for 8 multiply-adds,
so the arithmetic units are the only limit. Measured: 86 to 100 GFLOP/s on small products, the rate of the core.

A compiler does not find this form in scalar loops, so it is written here in LLVM's own language, through Numba. Rows of A
and steps along k each have a stride of their own, so the same code reads A and A.T. The last columns of a matrix, fewer
than a tile's, are read and written under a mask. ``llvm.fmuladd`` is one fused instruction where the processor has it.

Each c_ij is summed over k in order, whatever tile it falls into: the bits of a row do not depend on the rows beside it.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 4
BYTES = 64  # of a tile's row: a cache line, 16 float32 or 8 float64
_I64 = ir.IntType(64)


def _tile(n_rows, masked):
    """Return the tile of so many rows as a Numba intrinsic; ``masked``: only the first ``n_columns`` columns exist."""

    @intrinsic
    def tile(
        typing, a, a_start, a_row, a_step, b, b_start, b_row, s, s_start, s_row, c, c_start, c_row, n_steps, n_columns
    ):
        """C[r, j] = S[r, j] + sum_k A[r, k] B[k, j]; A, B, S, C are flat arrays, each with the place of its [0, 0].

        ``a_row`` and ``a_step`` are A's strides along r and k, ``b_row`` is B's along k, ``s_row`` and ``c_row`` are S's
        and C's along r; columns lie side by side. A stride of 0 repeats a row: S is a bias, say.
        """
        i = types.int64
        signature = types.void(a, i, i, i, b, i, i, s, i, i, c, i, i, i, i)
        n_lanes = BYTES * 8 // a.dtype.bitwidth

        def emit(context, builder, signature, args):
            number = context.get_value_type(a.dtype)
            vector = ir.VectorType(number, n_lanes)
            mask = _first(builder, args[14], n_lanes)  # if it is not used, nothing is left of it
            name = f"v{n_lanes}f{a.dtype.bitwidth}"

            def pointer(at, start):
                data = context.make_array(signature.args[at])(context, builder, args[at]).data
                return builder.gep(data, [args[start]])

            def load(row):
                row = builder.bitcast(row, vector.as_pointer())
                if not masked:
                    return builder.load(row, align=1)
                kind = ir.FunctionType(vector, [vector.as_pointer(), ir.IntType(32), mask.type, vector])
                function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.{name}.p0{name}")
                return builder.call(function, [row, ir.IntType(32)(a.dtype.bitwidth // 8), mask, vector(None)])

            def store(value, row):
                row = builder.bitcast(row, vector.as_pointer())
                if not masked:
                    return builder.store(value, row, align=1)
                kind = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), ir.IntType(32), mask.type])
                function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.{name}.p0{name}")
                return builder.call(function, [value, row, ir.IntType(32)(a.dtype.bitwidth // 8), mask])

            def broadcast(place):
                one = builder.insert_element(vector(ir.Undefined), builder.load(place), ir.IntType(32)(0))
                lanes = ir.VectorType(ir.IntType(32), n_lanes)
                return builder.shuffle_vector(one, vector(ir.Undefined), lanes(None))

            def rows(start, stride):
                return [builder.gep(start, [builder.mul(_I64(r), stride)]) for r in range(n_rows)]

            a_rows, b_first = rows(pointer(0, 1), args[2]), pointer(4, 5)
            start = [load(row) for row in rows(pointer(7, 8), args[9])]
            before, head = builder.block, builder.append_basic_block("tile.head")
            body, after = builder.append_basic_block("tile.body"), builder.append_basic_block("tile.after")
            builder.branch(head)

            builder.position_at_end(head)
            k = builder.phi(_I64)
            sums = [builder.phi(vector) for _ in range(n_rows)]
            builder.cbranch(builder.icmp_signed("<", k, args[13]), body, after)

            builder.position_at_end(body)
            b_k = load(builder.gep(b_first, [builder.mul(k, args[6])]))
            at = builder.mul(k, args[3])
            three = ir.FunctionType(vector, [vector] * 3)
            fma = cgutils.get_or_insert_function(builder.module, three, f"llvm.fmuladd.{name}")
            longer = [
                builder.call(fma, [broadcast(builder.gep(row, [at])), b_k, c_r])
                for row, c_r in zip(a_rows, sums, strict=True)
            ]
            for phi, first, last in zip([k, *sums], [_I64(0), *start], [builder.add(k, _I64(1)), *longer], strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(last, body)
            builder.branch(head)

            builder.position_at_end(after)
            for value, row in zip(sums, rows(pointer(10, 11), args[12]), strict=True):
                store(value, row)
            return context.get_dummy_value()

        return signature, emit

    return tile


def _first(builder, n, n_lanes):
    """Return the mask of the first ``n`` lanes."""
    lanes = ir.VectorType(ir.IntType(32), n_lanes)
    one = builder.insert_element(lanes(ir.Undefined), builder.trunc(n, ir.IntType(32)), ir.IntType(32)(0))
    n = builder.shuffle_vector(one, lanes(ir.Undefined), lanes(None))
    return builder.icmp_signed("<", lanes(list(range(n_lanes))), n)


tile_of_4 = _tile(ROWS, masked=False)
tile_of_1 = _tile(1, masked=False)
narrow_tile_of_4 = _tile(ROWS, masked=True)
narrow_tile_of_1 = _tile(1, masked=True)
