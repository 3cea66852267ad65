"""What a person looks at: report.html, its plots, and the terminal."""
