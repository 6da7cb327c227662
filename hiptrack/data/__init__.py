"""What a sequence is, who reads it, and how clips for training are drawn from it."""
