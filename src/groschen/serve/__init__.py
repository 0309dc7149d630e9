"""The server: OpenAI's API, the pages, and what keeps both running."""
