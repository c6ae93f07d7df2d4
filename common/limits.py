"""Every limit of the system, with its unit and why it stands where it stands."""

# --- groups -------------------------------------------------------------------------------------------------------
MAX_GROUPS = 1_000
"""Groups of one server: each costs a machine and a record."""
MAX_DEVICES_PER_GROUP = 10_000
"""Devices of one group: one full planning pass at this size takes tens of milliseconds in plain Python."""
MAX_PEERS = 256
"""Links that one device may report: bounds a report and the links of a group."""
MAX_CHANNELS = 64
"""Channels of one group: they travel whole in one message."""
MAX_TREES = 16
"""Trees of one graph: the hop header names the tree in 4 bits."""
MAX_CANDIDATES = 16
"""Addresses at which one device may say that it is reached: peers say hello to all of them."""
MAX_STUN_SERVERS = 8
"""Addresses of STUN servers that one device asks: two tell what its NAT does, the rest are spare."""
MAX_STUN_BYTES = 1_280
"""Bytes of a STUN message that is looked at: what every path carries over IPv6 (RFC 8489 section 6.1)."""
MAX_STUN_UNKNOWN = 16
"""Attributes that an error names as unknown: the answer stays smaller than three times the request."""
MAX_DENIED = 64
"""Networks that a device may be told to keep out of."""
MAX_JOIN_TOKENS = 64
"""Join tokens that are valid in one group at a time."""
MAX_JOIN_USES = 1_000_000
"""Devices that one join token with a count may let in: a hundred times the largest group."""
MAX_JOIN_EXPIRY_S = 10 * 366 * 86_400.0
"""Seconds for which a join token that expires may be good: ten years."""
MAX_NOTE_CHARS = 200
"""Characters of the note on a join token."""
MAX_TLS_NAMES = 64
"""Further names in the certificate that a server makes for itself: it is sent whole at each connection."""

# --- names --------------------------------------------------------------------------------------------------------
MAX_ID_CHARS = 64
"""Characters of a device, group or channel name."""
MAX_NAME_BYTES = 255
"""UTF-8 bytes of a file name: what every common file system takes."""
MAX_TOKEN_CHARS = 128
"""Characters of a token in a request's header."""
MAX_CONFIG_FILE_BYTES = 1024 * 1024
"""Bytes of a daemon's configuration file: every setting at its longest is far below."""
MAX_URL_CHARS = 280
"""Characters of the server's URL: its scheme, the longest host name and a port."""
MAX_JOIN_STRING_CHARS = 1_024
"""Characters of a join string: URL, group, token and fingerprint at their longest take some 800."""

# --- control plane ------------------------------------------------------------------------------------------------
MAX_BODY_BYTES = 256 * 1024
"""Bytes of one request or one message to the server: a report about MAX_PEERS links is 40 KiB."""
MAX_CONTROL_BYTES = 16 * 1024 * 1024
"""Bytes of one message from the server: a full graph of MAX_DEVICES_PER_GROUP with the epochs passed over."""
MAX_GRAPH_BYTES = 64 * 1024
"""Bytes of a graph's binary form: it travels in records ahead of the data it governs."""
MAX_EPOCH = 2**53 - 1
"""The highest epoch: what JSON readers keep exactly. The clock in microseconds reaches it in the year 2255."""
EPOCHS_KEPT = 8
"""Epochs that are kept whatever their age."""
EPOCHS_MAX = 64
"""Epochs that are kept at most, however young."""
EPOCH_AGE_S = 30.0
"""Seconds for which a superseded epoch is kept: longer than any chunk is under way."""
EPOCH_EDGES_MAX = 100_000
"""Tree edges in the epochs that the server keeps beyond those it must: 64 epochs of a group of 1,500 devices."""
EPOCH_CLAIM_AHEAD_S = 86_400.0
"""Seconds by which a device's claim of an epoch may lie ahead of the server's clock before it is refused."""
MAX_CLOCK_SKEW_S = 600.0
"""Seconds by which a device's clock may differ from the server's: short epochs are told apart within 35 min."""
LEASE_S = 15.0
"""Seconds after its last report at which a device's links leave the planner: three report periods of 5 s."""
COALESCE_S = 0.05
"""Seconds for which the planner waits for more reports after the first one that matters; a lost link waits 0."""
LINKS_STORE_S = 1.0
"""Seconds for which new link figures may wait before they are stored: they change with every report."""
HOLD_S = 5.0
"""Seconds for which a better link has to stay better before a live tree edge gives way to it."""
CLEAR_HOLD_S = 2.0
"""Seconds for that where it is twice as good, or the edge half as good as it was: no noise looks like that."""
CALM_S = 60.0
"""Seconds between two changes of a tree for links that are better, but not twice as good."""
GROUP_KEYS_KEPT = 4
"""Group keys in the roster: openings sealed under the last few must still open for a late joiner."""
TOKEN_ROTATION_S = 86_400.0
"""Seconds after which a device changes its token: a stolen one is worth a day."""
FAILURES_AT_ONCE = 20
"""Tokens that prove nothing which one client address may show in a row before it is put off (an IPv6 /64 is one)."""
FAILURE_EVERY_S = 6.0
"""Seconds after which it may show one more: ten a minute tell a person what is wrong, and a guesser nothing."""
MAX_FAILURE_ADDRESSES = 4_096
"""Client addresses whose failures are remembered: half a megabyte; the longest quiet gives way."""
MAX_KEY_EPOCH = 2**32 - 1
"""The highest number of a group key: records name it in 4 bytes. It grows by one when a member leaves."""
SUBSCRIBER_OUTBOX = 64
"""Messages that may wait for one subscriber before it counts as slow and is closed."""
SLOW_SUBSCRIBER_S = 10.0
"""Seconds for which one message to a subscriber may wait for its connection before it counts as slow and is closed."""
FIRST_MESSAGE_S = 10.0
"""Seconds within which a new subscription socket has to say what it wants."""
MAX_SUBSCRIBERS_PER_DEVICE = 8
"""Open subscriptions of one device: an agent needs one, and one more while it reconnects."""
MAX_BACKUP_FILES = 4_096
"""Files in a backup of the server: a database, a join token for each of MAX_GROUPS, and a handful more."""
MAX_BACKUP_BYTES = 4 * 1024**3
"""Bytes of one file in a backup of the server: a database of MAX_GROUPS groups stays far below."""
MAX_VIEWERS_PER_GROUP = 256
"""Open subscriptions to one group by tokens of the whole server: pages that show its graph."""

# --- link figures -------------------------------------------------------------------------------------------------
MAX_RATE_BPS = 400e9
"""Bits per second of a link: the fastest Ethernet there is; above it the figure is a mistake."""
MAX_DELAY_S = 60.0
"""Seconds of delay or jitter of a link: above it the figure is a mistake."""
UNMEASURED_RATE_BPS = 10e6
"""Bits per second that the planner takes for a link whose bandwidth nobody has measured or declared."""
UNMEASURED_DELAY_S = 0.1
"""Seconds that the planner takes for a link whose delay nobody has measured or declared: most links are shorter."""

# --- data plane ---------------------------------------------------------------------------------------------------
MIN_DATAGRAM_BYTES = 1_200
"""Bytes of a datagram that every path is taken to carry (RFC 9000 section 14)."""
USUAL_DATAGRAM_BYTES = 1_472
"""Bytes of a datagram that fills an Ethernet frame over IPv4: what pacing and congestion control count in."""
DEFAULT_DATAGRAM_BYTES = 8_972
"""Bytes of the largest datagram that an agent tries where nobody sets another limit: a jumbo frame over IPv4."""
MAX_DATAGRAM_BYTES = 9_000
"""Bytes of the largest datagram: a jumbo frame."""
MIN_CAP_BPS = 10_000
"""Bits per second of the lowest cap on what a device sends: below it a datagram takes more than a second."""
MIN_STREAM_MEMORY_BYTES = 1024 * 1024
"""Bytes of memory that a device has to grant one stream at least."""
MAX_STREAM_MEMORY_BYTES = 1024**4
"""Bytes of memory that one stream may be granted at most: more is a mistake."""
STREAM_MEMORY_BYTES = 64 * 1024 * 1024
"""Bytes of memory that one stream may take of a device, unless it is told otherwise."""
MAX_FRAGMENTS = 8
"""Fragments of one chunk: the largest datagram in pieces that every path carries."""
MAX_MESSAGE_BYTES = 1024 * 1024
"""Bytes of one published message."""
MAX_FILE_BYTES = 16 * 1024**4
"""Bytes of one file: 16 TiB, the largest that the usual file systems keep."""
MAX_HELD_CHUNKS = 4_096
"""Chunks that wait for their stream's opening, or for the graph they name: 5 to 36 MiB a device."""
MAX_FRAMES_QUEUED = 4_096
"""Control frames that may wait on one hop; the hop closes when it is passed."""
MAX_RECEIPTS_PER_FRAME = 3
"""Receipts in one frame: signed, with ids of 64 and reasons of 200 bytes they fit the smallest datagram."""
MAX_REASON_BYTES = 200
"""UTF-8 bytes of a refusal's slug and sentence in a receipt."""
MAX_GRAPH_PARTS = 64
"""Parts of an embedded graph record, each in a datagram of its own."""
HOP_WINDOW = 1 << 20
"""Hop numbers round the largest seen that are believed; the header that carries them is not authenticated."""
MAX_TRAIN_DATAGRAMS = 2_560
"""Datagrams of one train that measures a path: 50 ms of 600 Mbit/s in Ethernet frames."""
MAX_STREAMS = 1_024
"""Streams that one device keeps open at a time."""
MAX_TOMBSTONES = 65_536
"""Finished streams that are remembered until their openings expire: 3 MiB of the state folder. The oldest give way."""
MAX_LOST_EDGES = 8
"""Lost edges that one frame names: one is enough to act on, and with ids of 64 these fit the smallest datagram."""
MAX_LOST_WORDS = 1_024
"""Words of other devices about lost edges that one device remembers: a tenth of the largest group."""
LOST_WORDS_PER_S = 64
"""News of lost edges that a peer may bring in a second, after a burst of MAX_LOST_WORDS: each goes on to everybody."""
MAX_PATIENT_RTT_S = 2.0
"""Seconds of a round trip that are waited for before others are asked: two satellite hops. A peer may claim any."""
EMBEDDED_REST_S = 60.0
"""Seconds without a chunk after which a whole stream that embeds its graph needs that graph's lost edges no more."""
MAX_FLOODED_BYTES = 64 * 1024
"""Bytes of the largest message that is flooded while an edge of the tree is lost; larger ones are pulled."""
MAX_RANGES = 64
"""Ranges in one ACK, HAVE or WANT: they have to fit the smallest datagram."""

# --- channels -----------------------------------------------------------------------------------------------------
MAX_BUFFER_BYTES = 16 * 1024 * 1024
"""Bytes that a channel with routing `overflow` may hold back before it asks."""
MAX_RETENTION_BYTES = 2**40
"""Bytes that a channel may retain for late joiners."""
MAX_RETENTION_S = 30 * 86_400.0
"""Seconds for which a channel may retain what was sent."""
MIN_QUERY_INTERVAL_S = 0.1
"""Seconds between two queries of a channel with routing `query`, at least: keeps a group from flooding its server."""
MAX_QUERY_INTERVAL_S = 3_600.0
"""Seconds between two queries of a channel with routing `query`, at most."""
