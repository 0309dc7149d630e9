"""Attacks on limits, on the grader's patience and on its verdict. See attacks.py."""

# Each takes memory beyond its limit, or holds up its grader. What it came to is measured from outside.
HOG = r"""
#= memory
blocks = []
while True:
    blocks.append(bytearray(1 << 20))
#= a lifted limit of memory
try:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
    got()
except (OSError, ValueError):
    pass
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_AS)[1]))
#= files in memory in flight
ends = socket.socketpair()
while True:
    descriptor = os.memfd_create("x")
    os.write(descriptor, bytes(1 << 20))
    socket.send_fds(ends[0], [b"x"], [descriptor])
    got("in flight")
    os.close(descriptor)
#= as many files in memory as it may open
kept = []
try:
    while True:
        kept.append(os.memfd_create("x"))
        os.write(kept[-1], bytes(1 << 20))
except OSError:
    time.sleep(0.5)
#= one large file in memory
descriptor = os.memfd_create("x")
os.ftruncate(descriptor, 1 << 30)
got()
#= a file in memory of huge pages
got(os.memfd_create("x", 4))
#= a file in memory that grows by a mapping
descriptor = os.memfd_create("x")
os.ftruncate(descriptor, 1 << 20)
kept = [mmap.mmap(descriptor, 1 << 20) for _ in range(50)]
for area in kept:
    area.write(bytes(1 << 20))
#= shared memory without a file
kept = []
while True:
    kept.append(mmap.mmap(-1, 8 << 20))
    kept[-1].write(bytes(8 << 20))
#= shared memory of System V
identifier = checked(libc.shmget(0, 1 << 28, 0o1600))
got()
#= a queue of messages
got(call("mq_open", b"groschen-attack", 0o102, 0o600, 0))
#= secret memory
got(call("memfd_secret", 0))
#= full pipes
kept = []
try:
    while True:
        read, written = os.pipe()
        kept.append(read)
        fcntl.fcntl(written, 1031, 1 << 20)
        got("a larger pipe")
except OSError:
    time.sleep(0.3)
#= full pairs of sockets
kept = []
try:
    while True:
        ends = socket.socketpair()
        kept.append(ends)
        ends[0].setblocking(False)
        try:
            while True:
                ends[0].send(bytes(1 << 16))
        except BlockingIOError:
            pass
except OSError:
    time.sleep(0.5)
#= tables of pages
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
for gigabyte in range(1, 60000):
    address = libc.mmap((1 << 40) + (gigabyte << 30), 4096, 3, 0x100022, -1, 0)
    if address in (None, (1 << 64) - 1):
        break
    ctypes.memset(address, 1, 1)
time.sleep(0.5)
#= threads without end | threads
threading.stack_size(32768)
gate = threading.Lock()
gate.acquire()
count = 0
try:
    while count < 400:
        threading.Thread(target=gate.acquire, daemon=True).start()
        count += 1
except RuntimeError:
    pass
if count > 200:
    got(count)
os._exit(0)
#= more files than its limit
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
got()
#= memory that is never swapped
address = mmap.mmap(-1, 1 << 24)
checked(libc.mlockall(3))
got()
#= time
while True:
    pass
#= time in threads
for _ in range(4):
    threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()
#= sleep
time.sleep(600)
#= sleep without outputs
for descriptor in (0, 1, 2):
    os.close(descriptor)
time.sleep(600)
#= signals ignored
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
time.sleep(600)
#= signals blocked
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
time.sleep(600)
#= stopped by itself
os.kill(os.getpid(), signal.SIGSTOP)
#= output without end
while True:
    os.write(1, bytes(1 << 16))
#= errors without end and without a line's end
while True:
    os.write(2, b"x" * (1 << 16))
#= an output that blocks nobody
os.set_blocking(1, False)
os.close(0)
time.sleep(600)
#= a main thread that ends and another that stays
threading.Thread(target=time.sleep, args=(600,)).start()
libc.pthread_exit(None)
"""

# Each prints a line when it is ready; then its grader is killed.
LIVE = r"""
#= asleep
print("ready", flush=True)
time.sleep(600)
#= without a death signal
libc.prctl(1, 0, 0, 0, 0)
print("ready", flush=True)
time.sleep(600)
#= in a session of its own
try:
    os.setsid()
except OSError:
    pass
print("ready", flush=True)
time.sleep(600)
#= deaf to signals
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
print("ready", flush=True)
time.sleep(600)
#= in a child
try:
    if os.fork():
        time.sleep(600)
    os.setsid()
except OSError:
    pass
print("ready", flush=True)
time.sleep(600)
#= in a thread after the main thread's end
def stay():
    time.sleep(0.2)
    print("ready", flush=True)
    time.sleep(600)
threading.Thread(target=stay).start()
libc.pthread_exit(None)
#= without descriptors
print("ready", flush=True)
os.closerange(0, 64)
time.sleep(600)
#= started while its grader dies
print("ready", flush=True)
time.sleep(600)
"""

# Each is judged by `assert add(1, 2) == 3` in two tests, and is wrong.
VERDICT = r"""
#= an end before the tests
import os
os._exit(0)
#= an end that looks good
raise SystemExit(0)
#= words of success
print('{"test": 0, "why": null}\n{"test": 1, "why": null}\n{"done": true}')
#= lines on every descriptor
import os
for descriptor in range(64):
    try:
        os.write(descriptor, b'{"test": 0, "why": null}\n{"test": 1, "why": null}\n{"done": true}\n' * 3)
    except OSError:
        pass
#= names and values in the judge's own words
import os
for descriptor in range(64):
    try:
        os.write(descriptor, b'{"names": {}}\n{"value": 3, "changed": []}\n' * 3)
    except OSError:
        pass
#= something equal to everything
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 3
def add(a, b): return Equal()
#= a number equal to everything
class Equal(int):
    def __eq__(self, other): return True
    def __hash__(self): return 3
def add(a, b): return Equal(5)
#= assertions that hold by other builtins
import builtins
builtins.AssertionError = type("Silent", (BaseException,), {})
builtins.exec = lambda *arguments: None
builtins.compile = lambda *arguments, **named: None
def add(a, b): return 0
#= the judge's frames
import sys
frame = sys._getframe()
while frame:
    for name, value in list(frame.f_locals.items()):
        if name in ("why", "expected", "tests", "job"):
            frame.f_locals[name] = None
    frame = frame.f_back
def add(a, b): return 0
#= the judge's objects
import gc
for item in gc.get_objects():
    if type(item).__name__ == "Lines":
        item.send({"test": 0, "why": None})
        item.send({"test": 1, "why": None})
        item.send({"done": True})
def add(a, b): return 0
#= an exception of its own
class Passed(BaseException): pass
def add(a, b): raise Passed("passed")
#= a KeyboardInterrupt
def add(a, b): raise KeyboardInterrupt
#= arguments changed in place
def add(a, b):
    import ctypes
    ctypes.memset(id(3) + 24, 0, 4)
    return 0
#= other encodings of itself
import json
json.dumps = lambda value, **named: '{"value": 3, "changed": []}'
def add(a, b): return 0
#= a value that changes
class Late:
    seen = 0
    def __index__(self): return 3
    def __int__(self): return 3
def add(a, b): return Late()
#= not a number
def add(a, b): return float("nan")
#= tests that are overwritten
tests = []
def add(a, b): return 0
assert_ = None
__builtins__ = {}
"""
