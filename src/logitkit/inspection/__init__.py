"""What a chain did at every token of one continuation."""
