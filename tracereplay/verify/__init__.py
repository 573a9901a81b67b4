"""The twin check: the machine replays recorded placement and is compared with the kernel's own events."""
