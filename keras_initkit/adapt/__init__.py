"""One pass over data of any source: readers, accumulation, engines."""
