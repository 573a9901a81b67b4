"""The kernel's vocabulary: orders, migratetypes, gfp flags, allocator generations, /proc texts."""
