"""From files to prompts and SFT tokens: sources of rows, chat templates, the prompt stream, built-in demo tasks."""
