"""Foreign trace formats, one module each, found by sniffing."""
