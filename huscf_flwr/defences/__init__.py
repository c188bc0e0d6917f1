"""What keeps one client from spoiling the others' training: what it sends in an iteration, what it
returns from a round, and what it says of itself, each against what the others do."""
