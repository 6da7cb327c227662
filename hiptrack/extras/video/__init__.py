"""A file, camera or stream, tracked."""
