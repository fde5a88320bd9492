"""Whether the small model is as good, and how fast it is: metrics, benchmark, gate."""
