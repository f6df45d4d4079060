"""Many picture files through a model: which, where to, one after the other, shared by processes."""
