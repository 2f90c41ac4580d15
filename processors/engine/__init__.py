"""What processors are built on: prompts, bindings, second streams, caches, traces."""
