"""One example of each message for the OpenAPI document: those of the six-device group that the README shows."""

from typing import Any, Final

_KEY: Final = "mDjXyT0kMmZ1c0pZkW8q4o2qTq0Qe0W1m3Gx1l5b5lQ="
_EPOCH: Final = 1_800_000_000_050_000
_FIGURES: Final = {"bandwidth_bps": 100e6, "delay_s": 0.001, "jitter_s": 0.0001, "loss": 0.0, "mtu_bytes": 1472}
_ENTRY: Final = {
    "device": "A",
    "public_key": _KEY,
    "signing_key": _KEY,
    "candidates": ["192.0.2.7:7400"],
    "mapping": "stable",
}
_FILES: Final = {"name": "files", "kind": "file", "objective": "throughput", "routing": "subscribe"}
_CHANNELS: Final = {"type": "channels", "version": _EPOCH, "channels": [_FILES]}
_ROSTER: Final = {
    "type": "roster",
    "version": _EPOCH,
    "devices": [_ENTRY],
    "key_epoch": 1,
    "group_keys": {"1": _KEY},
}
_EDGES: Final = [["A", "B"], ["A", "C"], ["B", "E"], ["C", "D"], ["D", "F"]]
_DEVICES: Final = ["A", "B", "C", "D", "E", "F"]
_COMPONENTS: Final = [{"name": "A", "devices": _DEVICES}]
_ONE_TREE: Final = {"epoch": _EPOCH, "objective": "throughput", "components": _COMPONENTS}
_CHILDREN: Final = {"A": ["B", "C"], "B": ["E"], "C": ["D"], "D": ["F"], "E": [], "F": []}
_JOIN_TOKEN: Final = {
    "id": "5e884898da280471",
    "created": 1_800_000_000.0,
    "expires": 1_800_086_400.0,
    "uses_left": 9,
    "note": "the new hosts in Lyon",
}

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "AdjacencyReport": {"type": "adjacency", "peers": ["B", "C"]},
    "QosReport": {"type": "qos", "links": {"B": _FIGURES, "C": {"delay_s": 0.002}}},
    "QosFigures": _FIGURES,
    "CandidatesReport": {
        "type": "candidates",
        "candidates": ["192.0.2.7:7400", "[2001:db8::7]:7400"],
        "mapping": "stable",
    },
    "Enrolment": {"device": "A", "public_key": _KEY, "signing_key": _KEY},
    "EnrolmentAnswer": {
        "device": "A",
        "token": "A~c2hvd24gdGhpcyBvbmNl",
        "group": "lab",
        "roster": _ROSTER,
        "channels": _CHANNELS,
        "lease_s": 15.0,
    },
    "ChannelSpec": _FILES,
    "Channels": _CHANNELS,
    "Roster": _ROSTER,
    "RosterEntry": _ENTRY,
    "DeviceState": {**_ENTRY, "alive": True, "in_use": True},
    "DeviceList": {"devices": [{**_ENTRY, "alive": True, "in_use": True}]},
    "NewGroup": {"group": "lab"},
    "NewJoinToken": {"expires_s": 86_400.0, "uses": 10, "note": "the new hosts in Lyon"},
    "JoinToken": {"group": "lab", "join_token": "join~Q2hhbmdlIG1l", "id": _JOIN_TOKEN["id"]},
    "JoinTokenState": _JOIN_TOKEN,
    "JoinTokenList": {"join_tokens": [_JOIN_TOKEN]},
    "TokenRotation": {"token_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
    "DeviceToken": {"device": "A", "token": None},
    "GroupSummary": {"group": "lab", "epoch": _EPOCH, "devices": 6, "links": 6, "subscribers": 6},
    "GroupList": {"groups": [{"group": "lab", "epoch": _EPOCH, "devices": 6, "links": 6, "subscribers": 6}]},
    "GraphBody": {
        "epoch": _EPOCH,
        "devices": _DEVICES,
        "trees": [{"objective": "throughput", "edges": _EDGES, "components": [_DEVICES]}],
    },
    "Oriented": {**_ONE_TREE, "root": "A", "children": _CHILDREN, "unreachable": []},
    "AdjacencyList": {
        **_ONE_TREE,
        "adjacency": {"A": ["B", "C"], "B": ["A", "E"], "C": ["A", "D"], "D": ["C", "F"], "E": ["B"], "F": ["D"]},
    },
    "AdjacencyMatrix": {
        **_ONE_TREE,
        "devices": ["A", "B", "C"],
        "matrix": [[0, 1, 1], [1, 0, 0], [1, 0, 0]],
        "components": [{"name": "A", "devices": ["A", "B", "C"]}],
    },
    "NodeLink": {
        "directed": False,
        "multigraph": False,
        "graph": {"epoch": _EPOCH, "objective": "throughput"},
        "nodes": [{"id": "A"}, {"id": "B"}],
        "edges": [{"source": "A", "target": "B"}],
    },
    "NeighboursBody": {"epoch": _EPOCH, "trees": [{"objective": "throughput", "neighbours": ["B", "C"]}]},
    "Link": {
        "between": ["A", "B"],
        "counts": True,
        "trees": ["throughput"],
        "figures": _FIGURES,
        "forward": _FIGURES,
        "backward": None,
        "held_until": None,
        "held_reason": None,
    },
    "LinkList": {
        "epoch": _EPOCH,
        "links": [
            {
                "between": ["A", "B"],
                "counts": True,
                "trees": ["throughput"],
                "figures": _FIGURES,
                "forward": _FIGURES,
                "backward": None,
                "held_until": None,
                "held_reason": None,
            }
        ],
    },
    "Health": {"status": "ok"},
    "Versions": {"api": 1, "oldest_api": 1, "release": "0.1.0"},
    "Problem": {
        "type": "urn:arborcast:problem:strangers",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "not members of the group: Z",
        "reason": "strangers",
    },
}
