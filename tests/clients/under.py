"""Runs a command under a filter of system calls: under.py FILTER COMMAND…

FILTER is `no-io-uring`, which forbids the calls of io_uring and nothing else, as containers do it; or a profile in the
format of Docker and Podman, of which all is done that libseccomp can do: the default action, actions by name, conditions.
"""

import ctypes
import json
import os
import sys

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
EPERM = 1
MASKED_EQUAL = 7
OPERATORS = {"SCMP_CMP_MASKED_EQ": MASKED_EQUAL, "SCMP_CMP_EQ": 4}
IO_URING = ["io_uring_setup", "io_uring_enter", "io_uring_register"]


class Condition(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
seccomp.seccomp_init.argtypes = [ctypes.c_uint32]
seccomp.seccomp_load.argtypes = [ctypes.c_void_p]
seccomp.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
seccomp.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Condition),
]


def action(name, errno):
    if name == "SCMP_ACT_ALLOW":
        return ALLOW
    if name == "SCMP_ACT_ERRNO":
        return ERRNO | (EPERM if errno is None else errno)
    sys.exit(f"an action that this program does not know: {name}")


def conditions(rule):
    found = [
        Condition(one["index"], OPERATORS[one["op"]], one["value"], one.get("valueTwo", 0))
        for one in rule.get("args") or []
    ]
    return len(found), (Condition * len(found))(*found)


def load(default, rules):
    context = seccomp.seccomp_init(default)
    for name, what, (count, list_of) in rules:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        # Calls of other architectures, and those that are younger than the library.
        if number < 0:
            continue
        if seccomp.seccomp_rule_add_array(context, what, number, count, list_of) != 0:
            sys.exit(f"no rule can be made for {name}")
    if seccomp.seccomp_load(context) != 0:
        sys.exit("the kernel does not take the filter")


def main():
    wanted, command = sys.argv[1], sys.argv[2:]
    if wanted == "no-io-uring":
        load(ALLOW, [(name, ERRNO | EPERM, conditions({})) for name in IO_URING])
    else:
        with open(wanted, encoding="utf-8") as file:
            profile = json.load(file)
        load(
            action(profile["defaultAction"], profile.get("defaultErrnoRet")),
            [
                (name, action(rule["action"], rule.get("errnoRet")), conditions(rule))
                for rule in profile["syscalls"]
                for name in rule["names"]
            ],
        )
    os.execvp(command[0], command)


main()
