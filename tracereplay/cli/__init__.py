"""The command line: one file per verb; the console owns stdout, stderr and exit codes."""
