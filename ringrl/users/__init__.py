"""What users bring: how their own classes and functions are found."""
