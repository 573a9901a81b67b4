"""From events to demand: what callers wanted, when and for how long, without where the kernel put it."""
