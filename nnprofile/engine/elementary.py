"""What the kernels are built of: views, constants; and exp, log1p and the normal distribution, so that whole vectors run.

The C library's exp and log1p take one number at a time, and would cost more than the products around them. Each here is
a reduction of the argument and a polynomial, without branches. Of all polynomials of their degree these differ least from the
function, relative to the result and in the worst case (Remez, "minimax"): by less than a sixth of a unit in the last place,
for which float32 needs half as many terms as float64. With the rounding on the way, in units in the last place: exp 1.3, log1p
2, sigmoid 3, tanh 3 and its slope 6, the normal density 2.5 and tail 12 (4.5 in float32), at most, over all exponents.
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
# One loop of a kernel. Inlined without fail: of a function that is called, a process that compiles has two versions, and one that
# loads machine code has one, and they may round differently.
LOOP = INLINE | {"forceinline": True}
# Sums may be taken in any order. No "contract": with it, LLVM 14 takes 0 * x + y for y, even where x is infinite.
SUM = HELPER | {"fastmath": {"nsz", "reassoc"}}
_LN2_HIGH = float.fromhex("0x1.62e4p-1")  # 15 digits, so that n * _LN2_HIGH is exact, also in float32
_LN2_LOW = float.fromhex("0x1.7f7d1cf79abcap-20")  # log(2) - _LN2_HIGH
_FARTHEST = {32: 104.0, 64: 746.0}  # exp of more is inf, and of less than the negative 0
_SHIFT = {32: 1.5 * 2.0**23 + 127, 64: 1.5 * 2.0**52 + 1023}  # n + this has n + 127 in its lowest bits, 127 for 2^0

# (exp(r) - 1 - r) / r^2 for abs(r) <= log(2) / 2
_EXP = {
    32: (0.49999993412748506, 0.16666520108584542, 0.041668394162476756, 0.008368780340150862, 0.0013814469354541115),
    64: (
        *(0.500000000000001072, 0.1666666666666641024, 0.04166666666652919322, 0.00833333333349561950),
        *(0.001388888894392157568, 0.0001984126950977165364, 2.480149276378395933e-5, 2.755758733848400412e-6),
        *(2.763037829897919225e-7, 2.499996606597341649e-8),
    ),
}
# (artanh(s) / s - 1) / s^2 in powers of s^2, for 0 <= s <= 1/3
_ARTANH = {
    32: (0.33333206572884122, 0.20010849227345378, 0.13999574768644625, 0.14012210970943349),
    64: (
        *(0.3333333333333315196, 0.2000000000007860458, 0.1428571427392868488, 0.1111111198477262320),
        *(0.09090871965352196203, 0.07693279906137426884, 0.06650487457606179652, 0.06053038266533507136),
        *(0.04170070576638354961, 0.08509253100426715777),
    ),
}
# (x + 4) exp(x^2 / 2) Phi(-x) in powers of (x - 4) / (x + 4), for x >= 0
_TAIL = {
    32: (
        *(0.75528513001206885, -0.60789662809619430, 0.38713742383160518, -0.18652224842966967, 0.060396376206630562),
        *(-0.0075371049709297561, -0.0034791161220527879, 0.0016204064950440294, 0.00013262054603444419),
        *(-0.00021373409658046849, -1.2924797867180819e-6, 2.0448110634902799e-5),
    ),
    64: NORMAL_TAIL,
}


IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
_FLUSH = 0x8040  # of the control register MXCSR: results and operands that are subnormal count as 0


@intrinsic
def _exchange(typing, bits, is_all):
    """Set MXCSR to ``bits``, or, unless ``is_all``, add them to it; return what it was. Elsewhere than on x86: nothing."""

    def emit(context, builder, signature, args):
        if not IS_X86:
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
def larger(typing, x, y):
    """Return the larger of two numbers; NaN counts for nothing, or for itself, so that a loop may take any order."""

    def emit(context, builder, signature, args):
        number = args[0].type
        kind = ir.FunctionType(number, [number] * 2)
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.maxnum.f{x.bitwidth}")
        return builder.call(function, args, fastmath=("nnan", "nsz"))

    return x(x, x), emit


@intrinsic
def farthest(typing, x):
    """Return an x whose exp, and that of all more, is inf in x's dtype, and that of -x 0."""

    def emit(context, builder, signature, args):
        return context.get_constant(x, _FARTHEST[x.bitwidth])

    return x(x), emit


def _polynomial(coefficients):
    """Return the function that computes a polynomial with coefficients for each width of numbers, by Horner's rule."""

    @intrinsic
    def polynomial(typing, x):
        def emit(context, builder, signature, args):
            number = args[0].type
            kind = ir.FunctionType(number, [number] * 3)
            multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.f{x.bitwidth}")
            *others, result = (context.get_constant(x, c) for c in coefficients[x.bitwidth])
            for c in reversed(others):
                result = builder.call(multiply_add, [result, args[0], c])
            return result

        return x(x), emit

    return polynomial


_exp_series, _artanh_series, _tail_series = _polynomial(_EXP), _polynomial(_ARTANH), _polynomial(_TAIL)


@intrinsic
def exponent_shift(typing, x):
    """Return the number to add to a whole n, for ``power_of_two`` to read it."""

    def emit(context, builder, signature, args):
        return context.get_constant(x, _SHIFT[x.bitwidth])

    return x(x), emit


@intrinsic
def power_of_two(typing, shifted):
    """Return 2^n for a whole n between -126 and 127 (for float32; to 1023 otherwise), which comes shifted, as its exponent."""
    n_digits = {32: 23, 64: 52}[shifted.bitwidth]

    def emit(context, builder, signature, args):
        bits = ir.IntType(shifted.bitwidth)
        return builder.bitcast(builder.shl(builder.bitcast(args[0], bits), bits(n_digits)), args[0].type)

    return shifted(shifted), emit


@njit(**HELPER)
def zero_if_finite(x):
    """Return 0 * x: 0 for every finite x, NaN for the others; compiled so that it is not simplified to 0."""
    return x * like(x, 0)


@njit(**INLINE)
def exp_parts(x):
    """Return p, 2^m and 2^n with exp(x) = 2^m 2^n (1 + p): two powers, for exp(x) may be subnormal.

    x = (m + n) log 2 + r with m + n whole, so abs(r) <= log(2) / 2, and p = exp(r) - 1 = r + r^2 q(r).
    """
    return _exp_parts(x, like(x, 0))


@njit(**INLINE)
def _exp_parts(x, low):
    """Return the parts of exp(x + low), where low holds digits beyond those of x."""
    end, shift = farthest(x), exponent_shift(x)
    low = low if abs(x) < end else like(x, 0)
    x = -end if x < -end else end if x > end else x
    n = ((x + low) * like(x, 1 / log(2)) + shift) - shift  # the sum has no digits behind the point
    r = ((x - n * like(x, _LN2_HIGH)) - n * like(x, _LN2_LOW)) + low
    p = _exp_series(r) * (r * r) + r
    m = n * like(x, 0.5) + shift
    return p, power_of_two(m), power_of_two(n - (m - shift) + shift)


@njit(**INLINE)
def exp(x):
    """Return e to the x."""
    p, scale, small = exp_parts(x)
    return (scale + scale * p) * small


@njit(**INLINE)
def expm1(x):
    """Return exp(x) - 1, which keeps its digits near 0, for x up to 80."""
    p, scale, small = exp_parts(x)
    scale *= small
    return scale * p + (scale - like(x, 1))


@njit(**INLINE)
def sigmoid_parts(x):
    """Return s(x) and s(-x), from e = exp(-abs(x)): s(abs(x)) = 1 / (1 + e), s(-abs(x)) = e / (1 + e)."""
    one = like(x, 1)
    e = exp(-abs(x))
    large = one / (one + e)
    small = e * large
    return (large, small) if x >= 0 else (small, large)


@njit(**INLINE)
def tanh_parts(x):
    """Return tanh(x) and 1 - tanh(x)^2, from e = exp(-2 abs(x)): (1 - e) / (1 + e) and 4 e / (1 + e)^2."""
    one, two = like(x, 1), like(x, 2)
    p, scale, small = exp_parts(-two * abs(x))
    scale *= small
    e_minus_one = scale * p + (scale - one)
    share = one / (two + e_minus_one)
    t, half = -e_minus_one * share, two * share
    return -t if x < 0 else t, (scale + scale * p) * half * half


@njit(**INLINE, inline="always")  # too long for LLVM to do so by itself
def normal(x):
    """Return exp(-x^2 / 2) and Phi(-x), the share of a normal distribution that is above x, for x >= 0.

    Phi(-x) = exp(-x^2 / 2) p(t) / (x + 4) with t = (x - 4) / (x + 4), and p of ``_TAIL``.
    With h = x to sixteenths, x^2 = h^2 + (x - h)(x + h), and h^2 has all its digits.
    """
    four, half, end = like(x, 4), like(x, 0.5), farthest(x)
    x = end if x > end else x  # where both are 0
    t = (x - four) / (x + four)
    p = _tail_series(t)
    near = exponent_shift(x) * like(x, 1 / 16)
    h = (x + near) - near
    e, scale, small = _exp_parts(-half * h * h, -half * (x - h) * (x + h))
    density = (scale + scale * e) * small
    return density, density * (p / (x + four))


@njit(**INLINE)
def log1p(u):
    """Return log(1 + u) for 0 <= u <= 1.

    With s = u / (2 + u) it is 2 artanh(s) = 2 (s + s^3 q(s^2)), and s <= 1/3.
    """
    s = u / (like(u, 2) + u)
    return like(u, 2) * (s + s * (s * s) * _artanh_series(s * s))


@njit(**SUM)
def total(a):
    """Return the sum of a, taken in float64: of a million float32 terms it keeps all digits."""
    sum_ = 0.0
    for i in range(a.size):
        sum_ += a[i]
    return like(a, sum_)


@njit(**INLINE)
def highest(a):
    """Return the largest number of a."""
    top = a[0]
    for i in range(a.size):
        top = larger(top, a[i])
    return top
