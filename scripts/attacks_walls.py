"""Attacks on what walls and filter hold: network, files, other processes, rights. See attacks.py."""

NETWORK = r"""
#= TCP
s = socket.socket()
s.connect(("127.0.0.1", given["port"]))
#= MPTCP
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.connect(("127.0.0.1", given["port"]))
#= TCP by sendto with MSG_FASTOPEN
socket.socket().sendto(b"x", 0x20000000, ("127.0.0.1", given["port"]))
#= MPTCP by sendto with MSG_FASTOPEN
socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).sendto(b"x", 0x20000000, ("127.0.0.1", given["port"]))
#= TCP over IPv6 to an IPv4 address
socket.socket(socket.AF_INET6).connect(("::ffff:127.0.0.1", given["port"]))
#= a server by listen without bind
s = socket.socket()
s.listen()
got(s.getsockname())
#= an MPTCP server by listen without bind
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.listen()
got(s.getsockname())
#= UDP
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", given["udp"]))
#= UDP-Lite
got(socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136))
#= SCTP
got(socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132))
#= a local stream server
socket.socket(socket.AF_UNIX).connect(given["stream"])
#= an abstract local server
socket.socket(socket.AF_UNIX).connect("\0" + given["abstract"])
#= a local datagram server
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"x", given["datagram"])
#= a local datagram server by a pair's end
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", given["datagram"])
#= an abstract server of its own
s = socket.socket(socket.AF_UNIX)
s.bind("\0" + given["abstract"] + "-own")
s.listen()
got()
#= raw ICMP
got(socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
#= ping
got(socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1))
#= packets of the link
got(socket.socket(17, socket.SOCK_RAW, 0x0300))
#= netlink
got(socket.socket(16, socket.SOCK_RAW, 0))
#= the kernel's ciphers
got(socket.socket(38, socket.SOCK_SEQPACKET, 0))
#= vsock
got(socket.socket(40, socket.SOCK_STREAM, 0))
#= a socket by number
got(call("socket", 2, 1, 0))
#= a socket by its number for x32
got(checked(libc.syscall(0x40000000 | given["numbers"]["socket"], 2, 1, 0)))
#= a socket by a 32-bit call
# push rbx; mov eax, 359; mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
result = machine_code(bytes.fromhex("53b867010000bb02000000b90100000031d2cd805bc3"))
if result >= 0:
    got(result)
#= a socket by io_uring
got(call("io_uring_setup", 4, ctypes.create_string_buffer(120)))
#= a socket from a thread
def open_socket():
    try:
        got(socket.socket())
    except OSError:
        pass
t = threading.Thread(target=open_socket)
t.start()
t.join()
#= an inherited descriptor
for descriptor in range(3, 4096):
    try:
        status = os.fstat(descriptor)
    except OSError:
        continue
    got((descriptor, status))
"""

FILES = r"""
#= chmod
os.chmod(given["file"], 0o777)
#= a folder to mode 0
os.chmod(given["folder"], 0)
#= fchmodat by a folder's descriptor
os.chmod(os.path.basename(given["file"]), 0o777, dir_fd=os.open(given["folder"], os.O_PATH))
#= fchmodat2 by a descriptor
call("fchmodat2", os.open(given["file"], os.O_PATH), b"", 0o777, 0x1000)
#= chown
os.chown(given["file"], os.getuid(), os.getgid())
#= lchown
os.lchown(given["link"], os.getuid(), os.getgid())
#= utime
os.utime(given["file"], (1, 1))
#= utime of a link
os.utime(given["link"], (1, 1), follow_symlinks=False)
#= utime by a descriptor in /proc
os.utime("/proc/self/fd/%d" % os.open(given["file"], os.O_PATH), (1, 1))
#= setxattr
os.setxattr(given["file"], "user.groschen", b"x")
#= removexattr
os.removexattr(given["file"], "user.planted")
#= open to write
os.open(given["file"], os.O_WRONLY | os.O_APPEND)
got()
#= truncate
os.truncate(given["file"], 0)
#= unlink
os.unlink(given["file"])
#= rename
os.rename(given["file"], given["file"] + "-moved")
#= a link
os.link(given["file"], given["file"] + "-linked")
#= a symbolic link
os.symlink("/", given["folder"] + "/symbolic")
#= mkdir
os.mkdir(given["folder"] + "/made")
#= a named pipe
os.mkfifo(given["folder"] + "/pipe")
#= a file without a name
got(os.open(given["folder"], os.O_TMPFILE | os.O_WRONLY, 0o600))
#= a file in shared memory
path = "/dev/shm/groschen-attack-%s" % given["token"]
os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
os.unlink(path)
got()
#= a file where it starts
os.open("groschen-attack", os.O_CREAT | os.O_WRONLY)
got()
#= a lock on a file that it may read
fcntl.flock(open(sys.executable), fcntl.LOCK_SH)
got()
#= a lock on a part of a file that it may read
fcntl.lockf(open(sys.executable), fcntl.LOCK_SH, 1)
got()
#= a lease
fcntl.fcntl(os.open(sys.executable, os.O_RDONLY), 1024, fcntl.F_RDLCK)
got()
#= notices of a folder
fcntl.fcntl(os.open("/usr", os.O_RDONLY), 1026, 0x8000003F)
got()
#= inotify
descriptor = checked(libc.inotify_init1(0))
checked(libc.inotify_add_watch(descriptor, given["folder"].encode(), 0xFFF))
got()
#= fanotify
got(checked(libc.fanotify_init(0, 0)))
#= the mode of /dev/null
os.chmod("/dev/null", 0o666)
got()
#= the times of /dev/zero
os.utime("/dev/zero")
got()
#= the owner of /dev/urandom
os.chown("/dev/urandom", -1, -1)
got()
#= an attribute of /dev/null
os.setxattr("/dev/null", "trusted.groschen", b"x")
got()
#= entropy for all
fcntl.ioctl(os.open("/dev/urandom", os.O_RDONLY), 0x5207, struct.pack("iiI", 0, 4, 0))
got()
"""

READS = r"""
#= a secret
got(open(given["file"]).read())
#= a secret by a folder's descriptor
folder = os.open(given["folder"], os.O_PATH)
got(os.read(os.open(os.path.basename(given["file"]), os.O_RDONLY, dir_fd=folder), 100))
#= a secret through its parent's root
got(open("/proc/%d/root%s" % (given["grader"], given["file"])).read())
#= a secret through its own root
got(open("/proc/self/root" + given["file"]).read())
#= a secret by two dots
got(open(sys.base_prefix + "/.." * 12 + given["file"]).read())
#= a secret by its handle
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
mount = ctypes.c_int()
checked(libc.name_to_handle_at(-100, given["file"].encode(), handle, ctypes.byref(mount), 0))
descriptor = libc.open_by_handle_at(os.open("/", os.O_RDONLY), handle, os.O_RDONLY)
got(os.read(checked(descriptor), 100))
#= the names in a folder
got(os.listdir(given["folder"]))
#= the passwords
got(len(open("/etc/shadow").read()))
#= its parent's variables
got(open("/proc/%d/environ" % given["grader"]).read())
#= its parent's memory
got(os.open("/proc/%d/mem" % given["grader"], os.O_RDONLY))
#= its parent's descriptors
got(os.listdir("/proc/%d/fd" % given["grader"]))
#= another's command line
got(open("/proc/%d/cmdline" % given["victim"]).read())
#= the list of processes
got([name for name in os.listdir("/proc") if name.isdigit()])
#= the machine's memory
got(os.open("/dev/mem", os.O_RDONLY))
#= the devices
got(os.listdir("/dev/") and os.listdir("/sys/"))
#= the kernel's log
size = checked(libc.klogctl(10, None, 0))
got(size)
#= a variable of its parent
got(os.environ["GROSCHEN_ATTACK_SECRET"])
#= the size of a file | large
got(os.stat(given["file"]).st_size)
#= whether a file exists | exists
if os.access(given["file"], os.F_OK):
    got()
#= where a link leads | link
got(os.readlink(given["link"]))
"""

PROCESSES = r"""
#= fork
if os.fork() == 0:
    os._exit(0)
got()
#= vfork by posix_spawn
got(os.posix_spawn("/bin/true", ["true"], {}))
#= a shell
os.execv("/bin/sh", ["sh", "-c", "echo GOT"])
#= clone as fork does
got(call("clone", 17, 0, 0, 0, 0))
#= clone with a namespace of users
got(call("clone", 17 | 0x10000000, 0, 0, 0, 0))
#= clone3
got(call("clone3", ctypes.create_string_buffer(struct.pack("8Q", 0, 0, 0, 0, 17, 0, 0, 0)), 64))
#= a program from memory
descriptor = os.memfd_create("program", 0)
os.write(descriptor, b"#!/bin/sh\necho GOT\n")
os.execve(descriptor, ["program"], {})
#= a killing signal
os.kill(given["victim"], signal.SIGKILL)
#= a stopping signal
os.kill(given["victim"], signal.SIGSTOP)
#= a signal to its parent
os.kill(given["grader"], 0)
got()
#= a signal to its group
os.killpg(0, 0)
got()
#= a signal by tgkill
call("tgkill", given["victim"], given["victim"], signal.SIGKILL)
#= a signal by tkill
call("tkill", given["victim"], signal.SIGKILL)
#= a signal with a value
call("rt_sigqueueinfo", given["victim"], signal.SIGKILL, struct.pack("3i", 9, 0, -1) + bytes(116))
#= a signal by a pidfd
descriptor = call("pidfd_open", given["victim"], 0)
got()
call("pidfd_send_signal", descriptor, signal.SIGKILL, 0, 0)
#= a signal by an owned pipe
read, written = os.pipe()
fcntl.fcntl(read, fcntl.F_SETOWN, given["victim"])
fcntl.fcntl(read, 10, signal.SIGKILL)
fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
os.write(written, b"x")
#= the victim's limit of processor time
resource.prlimit(given["victim"], resource.RLIMIT_CPU, (0, 0))
#= its parent's limit of files
resource.prlimit(given["grader"], resource.RLIMIT_CORE, (1, 1))
#= the victim's limits
got(resource.prlimit(given["victim"], resource.RLIMIT_NOFILE))
#= the victim's priority
os.setpriority(os.PRIO_PROCESS, given["victim"], 19)
#= the priority of its group
os.setpriority(os.PRIO_PGRP, 0, 5)
got()
#= its parent's priority
os.setpriority(os.PRIO_PROCESS, given["grader"], 19)
#= the victim's cores
os.sched_setaffinity(given["victim"], {0})
#= its parent's cores
os.sched_setaffinity(given["grader"], {0})
#= the victim's scheduling
os.sched_setscheduler(given["victim"], os.SCHED_IDLE, os.sched_param(0))
#= the victim's disk priority
call("ioprio_set", 1, given["victim"], 3 << 13)
got()
#= tracing the victim
checked(libc.ptrace(0x4206, given["victim"], 0, 0))
got()
#= the victim's memory, read
buffer = ctypes.create_string_buffer(8)
own, other = [(ctypes.c_size_t * 2)(at, 8) for at in (ctypes.addressof(buffer), given["address"])]
got(checked(libc.process_vm_readv(given["victim"], own, 1, other, 1, 0)))
#= the victim's memory, written
buffer = ctypes.create_string_buffer(8)
own, other = [(ctypes.c_size_t * 2)(at, 8) for at in (ctypes.addressof(buffer), given["address"])]
got(checked(libc.process_vm_writev(given["victim"], own, 1, other, 1, 0)))
#= the victim's memory, moved
call("move_pages", given["victim"], 0, 0, 0, 0, 0)
got()
#= a comparison with the victim
got(call("kcmp", given["victim"], given["victim"], 0, 0, 0))
#= the victim's list of locks
pointer, size = ctypes.c_size_t(), ctypes.c_size_t()
call("get_robust_list", given["victim"], ctypes.byref(pointer), ctypes.byref(size))
got()
#= another group
os.setpgid(0, 0)
got()
#= another session
os.setsid()
got()
"""

RIGHTS = r"""
#= the user root
if os.getuid() != 0:
    os.setuid(0)
    got()
#= other groups
os.setgroups([0])
got()
#= chroot
os.chroot("/")
got()
#= a namespace of users
checked(libc.unshare(0x10000000))
got()
#= a namespace of files
checked(libc.unshare(0x00020000))
got()
#= a namespace of its parent
descriptor = os.open("/proc/%d/ns/net" % given["grader"], os.O_RDONLY)
got(descriptor)
#= a mount on a planted folder
checked(libc.mount(b"none", given["folder"].encode(), b"tmpfs", 0, None))
got()
#= a mount by the newer calls
got(call("fsopen", b"tmpfs", 0))
#= the realtime class
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
got()
#= a better priority
os.setpriority(os.PRIO_PROCESS, 0, -5)
got()
#= the clock
time.clock_settime(time.CLOCK_REALTIME, time.time())
got()
#= the machine's name
name = os.uname().nodename.encode()
checked(libc.sethostname(name, len(name)))
got()
#= ports
checked(libc.iopl(3))
got()
#= a program in the kernel
got(call("bpf", 0, ctypes.create_string_buffer(struct.pack("5I", 2, 4, 4, 1, 0) + bytes(100)), 120))
#= counters of the processor
attributes = ctypes.create_string_buffer(struct.pack("IIQQQQQ", 1, 128, 0, 0, 0, 0, 0x60) + bytes(80))
got(call("perf_event_open", attributes, 0, -1, -1, 0))
#= faults handled by itself
got(call("userfaultfd", 1))
#= a key in the session's ring
got(call("add_key", b"user", b"groschen-attack", b"x", 1, -3))
#= a keyring
got(call("keyctl", 1, 0))
#= being traced
checked(libc.ptrace(0, 0, 0, 0))
got()
#= another personality
checked(libc.personality(0x0400000))
got()
#= a filter of its own
steps = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(steps)))
checked(libc.prctl(22, 2, program, 0, 0))
got()
#= a supervisor of its own
steps = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(steps)))
got(call("seccomp", 1, 8, program))
#= its death signal
checked(libc.prctl(1, 0, 0, 0, 0))
got()
#= being readable by others
checked(libc.prctl(4, 1, 0, 0, 0))
got()
#= the role of a reaper
checked(libc.prctl(36, 1, 0, 0, 0))
got()
#= typing into a terminal
fcntl.ioctl(0, 0x5412, b"x")
got()
"""
