"""Several hosts that run as one: how they meet, agree and part. On a single host everything here is free."""

from imagenet_jax.hosts.agreement import agreement
from imagenet_jax.hosts.alike import check_alike, check_shared, of_this_host, shows_up
from imagenet_jax.hosts.joining import joined
from imagenet_jax.hosts.store import from_first, gather, is_first, several

__all__ = ["agreement", "check_alike", "check_shared", "from_first", "gather", "is_first", "joined", "of_this_host",
           "several", "shows_up"]
