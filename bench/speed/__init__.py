"""Cost: time of forwards, memory, host reads, each processor's own time."""
