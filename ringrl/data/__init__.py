"""Files to prompts and to SFT tokens: sources of rows, chat templates, the prompt stream, the built-in demo tasks."""
