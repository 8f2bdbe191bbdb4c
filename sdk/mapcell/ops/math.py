"""Elementwise operators. Every `input` is a Tensor; a second operand may also be a number.

TypeError for anything else. Result types are those of Tensor's operators: the wider type, floats before integers.

Source: https://www.mindspore.cn/docs/en/master/api_python/mindspore.ops.html
"""

from __future__ import annotations

from collections.abc import Callable

from ..common.tensor import Tensor, wrap
from ..kernels import elementwise
from ..kernels.arithmetic import nan_to_num as _nan_to_num
from ._call import array, call, operand

Number = bool | int | float
UnaryOp = Callable[[Tensor], Tensor]
BinaryOp = Callable[[Tensor | Number, Tensor | Number], Tensor]


def unary(name: str) -> UnaryOp:
    """The operator of one Tensor that the kernel `name` computes."""
    kernel = elementwise.UNARY[name]

    def op(input: Tensor) -> Tensor:
        return wrap(kernel(array(input, name)))

    op.__name__ = op.__qualname__ = name
    op.__doc__ = kernel.__doc__ or f"{name} of each element of `input`."
    return op


def binary(name: str) -> BinaryOp:
    """The operator of two Tensors, or of a Tensor and a number, that the kernel `name` computes."""
    kernel = elementwise.BINARY[name]

    def op(input: Tensor | Number, other: Tensor | Number) -> Tensor:
        return wrap(kernel(operand(input, name), operand(other, name)))

    op.__name__ = op.__qualname__ = name
    op.__doc__ = kernel.__doc__ or f"{name} of `input` and `other`, element by element."
    return op


abs = absolute = unary("abs")
acos = arccos = unary("acos")
acosh = arccosh = unary("acosh")
asin = arcsin = unary("asin")
asinh = arcsinh = unary("asinh")
atan = arctan = unary("atan")
atanh = arctanh = unary("atanh")
ceil = unary("ceil")
cos = unary("cos")
cosh = unary("cosh")
deg2rad = unary("deg2rad")
digamma = unary("digamma")
erf = unary("erf")
erfc = unary("erfc")
erfinv = unary("erfinv")
exp = tensor_exp = unary("exp")
exp2 = unary("exp2")
expm1 = tensor_expm1 = unary("expm1")
floor = unary("floor")
frac = unary("frac")
isfinite = unary("isfinite")
isinf = unary("isinf")
isnan = unary("isnan")
isneginf = unary("isneginf")
isposinf = unary("isposinf")
isreal = unary("isreal")
lgamma = unary("lgamma")
log = unary("log")
log10 = unary("log10")
log1p = unary("log1p")
log2 = unary("log2")
logical_not = unary("logical_not")
neg = negative = unary("neg")
positive = unary("positive")
rad2deg = unary("rad2deg")
reciprocal = inv = unary("reciprocal")
rsqrt = unary("rsqrt")
sigmoid = unary("sigmoid")
sign = sgn = unary("sign")
signbit = unary("signbit")
sin = unary("sin")
sinc = unary("sinc")
sinh = unary("sinh")
sqrt = unary("sqrt")
square = unary("square")
tan = unary("tan")
tanh = unary("tanh")
trunc = unary("trunc")
bitwise_not = invert = unary("bitwise_not")

add = tensor_add = binary("add")
sub = tensor_sub = binary("sub")
mul = multiply = tensor_mul = binary("mul")
true_divide = tensor_div = binary("div")
floor_div = floor_divide = floordiv = tensor_floordiv = binary("floor_div")
floor_mod = floormod = remainder = tensor_mod = binary("remainder")
fmod = binary("fmod")
pow = tensor_pow = pows = binary("pow")
float_power = binary("float_power")
maximum = binary("maximum")
minimum = binary("minimum")
fmax = binary("fmax")
fmin = binary("fmin")
atan2 = arctan2 = binary("atan2")
hypot = binary("hypot")
logaddexp = binary("logaddexp")
logaddexp2 = binary("logaddexp2")
copysign = binary("copysign")
nextafter = binary("nextafter")
heaviside = binary("heaviside")
gcd = binary("gcd")
lcm = binary("lcm")
ldexp = binary("ldexp")
xlogy = binary("xlogy")
xdivy = binary("xdivy")
equal = eq = binary("equal")
not_equal = ne = binary("not_equal")
greater = gt = tensor_gt = binary("greater")
greater_equal = ge = tensor_ge = binary("greater_equal")
less = lt = tensor_lt = binary("less")
less_equal = le = tensor_le = binary("less_equal")
logical_and = binary("logical_and")
logical_or = binary("logical_or")
logical_xor = binary("logical_xor")
bitwise_and = binary("bitwise_and")
bitwise_or = binary("bitwise_or")
bitwise_xor = binary("bitwise_xor")
bitwise_left_shift = binary("bitwise_left_shift")
bitwise_right_shift = binary("bitwise_right_shift")


def div(input: Tensor | Number, other: Tensor | Number, *, rounding_mode: str | None = None) -> Tensor:
    """input / other, rounded by rounding_mode "floor" or "trunc", which keeps integers. ValueError for another one."""
    return wrap(elementwise.div(operand(input, "div"), operand(other, "div"), rounding_mode))


divide = div


def subtract(input: Tensor | Number, other: Tensor | Number, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other."""
    return sub(input, other if alpha == 1 else mul(other, alpha))


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """`input` rounded to `decimals` places, halves to even."""
    return call(elementwise.round_decimals, input, decimals)


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)), of `input` kept within eps and 1 - eps if given."""
    return call(elementwise.logit, input, eps)


def clamp(input: Tensor, min: Tensor | Number | None = None, max: Tensor | Number | None = None) -> Tensor:
    """`input` kept within `min` and `max`. ValueError when both are None."""
    return call(elementwise.clamp, input, min, max)


clip = clamp


def clip_by_value(
    x: Tensor, clip_value_min: Tensor | Number | None = None, clip_value_max: Tensor | Number | None = None
) -> Tensor:
    """As `clamp`."""
    return clamp(x, clip_value_min, clip_value_max)


def lerp(input: Tensor, end: Tensor, weight: Tensor | Number) -> Tensor:
    """input + weight * (end - input)."""
    return call(elementwise.lerp, input, end, weight)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: Tensor | Number = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    return call(elementwise.addcmul, input, tensor1, tensor2, value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: Tensor | Number = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    return call(elementwise.addcdiv, input, tensor1, tensor2, value)


def addn(x: tuple[Tensor, ...] | list[Tensor]) -> Tensor:
    """The sum of several Tensors of one shape. ValueError when there are none."""
    if not x:
        raise ValueError("addn: give at least one Tensor")
    total: Tensor = x[0]
    for tensor in x[1:]:
        total = add(total, tensor)
    return total


accumulate_n = addn


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
    """Whether |input - other| <= atol + rtol * |other|, element by element."""
    return call(elementwise.is_close, input, other, rtol, atol, equal_nan)


def nan_to_num(
    input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """NaN replaced by `nan` (0), infinities by `posinf` and `neginf` (the largest and smallest finite values)."""
    return call(_nan_to_num, input, 0.0 if nan is None else nan, posinf, neginf)
