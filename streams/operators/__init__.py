"""One file per operator family: what a node says, and the function it becomes."""
