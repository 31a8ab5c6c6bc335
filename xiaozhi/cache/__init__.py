"""What need not be made twice: answers, speech and recognised audio, in tiers from memory to disk."""
