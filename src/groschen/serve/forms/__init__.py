"""How model families write down what they think and which tools they call."""
