"""``make demo``: the main job on this host, by way of the verbs that a user types."""
