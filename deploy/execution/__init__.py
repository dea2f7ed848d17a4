"""What shares work out over hosts and devices: a queue of the kit's own, or Ray."""
