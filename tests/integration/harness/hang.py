"""Makes a thread of a living process hang for ever, as a bug in its own code would: it jumps to itself, in the program's first instruction,
which nothing runs any more. Needs root, since our processes are not dumpable."""
import contextlib
import ctypes
import os
import pathlib
import platform
import struct

POKETEXT, DETACH, GETREGSET, SETREGSET, SEIZE, INTERRUPT = 4, 17, 0x4204, 0x4205, 0x4206, 0x4207
NT_PRSTATUS, AT_ENTRY, WALL = 1, 9, 0x40000000
# machine: (a jump to itself, index of the program counter, index of the register that says which system call to begin again)
MACHINES = {"x86_64": (b"\xeb\xfe", 16, 15), "aarch64": (struct.pack("<I", 0x14000000), 32, None)}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Registers(ctypes.Structure):
    """struct iovec."""
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def missing():
    """Why nothing can be made to hang here, or None."""
    if platform.machine() not in MACHINES:
        return f"not known for {platform.machine()}"
    return None if os.geteuid() == 0 else "needs root"


def ptrace(what, thread, address=None, data=None):
    if libc.ptrace(what, thread, address, data) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def entry_of(pid):
    auxv = pathlib.Path(f"/proc/{pid}/auxv").read_bytes()
    return next(value for key, value in struct.iter_unpack("QQ", auxv) if key == AT_ENTRY)


def thread_named(pid, name):
    """The id of the process's thread with this name."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (task / "comm").read_text().strip() == name:
                return int(task.name)
    raise AssertionError(f"process {pid} has no thread {name}")


def stop(thread):
    ptrace(SEIZE, thread)
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, WALL)


@contextlib.contextmanager
def stopped(thread):
    """It stands still where it is, while the others of its process go on."""
    stop(thread)
    try:
        yield
    finally:
        ptrace(DETACH, thread)


def hang(pid, thread=None):
    thread = thread or pid
    jump, counter, call = MACHINES[platform.machine()]
    entry = entry_of(pid)
    stop(thread)
    block = ctypes.create_string_buffer(1024)
    registers = Registers(ctypes.addressof(block), len(block))
    ptrace(GETREGSET, thread, NT_PRSTATUS, ctypes.byref(registers))
    words = list(struct.unpack_from(f"<{registers.length // 8}Q", block))
    words[counter] = entry
    if call is not None:
        words[call] = 2**64 - 1
    struct.pack_into(f"<{len(words)}Q", block, 0, *words)
    ptrace(POKETEXT, thread, entry, int.from_bytes(jump.ljust(8, b"\x90"), "little"))
    ptrace(SETREGSET, thread, NT_PRSTATUS, ctypes.byref(registers))
    ptrace(DETACH, thread)
