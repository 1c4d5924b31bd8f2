"""What a runner needs besides its tasks: turns, members of one app, when to commit."""
