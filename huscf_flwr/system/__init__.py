"""The machine a process runs on: processor and memory, files, log lines, where the user stands."""
