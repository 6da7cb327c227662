"""A broad procedural world to train trackers in: any number of scenes, each a pure function of (seed, number)."""
