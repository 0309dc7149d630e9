"""Text: the only place where text becomes token ids and token ids become text."""
