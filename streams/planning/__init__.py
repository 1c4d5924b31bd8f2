"""From a program and a log to tasks that are ready to run."""
