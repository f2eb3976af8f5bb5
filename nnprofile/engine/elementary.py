"""What the kernels are built of: views, constants; and exp, log1p and the normal distribution, so that whole vectors run.

The C library's exp and log1p take one number at a time, and would cost more than the products around them. Each here is
a reduction of the argument and a Taylor series, without branches; the remainders are below half a unit in the last digit
of float64, so one series does for both dtypes.
"""

from __future__ import annotations

import platform
from math import log

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ..functions import NORMAL_TAIL

# Called by compiled code alone: without the wrappers that make a function callable from Python, it compiles faster.
HELPER = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
ONCE = HELPER | {"inline": "always"}  # called in one place: a call would copy each array's description
INLINE = HELPER | {"fastmath": {"contract", "nsz"}}  # NaN and infinity keep their meaning
# Sums may be taken in any order. No "contract": with it, LLVM 14 takes 0 * x + y for y, even where x is infinite.
SUM = HELPER | {"fastmath": {"nsz", "reassoc"}}
_LN2_HIGH = float.fromhex("0x1.62e4p-1")  # 15 digits, so that n * _LN2_HIGH is exact, also in float32
_LN2_LOW = float.fromhex("0x1.7f7d1cf79abcap-20")  # log(2) - _LN2_HIGH
_LOWEST = {32: -104.0, 64: -746.0}  # exp of less is rounded to 0
_LEAST_POWER = {32: -126.0, 64: -1022.0}  # 2 to less than this has no exponent of its own


_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_FLUSH = 0x8040  # of the control register MXCSR: results and operands that are subnormal count as 0


@intrinsic
def _exchange(typing, bits, is_all):
    """Set MXCSR to ``bits``, or, unless ``is_all``, add them to it; return what it was. Elsewhere than on x86: nothing."""

    def emit(context, builder, signature, args):
        if not _IS_X86:
            return args[0]
        pointer = ir.IntType(8).as_pointer()
        place = cgutils.alloca_once(builder, ir.IntType(32))
        raw = builder.bitcast(place, pointer)
        kind = ir.FunctionType(ir.VoidType(), [pointer])
        read, write = (
            cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
            for name in ("stmxcsr", "ldmxcsr")
        )
        builder.call(read, [raw])
        before = builder.load(place)
        builder.store(builder.select(args[1], args[0], builder.or_(before, args[0])), place)
        builder.call(write, [raw])
        return before

    return types.uint32(types.uint32, types.boolean), emit


@njit(**HELPER)
def flush_subnormals():
    """Let numbers below the least normal one count as 0, in this thread; return what ``restore_subnormals`` takes.

    A weight that only decays, by L2 where no gradient reaches it, ends among them, where each operation takes a hundred
    times as long.
    """
    return _exchange(_FLUSH, False)


@njit(**HELPER)
def restore_subnormals(before):
    """Undo ``flush_subnormals``."""
    _exchange(before, True)


@intrinsic
def like(typing, x, value):
    """Return ``value`` in the dtype of ``x``, a number or an array; otherwise float32 and a literal make float64."""
    number = getattr(x, "dtype", x)

    def emit(context, builder, signature, args):
        return context.cast(builder, args[1], signature.args[1], number)

    return number(x, value), emit


@intrinsic
def view(typing, a, start, size):
    """Return ``size`` numbers of ``a``, in C order, from place ``start`` on, as a flat array.

    It is good for as long as ``a`` lives: unlike a slice it counts no reference.
    """
    flat = types.Array(a.dtype, 1, "C")

    def emit(context, builder, signature, args):
        old = context.make_array(a)(context, builder, args[0])
        new = context.make_array(flat)(context, builder)
        itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(a.dtype)))
        populate_array(
            new,
            builder.gep(old.data, [args[1]]),
            cgutils.pack_array(builder, [args[2]]),
            cgutils.pack_array(builder, [itemsize]),
            itemsize,
            None,
        )
        return new._getvalue()

    return flat(a, types.intp, types.intp), emit


@intrinsic
def lowest(typing, x):
    """Return an x whose exp, and that of all less, is 0 in x's dtype."""

    def emit(context, builder, signature, args):
        return context.get_constant(x, _LOWEST[x.bitwidth])

    return x(x), emit


@intrinsic
def least_power(typing, x):
    """Return the least n for which 2^n is a normal number of x's dtype."""

    def emit(context, builder, signature, args):
        return context.get_constant(x, _LEAST_POWER[x.bitwidth])

    return x(x), emit


@intrinsic
def nearest(typing, x):
    """Return the whole number next to x."""

    def emit(context, builder, signature, args):
        number = args[0].type
        kind = ir.FunctionType(number, [number])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.rint.f{x.bitwidth}")
        return builder.call(function, args)

    return x(x), emit


@intrinsic
def power_of_two(typing, n):
    """Return 2^n for a whole n between -126 and 127 (for float32; to 1023 otherwise), by writing it into the exponent."""
    n_digits, bias = {32: (23, 127), 64: (52, 1023)}[n.bitwidth]

    def emit(context, builder, signature, args):
        bits = ir.IntType(n.bitwidth)
        is_number = builder.fcmp_ordered("ord", args[0], args[0])  # the conversion of NaN is not defined
        whole = builder.fptosi(builder.select(is_number, args[0], args[0].type(0.0)), ir.IntType(32))
        if n.bitwidth == 64:
            whole = builder.sext(whole, bits)
        return builder.bitcast(builder.shl(builder.add(whole, bits(bias)), bits(n_digits)), args[0].type)

    return n(n), emit


@njit(**HELPER)
def zero_if_finite(x):
    """Return 0 * x: 0 for every finite x, NaN for the others; compiled so that it is not simplified to 0."""
    return x * like(x, 0)


@njit(**INLINE)
def exp_parts(x):
    """Return p, 2^m and 2^n with exp(x) = 2^m 2^n (1 + p), for x <= 0; 2^n is 1 unless exp(x) is subnormal.

    x = (m + n) log 2 + r with m + n whole, so |r| <= log(2) / 2 and p = exp(r) - 1 = r + r^2 / 2! + ... + r^14 / 14!, whose
    remainder is below 2e-19.
    """
    return _exp_parts(x, like(x, 0))


@njit(**INLINE)
def _exp_parts(x, low):
    """Return the parts of exp(x + low), where low holds digits beyond those of x."""
    least = lowest(x)
    low = like(x, 0) if x < least else low
    x = least if x < least else x
    n = nearest((x + low) * like(x, 1 / log(2)))
    r = ((x - n * like(x, _LN2_HIGH)) - n * like(x, _LN2_LOW)) + low
    p = like(x, 1 / 87178291200)
    p = p * r + like(x, 1 / 6227020800)
    p = p * r + like(x, 1 / 479001600)
    p = p * r + like(x, 1 / 39916800)
    p = p * r + like(x, 1 / 3628800)
    p = p * r + like(x, 1 / 362880)
    p = p * r + like(x, 1 / 40320)
    p = p * r + like(x, 1 / 5040)
    p = p * r + like(x, 1 / 720)
    p = p * r + like(x, 1 / 120)
    p = p * r + like(x, 1 / 24)
    p = p * r + like(x, 1 / 6)
    p = p * r + like(x, 1 / 2)
    p = p * r * r + r
    m = n if n > least_power(x) else least_power(x)
    return p, power_of_two(m), power_of_two(n - m)


@njit(**INLINE)
def exp(x):
    """Return e to the x, for x <= 0."""
    p, scale, small = exp_parts(x)
    return (scale + scale * p) * small


@njit(**INLINE)
def expm1_of_any(x):
    """Return exp(x) - 1, which keeps its digits near 0."""
    p, scale, small = exp_parts(-abs(x))
    one = like(x, 1)
    scale *= small
    below = scale * p + (scale - one)  # exp(-abs(x)) - 1
    return -below / (one + below) if x > 0 else below


@njit(**INLINE)
def exp_of_any(x):
    """Return e to the x; inf from where exp(-x) is 0."""
    e = exp(-abs(x))
    return like(x, 1) / e if x > 0 else e


@njit(**INLINE, inline="always")  # too long for LLVM to do so by itself
def normal(x):
    """Return exp(-x^2 / 2) and Phi(-x), the share of a normal distribution that is above x, for x >= 0.

    Phi(-x) = exp(-x^2 / 2) p(t) / (x + 4) with t = (x - 4) / (x + 4), and p of ``NORMAL_TAIL``.
    With h = x to sixteenths, x^2 = h^2 + (x - h)(x + h), and h^2 has all its digits.
    """
    four, half = like(x, 4), like(x, 0.5)
    t = (x - four) / (x + four)
    p = like(x, NORMAL_TAIL[24])
    p = p * t + like(x, NORMAL_TAIL[23])
    p = p * t + like(x, NORMAL_TAIL[22])
    p = p * t + like(x, NORMAL_TAIL[21])
    p = p * t + like(x, NORMAL_TAIL[20])
    p = p * t + like(x, NORMAL_TAIL[19])
    p = p * t + like(x, NORMAL_TAIL[18])
    p = p * t + like(x, NORMAL_TAIL[17])
    p = p * t + like(x, NORMAL_TAIL[16])
    p = p * t + like(x, NORMAL_TAIL[15])
    p = p * t + like(x, NORMAL_TAIL[14])
    p = p * t + like(x, NORMAL_TAIL[13])
    p = p * t + like(x, NORMAL_TAIL[12])
    p = p * t + like(x, NORMAL_TAIL[11])
    p = p * t + like(x, NORMAL_TAIL[10])
    p = p * t + like(x, NORMAL_TAIL[9])
    p = p * t + like(x, NORMAL_TAIL[8])
    p = p * t + like(x, NORMAL_TAIL[7])
    p = p * t + like(x, NORMAL_TAIL[6])
    p = p * t + like(x, NORMAL_TAIL[5])
    p = p * t + like(x, NORMAL_TAIL[4])
    p = p * t + like(x, NORMAL_TAIL[3])
    p = p * t + like(x, NORMAL_TAIL[2])
    p = p * t + like(x, NORMAL_TAIL[1])
    p = p * t + like(x, NORMAL_TAIL[0])
    h = nearest(x * like(x, 16)) * like(x, 1 / 16)
    e, scale, small = _exp_parts(-half * h * h, -half * (x - h) * (x + h))
    density = (scale + scale * e) * small
    return density, density * (p / (x + four))


@njit(**INLINE)
def log1p(u):
    """Return log(1 + u) for 0 <= u <= 1.

    With s = u / (2 + u) it is 2 artanh(s) = 2 (s + s^3 / 3 + s^5 / 5 + ...), and s <= 1/3: 17 terms leave less than 1e-18.
    """
    s = u / (like(u, 2) + u)
    q = s * s
    p = like(u, 1 / 33)
    p = p * q + like(u, 1 / 31)
    p = p * q + like(u, 1 / 29)
    p = p * q + like(u, 1 / 27)
    p = p * q + like(u, 1 / 25)
    p = p * q + like(u, 1 / 23)
    p = p * q + like(u, 1 / 21)
    p = p * q + like(u, 1 / 19)
    p = p * q + like(u, 1 / 17)
    p = p * q + like(u, 1 / 15)
    p = p * q + like(u, 1 / 13)
    p = p * q + like(u, 1 / 11)
    p = p * q + like(u, 1 / 9)
    p = p * q + like(u, 1 / 7)
    p = p * q + like(u, 1 / 5)
    p = p * q + like(u, 1 / 3)
    return like(u, 2) * (s + s * q * p)


@njit(**SUM)
def total(a):
    """Return the sum of a, taken in float64: of a million float32 terms it keeps all digits."""
    sum_ = 0.0
    for i in range(a.size):
        sum_ += a[i]
    return like(a, sum_)
