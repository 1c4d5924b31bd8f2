"""What a task puts its records through: inputs, clocks, hops, outputs, and what becomes of errors."""
