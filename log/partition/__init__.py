"""One partition: segments and their indexes, what may be appended, what is on disk, what a crash left."""
