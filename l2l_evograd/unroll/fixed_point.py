"""Arithmetic that can be undone bit for bit: whole numbers and a buffer of lost digits.

A number x is stored as the int64 nearest to x 2^bits. Sums are exact. A product with a
fraction n/d loses digits, which go to an information buffer.
"""

import torch
from torch import Tensor

from l2l_evograd.unroll.schedule import widest

# Words of this size move from a full buffer to storage.
_WORD = 32
_LARGEST = 2**63 - 1


def to_fixed(values: Tensor, bits: int) -> Tensor:
    """Return the whole numbers nearest to ``values`` times 2^bits, int64."""
    wide = values.to(widest(values.device), copy=True)
    return wide.mul_(2.0**bits).round_().to(torch.int64)


def to_float(stored: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
    """Return the numbers that :func:`to_fixed` stored."""
    return stored.to(widest(stored.device)).mul_(2.0**-bits).to(dtype)


def scaled(stored: Tensor, factor: float) -> Tensor:
    """Return the whole numbers nearest to ``stored`` times a factor, int64."""
    return stored.to(widest(stored.device)).mul_(factor).round_().to(torch.int64)


class InformationBuffer:
    """Multiplies whole numbers by fractions n/d, and divides them again, exactly.

    Multiplication, with B the buffer, from 0, and v the number:

        B ← B d + (v mod d),  v ← ⌊v/d⌋ n + (B mod n),  B ← ⌊B/n⌋;

    division is the same with n and d exchanged. B grows by log2(d/n) bits a time. When
    it could leave 63 bits, its low 32 bits are stored as one word.

    Args:
        like: a tensor of the shape and on the device of the numbers.
        d: the denominator, from 2 to 2^20.

    Attributes:
        words: number of stored words for each number.

    Source: Maclaurin, Duvenaud, Adams, ICML 2015, Algorithm 3.
    """

    def __init__(self, like: Tensor, d: int) -> None:
        self._buffer = torch.zeros_like(like, dtype=torch.int64)
        self._d = d
        self._count = 0
        self._most = 0  # B is at most this, whatever the numbers are
        self._stored: list[tuple[int, Tensor]] = []

    @property
    def words(self) -> int:
        """Number of stored words for each number."""
        return len(self._stored)

    @property
    def empty(self) -> bool:
        """Whether all multiplications have been undone without a rest."""
        return not self._stored and not bool(self._buffer.any())

    def multiply(self, value: Tensor, n: int) -> None:
        """Multiply ``value`` by n/d in place, 1 <= n <= d."""
        if self._most * self._d + self._d - 1 > _LARGEST:
            low = self._buffer.bitwise_and(2**_WORD - 1).sub_(2 ** (_WORD - 1))
            self._stored.append((self._count, low.to(torch.int32)))
            self._buffer.bitwise_right_shift_(_WORD)
            self._most >>= _WORD
        self._exchange(value, self._d, n)
        self._most = (self._most * self._d + self._d - 1) // n
        self._count += 1

    def divide(self, value: Tensor, n: int) -> None:
        """Undo the last multiplication, which was by n/d, in place."""
        self._exchange(value, n, self._d)
        self._count -= 1
        if self._stored and self._stored[-1][0] == self._count:
            _, low = self._stored.pop()
            self._buffer.bitwise_left_shift_(_WORD)
            self._buffer.add_(low).add_(2 ** (_WORD - 1))

    def _exchange(self, value: Tensor, taken: int, given: int) -> None:
        quotient = _divided(value, taken)
        _add_product(self._buffer, taken, value)
        torch.mul(quotient, given, out=value)
        quotient = _divided(self._buffer, given)
        value.add_(self._buffer)
        self._buffer = quotient


def _divided(value: Tensor, divisor: int) -> Tensor:
    """Return ⌊value / divisor⌋, and put the rest into ``value``.

    A division of int64 is slow: there is one here at most, and its remainder follows
    from a product.
    """
    if divisor & (divisor - 1) == 0:
        quotient = value.bitwise_right_shift(divisor.bit_length() - 1)
        value.bitwise_and_(divisor - 1)
        return quotient
    quotient = value.div(divisor, rounding_mode="trunc")
    value.sub_(quotient, alpha=divisor)
    negative = value.bitwise_right_shift(63)  # -1 where the rest is below 0, else 0
    quotient.add_(negative)
    value.add_(negative.bitwise_and_(divisor))
    return quotient


def _add_product(value: Tensor, factor: int, added: Tensor) -> None:
    """Put ``value`` times a factor plus ``added`` into ``value``."""
    if factor & (factor - 1) == 0:
        value.bitwise_left_shift_(factor.bit_length() - 1)
    else:
        value.mul_(factor)
    value.add_(added)
