"""How the built-in model `penny` is made: tokenizer, data, pre-training, measurement."""
