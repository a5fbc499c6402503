"""micfast's speed, beside what one would use instead; ``python -m bench`` runs it."""
