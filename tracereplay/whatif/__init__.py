"""What-if: grids of settings over traces, run on any executor, kept in one table."""
