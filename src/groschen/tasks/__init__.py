"""Tasks: problems, the verifiers that judge answers, and the sandbox for code that a model wrote."""
