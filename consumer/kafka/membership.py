"""Whether the group has accepted a consumer, also when it has no partition for it.

Under KIP-848 a member without partitions sees no callback at all. What it does have is a member epoch, and the only
place where the client shows that is the opaque group metadata meant for transactions: ``CGMDv2:``, then the generation
(classic) or member epoch (KIP-848) as a native 32-bit integer, -1 before the group answered.
"""

from __future__ import annotations

import sys

_MAGIC = b"CGMDv2:"


def accepted(metadata: object) -> bool | None:
    """Whether ``consumer_group_metadata()`` is that of a member; None when this client writes it in another way."""
    if not isinstance(metadata, bytes) or not metadata.startswith(_MAGIC) or len(metadata) < len(_MAGIC) + 4:
        return None
    number = metadata[len(_MAGIC) : len(_MAGIC) + 4]
    return int.from_bytes(number, sys.byteorder, signed=True) > 0
