"""The language both sides speak: ids, errors, limits, graph, control messages, datagrams, sealing. No I/O, no clock."""
