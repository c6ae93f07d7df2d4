"""The table of what is fuzzed. One line adds a target: its name, what takes the bytes, and inputs to begin with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tests.fuzz import apis, decoders, disks, group_machine, node_machine

CORPUS: Final = Path(__file__).parent / "corpus"


class Target(NamedTuple):
    """Something that takes bytes from outside.

    Attributes:
        name: also of its folder in the corpus.
        run: takes one input; raises if a promise is broken.
        seeds: makes inputs to begin with.
        most_bytes: of an input.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    most_bytes: int = 512


TARGETS: Final = (
    # What comes over UDP.
    Target("frames", decoders.fuzz_frames, decoders.frame_seeds),
    Target("graph", decoders.fuzz_graph, lambda: [decoders.GRAPH.encode()]),
    Target("opening", decoders.fuzz_opening, decoders.opening_seeds),
    Target("stun", decoders.fuzz_stun, decoders.stun_seeds),
    Target("hello", decoders.fuzz_hello, lambda: [bytes(72), bytes([1]) + bytes(32) + bytes([0, 1, 2]) + bytes(20)]),
    Target("datagram", decoders.fuzz_datagram, lambda: [bytes([0x40]) + bytes(60), bytes([0x51]) * 60]),
    Target("fragments", decoders.fuzz_fragments, decoders.fragment_seeds),
    Target("group-record", decoders.fuzz_group_record, lambda: [bytes([0, 0]) + bytes(40), bytes([20, 1]) * 20]),
    Target("names", decoders.fuzz_names, lambda: [b"../a.bin", b"C:\\x\\y.txt", b".\xe2\x80\xaea" + b"b" * 300]),
    # What comes over HTTP and the subscription socket.
    Target("fields", decoders.fuzz_fields, decoders.field_seeds),
    Target("client-messages", decoders.fuzz_client_messages, decoders.client_seeds),
    Target("server-messages", decoders.fuzz_server_messages, decoders.server_seeds, 1_024),
    Target("bodies", decoders.fuzz_bodies, decoders.body_seeds),
    Target("server-api", apis.fuzz_server_api, apis.server_seeds, 256),
    Target("agent-api", apis.fuzz_agent_api, apis.agent_seeds, 256),
    # What comes from a disk.
    Target("stream-folder", disks.fuzz_stream_folder, disks.folder_seeds),
    Target("tags-and-records", disks.fuzz_tags_and_records, lambda: [bytes(80), bytes([7, *[0] * 7, 4]) + bytes(40)]),
    Target("last-state", disks.fuzz_last_state, disks.state_seeds, 1_024),
    Target("identity", disks.fuzz_identity, disks.identity_seeds),
    Target("lines", disks.fuzz_lines, disks.line_seeds),
    Target("stored-group", disks.fuzz_stored_group, disks.stored_seeds, 1_024),
    # The cores.
    Target("node", node_machine.fuzz_node, node_machine.node_seeds, 1_024),
    Target("group", group_machine.fuzz_group, group_machine.group_seeds, 1_024),
)
BY_NAME: Final = {target.name: target for target in TARGETS}
