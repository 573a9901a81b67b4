"""The simulated page allocator that every strategy shares."""
