"""Run a function in a child process that ends, or meets an error, at a chosen system call (Linux, x86-64).

The parent traces the child by ptrace(2): a call is counted when the child enters it, and is not carried out
where the child is killed there or gets an error instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_TRACEME, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 0, 12, 13, 24, 0x4200
_GOOD_AND_EXITKILL = 0x100001
_RSI, _RDX, _RAX, _ORIG_RAX = 13, 12, 10, 15
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_NO_CALL = (1 << 64) - 1
FAILED = 8
"""The child's exit status where the function raised what it may raise."""

_WRITES = {1, 18, 40, 77, 326}
_MAKES = {82, 83, 85, 86, 258, 264, 316}
_CHANGES = {87, 84, 263, 90, 91, 268, 280}
_SYNCS = {74, 75}
_OPENS = {2: _RSI, 257: _RDX}
"""Calls of x86-64 by number; of those that open a file, where the flags stand.

Source: arch/x86/entry/syscalls/syscall_64.tbl."""


@dataclass(frozen=True)
class Fault:
    """What happens at the call of that number, counted from 1 among those that count.

    `error` is 0 for a kill; then every call counts, else those that such an error can meet. With `stays`
    all later ones meet it too, as on a disk that is full and stays full.
    """

    at: int
    error: int = 0
    stays: bool = False


@dataclass(frozen=True)
class Run:
    """How a child ended: with what status or signal (negative), and how many calls counted."""

    status: int
    calls: int
    is_hit: bool


def run_traced(act: Callable[[], None], fault: Fault, *, expected: type[BaseException]) -> Run:
    """Run it in a child under that fault; where it raises `expected` its status is `FAILED`."""
    child = os.fork()
    if not child:
        _LIBC.ptrace(_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        _end(act, expected)
    os.waitpid(child, 0)
    _LIBC.ptrace(_SETOPTIONS, child, None, _GOOD_AND_EXITKILL)
    return _follow(child, fault)


def run_for(act: Callable[[], None], seconds: float, *, expected: type[BaseException]) -> Run:
    """Run it in a child, untraced, that is killed after so many seconds."""
    child = os.fork()
    if not child:
        _end(act, expected)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Run(status, 0, is_hit=status == -signal.SIGKILL)


def random_seconds(act: Callable[[], None], seed: int) -> Callable[[], float]:
    """Draws moments at which a child is killed: anywhere from its start to a little beyond its end."""
    begin = time.perf_counter()
    child = os.fork()
    if not child:
        _end(act, Exception)
    os.waitpid(child, 0)
    most, draw = 1.1 * (time.perf_counter() - begin), random.Random(seed)
    return lambda: draw.uniform(0.0, most)


def _end(act: Callable[[], None], expected: type[BaseException]) -> None:
    status = FAILED + 1
    try:
        act()
        status = 0
    except expected:
        status = FAILED
    finally:
        os._exit(status)


def _follow(child: int, fault: Fault) -> Run:
    calls, is_entry, is_failing, is_hit, passed_on = 0, True, False, False, 0
    while True:
        _LIBC.ptrace(_SYSCALL, child, None, passed_on)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return Run(os.waitstatus_to_exitcode(status), calls, is_hit)
        passed_on = 0 if os.WSTOPSIG(status) == _SYSCALL_STOP else os.WSTOPSIG(status)
        if passed_on:
            continue
        if is_entry and _counts(child, fault.error):
            calls += 1
            is_failing = calls == fault.at or (fault.stays and calls > fault.at)
            is_hit = is_hit or is_failing
            if is_failing and not fault.error:
                os.kill(child, signal.SIGKILL)
            elif is_failing:
                _change(child, _ORIG_RAX, _NO_CALL)
        elif not is_entry and is_failing:
            _change(child, _RAX, _NO_CALL + 1 - fault.error)
            is_failing = False
        is_entry = not is_entry


def _counts(child: int, error: int) -> bool:
    if not error:
        return True
    registers = _registers(child)
    call = registers[_ORIG_RAX]
    if call in _OPENS:
        flags = registers[_OPENS[call]]
        creates = bool(flags & os.O_CREAT)
        return creates or (error == errno.EROFS and bool(flags & (os.O_WRONLY | os.O_RDWR)))
    return call in _MAKES or call in (_CHANGES if error == errno.EROFS else _WRITES | _SYNCS)


def _registers(child: int) -> ctypes.Array[ctypes.c_uint64]:
    registers = (ctypes.c_uint64 * 27)()
    _LIBC.ptrace(_GETREGS, child, None, ctypes.byref(registers))
    return registers


def _change(child: int, which: int, value: int) -> None:
    registers = _registers(child)
    registers[which] = value
    _LIBC.ptrace(_SETREGS, child, None, ctypes.byref(registers))
