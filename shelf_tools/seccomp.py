"""The sandbox's system call filter, made with libseccomp.

A deny list over "allow": packages are arbitrary programs, and what keeps them in are the
namespaces; the filter takes away the parts of the kernel that break out of namespaces have used.
After Docker's default profile and Flatpak's (``flatpak-run.c``, ``setup_seccomp``).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from functools import lru_cache
from typing import Any

from cloudimport.errors import ConfigurationError

#: Calls that no installer and no import needs. An unknown name (another architecture) is left out.
DENIED = tuple(
    """
    mount umount umount2 pivot_root chroot fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr
    unshare setns ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
    keyctl add_key request_key bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
    kexec_load kexec_file_load init_module finit_module delete_module
    open_by_handle_at name_to_handle_at fanotify_init lookup_dcookie
    swapon swapoff reboot acct quotactl quotactl_fd syslog vhangup iopl ioperm modify_ldt
    settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname
    personality nfsservctl vm86 vm86old uselib ustat sysfs _sysctl
    move_pages migrate_pages mbind set_mempolicy
    """.split()
)
#: What clone() must not do: a namespace of its own (sched.h, CLONE_NEW*).
_CLONE_NEW = 0x7E020000


#: Families of sockets (socket(2)) that a program with a network may have; the kernel knows some 46.
_NETWORK = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_FAMILIES = 46


@lru_cache(maxsize=2)
def program(network: bool = False) -> bytes:
    """Return the filter as BPF instructions for ``bwrap --seccomp``; ``network``: with internet sockets.

    Raises ConfigurationError, with the command that helps, when libseccomp or pyseccomp is missing.
    """
    try:
        import pyseccomp
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise ConfigurationError(
            "the sandbox needs libseccomp and pyseccomp: apt-get install libseccomp2 && "
            f"pip install 'cloudimport[shelf]' ({error})"
        ) from None
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    forbid = pyseccomp.ERRNO(errno.EPERM)
    for name in DENIED:
        _add(rules, forbid, name)
    # clone3 passes its flags by address, where a filter cannot look: "no such call" makes the C
    # library fall back to clone, whose flags can be checked.
    _add(rules, pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    masked = pyseccomp.MASKED_EQ
    for bit in (1 << n for n in range(32) if _CLONE_NEW >> n & 1):
        rules.add_rule(forbid, "clone", pyseccomp.Arg(0, masked, bit, bit))
    for compare, family in _refused_families(pyseccomp, network):
        rules.add_rule(pyseccomp.ERRNO(errno.EACCES), "socket", pyseccomp.Arg(0, compare, family))
    for name, argument in (("mknod", 1), ("mknodat", 2)):
        for kind in (stat.S_IFBLK, stat.S_IFCHR):
            rules.add_rule(forbid, name, pyseccomp.Arg(argument, masked, 0o170000, kind))
    with os.fdopen(os.memfd_create("seccomp"), "w+b") as memory:
        rules.export_bpf(memory)
        memory.seek(0)
        return memory.read()


def _refused_families(pyseccomp: Any, network: bool) -> list[tuple[Any, int]]:
    """Return what is compared with the family of a socket to refuse it."""
    if not network:
        return [(pyseccomp.NE, socket.AF_UNIX)]
    refused = [(pyseccomp.EQ, family) for family in range(_FAMILIES) if family not in _NETWORK]
    return [*refused, (pyseccomp.GE, _FAMILIES)]


def _add(rules: object, action: object, name: str) -> None:
    """Add one rule; a call that this architecture or libseccomp does not know is not there to deny."""
    try:
        rules.add_rule(action, name)  # type: ignore[attr-defined]
    except (ValueError, RuntimeError, OSError):
        return
