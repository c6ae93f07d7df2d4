"""What the netns backend asks of this host: ``ip`` and ``tc``, namespaces made and swept away, and their counters."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from common.errors import ArborcastError, ConfigError
from common.ids import DeviceId, LinkKey
from lab.nat import TIMEOUT_S, Kind
from lab.netns_internet import WAN, PublicNetwork, ruleset
from lab.netns_plan import Owner, Plan, owner_of

NAMESPACES: Final = Path("/run/netns")
TOOLS: Final = ("ip", "tc")
BOX_SETTINGS: Final = {
    "ipv4/ip_forward": 1,
    "netfilter/nf_conntrack_udp_timeout": round(TIMEOUT_S),
    "netfilter/nf_conntrack_udp_timeout_stream": round(TIMEOUT_S),
}
"""What a NAT box's kernel is told: to forward, and to forget a mapping after so many seconds."""
_COMMAND_S: Final = 30.0
_SCRATCH: Final = "scratch"


class HostRefused(ArborcastError):
    """A command of ``ip`` or ``tc`` failed; the text holds what it said."""


def check_host() -> None:
    """Make sure that this host lets the lab make namespaces.

    Raises:
        ConfigError: It does not; one sentence says what is missing.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if sys.platform != "linux" or os.geteuid() != 0 or missing:
        lacks = "not Linux" if sys.platform != "linux" else "not root" if os.geteuid() != 0 else ""
        without = f"without {' and '.join(missing)}" if missing else ""
        raise ConfigError(
            "the netns backend makes network namespaces, which takes Linux, root and iproute2;"
            f" this is {', '.join(filter(None, (lacks, without)))}"
        )
    try:
        with _scratch_namespace():
            pass
    except HostRefused as error:
        raise ConfigError(f"the netns backend makes network namespaces, and this host refuses it: {error}") from error


def has_netem() -> bool:
    """Tell whether this kernel can delay and lose frames by itself."""
    with _scratch_namespace() as namespace:
        try:
            run(["tc", "-n", namespace, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"])
        except HostRefused:
            return False
    return True


def this_owner() -> Owner:
    """Return the process that runs the lab."""
    return Owner(os.getpid(), started_at(os.getpid()) or 0)


def started_at(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine's start; None if there is none of that number.

    Source: proc(5), field 22 of /proc/PID/stat.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def sweep() -> list[str]:
    """Take away what labs left that did not come to their end.

    Returns:
        The namespaces removed.
    """
    left = []
    for namespace in sorted(path.name for path in NAMESPACES.glob("arborcast-*")):
        owner = owner_of(namespace)
        if owner is not None and started_at(owner.pid) != owner.started:
            left.append(namespace)
    remove(left)
    return left


def remove(namespaces: Iterable[str]) -> None:
    """Remove those of some namespaces that exist, with every process and interface in them."""
    for namespace in namespaces:
        if (NAMESPACES / namespace).exists():
            with contextlib.suppress(HostRefused):
                for pid in run(["ip", "netns", "pids", namespace]).split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                run(["ip", "netns", "delete", namespace])


def make(plan: Plan, emulated: Iterable[LinkKey]) -> None:
    """Make a plan's namespaces and interface pairs.

    Raises:
        HostRefused: Something could not be made; what was made before it is there.
    """
    batch(["ip"], plan.making(tuple(emulated)))


def furnish(plan: Plan, emulated: Iterable[LinkKey]) -> None:
    """Give the interfaces their addresses and shapers; those of emulators have to be there by now.

    Raises:
        HostRefused: Something could not be set.
    """
    for namespace, lines in plan.addressing().items():
        batch(["ip", "-n", namespace] if namespace else ["ip"], lines)
    for namespace, lines in plan.shaping(tuple(emulated)).items():
        batch(["tc", "-n", namespace], lines)


def make_public(public: PublicNetwork, emulated: Collection[DeviceId]) -> None:
    """Make the namespaces and interface pairs of a plan's public network.

    Raises:
        HostRefused: Something could not be made.
    """
    batch(["ip"], public.making(emulated))


def furnish_public(public: PublicNetwork, emulated: Collection[DeviceId]) -> None:
    """Give a public network its addresses, shapers and NAT boxes; what emulators make has to be there by now.

    Raises:
        HostRefused: Something could not be set.
    """
    for namespace, lines in public.addressing().items():
        batch(["ip", "-n", namespace], lines)
    for namespace, lines in public.shaping(emulated).items():
        batch(["tc", "-n", namespace], lines)
    for namespace, rules in public.boxes().items():
        run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], rules)
        # Written from inside: these settings are each namespace's own.
        settings = "; ".join(f"echo {value} > /proc/sys/net/{name}" for name, value in BOX_SETTINGS.items())
        run(["ip", "netns", "exec", namespace, "sh", "-ec", settings])


def has_nft() -> bool:
    """Tell whether this host has nftables, and lets the lab use them."""
    if shutil.which("nft") is None:
        return False
    with _scratch_namespace() as namespace:
        try:
            run(["ip", "netns", "exec", namespace, "nft", "-f", "-"], ruleset(Kind.ADDRESS_RESTRICTED))
        except HostRefused:
            return False
    return True


def access_bytes(public: PublicNetwork) -> dict[DeviceId, tuple[int, int]]:
    """Return the Ethernet bytes that each device on the public network sent and was sent over its access link so far.

    Raises:
        HostRefused: A namespace is gone.
    """
    if not public.devices:
        return {}
    far = _sent(public.middle)
    return {device: (_sent(public.near_end(device))[WAN], far[public.port(device)]) for device in public.devices}


def ethernet_bytes(plan: Plan) -> dict[LinkKey, tuple[int, int]]:
    """Return the Ethernet bytes that either end of each link sent so far, in the order of the link's name.

    Raises:
        HostRefused: A namespace is gone.
    """
    sent = {device: _sent(plan.namespace(device)) for device in plan.scenario.devices}
    return {link: _both(sent, link, plan.interface(link)) for link in plan.scenario.links}


def batch(command: Sequence[str], lines: Iterable[str]) -> None:
    """Run many commands of ``ip`` or ``tc`` in one process.

    Raises:
        HostRefused: One failed; the rest was not tried.
    """
    run([*command, "-batch", "-"], "\n".join(lines) + "\n")


def run(command: Sequence[str], text: str = "") -> str:
    """Run a command to its end and return what it printed.

    Raises:
        HostRefused: It failed.
    """
    # A session of its own: Ctrl-C is for the lab, which then takes everything down in order.
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=_COMMAND_S, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostRefused(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise HostRefused(f"{' '.join(command)}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


@contextlib.contextmanager
def _scratch_namespace() -> Any:
    owner = this_owner()
    namespace = f"arborcast-{owner.pid}.{owner.started}.0-{_SCRATCH}"
    run(["ip", "netns", "add", namespace])
    try:
        yield namespace
    finally:
        remove([namespace])


def _sent(namespace: str) -> dict[str, int]:
    """Return the bytes sent by each interface of a namespace."""
    interfaces = json.loads(run(["ip", "-n", namespace, "-s", "-j", "link", "show"]))
    sent = {str(each["ifname"]): int(each["stats64"]["tx"]["bytes"]) for each in interfaces}
    # A train of segments crosses a veth as one frame with one header; the shaper counts the headers of all.
    for queue in json.loads(run(["tc", "-n", namespace, "-s", "-j", "qdisc", "show"])):
        if queue.get("root") and queue["kind"] in ("tbf", "netem"):
            sent[str(queue["dev"])] = int(queue["bytes"])
    return sent


def _both(sent: Mapping[DeviceId, Mapping[str, int]], link: LinkKey, interface: str) -> tuple[int, int]:
    a, b = link
    return sent[a].get(interface, 0), sent[b].get(interface, 0)
